//! What can be wrong with a checkpoint.

use crate::bitsandbytes::BitsandbytesDefect;
use crate::int8::{Int8ConfigDefect, Int8Defect};
use ggufsmith_core::SourceError;
use std::path::PathBuf;

/// A model directory or one of its files cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is {bytes} bytes, at most {limit} are read", path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{} has more than {limit} {what}", path.display())]
    TooMany { path: PathBuf, what: &'static str, limit: usize },
    #[error("{} is not UTF-8 (byte {offset})", path.display())]
    NotUtf8 { path: PathBuf, offset: usize },
    #[error("{}{} {source}", path.display(), if source.is_data() { ":" } else { " is not JSON:" })]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: the key {key:?} is there twice (line {line}, column {column}); which one counts is not defined: remove one", path.display())]
    DuplicateKey { path: PathBuf, key: String, line: usize, column: usize },
    #[error("{} has no {missing}: it is no Hugging Face model directory", path.display())]
    NotAModel { path: PathBuf, missing: &'static str },
    #[error("{} is {found}, not a regular file", path.display())]
    NotRegular { path: PathBuf, found: NotAFile },
    #[error(
        "{} is a link to {}, outside {}; links that leave a model's directory are followed only when that is asked for (--follow-symlinks)",
        path.display(), target.display(), root.display()
    )]
    Escapes { path: PathBuf, target: PathBuf, root: PathBuf },
    #[error("{name:?} is no plain name of a file in the model's directory")]
    FileName { name: String },
    #[error(
        "{} has no weights: neither model*.safetensors nor model.safetensors.index.json{}",
        path.display(), consolidated.as_ref().map(|f| format!(" ({f} is Mistral's own layout, which is not read)")).unwrap_or_default()
    )]
    NoWeights { path: PathBuf, consolidated: Option<String> },
    #[error(
        "{} has its weights only as {file}, a pickle: reading one means running it, which is not done; convert it to safetensors first (transformers: `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`)",
        path.display()
    )]
    Pickle { path: PathBuf, file: String },
    #[error(
        "{} is quantized with {method} ({key} in {file}); pre-quantized checkpoints of this kind are not read: convert the original, unquantized model",
        path.display()
    )]
    Prequantized { path: PathBuf, file: &'static str, key: &'static str, method: String },
    #[error("{}, byte {offset}: {defect}", path.display())]
    Header { path: PathBuf, offset: u64, defect: HeaderDefect },
    #[error("{}: {defect}", path.display())]
    Index { path: PathBuf, defect: IndexDefect },
    #[error("tensor {tensor:?} is in two files, {first} and {second}: remove the file that does not belong to the model")]
    InTwoFiles { tensor: String, first: String, second: String },
    #[error("{}: tensor {tensor:?}: {defect}", path.display())]
    Bitsandbytes { path: PathBuf, tensor: String, defect: BitsandbytesDefect },
    #[error("{}: tensor {tensor:?}: {defect}", path.display())]
    Int8 { path: PathBuf, tensor: String, defect: Box<Int8Defect> },
    #[error("config.json of {}: {defect}", path.display())]
    Int8Config { path: PathBuf, defect: Box<Int8ConfigDefect> },
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What a path turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotAFile {
    #[error("a directory")]
    Directory,
    #[error("a FIFO")]
    Fifo,
    #[error("a device")]
    Device,
    #[error("a socket")]
    Socket,
    #[error("something else")]
    Other,
}

