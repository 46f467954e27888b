//! A decoder with its weights, layer by layer.

use crate::attention::{KeysValues, attend};
use crate::matmul::{MatMul, View};
use crate::rope::Table;
use crate::{Weights, WeightsError, ops};
use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{Layer, Linear, Norm};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Bytes of decoded weights that are held at a time.
pub const TILE_BYTES: usize = 64 << 20;

/// Why a forward pass ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum InferError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
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
}

/// Tokens of several sequences behind each other, each with the number of positions that were computed before.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    sequences: Vec<Sequence>,
    tokens: usize,
}

/// A run of tokens of a batch.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Where its tokens are in the batch.
    pub tokens: Range<usize>,
    /// Position of its first token.
    pub past: usize,
}

impl Batch {
    /// Sequences of these lengths from position 0 on.
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut batch = Batch::default();
        lengths.into_iter().for_each(|len| batch.push(len, 0));
        batch
    }

    /// Add a sequence of `len` tokens, the first at position `past`.
    pub fn push(&mut self, len: usize, past: usize) {
        self.sequences.push(Sequence { tokens: self.tokens..self.tokens + len, past });
        self.tokens += len;
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    fn positions(&self) -> impl Iterator<Item = usize> {
        self.sequences.iter().flat_map(|sequence| sequence.past..sequence.past + sequence.tokens.len())
    }
}

/// Keys and values of one sequence in one layer: `[positions, n_head_kv * head_dim]` each.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Memory that every step reuses; it grows to what the largest step needs.
#[derive(Debug, Default)]
pub struct Buffers {
    tile: Vec<f32>,
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    added: Vec<f32>,
}

/// A decoder that can run: every tensor is there with the right shape.
pub struct Model {
    decoder: Decoder,
    weights: Weights,
    multiply: Box<dyn MatMul>,
    rope: Table,
    n_ctx: usize,
}

impl Model {
    /// Check every tensor against the description; `n_ctx` positions can be computed afterwards.
    ///
    /// # Errors
    /// [`InferError`] where a tensor is missing, has another shape, or cannot be decoded.
    pub fn new(decoder: Decoder, weights: Weights, multiply: Box<dyn MatMul>, n_ctx: usize) -> Result<Self, InferError> {
        for (name, shape) in decoder.tensors() {
            weights.expect(name, &shape)?;
        }
        // Layers of the families that are known share their frequencies.
        let rope = decoder.layers.first().map(|layer| &layer.attn.rope);
        let rope = match rope {
            None => Table::new(&no_rope(), None, 0),
            Some(rope) => {
                let factors =
                    rope.factors.as_ref().map(|name| weights.vector(name, &[rope.inv_freq.len() as u64])).transpose()?;
                Table::new(rope, factors.as_deref(), n_ctx)
            }
        };
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
        let mut names: Vec<&str> = self.decoder.tensors().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let bytes = |name: &&str| self.weights.tensor(name).and_then(|tensor| tensor.storage.bytes_for(tensor.elems()));
        if names.iter().filter_map(bytes).sum::<u64>() > budget {
            return Ok(false);
        }
        for name in names {
            self.weights.make_resident(name)?;
        }
        Ok(true)
    }

