//! Where source tensors come from.

use crate::dtype::DType;
use std::path::PathBuf;

/// What is known about a source tensor before its bytes are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the checkpoint.
    pub name: String,
    /// How its elements are stored.
    pub dtype: DType,
    /// Outermost dimension first, as safetensors writes it.
    pub shape: Vec<u64>,
    /// The file that holds it (for messages and for reading in source order).
    pub file: PathBuf,
    /// Where its bytes start in that file.
    pub offset: u64,
}

impl TensorInfo {
    /// Number of elements. Sources check at opening that this does not overflow.
    pub fn elems(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.elems() * self.dtype.bytes() as u64
    }
}

/// Why source bytes could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("reading tensor {tensor} at byte {offset} of {}: {source}", file.display())]
    Io { file: PathBuf, tensor: String, offset: u64, source: std::io::Error },
    #[error("{} ended at byte {found} while tensor {tensor} was read up to byte {expected}: it changed since it was opened", file.display())]
    Shrunk { file: PathBuf, tensor: String, expected: u64, found: u64 },
    #[error("{} is no longer the file that was opened: it was written to or replaced meanwhile", file.display())]
    Changed { file: PathBuf },
    #[error("{source}")]
    Remote { source: std::io::Error },
    #[error("the source has no tensor {tensor}")]
    NoTensor { tensor: String },
    #[error("tensor {tensor}: bytes {start}..{end} asked for, it has {bytes}")]
    Range { tensor: String, start: u64, end: u64, bytes: u64 },
    #[error("tensor {tensor}: {what}")]
    Shape { tensor: String, what: String },
}

/// A set of named tensors whose bytes can be read in any order, from any thread. Pre-quantized checkpoints are adapters over
/// another source: nothing downstream knows them.
pub trait TensorSource: Send + Sync {
    /// Every tensor, in the order that the reference converter meets them: files by name, inside a file by tensor name.
    fn tensors(&self) -> &[TensorInfo];

    /// One tensor by name.
    fn info(&self, name: &str) -> Option<&TensorInfo>;

    /// Fill `out` with the tensor's bytes from `offset` (in bytes, inside the tensor) on.
    ///
    /// # Errors
    /// [`SourceError`] where the tensor or the range does not exist or the file cannot be read.
    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError>;

    /// Whether every file is still the one that was opened; asked before results are published.
    ///
    /// # Errors
    /// [`SourceError::Changed`] where a file was written to, replaced or removed.
    fn check_unchanged(&self) -> Result<(), SourceError> {
        Ok(())
    }
}
