//! The forward pass of both sides.
