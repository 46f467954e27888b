//! OLMoE: `general.architecture` = `olmoe`. Experts in every layer, and norms over all query and all key heads together.

use crate::decoder::{Decoder, DecoderError, Ffn, Shares};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::Mixture;
use crate::gated_export::class_of;
use crate::hparams::{self, Experts, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{self, Embd, Ff, Kv, Q, TwoFf, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, qwen2, qwen2moe};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Olmoe;

static ABOUT: About = About {
    name: "olmoe",
    classes: &[Class::of("OlmoeForCausalLM", "olmoe")],
    defaults: &[Defaults {
        model_type: "olmoe",
        json: r#"{"vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
            "num_attention_heads": 16, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "clip_qkv": null,
            "num_experts_per_tok": 8, "num_experts": 64, "norm_topk_prob": false, "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "attention_bias",
            "clip_qkv",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_local_experts"
        ),
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
        row("lm_head.weight", "output.weight", &[Vocab, Embd]),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Q]),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[Kv]),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", &[Dim::Experts, Embd]),
        row("model.layers.{}.mlp.experts.{e}.down_proj.weight", "blk.{}.ffn_down_exps.weight", &[Embd, Ff]),
        row("model.layers.{}.mlp.experts.{e}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.experts.{e}.up_proj.weight", "blk.{}.ffn_up_exps.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", &[Dim::Experts, Embd, Ff]),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", &[Dim::Experts, TwoFf, Embd]).rows(Rows::Half(0)),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", &[Dim::Experts, TwoFf, Embd]).rows(Rows::Half(1)),
    ],
    base: "model.",
    dropped: &[],
};

/// What the reference converter writes, whatever the config says; published models have it.
const EPS: f64 = 1e-5;

impl Family for Olmoe {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        hparams::check_flag(config, "norm_topk_prob", false)?;
        if let Some(clip) = config.opt_f64("clip_qkv")? {
            return Err(config.wrong("clip_qkv", "null: the engine clips nothing in this architecture", &clip.into()));
        }
        let params = read(config)?;
        if params.rms_eps != Some(EPS) {
            return Err(config.wrong("rms_norm_eps", "1e-5", &params.rms_eps.into()));
        }
        if params.n_head_kv != params.n_head {
            let expected = "num_attention_heads: the engine's norm of the keys is as wide as the model";
            return Err(config.wrong("num_key_value_heads", expected, &params.n_head_kv.into()));
        }
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let hparams = params.hparams(ABOUT.name);
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let (shares, clip) = (qwen2moe::shares(config)?, config.opt_f64("clip_qkv")?);
        let used = params.experts.map_or(0, |experts| experts.used);
        let mixture = Mixture { count: params.dims().n_expert, used, n_ff: params.n_ff };
        let gated = qwen2::of_params(config, &params, &|_| false)?;
        Ok(gated.decoder(|number, layer| {
            gated.projection_norms(number, &mut layer.attn);
            layer.attn.clip = clip.map(|clip| clip as f32);
            layer.ffn = Ffn::Experts(Box::new(gated.experts(number, qwen2moe::EXPERTS, shares, mixture, has)));
        }))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = qwen2::of_file(ABOUT.name, metadata, &biased, has)?;
        let mixture = Mixture { n_ff: gated.shape.n_ff, ..qwen2moe::mixture_of_gguf(ABOUT.name, metadata, &gated)? };
        Ok(gated.decoder(|number, layer| {
            gated.projection_norms(number, &mut layer.attn);
            layer.ffn = Ffn::Experts(Box::new(gated.stacked_experts(number, Shares::OfAll, mixture)));
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
        config.insert("norm_topk_prob".to_owned(), false.into());
        config.insert("attention_bias".to_owned(), false.into());
        config.insert("clip_qkv".to_owned(), Json::Null);
        Ok(config)
    }
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    for key in ["attention_bias", "tie_word_embeddings"] {
        hparams::check_flag(config, key, false)?;
    }
    let mut params = TextParams::read(config, Reads::Plain)?;
    let count = if config.get("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
    params.experts = Some(Experts::read(config, count)?);
    Ok(params)
}
