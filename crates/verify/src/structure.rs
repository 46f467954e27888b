//! The file by its own metadata.
