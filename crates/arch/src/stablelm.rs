//! StableLM 2 and StableLM Epoch: `general.architecture` = `stablelm`.
//!
//! Layer norms with biases, part of each head turns, gated SiLU feed-forward. The 12B model adds both parts of a block to what came
//! in, behind one norm, and has a norm of its own for each head of queries and keys; the file has these stacked.

use crate::classic::{Names, Qkv, SPLIT, Side};
use crate::decoder::{
    Activation, Decoder, DecoderError, Norm, Over, QkNorm, Residual, Rope as RotaryPositions, RopeLayout, Vector,
};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::hparams::{check_silu, float};
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Head, Heads, Kv, KvHeads, Q, Vocab};
use crate::tensors::{Need, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct StableLm;

const ARCH: &str = "stablelm";

const CLASSES: &[Class] =
    &[Class::of("StableLmForCausalLM", "stablelm"), Class::of("StableLMEpochForCausalLM", "stablelm_epoch")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "stablelm",
    json: r#"{"vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-05, "rope_theta": 10000, "rope_scaling": null, "partial_rotary_factor": 0.25,
        "use_qkv_bias": false, "qk_layernorm": false, "use_parallel_residual": false, "tie_word_embeddings": false}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "norm_eps",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "qk_layernorm",
        "rope_parameters",
        "rope_pct",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "use_parallel_residual",
        "use_qkv_bias",
        "vocab_size",
    ],
    irrelevant: &["hidden_dropout", "rotary_scaling_factor"],
};

const SEQUENTIAL: Need = Need::Unless(PARALLEL);
const PARALLEL: &str = "use_parallel_residual";
const BIAS: &str = "use_qkv_bias";
const NORMS: &str = "qk_layernorm";

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("model.norm.bias", "output_norm.bias", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.input_layernorm.bias", "blk.{}.attn_norm.bias", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]).only_if(BIAS),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]).only_if(BIAS),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]).only_if(BIAS),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.self_attn.q_layernorm.norms.{e}.weight", "blk.{}.attn_q_norm.weight", &[Head]).each(Heads).only_if(NORMS),
        row("model.layers.{}.self_attn.k_layernorm.norms.{e}.weight", "blk.{}.attn_k_norm.weight", &[Head]).each(KvHeads).only_if(NORMS),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]).need(SEQUENTIAL),
        row("model.layers.{}.post_attention_layernorm.bias", "blk.{}.ffn_norm.bias", &[Embd]).need(SEQUENTIAL),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

static ABOUT: About = About {
    name: ARCH,
    classes: CLASSES,
    defaults: DEFAULTS,
    keys: KEYS,
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_epsilon", KeyType::F32),
        FileKey::optional("use_parallel_residual", KeyType::Bool),
    ],
};

const SOURCE: Names = Names {
    token_embd: "model.embed_tokens",
    output_norm: "model.norm",
    output: "lm_head",
    blocks: "model.layers",
    attn_norm: "input_layernorm",
    ffn_norm: Some("post_attention_layernorm"),
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attn_output: "self_attn.o_proj",
    ffn_gate: Some("mlp.gate_proj"),
    ffn_up: "mlp.up_proj",
    ffn_down: "mlp.down_proj",
};

