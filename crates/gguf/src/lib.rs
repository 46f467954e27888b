//! GGUF: values, keys, layout arithmetic, a strict reader, a deterministic writer, shards.
#![forbid(unsafe_code)]

pub mod value;

pub use value::{Array, Metadata, Value};
