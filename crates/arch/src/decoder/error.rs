//! Why a model has no description.

use crate::ArchError;
use ggufsmith_gguf::LookupError;

/// Why a model has no description.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecoderError {
    #[error(transparent)]
    Config(#[from] ArchError),
    #[error("the file's metadata: {0}")]
    Key(#[from] LookupError),
    #[error("the file's metadata: {key} is {found}, it must be {expected}")]
    Value { key: String, expected: String, found: String },
    #[error("the architecture {name:?} has no forward pass here; there is one for {}", supported.join(", "))]
    Architecture { name: String, supported: Vec<&'static str> },
    #[error("the architecture {arch} has no forward pass here yet")]
    NoForwardPass { arch: &'static str },
    #[error("{what} is not computed here: {why}")]
    Unsupported { what: String, why: &'static str },
}
