//! From a Hugging Face checkpoint to GGUF.
//!
//! [`plan`] decides everything before the first weight is read, [`pipeline`] reads every source chunk once and encodes it for
//! every output, [`sink`] writes positioned bytes and renames all outputs together.

pub mod metadata;

/// Stub.
pub mod plan {}
/// Stub.
pub mod pipeline {}
/// Stub.
pub mod sink {}
pub mod tokenizer;
