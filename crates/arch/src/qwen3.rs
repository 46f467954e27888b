//! Qwen 3, dense: `general.architecture` = `qwen3`. As Qwen 2, with a norm on each query and key head instead of biases.

use crate::decoder::{Decoder, DecoderError};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Head, Kv, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, qwen2};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Qwen3;

static ABOUT: About = About {
    name: "qwen3",
    classes: &[Class::of("Qwen3ForCausalLM", "qwen3"), Class::bare("Qwen3Model", "qwen3")],
    defaults: &[Defaults {
        model_type: "qwen3",
        json: r#"{"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "hidden_act": "silu",
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
            "attention_bias": false, "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28,
            "layer_types": null, "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!("attention_bias", "layer_types", "max_window_layers", "sliding_window", "use_sliding_window"),
        irrelevant: &[],
    },
    table: &TABLE,
    file_keys: &[FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32)],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Head]),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[Head]),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for Qwen3 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let hparams = params.hparams(ABOUT.name);
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::SentencePieceOrBpe, hparams, assigned);
        Ok(model.warn(qwen2::engine_warnings(config, &params)?))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let windows = qwen2::windows(config, params.n_layer)?;
        let gated = qwen2::of_params(config, &params, &|_| false)?;
        Ok(gated.decoder(|number, layer| {
            gated.head_norms(number, &mut layer.attn);
            layer.attn.window = windows[number as usize];
        }))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = qwen2::of_file(ABOUT.name, metadata, &biased, has)?;
        Ok(gated.decoder(|number, layer| gated.head_norms(number, &mut layer.attn)))
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
        config.insert("attention_bias".to_owned(), false.into());
        Ok(config)
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    hparams::check_flag(config, "attention_bias", false)?;
    TextParams::read(config, Reads::Plain)
}
