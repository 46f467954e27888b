//! Decoders with RMS normalization and a gated feed-forward part: Llama's relatives, described for either side.
//!
//! [`Gated::decoder`] gives Llama's own computation; a family changes what differs in it.

use crate::decoder::{
    Activation, Attention, Decoder, DecoderError, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Over, QkNorm, Rope, Shares,
};
use crate::hparams::TextParams;
use ggufsmith_gguf::{FromValue, Metadata};

/// Sizes, as either side states them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(crate) n_vocab: u32,
    pub(crate) n_ctx: u32,
    pub(crate) n_layer: u32,
    pub(crate) n_embd: u32,
    pub(crate) n_ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    pub(crate) head_dim: u32,
    /// Elements of a head that turn with the position.
    pub(crate) n_rot: u32,
    /// Of the norms.
    pub(crate) eps: f32,
}

/// How a side names the parts of its decoders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) token_embd: &'static str,
    pub(crate) output_norm: &'static str,
    pub(crate) output: &'static str,
    /// In front of a layer's number.
    layer: &'static str,
    attn_norm: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    o: &'static str,
    q_norm: &'static str,
    k_norm: &'static str,
    pub(crate) attn_post_norm: &'static str,
    pub(crate) ffn_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    pub(crate) ffn_post_norm: &'static str,
}

/// A checkpoint for transformers.
pub(crate) const HF: Names = Names {
    token_embd: "model.embed_tokens.weight",
    output_norm: "model.norm.weight",
    output: "lm_head.weight",
    layer: "model.layers",
    attn_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    o: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attn_post_norm: "post_attention_layernorm",
    ffn_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    ffn_post_norm: "post_feedforward_layernorm",
};

/// A GGUF file.
pub(crate) const GGUF: Names = Names {
    token_embd: "token_embd.weight",
    output_norm: "output_norm.weight",
    output: "output.weight",
    layer: "blk",
    attn_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    o: "attn_output",
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    attn_post_norm: "post_attention_norm",
    ffn_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    ffn_post_norm: "post_ffw_norm",
};

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u32 = 512;
/// Tables are made by the size of a head before its tensors are looked at; the largest in use is 512.
const MAX_HEAD: u32 = 1 << 16;

impl Shape {
    /// As a config.json states them.
    pub(crate) fn of_params(params: &TextParams) -> Self {
        Shape {
            n_vocab: params.vocab,
            n_ctx: params.n_ctx,
            n_layer: params.n_layer,
            n_embd: params.n_embd,
            n_ff: params.n_ff,
            n_head: params.n_head,
            n_head_kv: params.n_head_kv,
            head_dim: params.head_dim,
            n_rot: params.head_dim,
            eps: params.rms_eps.unwrap_or_default() as f32,
        }
    }

    /// As llama.cpp reads a file of architecture `arch` (`llama_model_base::load_hparams`); `eps` is the key of the norms' epsilon.
    ///
    /// # Errors
    /// [`DecoderError`]: a key is missing or has another type, or sizes do not fit together.
    pub(crate) fn of_gguf(metadata: &Metadata, arch: &str, eps: &str) -> Result<Self, DecoderError> {
        let key = |name: &str| format!("{arch}.{name}");
        let positive = |name: &str, max: u32| match metadata.require::<u32>(&key(name))? {
            n if (1..=max).contains(&n) => Ok(n),
            n => Err(value(&key(name), &format!("from 1 to {max}"), n)),
        };
        let (n_embd, n_head) = (positive("embedding_length", u32::MAX)?, positive("attention.head_count", u32::MAX)?);
        let n_head_kv = optional(metadata, &key("attention.head_count_kv"))?.unwrap_or(n_head);
        if n_head_kv == 0 || n_head % n_head_kv != 0 {
            return Err(value(&key("attention.head_count_kv"), &format!("a divisor of head_count {n_head}"), n_head_kv));
        }
        let head_dim = optional(metadata, &key("attention.key_length"))?.unwrap_or(n_embd / n_head);
        let value_dim = optional(metadata, &key("attention.value_length"))?.unwrap_or(n_embd / n_head);
        let n_rot = optional(metadata, &key("rope.dimension_count"))?.unwrap_or(head_dim);
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > MAX_HEAD {
            return Err(value(&key("attention.key_length"), &format!("even, above 0 and at most {MAX_HEAD}"), head_dim));
        }
        if value_dim != head_dim {
            return Err(value(&key("attention.value_length"), &format!("key_length, {head_dim}"), value_dim));
        }
        if n_rot == 0 || n_rot % 2 != 0 || n_rot > head_dim {
            return Err(value(&key("rope.dimension_count"), &format!("even and at most the head size {head_dim}"), n_rot));
        }
        let n_vocab = match optional(metadata, &key("vocab_size"))? {
            Some(n) => n,
            None => metadata.require::<&[String]>("tokenizer.ggml.tokens")?.len() as u32,
        };
        Ok(Shape {
            n_vocab,
            n_ctx: positive("context_length", u32::MAX)?,
            n_layer: positive("block_count", MAX_LAYERS)?,
            n_embd,
            n_ff: positive("feed_forward_length", u32::MAX)?,
            n_head,
            n_head_kv,
            head_dim,
            n_rot,
            eps: metadata.require::<f32>(&key(eps))?,
        })
    }

