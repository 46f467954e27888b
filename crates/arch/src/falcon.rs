//! Falcon and Falcon 2: `general.architecture` = `falcon`.
//!
//! Both parts of a block are added to what came in: behind one layer norm (7B, 11B), or each behind its own (40B, 180B). One matrix
//! has queries, keys and values group by group: the queries that share a key, the key, the value; 7B has one group.

use crate::classic::{FUSED, Names, Qkv, Side};
use crate::decoder::{Activation, Decoder, DecoderError, Residual, Rope as RotaryPositions, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::fused::{Layout, regroup};
use crate::hparams::float;
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Qkv as AllQkv, Vocab};
use crate::tensors::{Need, Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Falcon;

const ARCH: &str = "falcon";

const CLASSES: &[Class] = &[Class::of("FalconForCausalLM", "falcon"), Class::of("RWForCausalLM", "RefinedWebModel")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "falcon",
    json: r#"{"vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "num_kv_heads": null, "num_ln_in_parallel_attn": null, "ffn_hidden_size": null, "activation": "gelu",
        "layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048, "rope_theta": 10000.0, "rope_scaling": null,
        "alibi": false, "bias": false, "parallel_attn": true, "multi_query": true, "new_decoder_architecture": false,
        "tie_word_embeddings": true}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "activation",
        "alibi",
        "apply_residual_connection_post_layernorm",
        "bias",
        "ffn_hidden_size",
        "hidden_size",
        "layer_norm_epsilon",
        "max_position_embeddings",
        "multi_query",
        "n_head",
        "n_head_kv",
        "n_layer",
        "new_decoder_architecture",
        "num_attention_heads",
        "num_hidden_layers",
        "num_kv_heads",
        "num_ln_in_parallel_attn",
        "original_max_position_embeddings",
        "parallel_attn",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "vocab_size",
    ],
    irrelevant: &["hidden_dropout"],
};

const ONE_NORM: Need = Need::When(|config, _| Ok(!two_norms(config)?), "one norm in a block");
const TWO_NORMS: Need = Need::When(|config, _| two_norms(config), "two norms in a block");
const UNTIED: Need = Need::When(|config, _| Ok(!tied(config)?), "tie_word_embeddings is false");

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("transformer.word_embeddings.weight", "token_embd.weight", &[Vocab, Embd]),
        row("transformer.ln_f.weight", "output_norm.weight", &[Embd]),
        row("transformer.ln_f.bias", "output_norm.bias", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).need(UNTIED),
        row("transformer.h.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]).need(ONE_NORM),
        row("transformer.h.{}.input_layernorm.bias", "blk.{}.attn_norm.bias", &[Embd]).need(ONE_NORM),
        row("transformer.h.{}.ln_mlp.weight", "blk.{}.attn_norm.weight", &[Embd]).need(TWO_NORMS),
        row("transformer.h.{}.ln_mlp.bias", "blk.{}.attn_norm.bias", &[Embd]).need(TWO_NORMS),
        row("transformer.h.{}.ln_attn.weight", "blk.{}.attn_norm_2.weight", &[Embd]).need(TWO_NORMS),
        row("transformer.h.{}.ln_attn.bias", "blk.{}.attn_norm_2.bias", &[Embd]).need(TWO_NORMS),
        row("transformer.h.{}.self_attention.query_key_value.weight", "blk.{}.attn_qkv.weight", &[AllQkv, Embd]).rows(Rows::By(regroup)),
        row("transformer.h.{}.self_attention.dense.weight", "blk.{}.attn_output.weight", &[Embd, Embd]),
        row("transformer.h.{}.mlp.dense_h_to_4h.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("transformer.h.{}.mlp.dense_4h_to_h.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "transformer.",
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
        FileKey::optional("tensor_data_layout", KeyType::Str),
    ],
};

const SOURCE: Names = Names {
    token_embd: "transformer.word_embeddings",
    output_norm: "transformer.ln_f",
    output: "lm_head",
    blocks: "transformer.h",
    attn_norm: "input_layernorm",
    ffn_norm: None,
    qkv: Qkv::Fused("self_attention.query_key_value", Layout::Groups),
    attn_output: "self_attention.dense",
    ffn_gate: None,
    ffn_up: "mlp.dense_h_to_4h",
    ffn_down: "mlp.dense_4h_to_h",
};

