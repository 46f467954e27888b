//! Llama and what shares its computation: `general.architecture` = `llama`.
//!
//! Pre-norm decoder with RMSNorm, rotary embedding over whole heads, grouped-query attention and a gated SiLU feed-forward, of which
//! there may be several (Mixtral's experts). The engine rotates neighbouring rows, checkpoints the two halves of a head, so rows of
//! the query and key matrices are reordered.

pub(crate) mod decoder;

use crate::decoder::{Decoder, DecoderError};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader, ROPE_FREQS};
use crate::hparams::{self, Experts, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Experts as NumExperts, Ff, Kv, Q, TwoFf, Vocab};
use crate::tensors::{Need, Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign, frequencies};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::{Metadata, Value};
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Llama;

const ARCH: &str = "llama";

const CLASSES: &[Class] = &[
    Class::of("LlamaForCausalLM", "llama"),
    Class::of("MistralForCausalLM", "mistral"),
    Class::of("MixtralForCausalLM", "mixtral"),
    Class::of("LLaMAForCausalLM", "llama"),
    Class::bare("LlamaModel", "llama"),
    Class::of("IQuestCoderForCausalLM", "iquestcoder"),
    Class::of("LlavaForConditionalGeneration", "llava").wrapping("llama"),
];

const DEFAULTS: &[Defaults] = &[
    Defaults {
        model_type: "llama",
        json: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false}"#,
    },
    Defaults {
        model_type: "mistral",
        json: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
            "tie_word_embeddings": false}"#,
    },
    Defaults {
        model_type: "mixtral",
        json: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
            "tie_word_embeddings": false, "num_local_experts": 8, "num_experts_per_tok": 2}"#,
    },
];

/// The config keys of Llama and its relatives.
pub(crate) const KEYS: Keys = Keys { used: text_keys!("attention_bias", "mlp_bias", "sliding_window"), irrelevant: &[] };

const BIAS: Need = Need::If("attention_bias");
const MLP_BIAS: Need = Need::If("mlp_bias");
const DENSE: Need = Need::Experts(false);
const SPARSE: Need = Need::Experts(true);

/// The tensors of Llama and its relatives.
#[rustfmt::skip]
pub(crate) const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]).rows(Rows::PairsQ),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]).rows(Rows::PairsQ).need(BIAS),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]).rows(Rows::PairsK),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]).rows(Rows::PairsK).need(BIAS),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]).need(BIAS),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias", &[Embd]).need(BIAS),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]).need(DENSE),
        row("model.layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias", &[Ff]).need(MLP_BIAS),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]).need(DENSE),
        row("model.layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias", &[Ff]).need(MLP_BIAS),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]).need(DENSE),
        row("model.layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias", &[Embd]).need(MLP_BIAS),
        // Mixtral, as transformers 4 saves it, and as 5 does.
        row("model.layers.{}.block_sparse_moe.gate.weight", "blk.{}.ffn_gate_inp.weight", &[NumExperts, Embd]).need(SPARSE),
        row("model.layers.{}.block_sparse_moe.experts.{e}.w1.weight", "blk.{}.ffn_gate_exps.weight", &[Ff, Embd]).need(SPARSE),
        row("model.layers.{}.block_sparse_moe.experts.{e}.w2.weight", "blk.{}.ffn_down_exps.weight", &[Embd, Ff]).need(SPARSE),
        row("model.layers.{}.block_sparse_moe.experts.{e}.w3.weight", "blk.{}.ffn_up_exps.weight", &[Ff, Embd]).need(SPARSE),
        row("model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight", &[NumExperts, Embd]).need(SPARSE),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", &[NumExperts, TwoFf, Embd]).rows(Rows::Half(0)).need(SPARSE),
        row("model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", &[NumExperts, TwoFf, Embd]).rows(Rows::Half(1)).need(SPARSE),
        row("model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", &[NumExperts, Embd, Ff]).need(SPARSE),
    ],
    base: "model.",
    dropped: &[],
};

static ABOUT: About = About { name: ARCH, classes: CLASSES, defaults: DEFAULTS, keys: KEYS, table: &TABLE, file_keys: FILE_KEYS };

/// What llama.cpp reads of a Llama's section besides the common keys.
pub(crate) const FILE_KEYS: &[FileKey] = &[FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32)];

impl Family for Llama {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        describe(ARCH, &read(config)?, config, tensors)
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        decoder::of_config(config, &read(config)?, has)
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        decoder::of_gguf(ARCH, metadata, has)
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mixture = keys.opt_u32("expert_count")?.is_some_and(|count| count > 0);
        let shape = |name: &str| file.tensors.iter().find(|(found, _)| found == name).map(|(_, shape)| shape.as_slice());
        let has = |name: &str| shape(name).is_some();
        let (n_embd, n_head) = (keys.u32("embedding_length")?, keys.u32("attention.head_count")?);
        let key_length = keys.opt_u32("attention.key_length")?.or(keys.opt_u32("rope.dimension_count")?);
        let head_dim = key_length.or(n_embd.checked_div(n_head)).unwrap_or_default();
        let rows = shape("token_embd.weight").and_then(|shape| shape.first()).copied();
        let vocab = keys.opt_u32("vocab_size")?.map(u64::from).or(rows);
        let vocab =
            vocab.ok_or_else(|| ExportError::MissingTensor { tensor: "token_embd.weight".into(), class: CLASSES[0].name })?;

