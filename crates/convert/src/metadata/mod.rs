//! The `general.*` keys: who made a model, what it is called, where it comes from, how to sample from it.
//!
//! Four sources, later ones only filling what earlier ones left open: the model card's front matter, `_name_or_path` of
//! config.json, the directory's name; generation_config.json for sampling. A metadata file and a given name override them.
//! Written for byte identity with gguf-py's `Metadata` and the converter's `prepare_metadata`; where the reference stops on what a
//! card says, the conversion goes on with a [`MetadataWarning`].

mod card;
mod card_text;
mod collected;
mod model_id;
mod naming;
mod node;
mod overrides;
mod python;
mod size;
mod yaml;

pub use card::CardError;
pub(crate) use card_text::front_matter;
pub use model_id::{ModelId, title};
pub use naming::fill_template;
pub use size::ParameterCount;
pub use yaml::YamlError;

use collected::{Collected, SAMPLING_KEYS};
use ggufsmith_checkpoint::{CheckpointError, ModelDir};
use ggufsmith_gguf::Metadata;
use naming::NameParts;
use node::fields_from_json;

/// What the user says about the model, over everything that is found.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `general.name`.
    pub model_name: Option<String>,
    /// A metadata file's content: GGUF keys and values; `general.base_models` and `general.datasets` are lists of objects.
    pub metadata_file: Option<serde_json::Map<String, serde_json::Value>>,
    /// The name to read instead of the directory's own, e.g. the repository's for a model in the Hub's cache.
    pub directory_name: Option<String>,
}

/// The `general.*` keys of an output, and its default file name.
#[derive(Debug, Clone, PartialEq)]
pub struct General {
    keys: Metadata,
    parts: NameParts,
}

/// Read everything that describes the model. `parameters` are counted over the output's tensors; without any (a vocabulary only)
/// no size is derived from them.
///
/// # Errors
/// [`MetadataError`] where a metadata file holds a value that its key cannot, or a count overflows.
pub fn load(
    dir: &ModelDir,
    overrides: &Overrides,
    parameters: &ParameterCount,
) -> Result<(General, Vec<MetadataWarning>), MetadataError> {
    let mut collected = Collected::default();
    let directory_name = overrides.directory_name.clone().unwrap_or_else(|| dir.name());
    match card::load(dir) {
        Ok(fields) => card::apply(&fields, parameters.total, &mut collected),
        Err(error) => collected.warnings.push(MetadataWarning::Card(error)),
    }
    if let Some(id) = dir.config().get("_name_or_path").and_then(|v| v.as_str())
        && id.matches('/').count() <= 1
    {
        // With more slashes it is a path on somebody's disk.
        collected.apply_model_id(id, parameters.total);
    }
    collected.apply_model_id(&directory_name, parameters.total);
    sampling(dir, &mut collected);
    if let Some(file) = &overrides.metadata_file {
        overrides::apply(file, &mut collected)?;
    }
    if let Some(name) = &overrides.model_name {
        collected.set("name", Origin::File, node::Node::text(name.clone()).into());
    }
    collected.set_default("name", Some(directory_name));
    if !collected.knows("size_label") && parameters.total > 0 {
        collected.set_default("size_label", Some(parameters.label()));
    }
    let parts = collected.name_parts();
    let (keys, warnings) = collected.into_keys();
    Ok((General { keys, parts }, warnings))
}

/// generation_config.json; one that cannot be read says nothing, as with the reference.
fn sampling(dir: &ModelDir, collected: &mut Collected) {
    let config = match dir.json(GENERATION_CONFIG) {
        Ok(None) => return,
        Ok(Some(serde_json::Value::Object(map))) => fields_from_json(&map),
        Ok(Some(_)) => return collected.warnings.push(MetadataWarning::GenerationConfigNotAnObject),
        Err(error) => return collected.warnings.push(MetadataWarning::GenerationConfig(error)),
    };
    for (key, _, names) in SAMPLING_KEYS {
        if let Some(value) = names.iter().find_map(|name| config.get(*name)) {
            collected.set_sampling(key, Origin::GenerationConfig, value.clone());
        }
    }
}

/// The keys below `general.sampling.`, each with its name in generation_config.json (transformers' own, where there are two).
pub(crate) fn sampling_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SAMPLING_KEYS.into_iter().filter_map(|(key, _, names)| Some((key, *names.last()?)))
}

const GENERATION_CONFIG: &str = "generation_config.json";

impl General {
    /// Set the keys, from `general.type` on; `general.architecture` comes before them.
    pub fn write(&self, metadata: &mut Metadata) {
        metadata.set("general.type", "model");
        for (key, value) in self.keys.iter() {
            metadata.set(key, value.clone());
        }
    }

    /// The default file name by the GGUF naming convention, e.g. `SmolLM2-135M-Instruct-Q4_0.gguf`.
    pub fn file_name(&self, type_name: &str) -> String {
        self.parts.file_name(type_name)
    }

    /// The default file name of a vocabulary without tensors.
    pub fn vocabulary_file_name(&self) -> String {
        self.parts.vocabulary_file_name()
    }
}

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The model card's front matter.
    Card,
    /// generation_config.json.
    GenerationConfig,
    /// The model's or the directory's name.
    Name,
    /// A metadata file or an option.
    File,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Origin::Card => card::FILE,
            Origin::GenerationConfig => GENERATION_CONFIG,
            Origin::Name => "the model's name",
            Origin::File => "the metadata file",
        })
    }
}

/// What was read differently than its author may have meant, or not at all. The conversion goes on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MetadataWarning {
    #[error("README.md is not used: {0}")]
    Card(#[source] CardError),
    #[error("generation_config.json is not used: {0}")]
    GenerationConfig(#[source] CheckpointError),
    #[error("generation_config.json is not used: it is no JSON object")]
    GenerationConfigNotAnObject,
    #[error("{origin}: {key} is {value}, which its type does not hold; it is not written")]
    Sampling { key: &'static str, origin: Origin, value: String },
    #[error("{origin}: {key} is {value}, no text; {}", if *written { "written as it is spelled" } else { "not written" })]
    NotText { key: String, origin: Origin, value: String, written: bool },
    #[error("{key} is not written: `{value}` means false or zero; write it in quotes to keep it")]
    ReadAsFalse { key: String, value: String },
    #[error("README.md: an entry of {key} is neither an id nor a mapping; only counted")]
    UnknownSource { key: &'static str },
    #[error("the metadata file's key {key} is not known and not used")]
    UnknownKey { key: String },
}

/// Metadata that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MetadataError {
    #[error("the metadata file's {key} must be {expected}")]
    FileValue { key: String, expected: &'static str },
    #[error("tensor {tensor}: more than 2^64 parameters up to here")]
    TooManyParameters { tensor: String },
    #[error("tensor {tensor}: stacked experts, but the number of experts is 0")]
    NoExperts { tensor: String },
    #[error("{file_name}: a brace that is none of {{ftype}}, {{FTYPE}}, {{outtype}}, {{OUTTYPE}}; write {{{{ for a brace itself")]
    Template { file_name: String },
}

#[cfg(test)]
mod tests;
