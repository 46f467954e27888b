//! SmolLM 3: `general.architecture` = `smollm3`. Llama, with every fourth layer blind to positions.

use crate::hparams::{self, TextParams};
use crate::keys::text_keys;
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, llama};
use ggufsmith_core::TensorInfo;

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
        let params = llama::read(config)?;
        for key in ["attention_bias", "mlp_bias", "use_sliding_window"] {
            hparams::check_flag(config, key, false)?;
        }
        check_positions(config, &params)?;
        llama::describe(ABOUT.name, &params, config, tensors)
    }
}

/// The engine's every how many-th layer is blind.
const BLIND: u32 = 4;

/// The file has no key for the layers without positions: the engine takes every fourth.
fn check_positions(config: &Config, params: &TextParams) -> Result<(), ArchError> {
    const EXPECTED: &str = "0 for every fourth layer, 1 for the others: the engine knows nothing else";
    const INTERVAL: &str = "no_rope_layer_interval";
    match config.opt_numbers("no_rope_layers")? {
        Some(layers) => {
            let usual = (0..params.n_layer).map(|layer| if (layer + 1) % BLIND == 0 { 0.0 } else { 1.0 });
            if usual.eq(layers.iter().copied()) { Ok(()) } else { Err(config.wrong("no_rope_layers", EXPECTED, &layers.into())) }
        }
        None if config.opt_u32(INTERVAL)?.is_none_or(|interval| interval == BLIND) => Ok(()),
        None => Err(config.wrong(INTERVAL, "4: the engine knows nothing else", &config.u32(INTERVAL)?.into())),
    }
}
