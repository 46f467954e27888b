//! Llama and what shares its computation: `general.architecture` = `llama`.
//!
//! Pre-norm decoder with RMSNorm, rotary embedding over whole heads, grouped-query attention and a gated SiLU feed-forward. The
//! engine rotates neighbouring rows, checkpoints the two halves of a head, so rows of the query and key matrices are reordered.

use crate::export::{ExportError, GgufModel, HparamReader, ROPE_FREQS};
use crate::hparams::{self, TextParams};
use crate::rope::{Rope, Scaling};
use crate::tensors::{self, Dim, Dims, Need, Row, Rows};
use crate::{ArchError, Class, Config, Family, Keys, Model, NameMap, OutputTensor, RecipeInputs, VocabRoute};
use ggufsmith_core::{TensorExpr, TensorInfo};
use ggufsmith_gguf::Value;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Llama;

const ARCH: &str = "llama";

const CLASSES: &[Class] = &[
    Class {
        name: "LlamaForCausalLM",
        model_type: "llama",
        defaults: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false}"#,
    },
    Class {
        name: "MistralForCausalLM",
        model_type: "mistral",
        defaults: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
            "tie_word_embeddings": false}"#,
    },
];

const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "vocab_size",
    ],
    irrelevant: &[],
};

/// A tensor whose rows keep their order.
const fn same(hf: &'static str, gguf: &'static str, shape: &'static [Dim], need: Need) -> Row {
    Row { hf, gguf, shape, rows: Rows::Same, need }
}

const BIAS: Need = Need::If("attention_bias");
const MLP_BIAS: Need = Need::If("mlp_bias");

