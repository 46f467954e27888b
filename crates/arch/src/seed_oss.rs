//! Seed-OSS: `general.architecture` = `seed_oss`. As Qwen 2; the norm in front of the feed-forward part has another name in files.

use crate::decoder::{Decoder, DecoderError};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Need, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, qwen2};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct SeedOss;

static ABOUT: About = About {
    name: "seed_oss",
    classes: &[Class::of("SeedOssForCausalLM", "seed_oss")],
    defaults: &[Defaults {
        model_type: "seed_oss",
        json: r#"{"vocab_size": 155136, "hidden_size": 4096, "intermediate_size": 27648, "num_hidden_layers": 64,
            "num_attention_heads": 80, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
            "max_position_embeddings": 524288, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
            "attention_bias": true, "attention_out_bias": false, "mlp_bias": false, "tie_word_embeddings": false}"#,
    }],
    keys: Keys { used: text_keys!("attention_bias", "attention_out_bias", "mlp_bias"), irrelevant: &["residual_dropout"] },
    table: &TABLE,
    file_keys: &[FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32)],
};

const BIAS: Need = Need::If("attention_bias");

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
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for SeedOss {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, params.hparams(ABOUT.name), assigned);
        Ok(model.warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let bias = config.opt_bool("attention_bias")?.unwrap_or(false);
        let biased = |part: &str| bias && ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&part);
        Ok(qwen2::of_params(config, &params, &biased)?.decoder(|_, _| {}))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = qwen2::of_file(ABOUT.name, metadata, &biased, has)?;
        Ok(gated.decoder(|number, layer| layer.ffn_norm = Some(gated.norm(number, gated.names.attn_post_norm))))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        config.insert("attention_bias".to_owned(), file.has("blk.0.attn_q.bias").into());
        config.insert("attention_out_bias".to_owned(), false.into());
        config.insert("mlp_bias".to_owned(), false.into());
        Ok(config)
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    for key in ["attention_out_bias", "mlp_bias"] {
        hparams::check_flag(config, key, false)?;
    }
    TextParams::read(config, Reads::Plain)
}
