//! Qwen 1.5, 2 and 2.5, dense: `general.architecture` = `qwen2`.
//!
//! As Llama, with biases on queries, keys and values, and rows in the checkpoint's order: the engine rotates halves here.

use crate::decoder::{Activation, Decoder, DecoderError, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{GGUF, Gated, HF, RMS_EPS, Shape};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Need, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, frequencies};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Qwen2;

static ABOUT: About = About {
    name: "qwen2",
    classes: &[
        Class::of("Qwen2ForCausalLM", "qwen2"),
        Class::bare("Qwen2Model", "qwen2"),
        Class::of(KORMO, "kormo"),
        Class::of("DotsOCRForCausalLM", "dots_ocr").wrapping("qwen2"),
        Class::of("Qwen2AudioForConditionalGeneration", "qwen2_audio").wrapping("qwen2"),
        Class::of("AudioFlamingo3ForConditionalGeneration", "audioflamingo3").wrapping("qwen2"),
    ],
    defaults: &[Defaults {
        model_type: "qwen2",
        json: r#"{"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null, "use_sliding_window": false,
            "sliding_window": 4096, "max_window_layers": 28, "layer_types": null, "tie_word_embeddings": false}"#,
    }],
    keys: Keys { used: text_keys!("layer_types", "max_window_layers", "sliding_window", "use_sliding_window"), irrelevant: &[] },
    table: &TABLE,
    file_keys: &[FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32)],
};

/// A class of the same computation without biases, with names of its own for the norms.
const KORMO: &str = "KORMoForCausalLM";

/// Queries, keys and values have biases in all classes but one.
const BIAS: Need = Need::When(|config, _| Ok(config.class().name != KORMO), "Qwen 2 has biases");

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]).need(BIAS),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]).need(BIAS),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]).need(BIAS),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        // KORMo's names.
        row("model.layers.{}.pre_attention_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.pre_mlp_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for Qwen2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let model =
            Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::SentencePieceOrBpe, params.hparams(ABOUT.name), assigned);
        Ok(model.warn(engine_warnings(config, &params)?))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        if config.class().name == KORMO {
            let why = "its code is not part of transformers";
            return Err(DecoderError::Unsupported { what: KORMO.to_owned(), why });
        }
        let params = read(config)?;
        let windows = windows(config, params.n_layer)?;
        let gated =
            of_params(config, &params, &|part| ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&part))?;
        Ok(gated.decoder(|number, layer| layer.attn.window = windows[number as usize]))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        Ok(of_file(ABOUT.name, metadata, &biased, has)?.decoder(|_, _| {}))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        config.insert("use_sliding_window".to_owned(), false.into());
        Ok(config)
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    TextParams::read(config, Reads::Plain)
}

/// A Qwen's decoder, as transformers computes it, but for what is the family's own.
pub(crate) fn of_params<'a>(
    config: &Config,
    params: &TextParams,
    biased: &'a dyn Fn(&str) -> bool,
) -> Result<Gated<'a>, DecoderError> {
    Ok(Gated {
        shape: Shape::of_params(params),
        names: HF,
        rope: params.rope.transformers(params.head_dim, params.n_ctx)?,
        act: Activation::Silu,
        tied: config.opt_bool("tie_word_embeddings")?.unwrap_or(false),
        biased,
    })
}

/// A Qwen's decoder, as llama.cpp computes a file of architecture `arch`, but for what is the family's own.
pub(crate) fn of_file<'a>(
    arch: &str,
    metadata: &Metadata,
    biased: &'a dyn Fn(&str) -> bool,
    has: &dyn Fn(&str) -> bool,
) -> Result<Gated<'a>, DecoderError> {
    let shape = Shape::of_gguf(metadata, arch, RMS_EPS)?.whole_heads(arch)?;
    let rope = frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Halves, None)?;
    Ok(Gated { shape, names: GGUF, rope, act: Activation::Silu, tied: !has(GGUF.output), biased })
}

/// What the Qwens do and the engine, given their files, does not.
pub(crate) fn engine_warnings(config: &Config, params: &TextParams) -> Result<Vec<String>, ArchError> {
    let mut warnings = params.rope.engine_warnings();
    if let Some(window) = window(config)?.filter(|&window| window < params.n_ctx) {
        warnings.push(format!(
            "sliding_window = {window}: in this architecture the engine attends to the whole context of {} tokens",
            params.n_ctx
        ));
    }
    Ok(warnings)
}

/// The window of each layer of a dense Qwen: where `layer_types` does not say it, layers from `max_window_layers` on have it.
pub(crate) fn windows(config: &Config, n_layer: u32) -> Result<Vec<Option<u32>>, ArchError> {
    let window = window(config)?;
    let first = config.opt_u32("max_window_layers")?.unwrap_or(0);
    let windowed = hparams::windowed_layers(config, n_layer, |layer| layer >= first)?;
    Ok(windowed.into_iter().map(|windowed| window.filter(|_| windowed)).collect())
}

/// The window of the layers that have one.
pub(crate) fn window(config: &Config) -> Result<Option<u32>, ArchError> {
    if config.opt_bool("use_sliding_window")?.unwrap_or(false) { config.opt_u32("sliding_window") } else { Ok(None) }
}
