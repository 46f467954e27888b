//! How a decoder computes: a description that an interpreter can run, of either side in its own layout.
//!
//! A family describes its model twice: from config.json, as transformers computes it on the checkpoint's rows, and from the keys of a
//! GGUF file, as llama.cpp computes it on the file's. Nothing is shared but the words: a permutation, key or norm that the converter
//! gets wrong shows as different logits.
//!
//! Constructors give the common case; what a family has besides is filled in with `..`:
//! `Attention { window, softcap: Some(50.0), ..Attention::new(..) }`.

mod error;
mod refs;
mod tensors;

pub use error::DecoderError;
pub use refs::{Matrix, Vector, every};

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
    pub token_embd: Matrix,
    /// What embeddings are multiplied by, positions excluded.
    pub embd_scale: Option<f32>,
    /// Learned positions, `[positions, n_embd]`, added to the embeddings.
    pub position_embd: Option<Matrix>,
    /// Norm behind the embeddings.
    pub embd_norm: Option<Norm>,
    /// The blocks, in order.
    pub layers: Vec<Layer>,
    /// Norm in front of the head.
    pub output_norm: Norm,
    /// The head, `[n_vocab, n_embd]`; the embedding matrix itself where the two are tied.
    pub output: Linear,
    /// What logits are multiplied by, bias included.
    pub logit_scale: Option<f32>,
    /// The `cap` of `cap * tanh(logit / cap)`, behind the scale.
    pub logit_softcap: Option<f32>,
}

/// One block: attention and feed-forward, each added to the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Norm in front of attention.
    pub attn_norm: Option<Norm>,
    /// Attention.
    pub attn: Attention,
    /// Norm behind attention, before it is added.
    pub attn_post_norm: Option<Norm>,
    /// Norm in front of the feed-forward part.
    pub ffn_norm: Option<Norm>,
    /// The feed-forward part.
    pub ffn: Ffn,
    /// Norm behind the feed-forward part, before it is added.
    pub ffn_post_norm: Option<Norm>,
    /// What the two parts see.
    pub residual: Residual,
    /// What both parts are multiplied by before they are added.
    pub residual_scale: Option<f32>,
}

/// How the two parts of a block are wired; `a` and `f` are attention and feed-forward with their norms around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `y = x + a(x)`, then `y + f(y)`.
    Sequential,
    /// `x + a(x) + f(x)`, each part behind its own norm.
    Parallel,
    /// `x + a(x) + f(x)`, where the feed-forward part sees what attention sees: `attn_norm(x)`. `ffn_norm` is not looked at.
    ParallelOneNorm,
}

/// `x / sqrt(mean(x²) + eps) * weight + bias`, of `x - mean(x)` with [`NormKind::Layer`].
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Whether the mean is taken away first.
    pub kind: NormKind,
    /// The weights; none are all 1.
    pub weight: Option<Vector>,
    /// Whether 1 is added to the weights: Gemma's checkpoints.
    pub plus_one: bool,
    /// The bias.
    pub bias: Option<Vector>,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// The two normalizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square normalization.
    Rms,
    /// Layer normalization.
    Layer,
}

/// `y = x · Wᵀ (+ b)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// The matrix, `[outputs, inputs]`.
    pub weight: Matrix,
    /// The bias, `[outputs]`.
    pub bias: Option<Vector>,
}

/// Causal attention; query heads share key heads in groups of `n_head / n_head_kv` neighbours.
///
/// Projections, then `clip`, then the norms of queries and keys, then rotary positions; scores are `softcap(scale * q · k)`.
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
    /// Queries, keys and values are held within `-clip..=clip`.
    pub clip: Option<f32>,
    /// Norm of the queries.
    pub q_norm: Option<QkNorm>,
    /// Norm of the keys.
    pub k_norm: Option<QkNorm>,
    /// Rotary positions of queries and keys; a layer may have none.
    pub rope: Option<Rope>,
    /// What scores are multiplied by.
    pub scale: f32,
    /// The `cap` of `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// How many positions, its own included, a token looks back; all of them where there is no window.
    pub window: Option<u32>,
}

