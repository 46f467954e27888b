//! Gemma 1: `general.architecture` = `gemma`.
//!
//! As Llama, with GELU in the gate, embeddings times the root of their width, and norm weights stored around 0. Rows are in the
//! checkpoint's order.

use crate::decoder::{Activation, Decoder, DecoderError, Layer, Norm, Rope, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{GGUF, Gated, HF, RMS_EPS, Shape};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams, float};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign, frequencies, sizes};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Gemma;

static ABOUT: About = About {
    name: "gemma",
    classes: &[Class::of("GemmaForCausalLM", "gemma")],
    defaults: &[Defaults {
        model_type: "gemma",
        json: r#"{"vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": null, "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
            "attention_bias": false, "tie_word_embeddings": true}"#,
    }],
    keys: Keys {
        used: text_keys!("attention_bias"),
        // transformers goes by hidden_act alone.
        irrelevant: &["hidden_activation"],
    },
    table: &TABLE,
    file_keys: FILE_KEYS,
};

/// What llama.cpp reads of a Gemma's section besides the common keys.
const FILE_KEYS: &[FileKey] = &[FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32)];

/// Why a head of its own is left out.
pub(crate) const TIED: &str = "the head: the engine uses the embedding";

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
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]).rows(Rows::PlusOne),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[("lm_head.weight", TIED)],
};

impl Family for Gemma {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Gemma, hparams(ABOUT.name, &params), assigned);
        Ok(model.warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let exact = config.opt_str("hidden_act")? == Some("gelu");
        let act = if exact { Activation::GeluErf } else { Activation::GeluTanh };
        let rope = params.rope.transformers(params.head_dim, params.n_ctx)?;
        Ok(plus_one(of_params(&params, rope, act).decoder(|_, _| {})))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let _ = has;
        let gated = of_file(ABOUT.name, metadata)?;
        Ok(scaled(gated.decoder(|_, _| {})))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        config.insert("hidden_act".to_owned(), "gelu_pytorch_tanh".into());
        config.insert("head_dim".to_owned(), keys.head_dim()?.into());
        config.insert("attention_bias".to_owned(), false.into());
        Ok(config)
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    // Published configs name the exact GELU; the models were trained with its approximation, and the engine computes that.
    let expected = "gelu_pytorch_tanh: the engine computes nothing else in this architecture";
    hparams::check_activation(config, "hidden_act", &["gelu_pytorch_tanh", "gelu"], expected)?;
    check(config)?;
    TextParams::read(config, Reads::Plain)
}

/// A Gemma's decoder, as transformers computes it, but for what is the family's own. Without norms: see [`plus_one`].
pub(crate) fn of_params(params: &TextParams, rope: Rope, act: Activation) -> Gated<'static> {
    Gated { shape: Shape::of_params(params), names: HF, rope, act, tied: true, biased: &|_| false }
}

/// A Gemma's decoder, as llama.cpp computes a file of architecture `arch`, but for what is the family's own.
pub(crate) fn of_file(arch: &str, metadata: &Metadata) -> Result<Gated<'static>, DecoderError> {
    let shape = Shape::of_gguf(metadata, arch, RMS_EPS)?;
    let rope = frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Halves, None)?;
    Ok(Gated { shape, names: GGUF, rope, act: Activation::GeluTanh, tied: true, biased: &|_| false })
}

/// Embeddings times the root of their width.
pub(crate) fn scaled(decoder: Decoder) -> Decoder {
    Decoder { embd_scale: Some((decoder.n_embd as f32).sqrt()), ..decoder }
}

/// Checkpoints store norm weights around 0: all of them get one added, those of heads too.
pub(crate) fn plus_one(mut decoder: Decoder) -> Decoder {
    fn norms(layer: &mut Layer) -> impl Iterator<Item = &mut Norm> {
        let around = [&mut layer.attn_norm, &mut layer.attn_post_norm, &mut layer.ffn_norm, &mut layer.ffn_post_norm];
        let heads = [&mut layer.attn.q_norm, &mut layer.attn.k_norm].into_iter().flatten().map(|norm| &mut norm.norm);
        around.into_iter().flatten().chain(heads)
    }
    decoder.layers.iter_mut().flat_map(norms).for_each(|norm| norm.plus_one = true);
    decoder.output_norm.plus_one = true;
    scaled(decoder)
}

/// Settings that the engine knows one value of in all Gemmas.
pub(crate) fn check(config: &Config) -> Result<(), ArchError> {
    hparams::check_flag(config, "attention_bias", false)?;
    hparams::check_flag(config, "tie_word_embeddings", true)
}

/// The keys of Gemma 1 and 2, up to and including the place of `general.file_type`. The reference converter leaves out those of rotary
/// positions: they are here where the engine would take something else.
pub(crate) fn hparams(arch: &str, params: &TextParams) -> Vec<Hparam> {
    let mut keys = vec![
        ("context_length", params.n_ctx.into()),
        ("embedding_length", params.n_embd.into()),
        ("block_count", params.n_layer.into()),
        ("feed_forward_length", params.n_ff.into()),
        ("attention.head_count", params.n_head.into()),
        ("attention.head_count_kv", params.n_head_kv.into()),
        ("attention.layer_norm_rms_epsilon", float(params.rms_eps.unwrap_or_default())),
        ("attention.key_length", params.head_dim.into()),
        ("attention.value_length", params.head_dim.into()),
    ];
    keys.extend(sizes::own_rope(&params.rope));
    let mut hparams = sizes::section(arch, keys);
    hparams.push(Hparam::FileType);
    hparams
}
