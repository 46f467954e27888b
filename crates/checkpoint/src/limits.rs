//! What is read at most, and where from.

use crate::RemoteShards;
use std::sync::Arc;

/// The most that is taken in from one model. Every number is checked before memory is allocated for what it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a safetensors header (the `safetensors` crate reads no more either).
    pub header_bytes: u64,
    /// Bytes of `model.safetensors.index.json`.
    pub index_bytes: u64,
    /// Bytes of any other file that is read as JSON: it takes several times as much memory.
    pub json_bytes: u64,
    /// Values in one JSON file, each number, string, list and object, as far as they are kept: 32 bytes and more of memory each.
    pub json_values: usize,
    /// Bytes of any other small file that is read whole: tokenizer, model card.
    pub small_file_bytes: u64,
    /// Shards of a model; each stays open.
    pub shards: usize,
    /// Tensors in all shards together; also entries of a header's `__metadata__`.
    pub tensors: usize,
    /// Bytes of a tensor's name.
    pub name_bytes: usize,
    /// Dimensions of a tensor (64 at most).
    pub dims: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 100_000_000,
            index_bytes: 100_000_000,
            json_bytes: 64 << 20,
            json_values: 4_000_000,
            small_file_bytes: 256 << 20,
            shards: 4096,
            tensors: 1_000_000,
            name_bytes: 1024,
            dims: 8,
        }
    }
}

/// How a model directory is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The class to take the model for, on the user's word, whatever config.json's `architectures` says.
    pub class: Option<String>,
    /// Follow symbolic links out of the model's directory. Without it a link may point anywhere inside the directory, and in a
    /// Hub cache (`models--org--name/snapshots/<revision>`, whose files are links into `blobs`) anywhere inside the repository's
    /// folder: a downloaded repository cannot name files of its own choice.
    pub follow_symlinks: bool,
    /// Where the safetensors files are read from, if they do not lie in the directory.
    pub remote: Option<Arc<dyn RemoteShards>>,
    /// What is read at most.
    pub limits: Limits,
}
