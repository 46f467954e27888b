//! Model architectures: one file per family, everything known about it in that file.
//!
//! A [`Family`] takes a config.json and the list of source tensors and says what the GGUF file holds: hyper-parameters in
//! llama.cpp's order, the output tensors in the reference converter's order, each with the expression that makes it.
//! [`describe`] picks the family by config.json's class name.
#![forbid(unsafe_code)]
#![allow(clippy::single_range_in_vec_init, reason = "lists of row ranges: one of them is one part")]

mod assign;
mod classic;
mod classic_export;
mod cohere2;
mod command_r;
mod config;
pub mod decoder;
mod error;
pub mod expected;
mod export;
mod falcon;
mod family;
mod frequencies;
mod fused;
mod gated;
mod gated_export;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gptneox;
mod granite;
mod hparams;
mod keys;
mod llama;
mod mistral3;
mod nearest;
mod olmo;
mod olmo2;
mod olmoe;
mod parts;
mod phi2;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen3moe;
mod rope;
mod seed_oss;
mod sizes;
mod smollm3;
mod stablelm;
mod starcoder2;
mod tensors;

pub use config::Config;
pub use decoder::{Decoder, DecoderError};
pub use error::ArchError;
pub use export::{ExportError, Exported, GgufModel, HparamReader, export, family_of};
pub use family::{About, Class, Defaults, Family, Hparam, Keys, Model, OutputTensor, RecipeInputs, VocabRoute};
pub use nearest::nearest;
pub use tensors::NameMap;

use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::Value;

/// Every family, one line each.
pub static FAMILIES: &[&dyn Family] = &[
    &llama::Llama,
    &mistral3::Mistral3,
    &smollm3::SmolLm3,
    &granite::Granite,
    &qwen2::Qwen2,
    &qwen2moe::Qwen2Moe,
    &qwen3::Qwen3,
    &qwen3moe::Qwen3Moe,
    &olmo::Olmo,
    &olmo2::Olmo2,
    &olmoe::Olmoe,
    &seed_oss::SeedOss,
    &phi3::Phi3,
    &gemma::Gemma,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
    &gpt2::Gpt2,
    &gptneox::GptNeoX,
    &stablelm::StableLm,
    &falcon::Falcon,
    &phi2::Phi2,
    &starcoder2::StarCoder2,
    &command_r::CommandR,
    &cohere2::Cohere2,
];

/// How a config is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// A config.json key that the family does not know is an error, not a warning.
    pub strict_config: bool,
}

/// The family and class entry for a class name of config.json's `architectures`.
pub fn by_class(name: &str) -> Option<(&'static dyn Family, &'static Class)> {
    FAMILIES.iter().find_map(|family| {
        let class = family.classes().iter().find(|class| class.name == name)?;
        Some((*family, class))
    })
}

/// The family of a file's `general.architecture`.
pub fn by_architecture(name: &str) -> Option<&'static dyn Family> {
    FAMILIES.iter().copied().find(|family| family.name() == name)
}

/// Every supported class name, in the order of [`FAMILIES`].
pub fn class_names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.classes()).map(|class| class.name)
}

/// What the GGUF file of a model holds: `config` is its config.json, `tensors` are in the order of
/// [`ggufsmith_core::TensorSource::tensors`].
///
/// # Errors
/// [`ArchError`]: the class is unknown, a config key is missing, wrong or would be ignored although it matters, a tensor maps to
/// nothing or twice, is missing, or has a shape that the config does not allow.
pub fn describe(config: &Value, tensors: &[TensorInfo], options: &Options) -> Result<Model, ArchError> {
    let (family, config) = choose(config)?;
    let mut warnings = Vec::new();
    if config.filled().is_none() {
        let (name, model_type) = (config.class().name, config.opt_str("model_type")?.unwrap_or("(none)"));
        warnings.push(format!("config.json's model_type {model_type} is not that of {name}: no defaults are filled in"));
    }
    warnings.extend(keys::check(&config, family.about().keys, options.strict_config)?);
    Ok(family.describe(&config, tensors)?.warn(warnings))
}

/// How transformers computes a checkpoint with this config.json; `has` says which tensors it has.
///
/// # Errors
/// [`DecoderError`]: the class is unknown, a key is missing or wrong, or there is no forward pass for what it asks.
pub fn decoder(config: &Value, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
    let (family, config) = choose(config)?;
    if !config.class().head {
        let why = "it has no head, so no logits";
        return Err(DecoderError::Unsupported { what: config.class().name.to_owned(), why });
    }
    hparams::check_layers(&config)?;
    let actual = |name: &str| parts::actual(config.class(), name, family.about().table, has);
    let mut decoder = family.decoder(&config, &|name| has(&actual(name)))?;
    decoder.rename(&actual);
    Ok(decoder)
}

/// How llama.cpp computes a file with this metadata; `has` says which tensors the file has.
///
/// # Errors
/// As [`decoder()`].
pub fn decoder_of_gguf(metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
    let name = metadata.require::<&str>("general.architecture")?;
    let supported = || FAMILIES.iter().map(|family| family.name()).collect();
    let family = FAMILIES.iter().find(|family| family.name() == name);
    let family = family.ok_or_else(|| DecoderError::Architecture { name: name.to_owned(), supported: supported() })?;
    family.decoder_of_gguf(metadata, has)
}

/// The family of a config.json, and the config with the defaults of its `model_type` filled in.
fn choose(config: &Value) -> Result<(&'static dyn Family, Config), ArchError> {
    let find = |name: &str| {
        by_class(name).ok_or_else(|| ArchError::UnknownClass {
            class: name.to_owned(),
            supported: class_names().collect(),
            nearest: nearest(name, class_names()),
        })
    };
    let (mut family, class) = find(class_name(config)?)?;
    // The text model of a wrapper may be of any class; where it names one, that decides.
    if let (Some(_), Ok(text)) = (class.text, class_name(&config[config::TEXT])) {
        family = find(text)?.0;
    }
    let defaults_of = |model_type: &str| {
        let mut all = FAMILIES.iter().flat_map(|family| family.about().defaults);
        all.find(|defaults| defaults.model_type == model_type)
    };
    Ok((family, Config::new(config, class, defaults_of)?))
}

/// The first entry of `architectures`.
fn class_name(config: &Value) -> Result<&str, ArchError> {
    let config = config.as_object().ok_or(ArchError::NotAnObject)?;
    config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).ok_or(ArchError::NoClass)
}
