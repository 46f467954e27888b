//! The contract of an architecture family.

use crate::assign::Assigned;
use crate::decoder::{Decoder, DecoderError};
use crate::expected::FileKey;
use crate::tensors::{Dims, Table};
use crate::{ArchError, Config, ExportError, GgufModel, HparamReader, NameMap};
use ggufsmith_core::{TensorExpr, TensorInfo};
use ggufsmith_gguf::{Metadata, Value};
use serde_json::Map;

/// A Hugging Face class name of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// As in config.json's `architectures`, e.g. `LlamaForCausalLM`.
    pub name: &'static str,
    /// config.json's `model_type`, e.g. `llama`.
    pub model_type: &'static str,
    /// Where the class wraps a text model, with encoders of pictures or sound: the `model_type` of a `text_config` that names none.
    pub text: Option<&'static str>,
    /// Whether it has a head: a bare decoder's checkpoint has none, and the engine takes the embedding matrix for it.
    pub head: bool,
}

impl Class {
    /// A decoder with its head.
    pub(crate) const fn of(name: &'static str, model_type: &'static str) -> Class {
        Class { name, model_type, text: None, head: true }
    }

    /// A decoder without head.
    pub(crate) const fn bare(name: &'static str, model_type: &'static str) -> Class {
        Class { head: false, ..Class::of(name, model_type) }
    }

    /// A class around a text model whose settings are under `text_config`.
    pub(crate) const fn wrapping(self, text: &'static str) -> Class {
        Class { text: Some(text), ..self }
    }
}

/// What transformers 4.57.6's config class fills in where config.json is silent.
#[derive(Debug)]
pub struct Defaults {
    /// The `model_type` that leads to the config class.
    pub model_type: &'static str,
    /// A JSON object of the keys that matter.
    pub json: &'static str,
}

impl Defaults {
    /// The keys with their values.
    pub(crate) fn keys(&self) -> Map<String, serde_json::Value> {
        // Every text is parsed by the test `defaults_are_json_objects`.
        serde_json::from_str(self.json).unwrap_or_default()
    }
}

/// The keys of config.json that a family knows. Any other is unknown: a warning, or an error where it means something in
/// another architecture and its value is not the neutral one.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Keys that are read.
    pub used: &'static [&'static str],
    /// Keys that do not change what the model computes.
    pub irrelevant: &'static [&'static str],
}

/// One entry of the hyper-parameter list.
#[derive(Debug, Clone, PartialEq)]
pub enum Hparam {
    /// A key (complete, e.g. `llama.block_count`) and its value.
    Set(String, Value),
    /// Where `general.file_type` stands; its value differs per output.
    FileType,
}

/// How the reference converter finds the vocabulary (`set_vocab` of the family's class). The tokenizer crate implements each; what is
/// said here of files that are missing holds where the converter gives up, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabRoute {
    /// tokenizer.model, else tokenizer.json with byte fallback (`LlamaHfVocab`), else byte-level BPE; `add_space_prefix` from
    /// tokenizer_config.json; the special cases of vocabularies of 32,016 and 49,152 tokens. Llama, Mistral, Mixtral, SmolLM3,
    /// Granite.
    Llama,
    /// Byte-level BPE from tokenizer.json: most families, the mixture-of-experts Qwens among them.
    Bpe,
    /// tokenizer.model, else byte-level BPE: the dense Qwen2 and Qwen3.
    SentencePieceOrBpe,
    /// Byte-level BPE where tokenizer_config.json names GPT-2's class (Phi-4); else tokenizer.model with the added tokens of
    /// tokenizer.json as they are; else tokenizer.json alone.
    Phi3,
    /// tokenizer.model, then the ids of CodeGemma's special tokens, and no space in front of a text; without tokenizer.model
    /// tokenizer.json alone.
    Gemma,
    /// tokenizer.model and no space in front of a text; without tokenizer.model tokenizer.json alone.
    Gemma2,
    /// As [`VocabRoute::Gemma2`], but byte-level BPE is looked for in tokenizer.json, too.
    Gemma3,
}

/// One tensor of the output.
#[derive(Debug, Clone)]
pub struct OutputTensor {
    /// GGUF name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Where its elements come from; its shape is the tensor's shape.
    pub expr: TensorExpr,
    /// Stays F32 whatever the file's type: vectors, norms, biases, routers, ...
    pub keep_f32: bool,
}

