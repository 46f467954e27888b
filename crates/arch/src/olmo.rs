//! OLMo 1: `general.architecture` = `olmo`. As Llama, with layer norms that have no weights, and clipped queries, keys and values.

use crate::decoder::{Activation, Decoder, DecoderError, Norm, NormKind, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{GGUF, Gated, HF, Shape};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams, float};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, frequencies};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Olmo;

static ABOUT: About = About {
    name: "olmo",
    classes: &[Class::of("OlmoForCausalLM", "olmo")],
    defaults: &[Defaults {
        model_type: "olmo",
        json: r#"{"vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 2048,
            "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "clip_qkv": null,
            "tie_word_embeddings": false}"#,
    }],
    keys: Keys { used: text_keys!("attention_bias", "clip_qkv"), irrelevant: &[] },
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_epsilon", KeyType::F32),
        FileKey::optional("attention.clamp_kqv", KeyType::F32),
    ],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]).rows(Rows::PairsQ),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]).rows(Rows::PairsK),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

/// transformers' `OlmoLayerNorm` has it in its code.
const EPS: f64 = 1e-5;

impl Family for Olmo {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let mut hparams = params.hparams(ABOUT.name);
        hparams.push(hparams::set(ABOUT.name, "attention.layer_norm_epsilon", float(EPS)));
        if let Some(clip) = config.opt_f64("clip_qkv")? {
            hparams.push(hparams::set(ABOUT.name, "attention.clamp_kqv", float(clip)));
        }
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let clip = config.opt_f64("clip_qkv")?.map(|clip| clip as f32);
        let gated = Gated {
            shape: Shape { eps: EPS as f32, ..Shape::of_params(&params) },
            names: HF,
            rope: params.rope.transformers(params.head_dim, params.n_ctx)?,
            act: Activation::Silu,
            tied: config.opt_bool("tie_word_embeddings")?.unwrap_or(false),
            biased: &|_| false,
        };
        Ok(bare(&gated, clip))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let shape = Shape::of_gguf(metadata, arch, "attention.layer_norm_epsilon")?.whole_heads(arch)?;
        let clip = metadata.lookup::<f32>(&format!("{arch}.attention.clamp_kqv"))?.filter(|&clip| clip > 0.0);
        let rope = frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Pairs, None)?;
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = Gated { shape, names: GGUF, rope, act: Activation::Silu, tied: !has(GGUF.output), biased: &biased };
        Ok(bare(&gated, clip))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        config.insert("attention_bias".to_owned(), false.into());
        config.insert("clip_qkv".to_owned(), keys.opt_float("attention.clamp_kqv")?.unwrap_or(Json::Null));
        Ok(config)
    }
}

/// With layer norms that have no weights.
fn bare(gated: &Gated<'_>, clip: Option<f32>) -> Decoder {
    let norm = || Norm::bare(NormKind::Layer, gated.shape.eps);
    let decoder = gated.decoder(|_, layer| {
        (layer.attn_norm, layer.ffn_norm) = (Some(norm()), Some(norm()));
        layer.attn.clip = clip;
    });
    Decoder { output_norm: norm(), ..decoder }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    hparams::check_flag(config, "attention_bias", false)?;
    Ok(TextParams { rms_eps: None, ..TextParams::read(config, Reads::Plain)? })
}
