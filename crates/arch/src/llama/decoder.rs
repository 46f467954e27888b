//! How a Llama computes, on either side.

use crate::decoder::{Activation, Decoder, DecoderError, Ffn, RopeLayout, Shares};
use crate::gated::{GGUF, Gated, HF, Mixture, RMS_EPS, Shape};
use crate::hparams::TextParams;
use crate::{Config, frequencies};
use ggufsmith_gguf::Metadata;

/// Mixtral's experts in a checkpoint: gate, up, down.
const EXPERTS: (&str, [&str; 3]) = ("block_sparse_moe", ["w1", "w3", "w2"]);

/// As transformers' Llama, Mistral and Mixtral compute a checkpoint with this config.
pub(crate) fn of_config(config: &Config, params: &TextParams, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
    let flag = |key| Ok::<_, DecoderError>(config.opt_bool(key)?.unwrap_or(false));
    let (attention_bias, mlp_bias) = (flag("attention_bias")?, flag("mlp_bias")?);
    let window = super::window(config)?;
    let gated = Gated {
        shape: Shape::of_params(params),
        names: HF,
        rope: params.rope.transformers(params.head_dim, params.n_ctx)?,
        act: Activation::Silu,
        tied: flag("tie_word_embeddings")?,
        biased: &|part| if part.starts_with("self_attn") { attention_bias } else { mlp_bias },
    };
    Ok(gated.decoder(|number, layer| {
        layer.attn.window = window;
        if let Some(experts) = params.experts {
            let mixture = Mixture { count: experts.count, used: experts.used, n_ff: params.n_ff };
            layer.ffn = Ffn::Experts(Box::new(gated.experts(number, EXPERTS, Shares::OfUsed, mixture, has)));
        }
    }))
}

/// As llama.cpp computes a file of architecture `arch` with this metadata (`src/models/llama.cpp`). `has` says which tensors there are:
/// biases, head and frequency factors are used where they are present.
pub(crate) fn of_gguf(arch: &str, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
    let shape = Shape::of_gguf(metadata, arch, RMS_EPS)?.whole_heads(arch)?;
    let mixture = Mixture::of_gguf(metadata, arch, |_| shape.n_ff)?;
    let factors = has("rope_freqs.weight").then(|| "rope_freqs.weight".to_owned());
    let gated = Gated {
        shape,
        names: GGUF,
        rope: frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Pairs, factors)?,
        act: Activation::Silu,
        tied: !has(GGUF.output),
        // The loader asks for each bias by itself; blocks of one model do not differ.
        biased: &|part| has(&format!("blk.0.{part}.bias")),
    };
    Ok(gated.decoder(|number, layer| {
        if let Some(mixture) = mixture {
            layer.ffn = Ffn::Experts(Box::new(gated.stacked_experts(number, Shares::OfUsed, mixture)));
        }
    }))
}