impl Family for StableLm {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        let mut keys = vec![
            ("context_length", sizes.n_ctx.into()),
            ("embedding_length", sizes.n_embd.into()),
            ("block_count", sizes.n_layer.into()),
            ("feed_forward_length", sizes.n_ff.into()),
            ("rope.dimension_count", sizes.n_rot.into()),
            ("attention.head_count", sizes.n_head.into()),
            ("attention.head_count_kv", sizes.n_head_kv.into()),
            // Where nothing says otherwise the reference converter writes true; the engine goes by the tensors.
            ("use_parallel_residual", config.opt_bool(PARALLEL)?.unwrap_or(true).into()),
            ("attention.layer_norm_epsilon", float(sizes.eps)),
        ];
        keys.extend(sizes::own_rope(&rope));
        let mut hparams = sizes::section(ARCH, keys);
        hparams.push(Hparam::FileType);
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let model = Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let flag = |key| Ok::<_, ArchError>(config.opt_bool(key)?.unwrap_or(false));
        let bias = flag(BIAS)?;
        let rope = rope.transformers(sizes.n_rot, sizes.n_ctx)?;
        let mut decoder = decoder(&sizes, SOURCE, &|_| bias, rope, flag(PARALLEL)?);
        if flag(NORMS)? {
            let vector = |layer: usize, part: &str, heads: u32| {
                let name = |head| format!("model.layers.{layer}.self_attn.{part}_layernorm.norms.{head}.weight");
                Vector::joined((0..heads).map(name), sizes.head_dim())
            };
            norms(&mut decoder, &sizes, vector);
        }
        Ok(decoder)
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Halves)?;
        let names = Names { ffn_gate: Some("ffn_gate"), ..Names::gguf(SPLIT) };
        let parallel = !has("blk.0.ffn_norm.weight");
        let mut decoder = decoder(&sizes, names, &|part| has(&format!("blk.0.{part}.bias")), rope, parallel);
        if has("blk.0.attn_q_norm.weight") {
            let vector = |layer: usize, part: &str, heads: u32| Vector {
                shape: vec![heads.into(), sizes.head_dim().into()],
                ..Vector::whole(format!("blk.{layer}.attn_{part}_norm.weight"), 0)
            };
            norms(&mut decoder, &sizes, vector);
        }
        Ok(decoder)
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        _class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.standard(file, &CLASSES[0])?;
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("hidden_act", "silu".into());
        set("num_key_value_heads", keys.kv_heads()?);
        set("layer_norm_eps", keys.float("attention.layer_norm_epsilon")?);
        set("partial_rotary_factor", keys.rotary_share()?);
        set("tie_word_embeddings", false.into());
        set(BIAS, file.has("blk.0.attn_q.bias").into());
        set(NORMS, file.has("blk.0.attn_q_norm.weight").into());
        set(PARALLEL, (!file.has("blk.0.ffn_norm.weight")).into());
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    check_silu(config)?;
    sizes::only(config, "tie_word_embeddings", false, "false: the engine asks for a head of its own in this architecture")?;
    // What StableLM Epoch called the same.
    let mut renamed = config.clone();
    for (old, new) in [("rope_pct", "partial_rotary_factor"), ("norm_eps", "layer_norm_eps")] {
        if let (None, Some(value)) = (config.get(new), config.get(old)) {
            renamed = renamed.with(new, value.clone());
        }
    }
    let config = &renamed;
    let rope = sizes::rope(config, Reads::Partial)?;
    Ok((Sizes::read(config, &rope, "layer_norm_eps")?, rope))
}

/// `bias` is asked for queries, keys and values only.
fn decoder(sizes: &Sizes, names: Names, bias: &dyn Fn(&str) -> bool, rope: RotaryPositions, parallel: bool) -> Decoder {
    let residual = if parallel { Residual::ParallelOneNorm } else { Residual::Sequential };
    let names = if parallel { Names { ffn_norm: None, ..names } } else { names };
    let in_attention = |part: &str| matches!(names.qkv, Qkv::Split(parts) if parts.contains(&part)) && bias(part);
    let (act, rope) = (Activation::Silu, Some(rope));
    Side { names, norm_bias: true, bias: &in_attention, conv: false, act, rope, residual }.decoder(sizes)
}

/// Give each layer the norms of its queries and keys; `vector` makes the weights of all heads.
fn norms(decoder: &mut Decoder, sizes: &Sizes, vector: impl Fn(usize, &str, u32) -> Vector) {
    let norm = |weight| {
        let norm = Norm { weight: Some(weight), ..Norm::layer("", None, 0, sizes.eps as f32) };
        Some(QkNorm { norm, over: Over::Head })
    };
    for (number, layer) in decoder.layers.iter_mut().enumerate() {
        layer.attn.q_norm = norm(vector(number, "q", sizes.n_head));
        layer.attn.k_norm = norm(vector(number, "k", sizes.n_head_kv));
    }
}