/// Norm of queries or keys. Its weights are as long as a head (all heads share them) or as long as all heads.
#[derive(Debug, Clone, PartialEq)]
pub struct QkNorm {
    /// The norm.
    pub norm: Norm,
    /// Over what means are taken.
    pub over: Over,
}

/// What a norm of queries or keys is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Each head by itself.
    Head,
    /// The whole projection.
    Projection,
}

/// Which elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element `i` with element `i + dims / 2`: most checkpoints for transformers, ggml's `GGML_ROPE_TYPE_NEOX`.
    Halves,
    /// Element `2i` with element `2i + 1`: ggml's `GGML_ROPE_TYPE_NORMAL`, Command-R.
    Pairs,
}

/// Rotary position embedding over the first `2 * inv_freq.len()` elements of a head; the others stay as they are. Every kind of scaling
/// that does not depend on the text's length ends in these numbers.
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
    /// Other frequencies for long texts.
    pub long: Option<LongRope>,
    /// Frequencies that slow down as texts grow.
    pub dynamic: Option<DynamicRope>,
}

/// Frequencies of a model that is set up for `n_ctx` positions, more than `beyond`: those of `theta` multiplied by
/// `(factor * n_ctx / beyond - (factor - 1)) ^ (dims / (dims - 2))`, where `dims` elements turn, for all positions. transformers' `dynamic`
/// for one text of `n_ctx` tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicRope {
    /// Positions up to which the plain frequencies hold.
    pub beyond: u32,
    /// The base of the plain frequencies.
    pub theta: f64,
    /// How fast the base grows.
    pub factor: f64,
}

impl DynamicRope {
    /// `dims / 2` frequencies for a model set up for `n_ctx` positions; `None` up to `beyond`.
    pub fn inv_freq(&self, dims: usize, n_ctx: usize) -> Option<Vec<f64>> {
        if n_ctx <= self.beyond as usize || dims <= 2 {
            return None;
        }
        let dims = dims as f64;
        let growth = self.factor * n_ctx as f64 / f64::from(self.beyond) - (self.factor - 1.0);
        let theta = self.theta * growth.powf(dims / (dims - 2.0));
        Some((0..dims as usize / 2).map(|i| theta.powf(-2.0 * i as f64 / dims)).collect())
    }
}

/// Frequencies of a model that is set up for more positions than `beyond`, in place of those of its [`Rope`]: all positions turn by them,
/// the early ones too, as in transformers' `longrope` and llama.cpp's choice between `rope_factors_short` and `_long`.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Positions up to which the short frequencies hold.
    pub beyond: u32,
    /// Radians per position, as many as the short ones.
    pub inv_freq: Vec<f64>,
    /// A tensor by whose elements the frequencies are divided.
    pub factors: Option<String>,
}

/// A nonlinear function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / π) * (x + 0.044715 x³)))`: `gelu_new`, `gelu_pytorch_tanh`, and every GELU of ggml.
    GeluTanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`: transformers' `gelu`.
    GeluErf,
}

/// The feed-forward part of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    /// `down(act(gate(x)) * up(x))`.
    Gated(GatedFfn),
    /// `down(act(up(x)))`.
    Plain(PlainFfn),
    /// A mixture of experts.
    Experts(Box<Experts>),
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct GatedFfn {
    /// What the gate goes through.
    pub act: Activation,
    /// The gate.
    pub gate: Linear,
    /// What is gated.
    pub up: Linear,
    /// Back to the stream.
    pub down: Linear,
}

/// `down(act(up(x)))`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainFfn {
    /// What lies between.
    pub act: Activation,
    /// To the wider space.
    pub up: Linear,
    /// Back to the stream.
    pub down: Linear,
}

/// Several gated feed-forward parts of which each token uses a few: `Σ share_e * down_e(act(gate_e(x)) * up_e(x))` over the `used` experts
/// with the largest router logits, `+ shared(x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Experts.
    pub n_expert: u32,
    /// Experts that a token uses.
    pub used: u32,
    /// Gives each expert a logit, `[n_expert, n_embd]`.
    pub router: Linear,
    /// What logits become.
    pub shares: Shares,
    /// What the gates go through.
    pub act: Activation,
    /// Gates, `[n_ff, n_embd]` for each expert; see [`Matrix::of_expert`].
    pub gate: Matrix,
    /// What is gated, `[n_ff, n_embd]` for each expert.
    pub up: Matrix,
    /// Back to the stream, `[n_embd, n_ff]` for each expert.
    pub down: Matrix,
    /// An expert that every token uses.
    pub shared: Option<SharedExpert>,
}

