//! SmolLM 3: `general.architecture` = `smollm3`. Llama, with every fourth layer blind to positions.

use crate::decoder::{Decoder, DecoderError};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated_export::class_of;
use crate::hparams::{self, MAX_LAYERS, TextParams};
use crate::keys::text_keys;
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, llama};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct SmolLm3;

static ABOUT: About = About {
    name: "smollm3",
    classes: &[Class::of("SmolLM3ForCausalLM", "smollm3")],
    defaults: &[Defaults {
        model_type: "smollm3",
        json: r#"{"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06, "rope_theta": 2000000.0, "rope_scaling": null, "use_sliding_window": false,
            "sliding_window": null, "no_rope_layers": null, "no_rope_layer_interval": 4, "layer_types": null,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "attention_bias",
            "layer_types",
            "mlp_bias",
            "no_rope_layer_interval",
            "no_rope_layers",
            "sliding_window",
            "use_sliding_window",
        ),
        irrelevant: &["max_window_layers"],
    },
    table: &llama::TABLE,
    file_keys: llama::FILE_KEYS,
};

impl Family for SmolLm3 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        check_positions(config, &params)?;
        llama::describe(ABOUT.name, &params, config, tensors)
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let turning = turning(config, params.n_layer)?;
        Ok(blind(llama::decoder::of_config(config, &params, has)?, |layer| !turning[layer]))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let decoder = llama::decoder::of_gguf(ABOUT.name, metadata, has)?;
        Ok(blind(decoder, |layer| (layer + 1).is_multiple_of(BLIND as usize)))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
            config.insert(key.to_owned(), false.into());
        }
        config.insert("no_rope_layer_interval".to_owned(), BLIND.into());
        Ok(config)
    }
}

/// The engine's every how many-th layer is blind.
const BLIND: u32 = 4;

fn read(config: &Config) -> Result<TextParams, ArchError> {
    for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
        hparams::check_flag(config, key, false)?;
    }
    let params = llama::read(config)?;
    params.rope.check_unfactored(config)?;
    let windowed = hparams::windowed_layers(config, params.n_layer, |_| false)?;
    if windowed.contains(&true) && config.get("sliding_window").is_some() {
        let found = config.get("layer_types").cloned().unwrap_or_default();
        return Err(config.wrong("layer_types", "full_attention for all: the engine has no window in this architecture", &found));
    }
    Ok(params)
}

/// Layers in which nothing turns.
fn blind(mut decoder: Decoder, is_blind: impl Fn(usize) -> bool) -> Decoder {
    for (_, layer) in decoder.layers.iter_mut().enumerate().filter(|(number, _)| is_blind(*number)) {
        layer.attn.rope = None;
    }
    decoder
}

/// The layers that see positions, by config.json.
fn turning(config: &Config, n_layer: u32) -> Result<Vec<bool>, ArchError> {
    const LAYERS: &str = "no_rope_layers";
    const INTERVAL: &str = "no_rope_layer_interval";
    if let Some(layers) = config.opt_numbers(LAYERS)? {
        if layers.len() as u64 != u64::from(n_layer) {
            return Err(config.wrong(LAYERS, "one number for each of num_hidden_layers", &layers.into()));
        }
        return Ok(layers.iter().map(|&turns| turns != 0.0).collect());
    }
    let interval = config.opt_u32(INTERVAL)?.unwrap_or(BLIND);
    if interval == 0 {
        return Err(config.wrong(INTERVAL, "above 0", &interval.into()));
    }
    Ok((0..n_layer).map(|layer| (layer + 1) % interval != 0).collect())
}

/// The file has no key for the layers without positions: the engine takes every fourth.
fn check_positions(config: &Config, params: &TextParams) -> Result<(), ArchError> {
    const EXPECTED: &str = "such that every fourth layer, and no other, is without positions: the engine knows nothing else";
    if params.n_layer > MAX_LAYERS {
        return Err(config.wrong("num_hidden_layers", "at most 512: the engine takes no more", &params.n_layer.into()));
    }
    let usual = (1..=params.n_layer).map(|layer| layer % BLIND != 0);
    if turning(config, params.n_layer)?.into_iter().eq(usual) {
        return Ok(());
    }
    let found = config.get("no_rope_layers").or(config.get("no_rope_layer_interval")).cloned().unwrap_or_default();
    Err(config.wrong("no_rope_layers", EXPECTED, &found))
}