    /// That whole heads turn: the engine computes nothing else in architecture `arch`.
    pub(crate) fn whole_heads(self, arch: &str) -> Result<Self, DecoderError> {
        if self.n_rot == self.head_dim {
            return Ok(self);
        }
        Err(value(&format!("{arch}.rope.dimension_count"), &format!("the head size {}", self.head_dim), self.n_rot))
    }

    /// Width of all query heads, and of all key heads.
    pub(crate) fn widths(&self) -> (u32, u32) {
        (self.n_head.saturating_mul(self.head_dim), self.n_head_kv.saturating_mul(self.head_dim))
    }
}

/// The key of the epsilon in most architectures.
pub(crate) const RMS_EPS: &str = "attention.layer_norm_rms_epsilon";

/// A decoder of this kind.
pub(crate) struct Gated<'a> {
    pub(crate) shape: Shape,
    pub(crate) names: Names,
    /// Rotary positions of every layer, until a family changes that.
    pub(crate) rope: Rope,
    pub(crate) act: Activation,
    /// Whether the embedding matrix is the head.
    pub(crate) tied: bool,
    /// Whether a part (`self_attn.q_proj`, `ffn_up`, ...) has a bias.
    pub(crate) biased: &'a dyn Fn(&str) -> bool,
}

impl Gated<'_> {
    /// The name of a part's weights in layer `layer`.
    pub(crate) fn name(&self, layer: u32, part: &str) -> String {
        format!("{}.{layer}.{part}.weight", self.names.layer)
    }

    /// A projection.
    pub(crate) fn linear(&self, layer: u32, part: &str, rows: u32, cols: u32) -> Linear {
        let bias = (self.biased)(part).then(|| format!("{}.{layer}.{part}.bias", self.names.layer));
        Linear::new(self.name(layer, part), rows, cols).with_bias(bias)
    }

    /// A norm of the stream.
    pub(crate) fn norm(&self, layer: u32, part: &str) -> Norm {
        Norm::rms(self.name(layer, part), self.shape.n_embd, self.shape.eps)
    }

    /// A gated feed-forward part with its own names and width.
    pub(crate) fn ffn(&self, layer: u32, [gate, up, down]: [&str; 3], n_ff: u32) -> GatedFfn {
        let n_embd = self.shape.n_embd;
        GatedFfn {
            act: self.act,
            gate: self.linear(layer, gate, n_ff, n_embd),
            up: self.linear(layer, up, n_ff, n_embd),
            down: self.linear(layer, down, n_embd, n_ff),
        }
    }

    /// Norms of each query and key head, with weights that all heads share.
    pub(crate) fn head_norms(&self, layer: u32, attn: &mut Attention) {
        let norm = |part| {
            let norm = Norm::rms(self.name(layer, part), self.shape.head_dim, self.shape.eps);
            Some(QkNorm { norm, over: Over::Head })
        };
        (attn.q_norm, attn.k_norm) = (norm(self.names.q_norm), norm(self.names.k_norm));
    }

    /// Norms of all query heads together, and of all key heads.
    pub(crate) fn projection_norms(&self, layer: u32, attn: &mut Attention) {
        let norm = |part, len| {
            let norm = Norm::rms(self.name(layer, part), len, self.shape.eps);
            Some(QkNorm { norm, over: Over::Projection })
        };
        let (q, k) = self.shape.widths();
        (attn.q_norm, attn.k_norm) = (norm(self.names.q_norm, q), norm(self.names.k_norm, k));
    }

    fn layer(&self, layer: u32) -> Layer {
        let (names, shape) = (&self.names, &self.shape);
        let (q, kv) = shape.widths();
        let projections = [
            self.linear(layer, names.q, q, shape.n_embd),
            self.linear(layer, names.k, kv, shape.n_embd),
            self.linear(layer, names.v, kv, shape.n_embd),
            self.linear(layer, names.o, shape.n_embd, q),
        ];
        let attn = Attention::new(shape.n_head, shape.n_head_kv, shape.head_dim, projections, Some(self.rope.clone()));
        let ffn = self.ffn(layer, [names.gate, names.up, names.down], shape.n_ff);
        Layer::new(self.norm(layer, names.attn_norm), attn, self.norm(layer, names.ffn_norm), Ffn::Gated(ffn))
    }

    /// Llama's computation; `change` makes each layer the family's.
    pub(crate) fn decoder(&self, change: impl Fn(u32, &mut Layer)) -> Decoder {
        let (names, shape) = (&self.names, &self.shape);
        let made = |number| {
            let mut layer = self.layer(number);
            change(number, &mut layer);
            layer
        };
        Decoder::new(
            Matrix::whole(names.token_embd, shape.n_vocab, shape.n_embd),
            shape.n_ctx,
            (0..shape.n_layer).map(made).collect(),
            Norm::rms(names.output_norm, shape.n_embd, shape.eps),
            Linear::new(if self.tied { names.token_embd } else { names.output }, shape.n_vocab, shape.n_embd),
        )
    }

    /// Experts of a file: one tensor for all of a kind.
    pub(crate) fn stacked_experts(&self, layer: u32, shares: Shares, mixture: Mixture) -> Experts {
        let Mixture { count, used, n_ff } = mixture;
        let n_embd = self.shape.n_embd;
        let stacked = |part, rows, cols| Matrix::whole(self.name(layer, part), rows, cols).stacked(count);
        Experts {
            n_expert: count,
            used,
            router: self.linear(layer, "ffn_gate_inp", count, n_embd),
            shares,
            act: self.act,
            gate: stacked("ffn_gate_exps", n_ff, n_embd),
            up: stacked("ffn_up_exps", n_ff, n_embd),
            down: stacked("ffn_down_exps", n_embd, n_ff),
            shared: None,
        }
    }

    /// Experts of a checkpoint below `block`: each with tensors of its own, called as `parts` says (gate, up, down), or as transformers 5
    /// stores them, gate and up of all in one tensor.
    pub(crate) fn experts(
        &self,
        layer: u32,
        (block, parts): (&str, [&str; 3]),
        shares: Shares,
        mixture: Mixture,
        has: &dyn Fn(&str) -> bool,
    ) -> Experts {
        const FUSED: &str = "mlp.experts.gate_up_proj";
        let Mixture { count, used, n_ff } = mixture;
        let n_embd = self.shape.n_embd;
        let name = |part: &str| format!("{}.{layer}.{part}", self.names.layer);
        let fused = has(&name(FUSED));
        let one =
            |part: usize, rows, cols| Matrix::whole(name(&format!("{block}.experts.{{}}.{}.weight", parts[part])), rows, cols);
        let two_ff = n_ff.saturating_mul(2);
        let half = |from: u32| {
            let rows = u64::from(from)..u64::from(from) + u64::from(n_ff);
            Matrix::whole(name(FUSED), two_ff, n_embd).stacked(count).rows([rows])
        };
        let router = if fused { "mlp.gate" } else { &format!("{block}.gate") };
        Experts {
            n_expert: count,
            used,
            router: self.linear(layer, router, count, n_embd),
            shares,
            act: self.act,
            gate: if fused { half(0) } else { one(0, n_ff, n_embd) },
            up: if fused { half(n_ff) } else { one(1, n_ff, n_embd) },
            down: if fused {
                Matrix::whole(name("mlp.experts.down_proj"), n_embd, n_ff).stacked(count)
            } else {
                one(2, n_embd, n_ff)
            },
            shared: None,
        }
    }
}

