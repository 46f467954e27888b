//! Element types, exact float conversions, ggml's block formats and the encoders that write them.
//!
//! The model in four lines:
//! - a [`DType`] is how a *checkpoint* stores elements; anything that is not F32, F16 or BF16 becomes F32 before it is used;
//! - [`Rows`] are whole matrix rows as raw words of one of those three types ([`Words`]);
//! - a [`Format`] is one ggml tensor type: how many elements a block holds, how many bytes it takes, how it decodes;
//! - an [`Encoder`] turns [`Rows`] into blocks of one format; the encoder named `ggml` writes the bytes of `ggml_quantize_chunk`.
//!
//! A [`FourBit`] scheme is what other libraries than ggml store instead of blocks: codes here, scales there.
//!
//! [`expr`] says how an output tensor comes from source tensors, [`source`] where source bytes come from.
//! This crate does no I/O, reads no environment, and contains no `unsafe`.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod dtype;
pub mod encoder;
pub mod expr;
pub mod float;
pub mod format;
pub mod formats;
pub mod inverse;
pub mod layouts;
pub mod scheme;
pub mod schemes;
pub mod source;
pub mod worker;

pub use dtype::DType;
pub use encoder::{EncodeError, Encoder, Rows, Words};
pub use expr::TensorExpr;
pub use format::Format;
pub use formats::{ENCODERS, FORMATS};
pub use layouts::LAYOUTS;
pub use scheme::{FourBit, SchemeError};
pub use schemes::SCHEMES;
pub use source::{SourceError, TensorInfo, TensorSource};
pub use worker::Worker;
