//! GGUF: values, keys, layout arithmetic, a deterministic writer, shards.
//!
//! Writing: [`Layout::plan`] (or [`plan_shards`]) turns metadata and tensor shapes into the header's bytes and every offset;
//! where the data comes from and how it is written is the caller's affair.
//!
//! The rules are the strictest of all known readers: what [`Layout`] writes is what every reader
//! accepts.
#![forbid(unsafe_code)]

mod encode;
mod error;
mod layout;
mod lookup;
mod rules;
mod split;
pub mod value;
mod value_type;

pub use error::{ErrorKind, GgufError, LayoutError, ShardError};
pub use layout::{GgufTensor, Layout, TensorSpec, ggml_shape};
pub use lookup::{FromValue, LookupError};
pub use rules::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};
pub use split::{SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS_COUNT, SplitError, SplitLimits, parse_size, plan_shards, shard_path};
pub use value::{Array, Metadata, Value};
pub use value_type::ValueType;