impl Family for Falcon {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        let mut keys = vec![
            ("context_length", sizes.n_ctx.into()),
            ("tensor_data_layout", "jploski".into()),
            ("embedding_length", sizes.n_embd.into()),
            ("feed_forward_length", sizes.n_ff.into()),
            ("block_count", sizes.n_layer.into()),
            ("attention.head_count", sizes.n_head.into()),
            ("attention.head_count_kv", sizes.n_head_kv.into()),
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
        let names = if tied(config)? { Names { output: SOURCE.token_embd, ..SOURCE } } else { SOURCE };
        let two = two_norms(config)?.then_some(["ln_attn", "ln_mlp"]);
        let rope = rope.transformers(sizes.n_rot, sizes.n_ctx)?;
        Ok(decoder(&sizes, names, two, activation(config)?, rope))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Halves)?;
        let names = Names::gguf(FUSED);
        let names = if has("output.weight") { names } else { Names { output: names.token_embd, ..names } };
        let two = has("blk.0.attn_norm_2.weight").then_some(["attn_norm_2", "attn_norm"]);
        Ok(decoder(&sizes, names, two, Activation::GeluTanh, rope))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        _class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        if file.has("blk.0.attn_norm_2.weight") {
            // `attn_norm` is another tensor of the checkpoint then.
            return Err(ExportError::NoWayBack { arch: "falcon with two norms in a block" });
        }
        let mut config = keys.standard(file, &CLASSES[0])?;
        let ff = config.remove("intermediate_size").unwrap_or_default();
        let kv = keys.opt_u32("attention.head_count_kv")?;
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("activation", "gelu".into());
        set("ffn_hidden_size", ff);
        set("layer_norm_epsilon", keys.float("attention.layer_norm_epsilon")?);
        set("alibi", false.into());
        set("bias", false.into());
        set("parallel_attn", true.into());
        set("multi_query", (kv == Some(1)).into());
        set("new_decoder_architecture", (kv != Some(1)).into());
        set("num_kv_heads", keys.kv_heads()?);
        set("num_ln_in_parallel_attn", 1.into());
        set("tie_word_embeddings", (!file.has("output.weight")).into());
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

fn tied(config: &Config) -> Result<bool, ArchError> {
    Ok(config.opt_bool("tie_word_embeddings")?.unwrap_or(true))
}

/// Whether groups of queries may be many: `new_decoder_architecture`. RefinedWeb, as the first checkpoints called themselves, says
/// how many there are, where it is.
fn is_new(config: &Config) -> Result<bool, ArchError> {
    let refined_web = || config.filled().is_none() && config.get("n_head_kv").is_some();
    Ok(config.opt_bool("new_decoder_architecture")?.unwrap_or_else(refined_web))
}

fn two_norms(config: &Config) -> Result<bool, ArchError> {
    match config.opt_u32("num_ln_in_parallel_attn")? {
        _ if !is_new(config)? => Ok(false),
        None | Some(2) => Ok(true),
        Some(1) => Ok(false),
        Some(other) => Err(config.wrong("num_ln_in_parallel_attn", "1 or 2", &other.into())),
    }
}

fn activation(config: &Config) -> Result<Activation, ArchError> {
    // RefinedWeb has no such key: it is GELU.
    if config.get("activation").is_some() { sizes::gelu(config, "activation") } else { Ok(Activation::GeluErf) }
}

const CONTEXT: &str = "max_position_embeddings";

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    activation(config)?;
    sizes::only(config, "alibi", false, "false: the engine turns heads with the position in this architecture")?;
    sizes::only(config, "bias", false, "false: the engine has no such biases in this architecture")?;
    let residual = "apply_residual_connection_post_layernorm";
    sizes::only(config, residual, false, "false: the engine adds to what came in")?;
    if config.opt_bool("parallel_attn")? != Some(true) {
        let found = config.get("parallel_attn").cloned().unwrap_or_default();
        return Err(config.wrong("parallel_attn", "true: the engine computes nothing else in this architecture", &found));
    }
    let older =
        |new: &'static str, old: &'static str| if config.get(new).is_none() && config.get(old).is_some() { old } else { new };
    let mut config = config.clone();
    if config.filled().is_none() && config.get("rope_theta").is_none() {
        config = config.with("rope_theta", 10_000.0.into());
    }
    let rope = sizes::rope(&config, Reads::Plain)?;
    let heads = older("num_attention_heads", "n_head");
    let (n_embd, n_head) = (config.positive_u32("hidden_size")?, config.positive_u32(heads)?);
    // The config class fills in as many key heads as there are heads, and the model has one all the same.
    let n_head_kv = match (is_new(&config)?, config.opt_bool("multi_query")?.unwrap_or(true)) {
        (true, _) => config.opt_u32(older("num_kv_heads", "n_head_kv"))?.unwrap_or(n_head),
        (false, true) => 1,
        (false, false) => n_head,
    };
    let sizes = Sizes {
        n_vocab: config.positive_u32("vocab_size")?,
        n_ctx: if config.get(CONTEXT).is_some() { config.positive_u32(CONTEXT)? } else { 2048 },
        n_layer: config.positive_u32(older("num_hidden_layers", "n_layer"))?,
        n_embd,
        n_ff: config.opt_u32("ffn_hidden_size")?.unwrap_or(n_embd.saturating_mul(4)),
        n_head,
        n_head_kv,
        n_rot: n_embd / n_head,
        eps: config.f64("layer_norm_epsilon")?,
    };
    Ok((sizes.checked(&config, heads, "num_kv_heads")?, rope))
}

/// `two`: the norms of attention and feed-forward, where they are two.
fn decoder(sizes: &Sizes, names: Names, two: Option<[&'static str; 2]>, act: Activation, rope: RotaryPositions) -> Decoder {
    let (names, residual) = match two {
        Some([attn_norm, ffn_norm]) => (Names { attn_norm, ffn_norm: Some(ffn_norm), ..names }, Residual::Parallel),
        None => (Names { ffn_norm: None, ..names }, Residual::ParallelOneNorm),
    };
    Side { names, norm_bias: true, bias: &|_| false, conv: false, act, rope: Some(rope), residual }.decoder(sizes)
}
