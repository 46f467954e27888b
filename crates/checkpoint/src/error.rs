//! What can be wrong with a checkpoint.

use std::path::PathBuf;

/// A model directory or one of its files cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is {bytes} bytes, at most {limit} are read", path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{} is not UTF-8 (byte {offset})", path.display())]
    NotUtf8 { path: PathBuf, offset: usize },
    #[error("{} is not JSON: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} has no {missing}: it is no Hugging Face model directory", path.display())]
    NotAModel { path: PathBuf, missing: &'static str },
}
