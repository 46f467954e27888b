//! The contract of an architecture family.

use crate::decoder::{Decoder, DecoderError};
use crate::expected::FileKey;
use crate::{ArchError, Config, ExportError, GgufModel, HparamReader, NameMap};
use ggufsmith_core::{TensorExpr, TensorInfo};
use ggufsmith_gguf::{Metadata, Value};
use serde_json::Map;

/// A Hugging Face class name of a family.
#[derive(Debug)]
pub struct Class {
    /// As in config.json's `architectures`, e.g. `LlamaForCausalLM`.
    pub name: &'static str,
    /// config.json's `model_type`, e.g. `llama`.
    pub model_type: &'static str,
    /// What transformers 4.57.6's config class fills in where config.json is silent: a JSON object of the keys that matter.
    pub defaults: &'static str,
}

impl Class {
    /// [`Class::defaults`], parsed.
    pub(crate) fn default_keys(&self) -> Map<String, serde_json::Value> {
        // Every class's text is parsed by the test `defaults_are_json_objects`.
        serde_json::from_str(self.defaults).unwrap_or_default()
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

/// One architecture family.
pub trait Family: Sync {
    /// `general.architecture`, e.g. `llama`.
    fn name(&self) -> &'static str;

    /// The class names it covers.
    fn classes(&self) -> &'static [Class];

    /// The config.json keys it knows.
    fn keys(&self) -> Keys;

    /// Tensor names, both ways.
    fn names(&self) -> NameMap;

    /// The keys of its section that llama.cpp reads besides [`crate::expected::COMMON_KEYS`].
    fn file_keys(&self) -> &'static [FileKey];

    /// What the GGUF file of this config and these tensors holds.
    ///
    /// `tensors` are in the order of [`ggufsmith_core::TensorSource::tensors`]. [`crate::describe`] has checked the config for
    /// unknown keys.
    ///
    /// # Errors
    /// [`ArchError`]: a config key is missing or has the wrong type, a tensor maps to nothing or twice, is missing, or has a
    /// shape that the config does not allow.
    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError>;

    /// How transformers computes a checkpoint with this config.
    ///
    /// # Errors
    /// [`DecoderError`]: a key is missing or wrong, or there is no forward pass for what it asks.
    fn decoder(&self, config: &Config) -> Result<Decoder, DecoderError>;

    /// How llama.cpp computes a file with this metadata; `has` says which tensors the file has.
    ///
    /// # Errors
    /// As [`Family::decoder`].
    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError>;

    /// config.json from a file of this family: what [`Family::describe`] reads, backwards, with `architectures` and
    /// `model_type`. `class` is the class asked for; [`crate::export`] checks the result by describing it.
    ///
    /// # Errors
    /// [`ExportError`]: a key is missing, has the wrong type, or says what config.json cannot.
    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        warnings: &mut Vec<String>,
    ) -> Result<Map<String, serde_json::Value>, ExportError>;
}
