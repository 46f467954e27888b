//! GPT-NeoX and Pythia: `general.architecture` = `gptneox`.
//!
//! Both parts of a block are added to what came in, each behind its own layer norm (or, without `use_parallel_residual`, one behind
//! the other); part of each head turns; one matrix has queries, keys and values head by head, which the engine wants one behind the
//! other.

use crate::classic::{FUSED, Names, Qkv, Side};
use crate::decoder::{Activation, Decoder, DecoderError, Residual, Rope as RotaryPositions, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::fused::{Layout, regroup};
use crate::hparams::float;
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Qkv as AllQkv, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct GptNeoX;

const ARCH: &str = "gptneox";

const CLASSES: &[Class] = &[Class::of("GPTNeoXForCausalLM", "gpt_neox")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "gpt_neox",
    json: r#"{"vocab_size": 50432, "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 44,
        "num_attention_heads": 64, "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-05,
        "rope_scaling": null, "attention_bias": true, "use_parallel_residual": true, "tie_word_embeddings": false}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rotary_emb_base",
        "rotary_pct",
        "tie_word_embeddings",
        "use_parallel_residual",
        "vocab_size",
    ],
    irrelevant: &["classifier_dropout", "hidden_dropout"],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("gpt_neox.embed_in.weight", "token_embd.weight", &[Vocab, Embd]),
        row("gpt_neox.final_layer_norm.weight", "output_norm.weight", &[Embd]),
        row("gpt_neox.final_layer_norm.bias", "output_norm.bias", &[Embd]),
        row("embed_out.weight", "output.weight", &[Vocab, Embd]),
        row("gpt_neox.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("gpt_neox.layers.{}.input_layernorm.bias", "blk.{}.attn_norm.bias", &[Embd]),
        row("gpt_neox.layers.{}.attention.query_key_value.weight", "blk.{}.attn_qkv.weight", &[AllQkv, Embd]).rows(Rows::By(regroup)),
        row("gpt_neox.layers.{}.attention.query_key_value.bias", "blk.{}.attn_qkv.bias", &[AllQkv]).rows(Rows::By(regroup)),
        row("gpt_neox.layers.{}.attention.dense.weight", "blk.{}.attn_output.weight", &[Embd, Embd]),
        row("gpt_neox.layers.{}.attention.dense.bias", "blk.{}.attn_output.bias", &[Embd]),
        row("gpt_neox.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("gpt_neox.layers.{}.post_attention_layernorm.bias", "blk.{}.ffn_norm.bias", &[Embd]),
        row("gpt_neox.layers.{}.mlp.dense_h_to_4h.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("gpt_neox.layers.{}.mlp.dense_h_to_4h.bias", "blk.{}.ffn_up.bias", &[Ff]),
        row("gpt_neox.layers.{}.mlp.dense_4h_to_h.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
        row("gpt_neox.layers.{}.mlp.dense_4h_to_h.bias", "blk.{}.ffn_down.bias", &[Embd]),
    ],
    base: "gpt_neox.",
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
        FileKey::required("use_parallel_residual", KeyType::Bool),
    ],
};

const SOURCE: Names = Names {
    token_embd: "gpt_neox.embed_in",
    output_norm: "gpt_neox.final_layer_norm",
    output: "embed_out",
    blocks: "gpt_neox.layers",
    attn_norm: "input_layernorm",
    ffn_norm: Some("post_attention_layernorm"),
    qkv: Qkv::Fused("attention.query_key_value", Layout::Groups),
    attn_output: "attention.dense",
    ffn_gate: None,
    ffn_up: "mlp.dense_h_to_4h",
    ffn_down: "mlp.dense_4h_to_h",
};

impl Family for GptNeoX {
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
            ("use_parallel_residual", parallel(config)?.into()),
            ("attention.layer_norm_epsilon", float(sizes.eps)),
        ];
        keys.extend(sizes::own_rope(&rope));
        // The reference converter gives these files no general.file_type.
        let hparams = sizes::section(ARCH, keys);
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let model = Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let act = sizes::gelu(config, "hidden_act")?;
        let rope = rope.transformers(sizes.n_rot, sizes.n_ctx)?;
        Ok(decoder(&sizes, SOURCE, act, rope, parallel(config)?))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Halves)?;
        let parallel = metadata.require::<bool>(&format!("{ARCH}.use_parallel_residual"))?;
        Ok(decoder(&sizes, Names::gguf(FUSED), Activation::GeluTanh, rope, parallel))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        _class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.standard(file, &CLASSES[0])?;
        let share = keys.rotary_share()?;
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("hidden_act", "gelu".into());
        set("layer_norm_eps", keys.float("attention.layer_norm_epsilon")?);
        set("use_parallel_residual", keys.bool("use_parallel_residual")?.into());
        set("attention_bias", true.into());
        set("tie_word_embeddings", false.into());
        set("rotary_pct", share);
        keys.rope(0, None, &mut config)?;
        let theta = config.remove("rope_theta").unwrap_or_default();
        config.insert("rotary_emb_base".to_owned(), theta);
        Ok(config)
    }
}

fn parallel(config: &Config) -> Result<bool, ArchError> {
    Ok(config.opt_bool("use_parallel_residual")?.unwrap_or(true))
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    sizes::gelu(config, "hidden_act")?;
    sizes::only(config, "attention_bias", true, "true: the engine asks for these biases in this architecture")?;
    sizes::only(config, "tie_word_embeddings", false, "false: the engine asks for a head of its own in this architecture")?;
    let (config, n_embd) = (&with_new_names(config)?, config.positive_u32("hidden_size")?);
    let rope = sizes::rope(config, Reads::Partial)?;
    let n_head = config.positive_u32("num_attention_heads")?;
    let sizes = Sizes {
        n_vocab: config.positive_u32("vocab_size")?,
        n_ctx: config.positive_u32("max_position_embeddings")?,
        n_layer: config.positive_u32("num_hidden_layers")?,
        n_embd,
        n_ff: config.positive_u32("intermediate_size")?,
        n_head,
        n_head_kv: n_head,
        n_rot: sizes::rotated(rope.partial, n_embd / n_head),
        eps: config.f64("layer_norm_eps")?,
    };
    Ok((sizes.checked(config, "num_attention_heads", "num_attention_heads")?, rope))
}

/// transformers 4 reads `rotary_pct` and `rotary_emb_base`, and takes 0.25 and 10000 without them, whatever `partial_rotary_factor`
/// and `rope_theta` say; 5 writes `rope_parameters`, which go before everything else.
fn with_new_names(config: &Config) -> Result<Config, ArchError> {
    let mut renamed = config.clone();
    for (old, new, default) in [("rotary_pct", "partial_rotary_factor", 0.25), ("rotary_emb_base", "rope_theta", 10_000.0)] {
        let value = config.opt_f64(old)?.unwrap_or(default);
        let other = config.opt_f64(new)?.filter(|&other| other != value);
        if other.is_some() && config.get("rope_parameters").is_none() {
            return Err(ArchError::KeyConflict { first: old.to_owned(), second: new.to_owned() });
        }
        renamed = renamed.with(new, value.into());
    }
    Ok(renamed)
}

fn decoder(sizes: &Sizes, names: Names, act: Activation, rope: RotaryPositions, parallel: bool) -> Decoder {
    let residual = if parallel { Residual::Parallel } else { Residual::Sequential };
    let bias = &|part: &str| part != names.output;
    Side { names, norm_bias: true, bias, conv: false, act, rope: Some(rope), residual }.decoder(sizes)
}
