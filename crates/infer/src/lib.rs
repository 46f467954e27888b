//! A reference forward pass: what a model computes, in F32 on the CPU, whatever its size.
//!
//! - [`Weights`] yield rows of either side, decoded to F32 a tile at a time: a model is never in memory as a whole;
//! - a [`Model`] is a description ([`ggufsmith_arch::Decoder`]) with its weights; [`Model::embed`], [`Model::layer`] and
//!   [`Model::logits`] are its steps, over all tokens of a [`Batch`], so that several models can run in lockstep;
//! - a [`Session`] keeps keys and values between calls; [`generate`] and [`beam`] continue texts with it, [`sampling`] picks tokens;
//! - [`MatMul`] is who multiplies.
//!
//! Work is shared over the threads of the rayon pool that the caller has installed. The same input gives the same bits on any number of
//! threads.
#![deny(unsafe_code)]

mod attention;
mod batch;
pub mod beam;
mod check;
mod cost;
mod ffn;
pub mod generate;
mod layer;
mod linear;
mod matmul;
mod model;
pub mod ops;
mod rope;
pub mod sampling;
mod session;
#[cfg(test)]
mod toy;
mod weights;

pub use batch::{Batch, Buffers, LayerCache, Sequence};
pub use linear::TILE_BYTES;
pub use matmul::{Gemm, MatMul, View};
pub use model::{InferError, Model};
pub use session::Session;
pub use weights::{GgufTensors, SourceTensors, Storage, Tensor, Tensors, Weights, WeightsError};
