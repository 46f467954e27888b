//! From a Hugging Face checkpoint to GGUF.
//!
//! [`Conversion::prepare`] reads headers, config and tokenizer and ends in a [`plan::Plan`]: everything is decided before the first
//! weight is read. [`Conversion::run`] executes it: [`pipeline`] reads every source chunk once and encodes it for every output,
//! [`sink`] writes at positions and lets all files appear together, [`manifest`] says what was made from what.
//!
//! [`requantize`] does the same from a GGUF file. [`export`] is the way back: from GGUF to a model directory. [`bitsandbytes`] quantizes a model directory to another one.

#![forbid(unsafe_code)]

pub mod bitsandbytes;
mod conversion;
mod execute;
pub mod export;
mod gguf_source;
mod importance;
mod intervals;
pub mod manifest;
pub mod metadata;
pub mod pipeline;
pub mod plan;
pub mod recipe;
pub mod requantize;
mod scan;
pub mod sink;

pub use conversion::{Conversion, ConvertError, Finished, Options, Preparation, REFERENCE, RunOptions, Target};
pub use importance::ImatrixFile;