/// Everything that a config and a list of source tensors determine.
#[derive(Debug, Clone)]
pub struct Model {
    /// `general.architecture`.
    pub arch: &'static str,
    /// Keys that stand in front of all others but `general.architecture`: those that the reference converter sets while it makes
    /// tensors.
    pub first: Vec<(String, Value)>,
    /// Hyper-parameters in the order of the reference converter.
    pub hparams: Vec<Hparam>,
    /// Output tensors in the order of the reference converter.
    pub tensors: Vec<OutputTensor>,
    /// Source tensors that are dropped, with the reason.
    pub dropped: Vec<(String, &'static str)>,
    /// How the vocabulary is found.
    pub vocab: VocabRoute,
    /// Embedding rows: the vocabulary may not be larger.
    pub vocab_size: u64,
    /// What the recipes need to know.
    pub recipe: RecipeInputs,
    /// Notes for the summary: unknown config keys and the like.
    pub warnings: Vec<String>,
}

/// The hyper-parameters that llama-quantize's recipes look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecipeInputs {
    /// `block_count`.
    pub n_layer: u32,
    /// `attention.head_count`.
    pub n_head: u32,
    /// `attention.head_count_kv`.
    pub n_head_kv: u32,
    /// `expert_count`, 0 without experts.
    pub n_expert: u32,
}

impl Model {
    /// A model of these parts; `extra` tensors come first, as the reference converter has them.
    pub(crate) fn new(
        arch: &'static str,
        n_layer: u32,
        dims: &Dims,
        vocab: VocabRoute,
        hparams: Vec<Hparam>,
        assigned: Assigned,
    ) -> Self {
        Model {
            arch,
            first: Vec::new(),
            hparams,
            tensors: assigned.tensors,
            dropped: assigned.dropped,
            vocab,
            vocab_size: dims.vocab.into(),
            recipe: RecipeInputs { n_layer, n_head: dims.n_head, n_head_kv: dims.n_head_kv, n_expert: dims.n_expert },
            warnings: assigned.warnings,
        }
    }

    /// Put a computed table in front of the tensors.
    pub(crate) fn with_table(mut self, name: &str, values: Option<Vec<f32>>) -> Self {
        if let Some(values) = values {
            let expr = TensorExpr::Values(vec![values.len() as u64], values.into());
            self.tensors.insert(0, OutputTensor { name: name.to_owned(), expr, keep_f32: true });
        }
        self
    }

    /// Note what the engine will do differently.
    pub(crate) fn warn(mut self, warnings: Vec<String>) -> Self {
        self.warnings.splice(0..0, warnings);
        self
    }
}

/// What a family is made of besides functions.
#[derive(Debug)]
pub struct About {
    /// `general.architecture`, e.g. `llama`.
    pub name: &'static str,
    /// The class names it covers.
    pub classes: &'static [Class],
    /// What config classes fill in. A `model_type` belongs to one family.
    pub defaults: &'static [Defaults],
    /// The config.json keys it knows.
    pub keys: Keys,
    /// Its tensors.
    pub(crate) table: &'static Table,
    /// The keys of its section that llama.cpp reads besides [`crate::expected::COMMON_KEYS`].
    pub file_keys: &'static [FileKey],
}

/// One architecture family.
pub trait Family: Sync {
    /// Its names and tables.
    fn about(&self) -> &'static About;

    /// What the GGUF file of this config and these tensors holds.
    ///
    /// `tensors` are in the order of [`ggufsmith_core::TensorSource::tensors`]. [`crate::describe`] has checked the config for
    /// unknown keys.
    ///
    /// # Errors
    /// [`ArchError`]: a config key is missing or has the wrong type, a tensor maps to nothing or twice, is missing, or has a
    /// shape that the config does not allow.
    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError>;

    /// How transformers computes a checkpoint with this config; tensors are named as in the family's table. `has` says which the
    /// checkpoint has: transformers 4 and 5 store experts differently.
    ///
    /// # Errors
    /// [`DecoderError`]: a key is missing or wrong, or there is no forward pass for what it asks.
    fn decoder(&self, config: &Config, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let _ = (config, has);
        Err(DecoderError::NoForwardPass { arch: self.name() })
    }

    /// How llama.cpp computes a file with this metadata; `has` says which tensors the file has.
    ///
    /// # Errors
    /// As [`Family::decoder`].
    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let _ = (metadata, has);
        Err(DecoderError::NoForwardPass { arch: self.name() })
    }

    /// config.json from a file of this family: what [`Family::describe`] reads, backwards, with `architectures` and
    /// `model_type`. `class` is the class asked for; [`crate::export`] checks the result by describing it.
    ///
    /// # Errors
    /// [`ExportError`]: a key is missing, has the wrong type, or says what config.json cannot; or there is no way back from this
    /// architecture.
    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        warnings: &mut Vec<String>,
    ) -> Result<Map<String, serde_json::Value>, ExportError> {
        let _ = (file, keys, class, warnings);
        Err(ExportError::NoWayBack { arch: self.name() })
    }

    /// `general.architecture`.
    fn name(&self) -> &'static str {
        self.about().name
    }

    /// The class names it covers.
    fn classes(&self) -> &'static [Class] {
        self.about().classes
    }

    /// Tensor names, both ways.
    fn names(&self) -> NameMap {
        NameMap(self.about().table)
    }

    /// The keys of its section that llama.cpp reads besides [`crate::expected::COMMON_KEYS`].
    fn file_keys(&self) -> &'static [FileKey] {
        self.about().file_keys
    }
}
