//! How a Llama computes, on either side.

use super::{ARCH, read};
use crate::decoder::{
    Activation, Attention, Decoder, DecoderError, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Rope, RopeLayout,
};
use crate::{ArchError, Config, frequencies};
use ggufsmith_gguf::{FromValue, Metadata};

/// The sizes of a model.
struct Sizes {
    n_layer: u32,
    n_embd: u32,
    n_ff: u32,
    n_head: u32,
    n_head_kv: u32,
    head_dim: u32,
    n_vocab: u32,
    n_ctx_train: u32,
    eps: f32,
}

/// How a side calls its tensors: the parts of a layer, as in `HF_PARTS`.
struct Names<'a> {
    token_embd: &'a str,
    output_norm: &'a str,
    /// The head, or the embedding matrix where they are tied.
    output: &'a str,
    layer: &'a str,
    parts: [&'a str; 9],
}

const HF_PARTS: [&str; 9] = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const GGUF_PARTS: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];

/// As transformers' `LlamaForCausalLM` and `MistralForCausalLM` compute a checkpoint with this config.
pub(super) fn of_config(config: &Config) -> Result<Decoder, ArchError> {
    let params = read(config)?;
    let flag = |key| Ok::<_, ArchError>(config.opt_bool(key)?.unwrap_or(false));
    let (attention_bias, mlp_bias) = (flag("attention_bias")?, flag("mlp_bias")?);
    // LlamaForCausalLM knows no window, whatever its config.json says.
    let window = if config.is_filled_as("llama") { None } else { config.opt_u32("sliding_window")? };
    let rope = params.rope.transformers(params.head_dim, params.n_ctx).map_err(|error| match error {
        DecoderError::Config(error) => error,
        other => {
            config.wrong("rope_scaling", "a kind whose frequencies do not depend on the text's length", &other.to_string().into())
        }
    })?;
    let sizes = Sizes {
        n_layer: params.n_layer,
        n_embd: params.n_embd,
        n_ff: params.n_ff,
        n_head: params.n_head,
        n_head_kv: params.n_head_kv,
        head_dim: params.head_dim,
        n_vocab: params.vocab,
        n_ctx_train: params.n_ctx,
        eps: params.rms_eps.unwrap_or_default() as f32,
    };
    let names = Names {
        token_embd: "model.embed_tokens.weight",
        output_norm: "model.norm.weight",
        output: if flag("tie_word_embeddings")? { "model.embed_tokens.weight" } else { "lm_head.weight" },
        layer: "model.layers",
        parts: HF_PARTS,
    };
    Ok(decoder(&sizes, &names, &rope, window, |part| match part {
        part if part.starts_with("self_attn") => attention_bias,
        _ => mlp_bias,
    }))
}

