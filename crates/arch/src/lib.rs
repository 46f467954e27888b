//! Model architectures: one file per family, everything known about it in that file.
//!
//! A [`Family`] takes a config.json and the list of source tensors and says what the GGUF file holds: hyper-parameters in
//! llama.cpp's order, the output tensors in the reference converter's order, each with the expression that makes it.
//! [`describe`] picks the family by config.json's class name.
#![forbid(unsafe_code)]

mod config;
pub mod decoder;
mod error;
pub mod expected;
mod export;
mod family;
mod frequencies;
mod hparams;
mod keys;
mod llama;
mod nearest;
mod rope;
mod tensors;

pub use config::Config;
pub use decoder::{Decoder, DecoderError};
pub use error::ArchError;
pub use export::{ExportError, Exported, GgufModel, HparamReader, export, family_of};
pub use family::{Class, Family, Hparam, Keys, Model, OutputTensor, RecipeInputs, VocabRoute};
pub use nearest::nearest;
pub use tensors::NameMap;

use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::Value;

/// Every family, one line each.
pub static FAMILIES: &[&dyn Family] = &[&llama::Llama];

/// How strictly a config is read.
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
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
    let (family, config) = choose(config)?;
    let mut warnings = Vec::new();
    if config.filled().is_none() {
        let name = config.class().name;
        warnings.push(format!("config.json's model_type {model_type} is not that of {name}: no defaults are filled in"));
    }
    warnings.extend(keys::check(&config, family.keys(), options.strict_config)?);
    let mut model = family.describe(&config, tensors)?;
    model.warnings.splice(0..0, warnings);
    Ok(model)
}

/// How transformers computes a checkpoint with this config.json.
///
/// # Errors
/// [`DecoderError`]: the class is unknown, a key is missing or wrong, or there is no forward pass for what it asks.
pub fn decoder(config: &Value) -> Result<Decoder, DecoderError> {
    let (family, config) = choose(config)?;
    family.decoder(&config)
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
    let name = class_name(config)?;
    let (family, class) = by_class(name).ok_or_else(|| ArchError::UnknownClass {
        class: name.to_owned(),
        supported: class_names().collect(),
        nearest: nearest(name, class_names()),
    })?;
    // transformers picks the config class, and with it the defaults, by model_type; one that it does not know gets none.
    let model_type = config.get("model_type").and_then(Value::as_str);
    let filled = family.classes().iter().find(|class| Some(class.model_type) == model_type);
    Ok((family, Config::new(config, class, filled)?))
}

/// The first entry of `architectures`.
fn class_name(config: &Value) -> Result<&str, ArchError> {
    let config = config.as_object().ok_or(ArchError::NotAnObject)?;
    config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).ok_or(ArchError::NoClass)
}
