//! From a Hugging Face model to a quantized one in safetensors: for `transformers` with bitsandbytes (NF4, FP4, `LLM.int8`), or in
//! plain 8-bit codes (INT8_AFFINE, INT8_ABSMAX).
//!
//! What is written for bitsandbytes equals, bit for bit, what `AutoModelForCausalLM.from_pretrained(...,
//! quantization_config=BitsAndBytesConfig(...))` and `save_pretrained` of transformers 5 with bitsandbytes 0.50.2 write of a model that
//! is loaded in its own dtypes. With double quantization the reference is one thread of torch: more threads change the last bit of the
//! offset. The layout of plain codes is [`ggufsmith_checkpoint::int8`]'s.
//!
//! [`Quantization::prepare`] decides everything but what all elements of a tensor decide together: the offsets of double quantization,
//! whose text goes into the files, and the scale of a whole tensor. Where there are such, [`Quantization::run`] reads the weights twice.

mod check;
mod encode;
mod error;
mod layout;
mod manifest;
mod plan;
mod run;
mod state;

pub use check::Checked;
pub use error::QuantizeError;
pub use manifest::MANIFEST;
pub use plan::{PlannedFile, PlannedTensor, QuantizePlan};
pub use run::QuantizeRun;

use crate::recipe::Only;
use ggufsmith_arch::Model;
use ggufsmith_checkpoint::int8::Int8Config;
use ggufsmith_checkpoint::modules::{HEAD, Kept, module_of};
use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions, Rounding, modules};
use ggufsmith_core::{DType, FourBit, TensorInfo, TensorSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The block lengths that bitsandbytes has.
pub const BLOCK_LENS: [u64; 8] = Rounding::BLOCK_LENS;

/// Scales of 4-bit blocks that share a scale of their own.
const NESTED_BLOCK_LEN: u64 = ggufsmith_core::schemes::dynamic8::BLOCK_LEN as u64;

/// Files beside the weights that are copied where they exist.
const COPIED: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// How weights are quantized.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// bitsandbytes' codes of 4 bits.
    FourBit {
        /// [`ggufsmith_core::schemes::nf4`] or [`ggufsmith_core::schemes::fp4`].
        scheme: &'static FourBit,
        /// Elements per scale, of [`BLOCK_LENS`].
        block_len: u64,
        /// Whether the scales are quantized, too.
        double: bool,
    },
    /// bitsandbytes' `LLM.int8`: signed bytes, a scale per row.
    Int8,
    /// Plain 8-bit codes.
    Plain(Int8Config),
}

impl Method {
    /// What `--type` calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Method::FourBit { scheme, .. } => scheme.name,
            Method::Int8 => Method::INT8,
            Method::Plain(config) => config.scheme.name(),
        }
    }

    /// The name of [`Method::Int8`].
    pub const INT8: &'static str = "INT8";

    /// Whether all elements of a tensor decide something together.
    fn reads_twice(&self) -> bool {
        match self {
            Method::FourBit { double, .. } => *double,
            Method::Int8 => false,
            Method::Plain(config) => !config.per_row,
        }
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// How.
    pub method: Method,
    /// The directory to write.
    pub out: PathBuf,
    /// Modules that stay as they are, beside the head: a module's whole name, or parts of it at its dots.
    pub skip_modules: Vec<String>,
    /// What is quantized of the rest, by its names in GGUF.
    pub only: Only,
    /// Bytes of tensor data of one safetensors file at most.
    pub max_shard_bytes: u64,
    /// How weights are opened.
    pub open: OpenOptions,
}

impl QuantizeOptions {
    /// All linear layers, in files of at most [`crate::export::DEFAULT_SHARD_BYTES`].
    pub fn new(method: Method, out: PathBuf) -> Self {
        QuantizeOptions {
            method,
            out,
            skip_modules: Vec::new(),
            only: Only::default(),
            max_shard_bytes: crate::export::DEFAULT_SHARD_BYTES,
            open: OpenOptions::default(),
        }
    }
}

/// A quantization that is planned and not yet run.
#[derive(Debug)]
pub struct Quantization {
    /// What a user should know.
    pub warnings: Vec<String>,
    options: QuantizeOptions,
    dir: ModelDir,
    checkpoint: Checkpoint,
    /// Per tensor of the checkpoint why it is not quantized; `None` where it is.
    kept: Vec<Option<Kept>>,
}

