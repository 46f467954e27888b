//! Mistral Small 3.1 and its like: `general.architecture` = `mistral3`. A Mistral inside a model that also sees pictures.

use crate::decoder::{Decoder, DecoderError};
use crate::expected::{FileKey, KeyType};
use crate::{About, ArchError, Class, Config, Family, Model, llama};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;

/// The family.
pub(crate) struct Mistral3;

static ABOUT: About = About {
    name: "mistral3",
    classes: &[Class::of("Mistral3ForConditionalGeneration", "mistral3").wrapping("mistral")],
    defaults: &[],
    keys: llama::KEYS,
    table: &llama::TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::optional("attention.temperature_scale", KeyType::F32),
        FileKey::optional("rope.scaling.yarn_beta_fast", KeyType::F32),
        FileKey::optional("rope.scaling.yarn_beta_slow", KeyType::F32),
        FileKey::optional("rope.scaling.yarn_log_multiplier", KeyType::F32),
    ],
};

impl Family for Mistral3 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        llama::describe(ABOUT.name, &llama::read(config)?, config, tensors)
    }

    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        llama::decoder::of_config(config, &llama::read(config)?, has)
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        if let Some(scale) =
            metadata.lookup::<f32>(&format!("{}.attention.temperature_scale", ABOUT.name))?.filter(|&scale| scale != 0.0)
        {
            let what = format!("{}.attention.temperature_scale = {scale}", ABOUT.name);
            return Err(DecoderError::Unsupported {
                what,
                why: "attention that grows colder with the position has no forward pass yet",
            });
        }
        llama::decoder::of_gguf(ABOUT.name, metadata, has)
    }
}
