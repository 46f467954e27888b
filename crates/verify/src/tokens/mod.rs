//! Text to tokens on both sides.
