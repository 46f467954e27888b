//! Qwen 3 with experts: `general.architecture` = `qwen3moe`. No shared expert; a norm on each query and key head.

use crate::decoder::{Decoder, DecoderError, Ffn, Shares};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated_export::class_of;
use crate::hparams;
use crate::keys::text_keys;
use crate::tensors::Dim::{self, Embd, ExpertFf, Head, Kv, Q, TwoExpertFf, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, qwen2, qwen2moe};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Qwen3Moe;

static ABOUT: About = About {
    name: "qwen3moe",
    classes: &[Class::of("Qwen3MoeForCausalLM", "qwen3_moe")],
    defaults: &[Defaults {
        model_type: "qwen3_moe",
        json: r#"{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
            "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false,
            "use_sliding_window": false, "sliding_window": 4096, "decoder_sparse_step": 1, "moe_intermediate_size": 768,
            "num_experts_per_tok": 8, "num_experts": 128, "norm_topk_prob": false, "mlp_only_layers": null,
            "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "attention_bias",
            "decoder_sparse_step",
            "layer_types",
            "max_window_layers",
            "mlp_only_layers",
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_local_experts",
            "sliding_window",
            "use_sliding_window",
        ),
        irrelevant: &[],
    },
    table: &TABLE,
    file_keys: qwen2moe::FILE_KEYS,
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
        row("model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", &[Dim::Experts, Embd]),
        row("model.layers.{}.mlp.experts.{e}.down_proj.weight", "blk.{}.ffn_down_exps.weight", &[Embd, ExpertFf]),
        row("model.layers.{}.mlp.experts.{e}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight", &[ExpertFf, Embd]),
        row("model.layers.{}.mlp.experts.{e}.up_proj.weight", "blk.{}.ffn_up_exps.weight", &[ExpertFf, Embd]),
        row("model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", &[Dim::Experts, Embd, ExpertFf]),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", &[Dim::Experts, TwoExpertFf, Embd]).rows(Rows::Half(0)),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", &[Dim::Experts, TwoExpertFf, Embd]).rows(Rows::Half(1)),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for Qwen3Moe {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        hparams::check_flag(config, "norm_topk_prob", true)?;
        hparams::check_flag(config, "attention_bias", false)?;
        let (params, dims) = qwen2moe::read(config)?;
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let hparams = qwen2moe::hparams(ABOUT.name, &params, &dims);
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(qwen2::engine_warnings(config, &params)?))
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        hparams::check_flag(config, "attention_bias", false)?;
        let (params, dims) = qwen2moe::read(config)?;
        let (window, shares) = (qwen2::window(config)?, qwen2moe::shares(config)?);
        let mixture = qwen2moe::mixture(&params, &dims);
        let gated = qwen2::of_params(config, &params, &|_| false)?;
        Ok(gated.decoder(|number, layer| {
            gated.head_norms(number, &mut layer.attn);
            layer.attn.window = window;
            layer.ffn = Ffn::Experts(Box::new(gated.experts(number, qwen2moe::EXPERTS, shares, mixture, has)));
        }))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = qwen2::of_file(ABOUT.name, metadata, &biased, has)?;
        let mixture = qwen2moe::mixture_of_gguf(ABOUT.name, metadata, &gated)?;
        Ok(gated.decoder(|number, layer| {
            gated.head_norms(number, &mut layer.attn);
            layer.ffn = Ffn::Experts(Box::new(gated.stacked_experts(number, Shares::OfUsed, mixture)));
        }))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        keys.experts("num_experts", &mut config)?;
        config.insert("moe_intermediate_size".to_owned(), keys.u32("expert_feed_forward_length")?.into());
        config.insert("norm_topk_prob".to_owned(), true.into());
        config.insert("use_sliding_window".to_owned(), false.into());
        config.insert("attention_bias".to_owned(), false.into());
        config.insert("decoder_sparse_step".to_owned(), 1.into());
        config.insert("mlp_only_layers".to_owned(), Json::Array(Vec::new()));
        Ok(config)
    }
}
