//! Gemma 2: `general.architecture` = `gemma2`.
//!
//! As Gemma 1, with norms behind attention and feed-forward, too, soft caps on attention scores and logits, and a window in every
//! second layer.

use crate::decoder::{Activation, Decoder, DecoderError, Layer};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{Gated, Shape};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams, float, set};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign, frequencies, gemma};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Gemma2;

static ABOUT: About = About {
    name: "gemma2",
    classes: &[Class::of("Gemma2ForCausalLM", "gemma2")],
    defaults: &[Defaults {
        model_type: "gemma2",
        json: r#"{"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "attention_bias": false,
            "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": null, "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0, "tie_word_embeddings": true}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "attention_bias",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "sliding_window",
        ),
        irrelevant: &["cache_implementation", "sliding_window_size"],
    },
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::optional("attn_logit_softcapping", KeyType::F32),
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
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
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
const LAYERS_OF_27B: u32 = 46;

/// Where layers have windows, in the engine's opinion.
const PATTERN: u32 = 2;

impl Family for Gemma2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let arch = ABOUT.name;
        let params = read(config)?;
        check_scale(config, &params, LAYERS_OF_27B)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let mut hparams = gemma::hparams(arch, &params);
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            hparams.push(set(arch, key, float(config.f64(key)?)));
        }
        hparams.push(set(arch, "attention.sliding_window", config.u32("sliding_window")?));
        hparams.extend(pattern(arch, config, params.n_layer, PATTERN)?);
        Ok(Model::new(arch, params.n_layer, &dims, VocabRoute::Gemma2, hparams, assigned).warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let number = |key| Ok::<_, ArchError>(config.opt_f64(key)?.map(|value| value as f32));
        let (attn_cap, cap) = (number("attn_logit_softcapping")?, number("final_logit_softcapping")?);
        let scale = config.f64("query_pre_attn_scalar")?.powf(-0.5) as f32;
        let window = config.opt_u32("sliding_window")?;
        let windowed = hparams::windowed_layers(config, params.n_layer, |layer| (layer + 1) % PATTERN != 0)?;
        let gated = gemma::of_params(&params, params.rope.transformers(params.head_dim, params.n_ctx)?, Activation::GeluTanh);
        let decoder = gated.decoder(|number, layer| {
            // transformers calls the norms in front of and behind the feed-forward part otherwise than Llama's.
            post_norms(&gated, number, layer, "pre_feedforward_layernorm");
            let attn = &mut layer.attn;
            (attn.scale, attn.softcap, attn.window) = (scale, attn_cap, window.filter(|_| windowed[number as usize]));
        });
        Ok(Decoder { logit_softcap: cap, ..gemma::plus_one(decoder) })
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let _ = has;
        let arch = ABOUT.name;
        let key = |name: &str| format!("{arch}.{name}");
        let gated = gemma::of_file(arch, metadata)?;
        let attn_cap = metadata.lookup::<f32>(&key("attn_logit_softcapping"))?.unwrap_or(ATTN_CAP);
        let cap = metadata.lookup::<f32>(&key("final_logit_softcapping"))?.unwrap_or(CAP);
        let window = metadata.lookup::<u32>(&key("attention.sliding_window"))?.unwrap_or(WINDOW);
        let windowed = frequencies::windowed_layers(metadata, arch, gated.shape.n_layer, PATTERN)?;
        let swa = match metadata.lookup::<f32>(&key("rope.freq_base_swa"))? {
            Some(theta) => frequencies::llama_cpp_at(metadata, arch, theta, &gated.shape)?,
            None => gated.rope.clone(),
        };
        let scale = scale(&gated.shape, LAYERS_OF_27B);
        let decoder = gated.decoder(|number, layer| {
            post_norms(&gated, number, layer, gated.names.ffn_norm);
            let attn = &mut layer.attn;
            (attn.scale, attn.softcap) = (scale, Some(attn_cap));
            if windowed[number as usize] {
                (attn.window, attn.rope) = (Some(window), Some(swa.clone()));
            }
        });
        Ok(Decoder { logit_softcap: Some(cap), ..gemma::scaled(decoder) })
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        config.remove("hidden_act");
        let (head_dim, n_layer) = (keys.head_dim()?, keys.u32("block_count")?);
        let (n_embd, n_head) = (keys.u32("embedding_length")?, keys.u32("attention.head_count")?);
        let scalar = if n_layer == LAYERS_OF_27B { n_embd.checked_div(n_head).unwrap_or(head_dim) } else { head_dim };
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("hidden_activation", "gelu_pytorch_tanh".into());
        set("head_dim", head_dim.into());
        set("attention_bias", false.into());
        set("query_pre_attn_scalar", scalar.into());
        set("attn_logit_softcapping", keys.opt_float("attn_logit_softcapping")?.unwrap_or_else(|| ATTN_CAP.into()));
        set("final_logit_softcapping", keys.opt_float("final_logit_softcapping")?.unwrap_or_else(|| CAP.into()));
        set("sliding_window", keys.opt_u32("attention.sliding_window")?.unwrap_or(WINDOW).into());
        if let Some(types) = keys.layer_types() {
            set("layer_types", types);
        }
        Ok(config)
    }
}

