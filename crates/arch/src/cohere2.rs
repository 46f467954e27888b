//! Command-R7B, Command A and what else is of Cohere's second kind: `general.architecture` = `cohere2`.
//!
//! As Command-R without norms of queries and keys; three of four layers have a window, and heads turn in these alone.

use crate::classic::Names;
use crate::command_r::{FILE, SOURCE, check, decoder, is_scaled};
use crate::decoder::{Decoder, DecoderError, Rope as RotaryPositions, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::hparams::{self, float, windowed_layers};
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::{Array, Metadata, Value};
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Cohere2;

const ARCH: &str = "cohere2";

const CLASSES: &[Class] = &[Class::of("Cohere2ForCausalLM", "cohere2")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "cohere2",
    json: r#"{"vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
        "num_attention_heads": 64, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-05, "logit_scale": 0.0625, "rope_theta": 10000.0, "rope_scaling": null,
        "attention_bias": false, "sliding_window": 4096, "layer_types": null, "tie_word_embeddings": true}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "layer_types",
        "logit_scale",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rotary_pct",
        "sliding_window",
        "sliding_window_pattern",
        "tie_word_embeddings",
        "vocab_size",
    ],
    // How the first checkpoints describe the block; nothing reads them.
    irrelevant: &[
        "_sliding_window_pattern",
        "cache_implementation",
        "layer_switch",
        "order_of_interleaved_layers",
        "position_embedding_type",
        "use_embedding_sharing",
        "use_gated_activation",
        "use_parallel_block",
        "use_parallel_embedding",
    ],
};

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
        FileKey::required("attention.sliding_window", KeyType::U32),
        FileKey::required("logit_scale", KeyType::F32),
    ],
};

const PATTERN: &str = "attention.sliding_window_pattern";
/// One of so many layers has no window: what the engine takes where the file does not say.
const EVERY: u32 = 4;

impl Family for Cohere2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        // Its config class fills in head_dim.
        let head_dim = config.filled().is_some() || config.get("head_dim").is_some();
        let mut hparams = sizes.base(ARCH, &rope, head_dim);
        let mut set = |key, value: Value| hparams.push(hparams::set(ARCH, key, value));
        set("logit_scale", float(config.f64("logit_scale")?));
        set("attention.sliding_window", config.positive_u32("sliding_window")?.into());
        set("vocab_size", sizes.n_vocab.into());
        set("rope.dimension_count", sizes.n_rot.into());
        if !is_scaled(&rope) {
            set("rope.scaling.type", "none".into());
        }
        // The reference converter leaves it out and the engine then takes every fourth layer.
        let windows = windows(config, sizes.n_layer)?;
        if !windows.iter().copied().eq((0..sizes.n_layer).map(|layer| layer % EVERY < EVERY - 1)) {
            set(PATTERN, Value::Array(Array::Bool(windows)));
        }
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let model = Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let rope = RotaryPositions { layout: RopeLayout::Pairs, ..rope.transformers(sizes.n_rot, sizes.n_ctx)? };
        let (scale, window) = (config.f64("logit_scale")? as f32, config.positive_u32("sliding_window")?);
        Ok(windowed(&sizes, SOURCE, rope, scale, window, &windows(config, sizes.n_layer)?))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Pairs)?;
        let key = |name: &str| format!("{ARCH}.{name}");
        let (scale, window) = (metadata.require(&key("logit_scale"))?, metadata.require(&key("attention.sliding_window"))?);
        let every = |n: u32| (0..sizes.n_layer).map(|layer| n == 0 || layer % n < n - 1).collect();
        let windows = match metadata.get(&key(PATTERN)) {
            Some(Value::Array(Array::Bool(layers))) if layers.len() == sizes.n_layer as usize => layers.clone(),
            Some(Value::U32(n)) => every(*n),
            None => every(EVERY),
            Some(other) => {
                let expected = format!("a number, or true and false for each of {} layers", sizes.n_layer);
                return Err(DecoderError::Value { key: key(PATTERN), expected, found: other.short(60) });
            }
        };
        Ok(windowed(&sizes, FILE, rope, scale, window, &windows))
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
        set("sliding_window", keys.u32("attention.sliding_window")?.into());
        // Readers of the first kind take it from here.
        set("rotary_pct", 1.0.into());
        set("attention_bias", false.into());
        set("tie_word_embeddings", true.into());
        if let Some(Value::Array(Array::Bool(layers))) = file.metadata.get(&format!("{ARCH}.{PATTERN}")) {
            let name = |&window: &bool| if window { "sliding_attention" } else { "full_attention" };
            set("layer_types", layers.iter().map(name).collect::<Vec<_>>().into());
        }
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

/// Which layers have a window, and heads that turn.
fn windows(config: &Config, n_layer: u32) -> Result<Vec<bool>, ArchError> {
    let every = config.opt_u32("sliding_window_pattern")?.unwrap_or(EVERY).max(1);
    windowed_layers(config, n_layer, |layer| (layer + 1) % every != 0)
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    check(config)?;
    if let Some(share) = config.opt_f64("rotary_pct")?.filter(|&share| share != 1.0) {
        return Err(config.wrong("rotary_pct", "1: transformers turns whole heads whatever it says", &share.into()));
    }
    let rope = sizes::rope(config, Reads::Plain)?;
    Ok((Sizes::read(config, &rope, "layer_norm_eps")?, rope))
}

fn windowed(sizes: &Sizes, names: Names, rope: RotaryPositions, logit_scale: f32, window: u32, windows: &[bool]) -> Decoder {
    let mut decoder = decoder(sizes, names, Some(rope), logit_scale);
    for (layer, windowed) in decoder.layers.iter_mut().zip(windows) {
        match windowed {
            true => layer.attn.window = Some(window),
            false => layer.attn.rope = None,
        }
    }
    decoder
}
