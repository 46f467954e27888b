//! What can be wrong with a file, or with what a caller wants to write.

use std::path::PathBuf;

/// One defect of a GGUF file. The reader refuses files that have one, the writer refuses to make them; both by the same rules.
///
/// Names that come from a file are printed escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ErrorKind {
    // The head of the file.
    #[error("not a GGUF file: it starts with \"{}\" instead of \"GGUF\"", found.escape_ascii())]
    BadMagic { found: [u8; 4] },
    #[error("a big-endian GGUF file; convert it to little-endian first (gguf-py has gguf-convert-endian)")]
    BigEndian,
    #[error("GGUF version {version}; versions 2 and 3 are supported")]
    UnsupportedVersion { version: u32 },
    #[error("the header announces {found} keys, the bytes that follow hold at most {possible}")]
    KeyCount { found: u64, possible: u64 },
    #[error("the header announces {found} tensors, the bytes that follow hold at most {possible}")]
    TensorCount { found: u64, possible: u64 },
    #[error("the file ends inside {what}: {needed} bytes are needed, {left} are left")]
    Truncated { what: &'static str, needed: u64, left: u64 },
    #[error("{what} of {len} bytes, but only {left} bytes are left in the file")]
    StringLength { what: String, len: u64, left: u64 },
    #[error("{what} is not UTF-8")]
    NotUtf8 { what: String },

    // Keys and values.
    #[error("a key is empty")]
    EmptyKey,
    #[error("a key of {len} bytes; at most 65535 are allowed")]
    KeyLength { len: u64 },
    #[error("key {key:?} holds characters other than printable ASCII")]
    KeyCharacters { key: String },
    #[error("key {key:?} occurs twice")]
    DuplicateKey { key: String },
    #[error("key {key:?} has the value type {id}, which does not exist")]
    ValueType { key: String, id: u32 },
    #[error("key {key:?} holds an array of arrays, which llama.cpp does not read")]
    NestedArray { key: String },
    #[error("key {key:?} announces an array of {len} elements, the bytes that follow hold at most {possible}")]
    ArrayLength { key: String, len: u64, possible: u64 },
    #[error("key {key:?} holds a bool stored as {byte}; only 0 and 1 are allowed")]
    BoolByte { key: String, byte: u8 },
    #[error("general.alignment is of type {found}, it must be u32")]
    AlignmentType { found: String },
    #[error("general.alignment is {found}; it must be a power of two, at most 1048576")]
    AlignmentValue { found: u32 },

    // Tensor infos.
    #[error("a tensor has no name")]
    EmptyTensorName,
    #[error("a tensor name of {len} bytes; ggml allows at most 63")]
    TensorNameLength { len: u64 },
    #[error("tensor name {name:?} holds a NUL byte")]
    TensorNameNul { name: String },
    #[error("tensor {tensor:?} occurs twice")]
    DuplicateTensor { tensor: String },
    #[error("tensor {tensor:?} has {found} dimensions; ggml allows at most 4")]
    DimensionCount { tensor: String, found: u64 },
    #[error("tensor {tensor:?} has a dimension of 0")]
    ZeroDimension { tensor: String },
    #[error("tensor {tensor:?} has a dimension of {}, which is negative", *found as i64)]
    NegativeDimension { tensor: String, found: u64 },
    #[error("tensor {tensor:?} of shape {shape:?} has more than 2^63 - 1 elements")]
    ElementCount { tensor: String, shape: Vec<u64> },
    #[error("tensor {tensor:?} has the type {id}, which ggml does not define")]
    UnknownType { tensor: String, id: u32 },
    #[error("tensor {tensor:?} has the type {id}, which was removed from ggml; convert the model anew from its source")]
    RemovedType { tensor: String, id: u32 },
    #[error("tensor {tensor:?} has rows of {row} elements, no whole number of {format} blocks of {block_len}")]
    RowLength { tensor: String, format: &'static str, row: u64, block_len: u64 },
    #[error("tensor {tensor:?} makes the file larger than 2^63 - 1 bytes")]
    DataSize { tensor: String },
    #[error(
        "tensor {tensor:?} is said to start at byte {found} of the data, it must start at {expected}: no gaps, no overlaps, file order"
    )]
    TensorOffset { tensor: String, expected: u64, found: u64 },

    // The file as a whole.
    #[error("the file has {found} bytes, its header asks for {expected}: it is truncated; fetch or make it anew")]
    DataTruncated { expected: u64, found: u64 },
    #[error("the padding after the last tensor is missing: the file has {found} bytes instead of {expected}")]
    LastPadding { expected: u64, found: u64 },
    #[error("{} bytes follow the end of the last tensor", found - expected)]
    TrailingBytes { expected: u64, found: u64 },
}

/// What the caller asked to write cannot be written as a GGUF file that every reader accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as GGUF: {0}")]
pub struct LayoutError(pub ErrorKind);

/// Why a GGUF file could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GgufError {
    #[error("reading {} at byte {offset}: {source}", file.display())]
    Io { file: PathBuf, offset: u64, source: std::io::Error },
    #[error("{} is not a regular file", file.display())]
    NotAFile { file: PathBuf },
    #[error("{}, byte {offset}: {kind}", file.display())]
    Format { file: PathBuf, offset: u64, kind: ErrorKind },
    #[error("{}, byte {offset}: {found} {what}, the limit is {max}", file.display())]
    Limit { file: PathBuf, offset: u64, what: &'static str, found: u64, max: u64 },
    #[error("{} ended while byte {offset} was read: it changed since it was opened", file.display())]
    Shrunk { file: PathBuf, offset: u64 },
    #[error("tensor {tensor:?} of {}: bytes {start}..{end} asked for, it has {bytes}", file.display())]
    Range { file: PathBuf, tensor: String, start: u64, end: u64, bytes: u64 },
    #[error("{} has no tensor {tensor:?}", file.display())]
    NoTensor { file: PathBuf, tensor: String },
    #[error("{}: {kind}", file.display())]
    Shard { file: PathBuf, kind: ShardError },
}

/// Why files do not form one sharded model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ShardError {
    #[error("split.count says {count} files, but the file name does not end in -00001-of-{count:05}.gguf or the like")]
    Name { count: u16 },
    #[error("the file name says shard {name_no} of {name_count}, the metadata says {no} of {count}", no = u32::from(*no) + 1)]
    Number { name_no: u32, name_count: u32, no: u16, count: u16 },
    #[error("split.no makes it shard {} of several, split.count is {count}", u32::from(*no) + 1)]
    NotAlone { no: u16, count: u16 },
    #[error(transparent)]
    Key(#[from] crate::lookup::LookupError),
    #[error("split.tensors.count says {expected} tensors, all shards together hold {found}")]
    TensorCount { expected: i32, found: u64 },
    #[error("tensor {tensor:?} is in an earlier shard too")]
    DuplicateTensor { tensor: String },
}