/// What llama.cpp takes where a file does not say it.
const ATTN_CAP: f32 = 50.0;
const CAP: f32 = 30.0;
const WINDOW: u32 = 4096;

/// Norms behind both parts; `ffn_norm` is the one in front of the feed-forward part.
pub(crate) fn post_norms(gated: &Gated<'_>, number: u32, layer: &mut Layer, ffn_norm: &str) {
    layer.attn_post_norm = Some(gated.norm(number, gated.names.attn_post_norm));
    layer.ffn_norm = Some(gated.norm(number, ffn_norm));
    layer.ffn_post_norm = Some(gated.norm(number, gated.names.ffn_post_norm));
}

/// What llama.cpp multiplies attention scores by; it knows the 27B model by its number of layers.
pub(crate) fn scale(shape: &Shape, layers_of_27b: u32) -> f32 {
    let size = if shape.n_layer == layers_of_27b { shape.n_embd / shape.n_head } else { shape.head_dim };
    1.0 / (size as f32).sqrt()
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    check_activation(config)?;
    gemma::check(config)?;
    TextParams::read(config, Reads::Plain)
}

/// Gemma 2 and 3 compute nothing but the approximated GELU.
pub(crate) fn check_activation(config: &Config) -> Result<(), ArchError> {
    let expected = "gelu_pytorch_tanh: the engine computes nothing else in this architecture";
    hparams::check_activation(config, "hidden_activation", &["gelu_pytorch_tanh"], expected)
}

/// The file has no key for the scale of attention scores: the engine takes the size of a head, and in the 27B model, which it knows
/// by the number of layers, what a head's size would be by the width of the stream.
pub(crate) fn check_scale(config: &Config, params: &TextParams, layers_of_27b: u32) -> Result<(), ArchError> {
    const KEY: &str = "query_pre_attn_scalar";
    const EXPECTED: &str =
        "head_dim (hidden_size / num_attention_heads in the 27B model): the engine scales attention by nothing else";
    let scalar = config.f64(KEY)?;
    let known = if params.n_layer == layers_of_27b { params.n_embd / params.n_head } else { params.head_dim };
    if scalar == f64::from(known) { Ok(()) } else { Err(config.wrong(KEY, EXPECTED, &scalar.into())) }
}

/// Which layers have a window, where that is not what the engine takes for granted: all but every `known`-th.
pub(crate) fn pattern(arch: &str, config: &Config, n_layer: u32, known: u32) -> Result<Option<Hparam>, ArchError> {
    let usual = |layer: u32| !(layer + 1).is_multiple_of(known);
    let layers = hparams::windowed_layers(config, n_layer, usual)?;
    let differs = (0..n_layer).zip(&layers).any(|(layer, &windowed)| windowed != usual(layer));
    Ok(differs.then(|| Hparam::Set(format!("{arch}.attention.sliding_window_pattern"), layers.into())))
}