/// The sizes of a mixture of experts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) count: u32,
    /// Experts that a token uses.
    pub(crate) used: u32,
    /// Width of one.
    pub(crate) n_ff: u32,
}

impl Mixture {
    /// As llama.cpp reads a file of architecture `arch`; `n_ff` is the width where the file does not say it. `None` without experts.
    pub(crate) fn of_gguf(metadata: &Metadata, arch: &str, n_ff: impl Fn(u32) -> u32) -> Result<Option<Self>, DecoderError> {
        let key = |name: &str| format!("{arch}.{name}");
        let count = optional(metadata, &key("expert_count"))?.unwrap_or(0);
        if count == 0 {
            return Ok(None);
        }
        let used = metadata.require::<u32>(&key("expert_used_count"))?;
        if used == 0 || used > count {
            return Err(value(&key("expert_used_count"), &format!("from 1 to expert_count {count}"), used));
        }
        let own = optional(metadata, &key("expert_feed_forward_length"))?.filter(|&own: &u32| own > 0);
        Ok(Some(Mixture { count, used, n_ff: own.unwrap_or_else(|| n_ff(used)) }))
    }
}

/// A key that may be missing.
pub(crate) fn optional<'a, T: FromValue<'a>>(metadata: &'a Metadata, key: &str) -> Result<Option<T>, DecoderError> {
    Ok(metadata.lookup(key)?)
}

/// The error that a key has a value that does not fit.
pub(crate) fn value(key: &str, expected: &str, found: u32) -> DecoderError {
    DecoderError::Value { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string() }
}
