//! Why an export fails.

use crate::sink::SinkError;
use ggufsmith_core::inverse::InverseError;
use ggufsmith_core::{EncodeError, SourceError};
use ggufsmith_gguf::GgufError;
use ggufsmith_tokenizer::write::WriteError;
use std::io;
use std::path::PathBuf;

/// Why a GGUF file was not exported. No file is left then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Arch(#[from] ggufsmith_arch::ExportError),
    #[error("the tokenizer's files cannot be rebuilt: {0}")]
    Tokenizer(#[from] WriteError),
    #[error("{}", undecodable(formats))]
    Undecodable { formats: Vec<(&'static str, usize, String)> },
    #[error("tensor {tensor} cannot be taken back to the checkpoint: {source}")]
    Inverse { tensor: String, source: InverseError },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("tensor {tensor}: {source}")]
    Encode { tensor: String, source: EncodeError },
    #[error(
        "tensor {tensor} does not fit {dtype}: {count} or more finite weights become infinite (largest magnitude {largest:e}); choose another --dtype"
    )]
    Overflow { tensor: String, dtype: &'static str, count: u64, largest: f32 },
    #[error("creating the directory {}: {source}", path.display())]
    CreateDirectory { path: PathBuf, source: io::Error },
    #[error("{} is no directory; --out names the directory to write", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} is in the way: it is not part of this export, and would be read together with it; choose another directory", path.display())]
    InTheWay { path: PathBuf },
    #[error("interrupted")]
    Cancelled,
    #[error("a worker thread ended early")]
    WorkerPanicked,
}

fn undecodable(formats: &[(&'static str, usize, String)]) -> String {
    let list = formats.iter().map(|(name, count, first)| match count {
        1 => format!("{first} is {name}"),
        count => format!("{count} tensors are {name} ({first}, ...)"),
    });
    format!("types that cannot be decoded yet: {}", list.collect::<Vec<_>>().join(", "))
}