#[rustfmt::skip]
const TENSORS: &[Row] = &[
    same("model.embed_tokens.weight", "token_embd.weight", &[Dim::Vocab, Dim::Embd], Need::Always),
    same("model.norm.weight", "output_norm.weight", &[Dim::Embd], Need::Always),
    same("lm_head.weight", "output.weight", &[Dim::Vocab, Dim::Embd], Need::Unless("tie_word_embeddings")),
    same("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Dim::Embd], Need::Always),
    Row { rows: Rows::PairsQ, ..same("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Dim::Q, Dim::Embd], Need::Always) },
    Row { rows: Rows::PairsQ, ..same("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Dim::Q], BIAS) },
    Row { rows: Rows::PairsK, ..same("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Dim::Kv, Dim::Embd], Need::Always) },
    Row { rows: Rows::PairsK, ..same("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Dim::Kv], BIAS) },
    same("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Dim::Kv, Dim::Embd], Need::Always),
    same("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Dim::Kv], BIAS),
    same("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Dim::Embd, Dim::Q], Need::Always),
    same("model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias", &[Dim::Embd], BIAS),
    same("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Dim::Embd], Need::Always),
    same("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Dim::Ff, Dim::Embd], Need::Always),
    same("model.layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias", &[Dim::Ff], MLP_BIAS),
    same("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Dim::Ff, Dim::Embd], Need::Always),
    same("model.layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias", &[Dim::Ff], MLP_BIAS),
    same("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Dim::Embd, Dim::Ff], Need::Always),
    same("model.layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias", &[Dim::Embd], MLP_BIAS),
];

impl Family for Llama {
    fn name(&self) -> &'static str {
        ARCH
    }

    fn classes(&self) -> &'static [Class] {
        CLASSES
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    fn names(&self) -> NameMap {
        NameMap(TENSORS)
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (params, dims) = read(config)?;
        let n_layer = params.n_layer;
        let mut hparams = params.hparams(ARCH);
        hparams.push(hparams::set(ARCH, "vocab_size", dims.vocab));
        hparams.push(hparams::set(ARCH, "rope.dimension_count", dims.head_dim));

        let assigned = tensors::assign(TENSORS, &dims, n_layer, config, tensors)?;
        let factors = params.rope.freq_factors(dims.head_dim).map(|factors| OutputTensor {
            name: ROPE_FREQS.to_owned(),
            expr: TensorExpr::Values(vec![factors.len() as u64], factors.into()),
            keep_f32: true,
        });
        Ok(Model {
            arch: ARCH,
            hparams,
            tensors: factors.into_iter().chain(assigned.tensors).collect(),
            dropped: assigned.dropped,
            vocab: VocabRoute::Llama,
            vocab_size: dims.vocab.into(),
            recipe: RecipeInputs { n_layer, n_head: dims.n_head, n_head_kv: dims.n_head_kv, n_expert: 0 },
            warnings: engine_warnings(config, &params)?.into_iter().chain(assigned.warnings).collect(),
        })
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
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
        let class = class.unwrap_or(CLASSES[usize::from(mistral)].name);
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
        if fills_head_dim_of(class) {
            set("attention_bias", bias.into());
            set("mlp_bias", mlp_bias.into());
        } else {
            // In this architecture the engine attends to everything.
            set("sliding_window", Json::Null);
            if !keys.has("attention.key_length") {
                set("head_dim", Json::Null);
            }
        }
        keys.rope(head_dim, factors, &mut config)?;
        Ok(config)
    }
}

/// The hyper-parameters of a config, and the sizes that follow from them.
fn read(config: &Config) -> Result<(TextParams, Dims), ArchError> {
    let act = config.opt_str("hidden_act")?.unwrap_or("silu");
    if !matches!(act, "silu" | "swish") {
        return Err(config.wrong("hidden_act", "silu: the engine computes nothing else in this architecture", &act.into()));
    }
    let n_embd = config.positive_u32("hidden_size")?;
    let n_head = config.positive_u32("num_attention_heads")?;
    let n_head_kv = match config.opt_u32("num_key_value_heads")? {
        None if config.filled().is_some() => n_head,
        _ => config.positive_u32("num_key_value_heads")?,
    };
    if n_head % n_head_kv != 0 {
        return Err(config.wrong("num_key_value_heads", "a divisor of num_attention_heads", &n_head_kv.into()));
    }
    let own_head_dim = config.opt_u32("head_dim")?;
    let head_dim = own_head_dim.unwrap_or(n_embd / n_head);
    if head_dim == 0 || head_dim % 2 != 0 {
        return Err(config.wrong(
            "head_dim",
            "even and above 0 (hidden_size / num_attention_heads where absent)",
            &head_dim.into(),
        ));
    }
    let params = TextParams {
        n_layer: config.positive_u32("num_hidden_layers")?,
        n_ctx: config.positive_u32("max_position_embeddings")?,
        n_embd,
        n_ff: config.positive_u32("intermediate_size")?,
        n_head,
        n_head_kv,
        head_dim: if fills_head_dim(config) { Some(head_dim) } else { own_head_dim },
        rms_eps: config.f64("rms_norm_eps")?,
        rope: Rope::read(config)?,
    };
    let vocab = config.positive_u32("vocab_size")?;
    let dims = Dims { vocab, embd: n_embd, ff: params.n_ff, n_head, n_head_kv, head_dim };
    Ok((params, dims))
}

/// `LlamaConfig` fills in `head_dim`; `MistralConfig` leaves it null, and the file then has no key or value length.
fn fills_head_dim(config: &Config) -> bool {
    config.filled().is_some_and(fills_head_dim_of)
}

fn fills_head_dim_of(class: &Class) -> bool {
    class.model_type == "llama"
}

/// What the model does and the engine, given this file, does not.
fn engine_warnings(config: &Config, params: &TextParams) -> Result<Vec<String>, ArchError> {
    let mut warnings = Vec::new();
    match params.rope.scaling {
        Scaling::LongRope => warnings.push(
            "rope_scaling longrope: its factors have no place in this architecture's files; texts beyond the original context will suffer".to_owned(),
        ),
        Scaling::Dynamic => warnings.push(
            "rope_scaling dynamic: the engine has nothing like it; texts beyond max_position_embeddings will suffer".to_owned(),
        ),
        Scaling::None | Scaling::Linear { .. } | Scaling::Yarn(_) | Scaling::Llama3(_) => {}
    }
    // LlamaConfig has no such key: where a Llama's config.json has one, transformers ignores it too.
    let window = if fills_head_dim(config) { None } else { config.opt_u32("sliding_window")? };
    if let Some(window) = window.filter(|&window| window < params.n_ctx) {
        warnings.push(format!(
            "sliding_window = {window}: in this architecture the engine attends to the whole context of {} tokens",
            params.n_ctx
        ));
    }
    Ok(warnings)
}
