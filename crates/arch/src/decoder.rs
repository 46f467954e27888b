//! How a decoder computes: a description that an interpreter can run, of either side in its own layout.
//!
//! A family describes its model twice: from config.json, as transformers computes it on the checkpoint's rows, and from the keys of a
//! GGUF file, as llama.cpp computes it on the file's. Nothing is shared but the words: a permutation, key or norm that the converter
//! gets wrong shows as different logits.

use crate::ArchError;
use ggufsmith_gguf::LookupError;

/// A decoder-only transformer. Tensors are named as their side names them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    /// Entries of the vocabulary.
    pub n_vocab: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Positions that the model was trained for.
    pub n_ctx_train: u32,
    /// The embedding matrix, `[n_vocab, n_embd]`.
    pub token_embd: String,
    /// The blocks, in order.
    pub layers: Vec<Layer>,
    /// Norm in front of the head.
    pub output_norm: Norm,
    /// The head, `[n_vocab, n_embd]`; the embedding matrix itself where the two are tied.
    pub output: Linear,
}

/// One block: attention and feed-forward, each behind a norm, each added to the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Norm in front of attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: Attention,
    /// Norm in front of the feed-forward part.
    pub ffn_norm: Norm,
    /// The feed-forward part.
    pub ffn: GatedFfn,
}

/// Root mean square normalization: `x / sqrt(mean(x²) + eps) * weight`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// The weights, `[n_embd]`.
    pub weight: String,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// `y = x · Wᵀ (+ b)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// The matrix, `[rows, cols]`.
    pub weight: String,
    /// The bias, `[rows]`.
    pub bias: Option<String>,
    /// Outputs.
    pub rows: u32,
    /// Inputs.
    pub cols: u32,
}

/// Causal attention with rotary positions; query heads share key heads in groups of `n_head / n_head_kv` neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub n_head: u32,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Query projection, rows head by head.
    pub q: Linear,
    /// Key projection.
    pub k: Linear,
    /// Value projection.
    pub v: Linear,
    /// Output projection.
    pub o: Linear,
    /// Rotary positions of queries and keys.
    pub rope: Rope,
    /// How many positions, its own included, a token looks back; all of them where there is no window.
    pub window: Option<u32>,
}

/// Which elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element `i` with element `i + dims / 2`: checkpoints for transformers.
    Halves,
    /// Element `2i` with element `2i + 1`: ggml's `GGML_ROPE_TYPE_NORMAL`.
    Pairs,
}

/// Rotary position embedding over the first `2 * inv_freq.len()` elements of a head. Every kind of scaling that does not depend on the
/// text's length ends in these numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements turn together.
    pub layout: RopeLayout,
    /// Radians per position, fastest first.
    pub inv_freq: Vec<f64>,
    /// A tensor (`[inv_freq.len()]`) by whose elements the frequencies are divided.
    pub factors: Option<String>,
    /// What the rotated elements are multiplied by.
    pub magnitude: f64,
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct GatedFfn {
    /// The gate.
    pub gate: Linear,
    /// What is gated.
    pub up: Linear,
    /// Back to the stream.
    pub down: Linear,
}

/// Why a model has no description.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecoderError {
    #[error(transparent)]
    Config(#[from] ArchError),
    #[error("the file's metadata: {0}")]
    Key(#[from] LookupError),
    #[error("the file's metadata: {key} is {found}, it must be {expected}")]
    Value { key: String, expected: String, found: String },
    #[error("the architecture {name:?} has no forward pass here; there is one for {}", supported.join(", "))]
    Architecture { name: String, supported: Vec<&'static str> },
    #[error("the architecture {arch} has no forward pass here yet")]
    NoForwardPass { arch: &'static str },
    #[error("{what} is not computed here: {why}")]
    Unsupported { what: String, why: &'static str },
}

impl Decoder {
    /// Every matrix and vector with its shape (outermost first), in the order of use, the embedding first.
    pub fn tensors(&self) -> Vec<(&str, Vec<u64>)> {
        let mut list = vec![(self.token_embd.as_str(), vec![self.n_vocab.into(), self.n_embd.into()])];
        for layer in &self.layers {
            list.push((&layer.attn_norm.weight, vec![self.n_embd.into()]));
            let attn = &layer.attn;
            list.extend([&attn.q, &attn.k, &attn.v, &attn.o].into_iter().flat_map(Linear::tensors));
            if let Some(factors) = &attn.rope.factors {
                list.push((factors, vec![attn.rope.inv_freq.len() as u64]));
            }
            list.push((&layer.ffn_norm.weight, vec![self.n_embd.into()]));
            list.extend([&layer.ffn.gate, &layer.ffn.up, &layer.ffn.down].into_iter().flat_map(Linear::tensors));
        }
        list.push((&self.output_norm.weight, vec![self.n_embd.into()]));
        list.extend(self.output.tensors());
        list
    }
}

impl Linear {
    /// Matrix and bias with their shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<u64>)> {
        let bias = self.bias.as_deref().map(|bias| (bias, vec![self.rows.into()]));
        std::iter::once((self.weight.as_str(), vec![self.rows.into(), self.cols.into()])).chain(bias)
    }
}
