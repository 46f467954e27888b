//! Why a model was not quantized.

use crate::export::ExportError;
use crate::recipe::OnlyError;
use crate::sink::SinkError;
use ggufsmith_arch::ArchError;
use ggufsmith_checkpoint::CheckpointError;
use ggufsmith_core::{SchemeError, SourceError};
use std::io;
use std::path::PathBuf;

/// Why a model was not quantized. No file is left then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum QuantizeError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Damaged(#[from] ggufsmith_checkpoint::Damaged),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Directory(ExportError),
    #[error("the source has a tensor {tensor} beside the one whose state would have this name")]
    Name { tensor: String },
    #[error(transparent)]
    Only(#[from] OnlyError),
    #[error("hashing the source for the manifest: {0}")]
    Hash(io::Error),
    #[error("writing the manifest {}: {source}", path.display())]
    Manifest { path: PathBuf, source: io::Error },
    #[error("tensor {tensor}: {source}")]
    Scheme { tensor: String, source: SchemeError },
    #[error("{found} is no block length: bitsandbytes has {}", super::BLOCK_LENS.map(|len| len.to_string()).join(", "))]
    BlockLength { found: u64 },
    #[error("{} is quantized already: quantize the original model", path.display())]
    Quantized { path: PathBuf },
    #[error("no tensor of {} is to be quantized: all are skipped", path.display())]
    Nothing { path: PathBuf },
    #[error("tensor {tensor}: {count} weights are NaN or infinite, the first is number {first}; its block would be lost")]
    NotFinite { tensor: String, count: u64, first: u64 },
    #[error("tensor {tensor}, row {row}: a weight is too large for F16, which int8 starts from")]
    Overflow { tensor: String, row: u64 },
    #[error("tensor {tensor}: rows of {columns} elements are too long")]
    LongRow { tensor: String, columns: u64 },
    #[error("{} is the model's own directory; write to another one", path.display())]
    SameDirectory { path: PathBuf },
    #[error("interrupted")]
    Cancelled,
    #[error("a worker thread ended early")]
    WorkerPanicked,
}
