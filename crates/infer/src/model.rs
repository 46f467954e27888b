//! A decoder with its weights, and its steps outside the layers.

use crate::batch::{Batch, Buffers};
use crate::check::check;
use crate::layer::normalize;
use crate::linear::Multiplier;
use crate::matmul::MatMul;
use crate::rope::{Table, Tables};
use crate::{Weights, WeightsError, ops};
use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{Matrix, Rope};
use std::ops::Range;

/// Why a forward pass ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum InferError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{place}: {what}: the model's sizes do not belong together")]
    Sizes { place: String, what: String },
    #[error("token {token} is outside the vocabulary of {n_vocab}")]
    Token { token: u32, n_vocab: u32 },
    #[error("the hidden state is not finite behind layer {layer}: a weight there is damaged, or the model overflows F32")]
    NotFinite { layer: usize },
    #[error("the embedding of token {token} is not finite")]
    Embedding { token: u32 },
    #[error("the logits are not finite: the head or the final norm is damaged")]
    Logits,
    #[error("{wanted} positions are asked for, {n_ctx} were set up")]
    Context { wanted: usize, n_ctx: usize },
    #[error("{wanted} positions are asked for, the model has learned {learned}: use a shorter context")]
    Positions { wanted: usize, learned: u64 },
}

/// A decoder that can run: every tensor is there with the right shape.
pub struct Model {
    decoder: Decoder,
    weights: Weights,
    multiply: Box<dyn MatMul>,
    rope: Tables,
    n_ctx: usize,
}

impl Model {
    /// Check every tensor against the description; `n_ctx` positions can be computed afterwards.
    ///
    /// # Errors
    /// [`InferError`] where a tensor is missing, has another shape, or cannot be decoded, where the description's sizes contradict each
    /// other, or where the model has learned fewer positions.
    pub fn new(decoder: Decoder, weights: Weights, multiply: Box<dyn MatMul>, n_ctx: usize) -> Result<Self, InferError> {
        check(&decoder)?;
        if let Some(learned) = decoder.position_embd.as_ref().map(Matrix::n_rows)
            && n_ctx as u64 > learned
        {
            return Err(InferError::Positions { wanted: n_ctx, learned });
        }
        for (name, shape) in decoder.tensors() {
            weights.expect(&name, &shape)?;
        }
        let rope = Tables::new(&decoder, &weights, n_ctx)?;
        Ok(Model { decoder, weights, multiply, rope, n_ctx })
    }

    /// Its description.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Positions that can be computed.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Keep the weights in memory where they take no more than `budget` bytes as they are stored; whether they are.
    ///
    /// # Errors
    /// [`InferError`] where they cannot be read.
    pub fn make_resident(&mut self, budget: u64) -> Result<bool, InferError> {
        let tensors = self.decoder.tensors();
        let bytes =
            |(name, _): &(String, _)| self.weights.tensor(name).and_then(|tensor| tensor.storage.bytes_for(tensor.elems()));
        if tensors.iter().filter_map(bytes).sum::<u64>() > budget {
            return Ok(false);
        }
        for (name, _) in tensors {
            self.weights.make_resident(&name)?;
        }
        Ok(true)
    }

    pub(crate) fn multiplier(&self) -> Multiplier<'_> {
        Multiplier { weights: &self.weights, multiply: &*self.multiply }
    }

    /// How a layer rotates, where it does.
    pub(crate) fn turns(&self, layer: usize) -> Option<(&Rope, &Table)> {
        self.decoder.layers[layer].attn.rope.as_ref().zip(self.rope.of_layer(layer))
    }

    pub(crate) fn check_context(&self, batch: &Batch) -> Result<(), InferError> {
        let wanted = batch.context();
        if wanted > self.n_ctx { Err(InferError::Context { wanted, n_ctx: self.n_ctx }) } else { Ok(()) }
    }

    /// The hidden state in front of the first layer: `[tokens, n_embd]`.
    ///
    /// # Errors
    /// [`InferError`] where a token is outside the vocabulary, its row cannot be read or is not finite, or a position is beyond
    /// [`Model::n_ctx`].
    ///
    /// # Panics
    /// Where the batch has another number of tokens: a fault of the caller.
    pub fn embed(&self, batch: &Batch, tokens: &[u32]) -> Result<Vec<f32>, InferError> {
        assert_eq!(batch.tokens(), tokens.len(), "the batch's tokens");
        self.check_context(batch)?;
        let decoder = &self.decoder;
        let (n_embd, n_vocab) = (decoder.n_embd as usize, decoder.n_vocab);
        let mut hidden = vec![0.0; tokens.len() * n_embd];
        for (&token, row) in tokens.iter().zip(hidden.chunks_exact_mut(n_embd)) {
            if token >= n_vocab {
                return Err(InferError::Token { token, n_vocab });
            }
            self.weights.rows(&decoder.token_embd, token.into(), n_embd, row)?;
            if !row.iter().all(|value| value.is_finite()) {
                return Err(InferError::Embedding { token });
            }
        }
        ops::scale_and_cap(&mut hidden, decoder.embd_scale, None);
        if let Some(positions) = &decoder.position_embd {
            let mut learned = Vec::new();
            for sequence in batch.sequences() {
                let hidden = &mut hidden[sequence.tokens.start * n_embd..sequence.tokens.end * n_embd];
                learned.resize(hidden.len(), 0.0);
                self.weights.rows(positions, sequence.past as u64, n_embd, &mut learned)?;
                ops::add(hidden, &learned, 1.0);
            }
        }
        normalize(&self.weights, decoder.embd_norm.as_ref(), n_embd, &mut hidden)?;
        Ok(hidden)
    }

    /// What the head sees: the final norm of the given rows of the hidden state.
    ///
    /// # Errors
    /// [`InferError`] where the norm cannot be read.
    pub fn output_rows(&self, hidden: &[f32], rows: &[usize]) -> Result<Vec<f32>, InferError> {
        let n_embd = self.decoder.n_embd as usize;
        let mut chosen: Vec<f32> = rows.iter().flat_map(|&row| &hidden[row * n_embd..(row + 1) * n_embd]).copied().collect();
        normalize(&self.weights, Some(&self.decoder.output_norm), n_embd, &mut chosen)?;
        Ok(chosen)
    }

    /// Logits of the vocabulary entries `vocab` for rows of [`Model::output_rows`]: `[rows, vocab.len()]`. Bias, scale and cap are in.
    ///
    /// # Errors
    /// [`InferError`] where the head cannot be read.
    pub fn logits(
        &self,
        output_rows: &[f32],
        vocab: Range<usize>,
        out: &mut Vec<f32>,
        buffers: &mut Buffers,
    ) -> Result<(), InferError> {
        let decoder = &self.decoder;
        let rows = output_rows.len() / decoder.n_embd as usize;
        out.resize(rows * vocab.len(), 0.0);
        self.multiplier().part(&decoder.output, vocab, output_rows, out, buffers)?;
        ops::scale_and_cap(out, decoder.logit_scale, decoder.logit_softcap);
        Ok(())
    }
}