        let (bias, mlp_bias) = (has("blk.0.attn_q.bias"), has("blk.0.ffn_gate.bias"));
        let factors = file.tables.get(ROPE_FREQS).map(Vec::as_slice);
        // Both classes compute the same; the file's name alone tells them apart, and Llama's has more settings.
        let called = |key| matches!(file.metadata.get(key), Some(Value::String(name)) if name.to_lowercase().contains("mistral"));
        let plain = !bias && !mlp_bias && factors.is_none();
        let mistral = plain && ["general.name", "general.basename", "general.base_model.0.name"].into_iter().any(called);
        let usual = &CLASSES[if mixture { 2 } else { usize::from(mistral) }];
        let class = class.unwrap_or(usual.name);
        let class = CLASSES.iter().find(|known| known.name == class).unwrap_or(&CLASSES[0]);

        let mut config = Map::new();
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("architectures", vec![class.name].into());
        set("model_type", class.model_type.into());
        set("hidden_act", "silu".into());
        set("vocab_size", vocab.into());
        set("hidden_size", n_embd.into());
        set("num_attention_heads", n_head.into());
        set("num_key_value_heads", keys.opt_u32("attention.head_count_kv")?.unwrap_or(n_head).into());
        set("num_hidden_layers", keys.u32("block_count")?.into());
        set("intermediate_size", keys.u32("feed_forward_length")?.into());
        set("max_position_embeddings", keys.u32("context_length")?.into());
        set("rms_norm_eps", keys.float("attention.layer_norm_rms_epsilon")?);
        set("head_dim", head_dim.into());
        set("tie_word_embeddings", (!has("output.weight")).into());
        if class.model_type == "llama" {
            set("attention_bias", bias.into());
            set("mlp_bias", mlp_bias.into());
        } else {
            // In this architecture the engine attends to everything.
            set("sliding_window", Json::Null);
            if !keys.has("attention.key_length") {
                set("head_dim", Json::Null);
            }
        }
        if mixture {
            keys.experts(EXPERTS, &mut config)?;
        }
        keys.rope(head_dim, factors, &mut config)?;
        Ok(config)
    }
}

/// What a file of Llama's layout holds.
pub(crate) fn describe(
    arch: &'static str,
    params: &TextParams,
    config: &Config,
    tensors: &[TensorInfo],
) -> Result<Model, ArchError> {
    let dims = params.dims();
    let mut hparams = params.hparams(arch);
    hparams.push(hparams::set(arch, "vocab_size", params.vocab));
    hparams.push(hparams::set(arch, "rope.dimension_count", params.head_dim));
    let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
    Ok(Model::new(arch, params.n_layer, &dims, VocabRoute::Llama, hparams, assigned)
        .with_table(ROPE_FREQS, params.rope.freq_factors(params.head_dim))
        .warn(engine_warnings(arch, config, params)?))
}

/// The hyper-parameters of a config.
pub(crate) fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    let mut params = TextParams::with_factors(config, Reads::Plain)?;
    config.f64("rms_norm_eps")?;
    if config.opt_u32(EXPERTS)?.is_some_and(|n| n > 0) {
        params.experts = Some(Experts::read(config, EXPERTS)?);
    }
    Ok(params)
}

const EXPERTS: &str = "num_local_experts";

/// The window of Mistral and Mixtral. Others ignore the key: Llama's and Granite's configs have none, and SmolLM3 has it in the layers of
/// `layer_types` only, which are refused.
pub(crate) fn window(config: &Config) -> Result<Option<u32>, ArchError> {
    let without = ["llama", "granite", "smollm3"].iter().any(|model_type| config.is_filled_as(model_type));
    if without { Ok(None) } else { config.opt_u32("sliding_window") }
}

/// What the model does and the engine, given this file, does not.
fn engine_warnings(arch: &str, config: &Config, params: &TextParams) -> Result<Vec<String>, ArchError> {
    let betas: &[&str] = if frequencies::READ_BETAS.contains(&arch) { &["beta_fast", "beta_slow"] } else { &[] };
    let mut warnings = params.rope.warnings_beside(betas);
    if let Some(window) = window(config)?.filter(|&window| window < params.n_ctx) {
        warnings.push(format!(
            "sliding_window = {window}: in this architecture the engine attends to the whole context of {} tokens",
            params.n_ctx
        ));
    }
    Ok(warnings)
}