impl Quantization {
    /// Read everything but the weights.
    ///
    /// # Errors
    /// [`QuantizeError`]: whatever is wrong with the directory, its files, or the wishes.
    pub fn prepare(source: &Path, options: QuantizeOptions) -> Result<Self, QuantizeError> {
        if let Method::FourBit { block_len, .. } = options.method
            && !BLOCK_LENS.contains(&block_len)
        {
            return Err(QuantizeError::BlockLength { found: block_len });
        }
        let dir = ModelDir::open_with(source, options.open.clone())?;
        let checkpoint = Checkpoint::open(&dir)?;
        if dir.config().get("quantization_config").is_some_and(|entry| !entry.is_null()) || !checkpoint.notes().is_empty() {
            return Err(QuantizeError::Quantized { path: source.to_owned() });
        }
        // The names of a family that is known: which tensors are matrices of linear layers follows from them.
        let model = ggufsmith_arch::describe(dir.config(), checkpoint.tensors(), &ggufsmith_arch::Options::default())?;
        let mut kept: Vec<Option<Kept>> = checkpoint.tensors().iter().map(|info| Kept::of(info, &options.skip_modules)).collect();
        select(&options.only, &model, checkpoint.tensors(), &mut kept)?;
        if !kept.contains(&None) {
            return Err(QuantizeError::Nothing { path: source.to_owned() });
        }
        let mut warnings = model.warnings;
        for skipped in &options.skip_modules {
            if !checkpoint.tensors().iter().any(|info| modules::is_named(module_of(&info.name), skipped)) {
                warnings.push(format!("--skip-modules {skipped}: the model has no such module"));
            }
        }
        Ok(Quantization { warnings, options, dir, checkpoint, kept })
    }

    /// Number of tensors, and how many of them are quantized.
    pub fn tensors(&self) -> (usize, usize) {
        (self.kept.len(), self.kept.iter().filter(|kept| kept.is_none()).count())
    }

    /// Bytes that a run reads.
    pub fn source_bytes(&self) -> u64 {
        let twice = self.options.method.reads_twice();
        let bytes = |(info, kept): (&TensorInfo, &Option<Kept>)| info.bytes() * if twice && kept.is_none() { 2 } else { 1 };
        self.checkpoint.tensors().iter().zip(&self.kept).map(bytes).sum()
    }

    /// The directory to write.
    pub fn directory(&self) -> &Path {
        &self.options.out
    }

    /// The model's directory.
    pub fn dir(&self) -> &ModelDir {
        &self.dir
    }

    /// How.
    pub fn method(&self) -> &Method {
        &self.options.method
    }

    /// What the user kept, and with that the head; nothing where the choice is transformers' own.
    fn not_converted(&self) -> Vec<String> {
        let mut names: Vec<String> = self.options.skip_modules.clone();
        let left = self.checkpoint.tensors().iter().zip(&self.kept).filter(|(_, kept)| **kept == Some(Kept::NotOnly));
        names.extend(left.map(|(info, _)| module_of(&info.name).to_owned()));
        if !names.is_empty() {
            names.push(HEAD.to_owned());
        }
        names
    }

    /// config.json: the model's, and how it was quantized.
    fn config(&self) -> Vec<u8> {
        let not_converted = self.not_converted();
        let bitsandbytes = |four_bit: bool, quant_type: &str, double: bool| {
            // Given modules replace transformers' own choice: the head has to be among them.
            let skipped = if not_converted.is_empty() { Value::Null } else { json!(not_converted) };
            json!({
                "_load_in_4bit": four_bit,
                "_load_in_8bit": !four_bit,
                "bnb_4bit_compute_dtype": "float32",
                "bnb_4bit_quant_storage": "uint8",
                "bnb_4bit_quant_type": quant_type,
                "bnb_4bit_use_double_quant": double,
                "llm_int8_enable_fp32_cpu_offload": false,
                "llm_int8_has_fp16_weight": false,
                "llm_int8_skip_modules": skipped,
                "llm_int8_threshold": 6.0,
                "load_in_4bit": four_bit,
                "load_in_8bit": !four_bit,
                "quant_method": "bitsandbytes",
            })
        };
        let entry = match self.options.method {
            Method::FourBit { scheme, double, .. } => bitsandbytes(true, &scheme.name.to_lowercase(), double),
            // What transformers writes where it is not used.
            Method::Int8 => bitsandbytes(false, "fp4", false),
            Method::Plain(config) => config.entry(&not_converted),
        };
        let mut config = self.dir.config().clone();
        if let Some(config) = config.as_object_mut() {
            config.insert("quantization_config".to_owned(), entry);
            config.sort_keys();
        }
        format!("{config:#}\n").into_bytes()
    }
}

/// Keep what `only` does not select by any of the names that a tensor has in GGUF.
fn select(only: &Only, model: &Model, tensors: &[TensorInfo], kept: &mut [Option<Kept>]) -> Result<(), QuantizeError> {
    if only.is_everything() {
        return Ok(());
    }
    only.check(model.tensors.iter().map(|tensor| tensor.name.as_str()))?;
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tensor in &model.tensors {
        for info in tensor.expr.reads() {
            names.entry(&info.name).or_default().push(&tensor.name);
        }
    }
    for (info, kept) in tensors.iter().zip(kept) {
        let selected = names.get(info.name.as_str()).is_some_and(|names| names.iter().any(|name| only.selects(name)));
        if kept.is_none() && !selected {
            *kept = Some(Kept::NotOnly);
        }
    }
    Ok(())
}

/// What config.json and a quant_state call a type.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}
