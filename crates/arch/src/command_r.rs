//! Command-R, Command-R+ and Aya: `general.architecture` = `command-r`.
//!
//! Both parts of a block are added to what came in, behind one layer norm without bias; neighbouring elements of a head turn
//! together, on both sides; logits are scaled; the embedding matrix is the head. Command-R+ has norms of queries and keys.

use crate::classic::{Names, Qkv, SPLIT, Side};
use crate::decoder::{
    Activation, Decoder, DecoderError, Norm, Over, QkNorm, Residual, Rope as RotaryPositions, RopeLayout, Vector,
};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::hparams::{self, check_silu, float};
use crate::rope::{Reads, Rope, Scaling};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Head, Heads, Kv, KvHeads, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct CommandR;

const ARCH: &str = "command-r";

const CLASSES: &[Class] = &[Class::of("CohereForCausalLM", "cohere")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "cohere",
    json: r#"{"vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
        "num_attention_heads": 64, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-05, "logit_scale": 0.0625, "rope_theta": 10000.0, "rope_scaling": null,
        "attention_bias": false, "use_qk_norm": false, "tie_word_embeddings": true}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "logit_scale",
        "max_position_embeddings",
        "model_max_length",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "use_qk_norm",
        "vocab_size",
    ],
    irrelevant: &[
        "layer_norm_bias",
        "rotary_pct",
        "use_parallel_block",
        "use_parallel_embedding",
        "use_gated_activation",
        "expansion_factor",
        "position_embedding_type",
        "embed_size",
    ],
};

const NORMS: &str = "use_qk_norm";
/// llama.cpp asks for norms of queries and keys in models of at least so many blocks, and knows none in others.
const NORMS_FROM: u32 = 64;

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Heads, Head]).only_if(NORMS),
        row("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[KvHeads, Head]).only_if(NORMS),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    // The reference converter has no place for it either.
    dropped: &[],
};

static ABOUT: About = About {
    name: ARCH,
    classes: CLASSES,
    defaults: DEFAULTS,
    keys: KEYS,
    table: &TABLE,
    file_keys: &[FileKey::required("attention.layer_norm_epsilon", KeyType::F32), FileKey::optional("logit_scale", KeyType::F32)],
};

/// As Command-R and its successor call their tensors.
pub(crate) const SOURCE: Names = Names {
    token_embd: "model.embed_tokens",
    output_norm: "model.norm",
    output: "model.embed_tokens",
    blocks: "model.layers",
    attn_norm: "input_layernorm",
    ffn_norm: None,
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attn_output: "self_attn.o_proj",
    ffn_gate: Some("mlp.gate_proj"),
    ffn_up: "mlp.up_proj",
    ffn_down: "mlp.down_proj",
};

/// As their files call them.
pub(crate) const FILE: Names = Names { output: "token_embd", ffn_norm: None, ffn_gate: Some("ffn_gate"), ..Names::gguf(SPLIT) };

impl Family for CommandR {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        let norms = config.opt_bool(NORMS)?.unwrap_or(false);
        if norms != (sizes.n_layer >= NORMS_FROM) {
            let expected =
                "true in models with num_hidden_layers of 64 and more, false in others: the engine goes by the number of layers";
            return Err(config.wrong(NORMS, expected, &norms.into()));
        }
        // What the model was trained for, where max_position_embeddings says less.
        let n_ctx = config.opt_u32("model_max_length")?.unwrap_or(sizes.n_ctx);
        let mut hparams = Sizes { n_ctx, ..sizes }.base(ARCH, &rope, config.get("head_dim").is_some());
        hparams.push(hparams::set(ARCH, "logit_scale", float(config.f64("logit_scale")?)));
        if !is_scaled(&rope) {
            hparams.push(hparams::set(ARCH, "rope.scaling.type", "none"));
        }
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let model = Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let rope = RotaryPositions { layout: RopeLayout::Pairs, ..rope.transformers(sizes.n_rot, sizes.n_ctx)? };
        let mut decoder = decoder(&sizes, SOURCE, Some(rope), config.f64("logit_scale")? as f32);
        if config.opt_bool(NORMS)?.unwrap_or(false) {
            norms(&mut decoder, &sizes, |layer, part| format!("model.layers.{layer}.self_attn.{part}_norm.weight"));
        }
        Ok(decoder)
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Pairs)?;
        let scale = sizes::optional(metadata, &format!("{ARCH}.logit_scale"))?.unwrap_or(0.0);
        let mut decoder = decoder(&sizes, FILE, Some(rope), scale);
        if sizes.n_layer >= NORMS_FROM {
            norms(&mut decoder, &sizes, |layer, part| format!("blk.{layer}.attn_{part}_norm.weight"));
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
        set("logit_scale", keys.float("logit_scale")?);
        set(NORMS, file.has("blk.0.attn_q_norm.weight").into());
        set("attention_bias", false.into());
        set("tie_word_embeddings", true.into());
        if let Some(head_dim) = keys.opt_u32("attention.key_length")? {
            set("head_dim", head_dim.into());
        }
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

/// Whether the file says how positions are scaled.
pub(crate) fn is_scaled(rope: &Rope) -> bool {
    !matches!(rope.scaling, Scaling::None | Scaling::Dynamic { .. })
}

/// That the config asks for nothing that the engine does not do in these architectures.
pub(crate) fn check(config: &Config) -> Result<(), ArchError> {
    check_silu(config)?;
    sizes::only(config, "attention_bias", false, "false: the engine has no bias behind attention in this architecture")?;
    sizes::only(config, "tie_word_embeddings", true, "true: the engine has no head of its own in this architecture")
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    check(config)?;
    let rope = sizes::rope(config, Reads::Plain)?;
    Ok((Sizes::read(config, &rope, "layer_norm_eps")?, rope))
}

/// The engine takes a scale of 0 for none.
pub(crate) fn decoder(sizes: &Sizes, names: Names, rope: Option<RotaryPositions>, logit_scale: f32) -> Decoder {
    let (act, residual) = (Activation::Silu, Residual::ParallelOneNorm);
    let decoder = Side { names, norm_bias: false, bias: &|_| false, conv: false, act, rope, residual }.decoder(sizes);
    Decoder { logit_scale: Some(logit_scale).filter(|&scale| scale != 0.0), ..decoder }
}

/// Give each layer the norms of its queries and keys, which have weights for each head; `name` is the name of a layer's `q` or `k`.
fn norms(decoder: &mut Decoder, sizes: &Sizes, name: impl Fn(usize, &str) -> String) {
    let norm = |name: String, heads: u32| {
        let weight = Vector { shape: vec![heads.into(), sizes.head_dim().into()], ..Vector::whole(name, 0) };
        let norm = Norm { weight: Some(weight), ..Norm::layer("", None, 0, sizes.eps as f32) };
        Some(QkNorm { norm, over: Over::Head })
    };
    for (number, layer) in decoder.layers.iter_mut().enumerate() {
        layer.attn.q_norm = norm(name(number, "q"), sizes.n_head);
        layer.attn.k_norm = norm(name(number, "k"), sizes.n_head_kv);
    }
}