/// A safetensors header that does not describe its file. Stricter than the `safetensors` crate, which lets pass duplicate and
/// hostile names, leading spaces, unknown fields and dimensions that overflow beside a zero.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HeaderDefect {
    #[error("the file has {file_bytes} bytes, a safetensors file has at least 8")]
    NoLength { file_bytes: u64 },
    #[error("the header is said to be {len} bytes long, at most {limit} are read")]
    TooLong { len: u64, limit: u64 },
    #[error(
        "the header is said to be {len} bytes long, the file ends {available} bytes on: it is cut off or no safetensors file"
    )]
    BeyondFile { len: u64, available: u64 },
    #[error("the header does not begin with '{{'")]
    NoBrace,
    #[error("the header is not UTF-8")]
    NotUtf8,
    #[error("the header is no JSON object: {0}")]
    Json(serde_json::Error),
    #[error("__metadata__ is no map from string to string: {0}")]
    Metadata(serde_json::Error),
    #[error("__metadata__ has the key {key:?} twice")]
    DuplicateMetadata { key: String },
    #[error("__metadata__ has more than {limit} entries")]
    TooMuchMetadata { limit: usize },
    #[error("there are more than {limit} tensors")]
    TooManyTensors { limit: usize },
    #[error("tensor {tensor:?}: {source}")]
    Entry { tensor: String, source: serde_json::Error },
    #[error("tensor {tensor:?} is there twice")]
    DuplicateName { tensor: String },
    #[error("a tensor has an empty name")]
    EmptyName,
    #[error("the tensor name {tensor:?} contains {what}")]
    HostileName { tensor: String, what: &'static str },
    #[error("a tensor's name is {len} bytes long, at most {limit} are read")]
    LongName { len: usize, limit: usize },
    #[error("tensor {tensor:?} has the element type {dtype:?}; known are {known}")]
    Dtype { tensor: String, dtype: String, known: String },
    #[error("tensor {tensor:?} has {dims} dimensions, at most {limit} are read")]
    TooManyDims { tensor: String, dims: usize, limit: usize },
    #[error("tensor {tensor:?}: the shape {shape:?} is larger than any file")]
    ShapeOverflow { tensor: String, shape: Vec<u64> },
    #[error("tensor {tensor:?} ends (byte {end} of the data) before it starts (byte {start})")]
    EndBeforeStart { tensor: String, start: u64, end: u64 },
    #[error("tensor {tensor:?} has {found} bytes, its shape and type need {expected}")]
    ByteCount { tensor: String, expected: u64, found: u64 },
    #[error("tensor {tensor:?} starts at byte {start} of the data, inside {other:?}, which ends at {end}")]
    Overlap { tensor: String, other: String, start: u64, end: u64 },
    #[error("bytes {from}..{to} of the data, before {tensor:?}, belong to no tensor")]
    Hole { tensor: String, from: u64, to: u64 },
    #[error("tensor {tensor:?} ends at byte {end} of the data, the file holds {available}: it is cut off")]
    Truncated { tensor: String, end: u64, available: u64 },
    #[error("{bytes} bytes after the last tensor belong to nothing")]
    TrailingBytes { bytes: u64 },
    #[error("the safetensors library refuses it: {0}")]
    Library(safetensors::SafeTensorError),
}

/// A `model.safetensors.index.json` that does not describe its shards.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum IndexDefect {
    #[error("weight_map is missing or no object")]
    NoWeightMap,
    #[error("weight_map is empty")]
    Empty,
    #[error("weight_map gives no file name for tensor {tensor:?}")]
    NotAName { tensor: String },
    #[error(
        "tensor {tensor:?} is said to be in {name:?}, which is no plain name of a .safetensors file in the model's directory"
    )]
    ShardName { tensor: String, name: String },
    #[error("it names the shard {shard}, which does not exist: the download is incomplete")]
    MissingShard { shard: String },
    #[error("tensor {tensor:?} is said to be in {shard}, which does not hold it")]
    MissingTensor { tensor: String, shard: String },
    #[error("tensor {tensor:?} is said to be in {said}, it is in {found}")]
    WrongShard { tensor: String, said: String, found: String },
    #[error("tensor {tensor:?} of {shard} is not in weight_map")]
    ExtraTensor { tensor: String, shard: String },
    #[error(
        "{shard} lies beside the shards but is not named: transformers and llama.cpp would read different weights; move away what does not belong to the model"
    )]
    UnnamedShard { shard: String },
}
