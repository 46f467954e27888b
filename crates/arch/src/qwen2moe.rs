//! Qwen 1.5 and 2 with experts: `general.architecture` = `qwen2moe`. Beside the experts all tokens share one, behind a gate of its own.

use crate::decoder::{Decoder, DecoderError, Ffn, SharedExpert, Shares};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{Gated, Mixture};
use crate::gated_export::class_of;
use crate::hparams::{self, Experts, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{self, Embd, ExpertFf, Kv, One, Q, SharedFf, TwoExpertFf, Vocab};
use crate::tensors::{Dims, Need, Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign, qwen2};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Qwen2Moe;

static ABOUT: About = About {
    name: "qwen2moe",
    classes: &[Class::of("Qwen2MoeForCausalLM", "qwen2_moe")],
    defaults: &[Defaults {
        model_type: "qwen2_moe",
        json: r#"{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16, "hidden_act": "silu", "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null, "use_sliding_window": false,
            "sliding_window": 4096, "max_window_layers": 28, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60, "norm_topk_prob": false,
            "mlp_only_layers": null, "qkv_bias": true, "layer_types": null, "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "decoder_sparse_step",
            "layer_types",
            "max_window_layers",
            "mlp_only_layers",
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_local_experts",
            "qkv_bias",
            "shared_expert_intermediate_size",
            "sliding_window",
            "use_sliding_window",
        ),
        irrelevant: &[],
    },
    table: &TABLE,
    file_keys: FILE_KEYS,
};

/// What llama.cpp reads of a Qwen with experts besides the common keys.
pub(crate) const FILE_KEYS: &[FileKey] = &[
    FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
    FileKey::optional("expert_feed_forward_length", KeyType::PerBlock),
    FileKey::optional("expert_shared_feed_forward_length", KeyType::U32),
];

const BIAS: Need = Need::If("qkv_bias");

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]).need(BIAS),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]).need(BIAS),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]).need(BIAS),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", &[Dim::Experts, Embd]),
        row("model.layers.{}.mlp.experts.{e}.down_proj.weight", "blk.{}.ffn_down_exps.weight", &[Embd, ExpertFf]),
        row("model.layers.{}.mlp.experts.{e}.gate_proj.weight", "blk.{}.ffn_gate_exps.weight", &[ExpertFf, Embd]),
        row("model.layers.{}.mlp.experts.{e}.up_proj.weight", "blk.{}.ffn_up_exps.weight", &[ExpertFf, Embd]),
        row("model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", &[Dim::Experts, Embd, ExpertFf]),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", &[Dim::Experts, TwoExpertFf, Embd]).rows(Rows::Half(0)),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", &[Dim::Experts, TwoExpertFf, Embd]).rows(Rows::Half(1)),
        row("model.layers.{}.mlp.shared_expert_gate.weight", "blk.{}.ffn_gate_inp_shexp.weight", &[One, Embd]),
        row("model.layers.{}.mlp.shared_expert.gate_proj.weight", "blk.{}.ffn_gate_shexp.weight", &[SharedFf, Embd]),
        row("model.layers.{}.mlp.shared_expert.up_proj.weight", "blk.{}.ffn_up_shexp.weight", &[SharedFf, Embd]),
        row("model.layers.{}.mlp.shared_expert.down_proj.weight", "blk.{}.ffn_down_shexp.weight", &[Embd, SharedFf]),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for Qwen2Moe {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        hparams::check_flag(config, "norm_topk_prob", false)?;
        hparams::check_flag(config, "tie_word_embeddings", false)?;
        let (params, mut dims) = read(config)?;
        dims.shared_ff = config.positive_u32("shared_expert_intermediate_size")?;
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let mut hparams = hparams(ABOUT.name, &params, &dims);
        hparams.push(hparams::set(ABOUT.name, "expert_shared_feed_forward_length", dims.shared_ff));
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(qwen2::engine_warnings(config, &params)?))
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (params, dims) = read(config)?;
        let n_ff = config.positive_u32("shared_expert_intermediate_size")?;
        let biased = config.opt_bool("qkv_bias")?.unwrap_or(false);
        let window = qwen2::window(config)?;
        let shares = shares(config)?;
        let biased = |part: &str| biased && ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&part);
        let gated = qwen2::of_params(config, &params, &biased)?;
        Ok(gated.decoder(|number, layer| {
            layer.attn.window = window;
            let mut experts = gated.experts(number, EXPERTS, shares, mixture(&params, &dims), has);
            let parts = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"];
            let gate = gated.linear(number, "mlp.shared_expert_gate", 1, params.n_embd);
            experts.shared = Some(SharedExpert { ffn: gated.ffn(number, parts, n_ff), gate: Some(gate) });
            layer.ffn = Ffn::Experts(Box::new(experts));
        }))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = qwen2::of_file(arch, metadata, &biased, has)?;
        let mixture = mixture_of_gguf(arch, metadata, &gated)?;
        let shared = metadata.lookup::<u32>(&format!("{arch}.expert_shared_feed_forward_length"))?.filter(|&n| n > 0);
        let n_ff = shared.unwrap_or(gated.shape.n_ff);
        Ok(gated.decoder(|number, layer| {
            let mut experts = gated.stacked_experts(number, Shares::OfAll, mixture);
            let ffn = gated.ffn(number, ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"], n_ff);
            // A vector in the file's eyes, a matrix of one row in the converter's.
            let gate = gated.linear(number, "ffn_gate_inp_shexp", 1, gated.shape.n_embd);
            experts.shared = Some(SharedExpert { ffn, gate: Some(gate) });
            layer.ffn = Ffn::Experts(Box::new(experts));
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
        config.insert("shared_expert_intermediate_size".to_owned(), keys.u32("expert_shared_feed_forward_length")?.into());
        config.insert("norm_topk_prob".to_owned(), false.into());
        config.insert("use_sliding_window".to_owned(), false.into());
        config.insert("qkv_bias".to_owned(), file.has("blk.0.attn_q.bias").into());
        config.insert("decoder_sparse_step".to_owned(), 1.into());
        config.insert("mlp_only_layers".to_owned(), Json::Array(Vec::new()));
        Ok(config)
    }
}

/// The hyper-parameters of a Qwen with experts in every layer.
pub(crate) fn read(config: &Config) -> Result<(TextParams, Dims), ArchError> {
    hparams::check_silu(config)?;
    let everywhere = "1: the engine expects experts in every layer";
    if let Some(step) = config.opt_u32("decoder_sparse_step")?.filter(|&step| step != 1) {
        return Err(config.wrong("decoder_sparse_step", everywhere, &step.into()));
    }
    if let Some(layers) = config.opt_numbers("mlp_only_layers")?.filter(|layers| !layers.is_empty()) {
        return Err(config.wrong("mlp_only_layers", "empty: the engine expects experts in every layer", &layers.into()));
    }
    let mut params = TextParams::read(config, Reads::Plain)?;
    // transformers 5 saves it under Mixtral's name.
    let count = if config.get("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
    params.experts = Some(Experts::read(config, count)?);
    let dims = Dims { expert_ff: config.positive_u32("moe_intermediate_size")?, ..params.dims() };
    Ok((params, dims))
}

/// A Qwen's experts in a checkpoint: gate, up, down.
pub(crate) const EXPERTS: (&str, [&str; 3]) = ("mlp", ["gate_proj", "up_proj", "down_proj"]);

/// How transformers shares a token out among its experts.
pub(crate) fn shares(config: &Config) -> Result<Shares, ArchError> {
    Ok(if config.opt_bool("norm_topk_prob")?.unwrap_or(false) { Shares::OfUsed } else { Shares::OfAll })
}

/// The sizes of the experts of a config.
pub(crate) fn mixture(params: &TextParams, dims: &Dims) -> Mixture {
    let used = params.experts.map_or(0, |experts| experts.used);
    Mixture { count: dims.n_expert, used, n_ff: dims.expert_ff }
}

/// The sizes of the experts of a file: they must be there.
pub(crate) fn mixture_of_gguf(arch: &str, metadata: &Metadata, gated: &Gated<'_>) -> Result<Mixture, DecoderError> {
    let mixture = Mixture::of_gguf(metadata, arch, |used| gated.shape.n_ff / used)?;
    mixture.ok_or_else(|| crate::gated::value(&format!("{arch}.expert_count"), "above 0", 0))
}

/// The common keys, and the width of an expert.
pub(crate) fn hparams(arch: &str, params: &TextParams, dims: &Dims) -> Vec<Hparam> {
    let mut hparams = params.hparams(arch);
    hparams.push(hparams::set(arch, "expert_feed_forward_length", dims.expert_ff));
    hparams
}
