//! Why a GGUF file cannot be quantized.

use ggufsmith_gguf::{GgufError, LayoutError, LookupError};
use std::path::PathBuf;

/// Why no plan can be made for a GGUF file; what is wrong with the recipe or the importance matrix is an error of its own.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RequantizeError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{}: {source}, and llama-quantize's rules need it", file.display())]
    Key { file: PathBuf, source: LookupError },
    #[error("--override-kv {key}: {found} is no number that the rules can count with")]
    Number { key: String, found: i64 },
    #[error("{} has no tensors", file.display())]
    NoTensors { file: PathBuf },
    #[error(
        "tensor {tensor} of {} is {format} already: making {wanted} of it loses more than making {wanted} of the original; quantize the original, or accept it with --allow-requantize", file.display()
    )]
    AlreadyQuantized { file: PathBuf, tensor: String, format: &'static str, wanted: &'static str },
    #[error("tensor {tensor} of {} is {format}, which cannot be decoded to make {wanted} of it; keep it with --tensor-type or COPY", file.display())]
    Undecodable { file: PathBuf, tensor: String, format: &'static str, wanted: &'static str },
    #[error(
        "--prune-layers {layer}: the file has no such layer{}", last.map_or_else(String::new, |last| format!(", the last one is {last}"))
    )]
    NoLayer { layer: u64, last: Option<u64> },
    #[error("--include-weights and --exclude-weights leave nothing of {file}; give parts of names such as attn_v")]
    NothingSelected { file: String },
    #[error("{found} tensors are more than split.tensors.count can hold")]
    TooManyTensors { found: usize },
    #[error("the plan of {}: {source}", path.display())]
    Layout { path: PathBuf, source: LayoutError },
}
