//! GGUF: values, keys, layout arithmetic, a strict reader, a deterministic writer, shards.
//!
//! Writing: [`Layout::plan`] (or [`plan_shards`]) turns metadata and tensor shapes into the header's bytes and every offset;
//! where the data comes from and how it is written is the caller's affair.
//!
//! Reading: [`Shards::open`] opens a model in one file or several, [`Gguf::open`] one file, [`Header::read`] any seekable reader.
//! Headers stay in memory, data is read by position.
//!
//! Reader and writer share one set of rules, the strictest of all known readers: what [`Layout`] plans is what every reader
//! accepts, and nothing else is read.
#![forbid(unsafe_code)]

mod cursor;
mod display;
mod encode;
mod error;
mod file;
mod header;
pub mod imatrix;
mod layout;
mod limits;
mod lookup;
mod rules;
mod shards;
mod split;
pub mod value;
mod value_type;

pub use error::{ErrorKind, GgufError, LayoutError, ShardError};
pub use file::Gguf;
pub use header::Header;
pub use layout::{GgufTensor, Layout, TensorSpec, ggml_shape};
pub use limits::Limits;
pub use lookup::{FromValue, LookupError};
pub use rules::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};
pub use shards::{Shards, shard_name};
pub use split::{SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS_COUNT, SplitError, SplitLimits, parse_size, plan_shards, shard_path};
pub use value::{Array, Metadata, Value};
pub use value_type::ValueType;
