//! A Hugging Face model on disk: the directory, its safetensors shards, config.json, tokenizer files.
//!
//! Nothing here maps memory: files are read at positions, so a file that shrinks is an error and resident memory is the caller's.
//! Nothing here trusts a file: every length is checked against [`Limits`] and against the bytes that are there before anything
//! is allocated, every name is checked before it is joined to a path, and nothing is executed.
#![forbid(unsafe_code)]

mod bitsandbytes;
mod dir;
mod error;
mod file;
mod header;
mod index;
pub mod int8;
mod json;
mod limits;
pub mod modules;
mod promised;
mod rounded;
mod shard;
mod source;

pub use bitsandbytes::BitsandbytesDefect;
pub use dir::ModelDir;
pub use error::{CheckpointError, HeaderDefect, IndexDefect, NotAFile};
pub use file::Identity;
pub use header::{SafetensorsInfo, safetensors_info};
pub use json::{JsonRules, JsonValue};
pub use limits::{Limits, OpenOptions};
pub use promised::{Damaged, keeps_promise, promised_sha256};
pub use rounded::{Rounded, Rounding};
pub use shard::{RemoteShard, RemoteShards};
pub use source::Checkpoint;
