//! A Hugging Face model on disk: the directory, its safetensors shards, config.json, tokenizer files.
//!
//! Nothing here maps memory: files are read at positions, so a file that shrinks is an error and resident memory is the caller's.

mod dir;
mod error;

pub use dir::ModelDir;
pub use error::CheckpointError;