/// What router logits become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// Softmax over all experts; the shares of those that are used do not sum to 1. Qwen2-MoE with `norm_topk_prob` false.
    OfAll,
    /// Softmax over those that are used. Softmax over all, divided by the sum over the used ones, is the same.
    OfUsed,
}

/// An expert that every token uses.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedExpert {
    /// What it computes.
    pub ffn: GatedFfn,
    /// `[1, n_embd]`: the result is multiplied by the sigmoid of this.
    pub gate: Option<Linear>,
}

impl Decoder {
    /// Embeddings, blocks, norm, head, and nothing else.
    pub fn new(token_embd: Matrix, n_ctx_train: u32, layers: Vec<Layer>, output_norm: Norm, output: Linear) -> Self {
        let (n_vocab, n_embd) = (saturated(token_embd.n_rows()), saturated(token_embd.n_cols()));
        Decoder {
            n_vocab,
            n_embd,
            n_ctx_train,
            token_embd,
            embd_scale: None,
            position_embd: None,
            embd_norm: None,
            layers,
            output_norm,
            output,
            logit_scale: None,
            logit_softcap: None,
        }
    }
}

impl Layer {
    /// A norm in front of each part, one part behind the other.
    pub fn new(attn_norm: Norm, attn: Attention, ffn_norm: Norm, ffn: Ffn) -> Self {
        Layer {
            attn_norm: Some(attn_norm),
            attn,
            attn_post_norm: None,
            ffn_norm: Some(ffn_norm),
            ffn,
            ffn_post_norm: None,
            residual: Residual::Sequential,
            residual_scale: None,
        }
    }
}

impl Norm {
    /// RMS normalization with weights `[len]`.
    pub fn rms(weight: impl Into<String>, len: u32, eps: f32) -> Self {
        Norm { kind: NormKind::Rms, weight: Some(Vector::whole(weight, len)), plus_one: false, bias: None, eps }
    }

    /// Layer normalization with weights `[len]` and, where there is one, a bias `[len]`.
    pub fn layer(weight: impl Into<String>, bias: Option<String>, len: u32, eps: f32) -> Self {
        let bias = bias.map(|bias| Vector::whole(bias, len));
        Norm { kind: NormKind::Layer, bias, ..Norm::rms(weight, len, eps) }
    }

    /// Without weights and bias.
    pub fn bare(kind: NormKind, eps: f32) -> Self {
        Norm { kind, weight: None, plus_one: false, bias: None, eps }
    }
}

impl Linear {
    /// A whole tensor `[rows, cols]` without bias.
    pub fn new(weight: impl Into<String>, rows: u32, cols: u32) -> Self {
        Linear { weight: Matrix::whole(weight, rows, cols), bias: None }
    }

    /// The same with a bias `[rows]`, where there is one.
    #[must_use]
    pub fn with_bias(self, bias: Option<String>) -> Self {
        let rows = saturated(self.weight.n_rows());
        Linear { bias: bias.map(|bias| Vector::whole(bias, rows)), ..self }
    }

    /// Outputs.
    pub fn rows(&self) -> u64 {
        self.weight.n_rows()
    }

    /// Inputs.
    pub fn cols(&self) -> u64 {
        self.weight.n_cols()
    }
}

impl Attention {
    /// Heads and their projections; scores are divided by `sqrt(head_dim)`.
    pub fn new(n_head: u32, n_head_kv: u32, head_dim: u32, [q, k, v, o]: [Linear; 4], rope: Option<Rope>) -> Self {
        Attention {
            n_head,
            n_head_kv,
            head_dim,
            q,
            k,
            v,
            o,
            clip: None,
            q_norm: None,
            k_norm: None,
            rope,
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: None,
            window: None,
        }
    }
}

fn saturated(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