/// As llama.cpp computes a file with this metadata (`src/models/llama.cpp`). `has` says which tensors there are: biases, head and
/// frequency factors are used where they are present.
pub(super) fn of_gguf(metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
    let key = |name: &str| format!("{ARCH}.{name}");
    let positive = |name: &str| match metadata.require::<u32>(&key(name))? {
        0 => Err(value(&key(name), "above 0", 0)),
        n => Ok(n),
    };
    if let Some(n_expert @ 1..) = metadata.lookup::<u32>(&key("expert_count"))? {
        let what = format!("{} = {n_expert}", key("expert_count"));
        return Err(DecoderError::Unsupported { what, why: "a mixture of experts has no forward pass yet" });
    }
    let (n_embd, n_head) = (positive("embedding_length")?, positive("attention.head_count")?);
    let n_head_kv = optional(metadata, &key("attention.head_count_kv"))?.unwrap_or(n_head);
    if n_head_kv == 0 || n_head % n_head_kv != 0 {
        return Err(value(&key("attention.head_count_kv"), &format!("a divisor of head_count {n_head}"), n_head_kv));
    }
    let head_dim = optional(metadata, &key("attention.key_length"))?.unwrap_or(n_embd / n_head);
    let value_dim = optional(metadata, &key("attention.value_length"))?.unwrap_or(n_embd / n_head);
    let rotated = optional(metadata, &key("rope.dimension_count"))?.unwrap_or(head_dim);
    if head_dim == 0 || head_dim % 2 != 0 || head_dim > MAX_HEAD {
        return Err(value(&key("attention.key_length"), &format!("even, above 0 and at most {MAX_HEAD}"), head_dim));
    }
    if value_dim != head_dim {
        return Err(value(&key("attention.value_length"), &format!("key_length, {head_dim}"), value_dim));
    }
    if rotated != head_dim {
        return Err(value(&key("rope.dimension_count"), &format!("the head size {head_dim}"), rotated));
    }
    let n_vocab = match optional(metadata, &key("vocab_size"))? {
        Some(n) => n,
        None => metadata.require::<&[String]>("tokenizer.ggml.tokens")?.len() as u32,
    };
    let n_ctx_train = positive("context_length")?;
    let n_layer = positive("block_count")?;
    if n_layer > MAX_LAYERS {
        return Err(value(&key("block_count"), &format!("at most {MAX_LAYERS}"), n_layer));
    }
    let sizes = Sizes {
        n_layer,
        n_embd,
        n_ff: positive("feed_forward_length")?,
        n_head,
        n_head_kv,
        head_dim,
        n_vocab,
        n_ctx_train,
        eps: metadata.require::<f32>(&key("attention.layer_norm_rms_epsilon"))?,
    };
    let factors = has("rope_freqs.weight").then(|| "rope_freqs.weight".to_owned());
    let rope = frequencies::llama_cpp(metadata, ARCH, head_dim, n_ctx_train, RopeLayout::Pairs, factors)?;
    let names = Names {
        token_embd: "token_embd.weight",
        output_norm: "output_norm.weight",
        output: if has("output.weight") { "output.weight" } else { "token_embd.weight" },
        layer: "blk",
        parts: GGUF_PARTS,
    };
    // The loader asks for each bias by itself; blocks of one model do not differ.
    Ok(decoder(&sizes, &names, &rope, None, |part| has(&format!("blk.0.{part}.bias"))))
}

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u32 = 512;
/// Tables are made by the size of a head before its tensors are looked at; the largest in use is 512.
const MAX_HEAD: u32 = 1 << 16;

fn optional<'a, T: FromValue<'a>>(metadata: &'a Metadata, key: &str) -> Result<Option<T>, DecoderError> {
    Ok(metadata.lookup(key)?)
}

fn value(key: &str, expected: &str, found: u32) -> DecoderError {
    DecoderError::Value { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string() }
}

fn decoder(sizes: &Sizes, names: &Names, rope: &Rope, window: Option<u32>, biased: impl Fn(&str) -> bool) -> Decoder {
    let &Sizes { n_embd, n_ff, n_head, n_head_kv, head_dim, eps, .. } = sizes;
    let (q_rows, kv_rows) = (n_head.saturating_mul(head_dim), n_head_kv.saturating_mul(head_dim));
    let has_bias: [bool; 9] = names.parts.map(&biased);
    let layer = |number: u32| {
        let name = |part: usize, end: &str| format!("{}.{number}.{}.{end}", names.layer, names.parts[part]);
        let norm = |part| Norm::rms(name(part, "weight"), n_embd, eps);
        let linear = |part: usize, rows, cols| {
            let bias = has_bias[part].then(|| name(part, "bias"));
            Linear::new(name(part, "weight"), rows, cols).with_bias(bias)
        };
        let projections =
            [linear(1, q_rows, n_embd), linear(2, kv_rows, n_embd), linear(3, kv_rows, n_embd), linear(4, n_embd, q_rows)];
        let attn = Attention { window, ..Attention::new(n_head, n_head_kv, head_dim, projections, Some(rope.clone())) };
        let (gate, up, down) = (linear(6, n_ff, n_embd), linear(7, n_ff, n_embd), linear(8, n_embd, n_ff));
        Layer::new(norm(0), attn, norm(5), Ffn::Gated(GatedFfn { act: Activation::Silu, gate, up, down }))
    };
    Decoder::new(
        Matrix::whole(names.token_embd, sizes.n_vocab, n_embd),
        sizes.n_ctx_train,
        (0..sizes.n_layer).map(layer).collect(),
        Norm::rms(names.output_norm, n_embd, eps),
        Linear::new(names.output, sizes.n_vocab, n_embd),
    )
}