    /// The hidden state in front of the first layer: `[tokens, n_embd]`.
    ///
    /// # Errors
    /// [`InferError`] where a token is outside the vocabulary, or its row cannot be read or is not finite.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, InferError> {
        let (n_embd, n_vocab) = (self.decoder.n_embd as usize, self.decoder.n_vocab);
        let mut hidden = vec![0.0; tokens.len() * n_embd];
        for (&token, row) in tokens.iter().zip(hidden.chunks_exact_mut(n_embd)) {
            if token >= n_vocab {
                return Err(InferError::Token { token, n_vocab });
            }
            self.weights.decode(&self.decoder.token_embd, token.into(), n_embd, row)?;
            if !row.iter().all(|value| value.is_finite()) {
                return Err(InferError::Embedding { token });
            }
        }
        Ok(hidden)
    }

    /// Run layer `index` over the hidden state of a batch. With `caches`, one for each sequence, keys and values of earlier
    /// positions come from there and new ones are added; without, every sequence begins at position 0.
    ///
    /// # Errors
    /// [`InferError`] where weights cannot be read, a position is beyond [`Model::n_ctx`], or the result is not finite.
    pub fn layer(
        &self,
        index: usize,
        batch: &Batch,
        hidden: &mut [f32],
        mut caches: Option<&mut [&mut LayerCache]>,
        buffers: &mut Buffers,
    ) -> Result<(), InferError> {
        let Layer { attn_norm, attn, ffn_norm, ffn } = &self.decoder.layers[index];
        if let Some(wanted) = batch.positions().max().filter(|&last| last >= self.n_ctx) {
            return Err(InferError::Context { wanted: wanted + 1, n_ctx: self.n_ctx });
        }
        let tokens = batch.tokens();
        let Buffers { tile, normed, queries, keys, values, attended, gate, up, added } = buffers;

        self.norm(attn_norm, hidden, normed)?;
        self.linear(&attn.q, normed, queries, tile)?;
        self.linear(&attn.k, normed, keys, tile)?;
        self.linear(&attn.v, normed, values, tile)?;
        let turns: Vec<_> = batch.positions().map(|position| self.rope.turn(position)).collect();
        let (q_row, kv_row, head_dim) = (attn.q.rows as usize, attn.k.rows as usize, attn.head_dim as usize);
        ops::rotate(queries, q_row, head_dim, attn.rope.layout, &turns);
        ops::rotate(keys, kv_row, head_dim, attn.rope.layout, &turns);
        attended.resize(tokens * q_row, 0.0);
        for (number, sequence) in batch.sequences.iter().enumerate() {
            let range = |row: usize| sequence.tokens.start * row..sequence.tokens.end * row;
            let (new_keys, new_values) = (&keys[range(kv_row)], &values[range(kv_row)]);
            let kv = match caches.as_deref_mut().map(|caches| &mut *caches[number]) {
                None => KeysValues { keys: new_keys, values: new_values },
                Some(cache) => {
                    cache.keys.truncate(sequence.past * kv_row);
                    cache.values.truncate(sequence.past * kv_row);
                    cache.keys.extend_from_slice(new_keys);
                    cache.values.extend_from_slice(new_values);
                    KeysValues { keys: &cache.keys, values: &cache.values }
                }
            };
            attend(attn, &queries[range(q_row)], sequence.past, kv, &mut attended[range(q_row)]);
        }
        self.linear(&attn.o, attended, added, tile)?;
        ops::add(hidden, added);

        self.norm(ffn_norm, hidden, normed)?;
        self.linear(&ffn.gate, normed, gate, tile)?;
        self.linear(&ffn.up, normed, up, tile)?;
        ops::silu_mul(gate, up);
        self.linear(&ffn.down, gate, added, tile)?;
        ops::add(hidden, added);
        if hidden.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(InferError::NotFinite { layer: index }) }
    }

    /// What the head sees: the final norm of the given rows of the hidden state.
    ///
    /// # Errors
    /// [`InferError`] where the norm cannot be read.
    pub fn output_rows(&self, hidden: &[f32], rows: &[usize]) -> Result<Vec<f32>, InferError> {
        let n_embd = self.decoder.n_embd as usize;
        let chosen: Vec<f32> = rows.iter().flat_map(|&row| &hidden[row * n_embd..(row + 1) * n_embd]).copied().collect();
        let mut normed = Vec::new();
        self.norm(&self.decoder.output_norm, &chosen, &mut normed)?;
        Ok(normed)
    }

    /// Logits of the vocabulary entries `vocab` for rows of [`Model::output_rows`]: `[rows, vocab.len()]`.
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
        let output = &self.decoder.output;
        let rows = output_rows.len() / output.cols as usize;
        out.resize(rows * vocab.len(), 0.0);
        self.rows(output, vocab, output_rows, out, &mut buffers.tile)
    }

    fn norm(&self, norm: &Norm, x: &[f32], out: &mut Vec<f32>) -> Result<(), InferError> {
        let weight = self.weights.vector(&norm.weight, &[self.decoder.n_embd.into()])?;
        out.resize(x.len(), 0.0);
        ops::rms_norm(x, &weight, norm.eps, out);
        Ok(())
    }

    /// `out = x · Wᵀ + b`, `[tokens, linear.rows]`.
    fn linear(&self, linear: &Linear, x: &[f32], out: &mut Vec<f32>, tile: &mut Vec<f32>) -> Result<(), InferError> {
        let tokens = x.len() / linear.cols as usize;
        out.resize(tokens * linear.rows as usize, 0.0);
        self.rows(linear, 0..linear.rows as usize, x, out, tile)
    }

    /// The rows `range` of a matrix for a few tokens: each thread decodes small tiles and multiplies by them at once.
    fn few(&self, linear: &Linear, range: Range<usize>, x: &[f32], out: &mut [f32]) -> Result<(), InferError> {
        let (cols, width) = (linear.cols as usize, range.len());
        // No more rows than MatMul takes at once.
        let step = (FEW_ELEMS / cols).clamp(1, 128);
        let products: Vec<Vec<f32>> = (0..width.div_ceil(step))
            .into_par_iter()
            .map(|number| {
                let at = number * step;
                let rows = step.min(width - at);
                let mut products = vec![0.0; x.len() / cols * rows];
                let mut memory = TILE.take();
                let tile = at_least(&mut memory, rows * cols);
                self.weights.decode(&linear.weight, (range.start + at) as u64, cols, tile)?;
                self.multiply.matmul(x, View { data: tile, stride: cols, rows, cols }, &mut products, rows, 0);
                TILE.set(memory);
                Ok(products)
            })
            .collect::<Result<_, WeightsError>>()?;
        for (number, products) in products.iter().enumerate() {
            let (at, rows) = (number * step, products.len() / (x.len() / cols));
            for (out, products) in out.chunks_exact_mut(width).zip(products.chunks_exact(rows)) {
                out[at..at + rows].copy_from_slice(products);
            }
        }
        Ok(())
    }

    /// The rows `range` of a matrix, tile by tile.
    fn rows(
        &self,
        linear: &Linear,
        range: Range<usize>,
        x: &[f32],
        out: &mut [f32],
        tile: &mut Vec<f32>,
    ) -> Result<(), InferError> {
        let cols = linear.cols as usize;
        if x.len() <= FEW * cols {
            self.few(linear, range.clone(), x, out)?;
        } else {
            let stride = padded(cols);
            let step = (TILE_BYTES / size_of::<f32>() / stride).max(1);
            let mut from = range.start;
            while from < range.end {
                let rows = step.min(range.end - from);
                let tile = at_least(tile, rows * stride);
                self.weights.decode(&linear.weight, from as u64, stride, tile)?;
                self.multiply.matmul(x, View { data: tile, stride, rows, cols }, out, range.len(), from - range.start);
                from += rows;
            }
        }
        if let Some(bias) = &linear.bias {
            let bias = self.weights.vector(bias, &[linear.rows.into()])?;
            ops::add_bias(out, &bias[range]);
        }
        Ok(())
    }
}

/// Tokens for which decoding is most of the work.
const FEW: usize = 8;
/// Elements of a tile that stays in a core's cache between decoding and multiplying.
const FEW_ELEMS: usize = 1 << 16;

thread_local! {
    static TILE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The first `len` elements of memory that grows to what is needed and is not cleared.
fn at_least(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}

/// Distance of the rows of a decoded tile: an odd number of cache lines. Rows a power of two apart would meet in a few sets of the cache
/// while gemm packs them.
fn padded(cols: usize) -> usize {
    const LINE: usize = 64 / size_of::<f32>();
    (cols.div_ceil(LINE) | 1) * LINE
}

fn no_rope() -> ggufsmith_arch::decoder::Rope {
    use ggufsmith_arch::decoder::{Rope, RopeLayout};
    Rope { layout: RopeLayout::Halves, inv_freq: Vec::new(), factors: None, magnitude: 1.0 }
}
