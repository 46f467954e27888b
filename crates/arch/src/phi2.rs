//! Phi-1, Phi-1.5 and Phi-2: `general.architecture` = `phi2`.
//!
//! Both parts of a block are added to what came in, behind one layer norm; part of each head turns; everything has a bias, the head
//! too.

use crate::classic::{Names, Qkv, SPLIT, Side};
use crate::decoder::{Activation, Decoder, DecoderError, Residual, Rope as RotaryPositions, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::hparams::float;
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::{Metadata, Value};
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Phi2;

const ARCH: &str = "phi2";

const CLASSES: &[Class] = &[Class::of("PhiForCausalLM", "phi")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "phi",
    json: r#"{"vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "gelu_new", "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "partial_rotary_factor": 0.5,
        "qk_layernorm": false, "tie_word_embeddings": false}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "qk_layernorm",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "vocab_size",
    ],
    irrelevant: &["embd_pdrop", "resid_pdrop"],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.final_layernorm.weight", "output_norm.weight", &[Embd]),
        row("model.final_layernorm.bias", "output_norm.bias", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]),
        row("lm_head.bias", "output.bias", &[Vocab]),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.input_layernorm.bias", "blk.{}.attn_norm.bias", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]),
        row("model.layers.{}.self_attn.dense.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.self_attn.dense.bias", "blk.{}.attn_output.bias", &[Embd]),
        row("model.layers.{}.mlp.fc1.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.fc1.bias", "blk.{}.ffn_up.bias", &[Ff]),
        row("model.layers.{}.mlp.fc2.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
        row("model.layers.{}.mlp.fc2.bias", "blk.{}.ffn_down.bias", &[Embd]),
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
    file_keys: &[FileKey::required("attention.layer_norm_epsilon", KeyType::F32)],
};

const SOURCE: Names = Names {
    token_embd: "model.embed_tokens",
    output_norm: "model.final_layernorm",
    output: "lm_head",
    blocks: "model.layers",
    attn_norm: "input_layernorm",
    ffn_norm: None,
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attn_output: "self_attn.dense",
    ffn_gate: None,
    ffn_up: "mlp.fc1",
    ffn_down: "mlp.fc2",
};

impl Family for Phi2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        let mut keys = vec![
            ("context_length", sizes.n_ctx.into()),
            ("embedding_length", sizes.n_embd.into()),
            ("feed_forward_length", sizes.n_ff.into()),
            ("block_count", sizes.n_layer.into()),
            ("attention.head_count", sizes.n_head.into()),
            ("attention.head_count_kv", sizes.n_head_kv.into()),
            ("attention.layer_norm_epsilon", float(sizes.eps)),
            ("rope.dimension_count", sizes.n_rot.into()),
        ];
        keys.extend(sizes::own_rope(&rope));
        let mut hparams = sizes::section(ARCH, keys);
        hparams.push(Hparam::FileType);
        hparams.push(Hparam::Set("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(false)));
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let model = Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let act = sizes::gelu(config, "hidden_act")?;
        let rope = rope.transformers(sizes.n_rot, sizes.n_ctx)?;
        Ok(decoder(&sizes, SOURCE, act, rope))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Halves)?;
        let names = Names { ffn_norm: None, ..Names::gguf(SPLIT) };
        Ok(decoder(&sizes, names, Activation::GeluTanh, rope))
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
        set("hidden_act", "gelu_new".into());
        set("num_key_value_heads", keys.kv_heads()?);
        set("layer_norm_eps", keys.float("attention.layer_norm_epsilon")?);
        set("partial_rotary_factor", keys.rotary_share()?);
        set("qk_layernorm", false.into());
        set("tie_word_embeddings", false.into());
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    sizes::gelu(config, "hidden_act")?;
    sizes::only(config, "qk_layernorm", false, "false: the engine has no norms of queries and keys in this architecture")?;
    sizes::only(config, "tie_word_embeddings", false, "false: the engine asks for a head of its own in this architecture")?;
    let rope = sizes::rope(config, Reads::Partial)?;
    Ok((Sizes::read(config, &rope, "layer_norm_eps")?, rope))
}

fn decoder(sizes: &Sizes, names: Names, act: Activation, rope: RotaryPositions) -> Decoder {
    let residual = Residual::ParallelOneNorm;
    Side { names, norm_bias: true, bias: &|_| true, conv: false, act, rope: Some(rope), residual }.decoder(sizes)
}
