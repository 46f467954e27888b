//! Gemma 3, text: `general.architecture` = `gemma3`.
//!
//! As Gemma 2, with a norm on each query and key head instead of the soft cap, and a window in all but every sixth layer; layers with
//! a window have rotary frequencies of their own.

use crate::decoder::{Activation, Decoder, DecoderError, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::hparams::{self, TextParams, float, set};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Head, Kv, Q, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, frequencies, gemma, gemma2};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;

/// The family.
pub(crate) struct Gemma3;

static ABOUT: About = About {
    name: "gemma3",
    classes: &[
        Class::of("Gemma3ForCausalLM", "gemma3_text"),
        Class::of("Gemma3ForConditionalGeneration", "gemma3").wrapping("gemma3_text"),
    ],
    defaults: &[Defaults {
        model_type: "gemma3_text",
        json: r#"{"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": null,
            "rope_local_base_freq": 10000.0, "attention_bias": false, "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "layer_types": null, "final_logit_softcapping": null, "attn_logit_softcapping": null,
            "use_bidirectional_attention": false, "tie_word_embeddings": true}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "_sliding_window_pattern",
            "attention_bias",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window",
            "sliding_window_pattern",
            "use_bidirectional_attention",
        ),
        irrelevant: &["cache_implementation"],
    },
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::optional("final_logit_softcapping", KeyType::F32),
        FileKey::optional("attention.sliding_window", KeyType::U32),
        FileKey::optional("rope.freq_base_swa", KeyType::F32),
    ],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]).rows(Rows::PlusOne),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]).rows(Rows::PlusOne),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Head]).rows(Rows::PlusOne),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[Head]).rows(Rows::PlusOne),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", &[Embd]).rows(Rows::PlusOne),
        row("model.layers.{}.pre_feedforward_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]).rows(Rows::PlusOne),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
        row("model.layers.{}.post_feedforward_layernorm.weight", "blk.{}.post_ffw_norm.weight", &[Embd]).rows(Rows::PlusOne),
    ],
    base: "model.",
    dropped: &[("lm_head.weight", gemma::TIED)],
};

/// The number of layers of the 27B model, whose attention the engine scales otherwise.
const LAYERS_OF_27B: u32 = 62;

/// Layers without a window, in the engine's opinion.
const PATTERN: u32 = 6;

impl Family for Gemma3 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let arch = ABOUT.name;
        let params = read(config)?;
        gemma2::check_scale(config, &params, LAYERS_OF_27B)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let mut hparams = params.hparams(arch);
        if let Some(cap) = config.opt_f64("final_logit_softcapping")?.filter(|&cap| cap != 0.0) {
            hparams.push(set(arch, "final_logit_softcapping", float(cap)));
        }
        hparams.push(set(arch, "attention.sliding_window", config.u32("sliding_window")?));
        if config.opt_strings("layer_types")?.is_some() {
            hparams.extend(gemma2::pattern(arch, config, params.n_layer, PATTERN)?);
        }
        Ok(Model::new(arch, params.n_layer, &dims, VocabRoute::Gemma3, hparams, assigned).warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let cap = config.opt_f64("final_logit_softcapping")?.map(|cap| cap as f32);
        let scale = config.f64("query_pre_attn_scalar")?.powf(-0.5) as f32;
        let window = config.opt_u32("sliding_window")?;
        let windowed = hparams::windowed_layers(config, params.n_layer, |layer| (layer + 1) % PATTERN != 0)?;
        let swa = params.rope.unscaled().transformers(params.head_dim, params.n_ctx)?;
        let gated = gemma::of_params(&params, params.rope.transformers(params.head_dim, params.n_ctx)?, Activation::GeluTanh);
        let decoder = gated.decoder(|number, layer| {
            gemma2::post_norms(&gated, number, layer, "pre_feedforward_layernorm");
            gated.head_norms(number, &mut layer.attn);
            layer.attn.scale = scale;
            if windowed[number as usize] {
                (layer.attn.window, layer.attn.rope) = (window, Some(swa.clone()));
            }
        });
        Ok(Decoder { logit_softcap: cap, ..gemma::plus_one(decoder) })
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let key = |name: &str| format!("{arch}.{name}");
        let mut gated = gemma::of_file(arch, metadata)?;
        gated.tied = !has(gated.names.output);
        let cap = metadata.lookup::<f32>(&key("final_logit_softcapping"))?.filter(|&cap| cap != 0.0);
        let window = metadata.lookup::<u32>(&key("attention.sliding_window"))?.filter(|&window| window > 0);
        let windowed = frequencies::windowed_layers(metadata, arch, gated.shape.n_layer, PATTERN)?;
        let theta = metadata.lookup::<f32>(&key("rope.freq_base_swa"))?.unwrap_or(frequencies::THETA);
        let swa = frequencies::unscaled(theta.into(), gated.shape.n_rot, RopeLayout::Halves);
        let scale = gemma2::scale(&gated.shape, LAYERS_OF_27B);
        let decoder = gated.decoder(|number, layer| {
            gemma2::post_norms(&gated, number, layer, gated.names.ffn_norm);
            gated.head_norms(number, &mut layer.attn);
            layer.attn.scale = scale;
            if window.is_some() && windowed[number as usize] {
                (layer.attn.window, layer.attn.rope) = (window, Some(swa.clone()));
            }
        });
        Ok(Decoder { logit_softcap: cap, ..gemma::scaled(decoder) })
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    gemma2::check_activation(config)?;
    gemma::check(config)?;
    hparams::check_flag(config, "use_bidirectional_attention", false)?;
    if let Some(cap) = config.opt_f64("attn_logit_softcapping")? {
        return Err(config.wrong(
            "attn_logit_softcapping",
            "null: the engine has no soft cap on attention in this architecture",
            &cap.into(),
        ));
    }
    if config.class().text.is_some()
        && let Some(cap) = config.opt_f64("final_logit_softcapping")?
    {
        let expected = "null: in a model that sees pictures transformers caps no logits, the engine would";
        return Err(config.wrong("final_logit_softcapping", expected, &cap.into()));
    }
    if config.opt_strings("layer_types")?.is_none() {
        for key in ["sliding_window_pattern", "_sliding_window_pattern"] {
            if let Some(pattern) = config.opt_u32(key)?.filter(|&pattern| pattern != PATTERN) {
                return Err(config.wrong(key, "6 (or say which layers have a window in layer_types)", &pattern.into()));
            }
        }
    }
    TextParams::read(config, Reads::ByLayer)
}
