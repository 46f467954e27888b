//! Granite 3, dense: `general.architecture` = `granite`. Llama with four scales: of embeddings, attention scores, residual branches
//! and logits.

use crate::decoder::{Decoder, DecoderError};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams, float, set};
use crate::keys::text_keys;
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, llama};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Granite;

static ABOUT: About = About {
    name: "granite",
    classes: &[Class::of("GraniteForCausalLM", "granite")],
    defaults: &[Defaults {
        model_type: "granite",
        json: r#"{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false, "mlp_bias": false,
            "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
            "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!(
            "attention_bias",
            "attention_multiplier",
            "embedding_multiplier",
            "logits_scaling",
            "mlp_bias",
            "residual_multiplier",
        ),
        irrelevant: &[],
    },
    table: &llama::TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::required("logit_scale", KeyType::F32),
        FileKey::optional("attention.scale", KeyType::F32),
        FileKey::optional("embedding_scale", KeyType::F32),
        FileKey::optional("residual_scale", KeyType::F32),
    ],
};

/// The scales, in the order of the file.
const SCALES: [(&str, &str); 4] = [
    ("attention_multiplier", "attention.scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("logits_scaling", "logit_scale"),
];

impl Family for Granite {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let mut model = llama::describe(ABOUT.name, &read(config)?, config, tensors)?;
        for (key, name) in SCALES {
            match config.f64(key)? {
                0.0 => return Err(config.wrong(key, "other than 0: the engine takes 0 for absent", &0.into())),
                scale => model.hparams.push(set(ABOUT.name, name, float(scale))),
            }
        }
        Ok(model)
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let number = |key| Ok::<_, ArchError>(config.f64(key)? as f32);
        let scales = Scales {
            attention: number("attention_multiplier")?,
            embedding: number("embedding_multiplier")?,
            residual: number("residual_multiplier")?,
            logits: number("logits_scaling")?,
        };
        Ok(scales.apply(llama::decoder::of_config(config, &read(config)?, has)?))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let number = |key: &str| metadata.lookup::<f32>(&format!("{arch}.{key}"));
        // 0 stands for absent.
        let given = |scale: Option<f32>, absent: f32| scale.filter(|&scale| scale != 0.0).unwrap_or(absent);
        let decoder = llama::decoder::of_gguf(arch, metadata, has)?;
        let usual = decoder.layers.first().map_or(1.0, |layer| layer.attn.scale);
        let scales = Scales {
            attention: given(number("attention.scale")?, usual),
            embedding: given(number("embedding_scale")?, 1.0),
            residual: given(number("residual_scale")?, 1.0),
            logits: given(Some(metadata.require::<f32>(&format!("{arch}.logit_scale"))?), 1.0),
        };
        Ok(scales.apply(decoder))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.gated(file, class_of(ABOUT.classes, class))?;
        for (key, name) in SCALES {
            config.insert(key.to_owned(), keys.float(name)?);
        }
        for (key, biased) in [("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_gate.bias")] {
            config.insert(key.to_owned(), file.has(biased).into());
        }
        Ok(config)
    }
}

/// What distinguishes a Granite from a Llama.
struct Scales {
    attention: f32,
    embedding: f32,
    residual: f32,
    /// Logits are divided by it.
    logits: f32,
}

impl Scales {
    fn apply(&self, mut decoder: Decoder) -> Decoder {
        for layer in &mut decoder.layers {
            (layer.attn.scale, layer.residual_scale) = (self.attention, Some(self.residual));
        }
        Decoder { embd_scale: Some(self.embedding), logit_scale: Some(1.0 / self.logits), ..decoder }
    }
}

/// Granite has no head size of its own: its config's is ignored, by transformers too.
fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    let mut params = llama::read(config)?;
    let head_dim = params.n_embd / params.n_head;
    if head_dim == 0 || head_dim != params.head_dim {
        return Err(config.wrong("head_dim", "hidden_size / num_attention_heads", &params.head_dim.into()));
    }
    params.key_length = None;
    Ok(params)
}
