//! From a Hugging Face model to one that `transformers` loads with bitsandbytes: 4-bit (NF4, FP4) or `LLM.int8`.
//!
//! What is written equals, bit for bit, what `AutoModelForCausalLM.from_pretrained(..., quantization_config=BitsAndBytesConfig(...))`
//! and `save_pretrained` of transformers 5 with bitsandbytes 0.50.2 write of a model that is loaded in its own dtypes. With double
//! quantization the reference is one thread of torch: more threads change the last bit of the offset.
//!
//! [`Quantization::prepare`] decides everything but the offsets, whose text goes into the files: with double quantization
//! [`Quantization::run`] reads the weights twice, first for the largest magnitudes of all blocks.

mod error;
mod run;
mod state;

pub use error::QuantizeError;
pub use run::QuantizeRun;

use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions};
use ggufsmith_core::{DType, FourBit, TensorInfo, TensorSource};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The block lengths that bitsandbytes has.
pub const BLOCK_LENS: [u64; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// Scales of 4-bit blocks that share a scale of their own.
const NESTED_BLOCK_LEN: u64 = ggufsmith_core::schemes::dynamic8::BLOCK_LEN as u64;

/// The head is not quantized: transformers keeps it, tied to the embeddings or not.
const HEAD: &str = "lm_head";

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
    /// Codes of 4 bits.
    FourBit {
        /// [`ggufsmith_core::schemes::nf4`] or [`ggufsmith_core::schemes::fp4`].
        scheme: &'static FourBit,
        /// Elements per scale, of [`BLOCK_LENS`].
        block_len: u64,
        /// Whether the scales are quantized, too.
        double: bool,
    },
    /// Signed bytes, a scale per row.
    Int8,
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
    /// Bytes of tensor data of one safetensors file at most.
    pub max_shard_bytes: u64,
    /// How weights are opened.
    pub open: OpenOptions,
}

/// A quantization that is planned and not yet run.
#[derive(Debug)]
pub struct Quantization {
    /// What a user should know.
    pub warnings: Vec<String>,
    options: QuantizeOptions,
    dir: ModelDir,
    checkpoint: Checkpoint,
    /// One flag per tensor of the checkpoint: whether it is quantized.
    chosen: Vec<bool>,
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
        let chosen: Vec<bool> = checkpoint.tensors().iter().map(|info| is_quantized(info, &options.skip_modules)).collect();
        if !chosen.contains(&true) {
            return Err(QuantizeError::Nothing { path: source.to_owned() });
        }
        let mut warnings = model.warnings;
        for skipped in &options.skip_modules {
            if !checkpoint.tensors().iter().any(|info| matches(module_of(&info.name), skipped)) {
                warnings.push(format!("--skip-modules {skipped}: the model has no such module"));
            }
        }
        Ok(Quantization { warnings, options, dir, checkpoint, chosen })
    }

    /// Number of tensors, and how many of them are quantized.
    pub fn tensors(&self) -> (usize, usize) {
        (self.chosen.len(), self.chosen.iter().filter(|chosen| **chosen).count())
    }

    /// Bytes that a run reads.
    pub fn source_bytes(&self) -> u64 {
        let double = matches!(self.options.method, Method::FourBit { double: true, .. });
        let bytes = |(info, chosen): (&TensorInfo, &bool)| info.bytes() * if double && *chosen { 2 } else { 1 };
        self.checkpoint.tensors().iter().zip(&self.chosen).map(bytes).sum()
    }

    /// config.json: the model's, and how it was quantized.
    fn config(&self) -> Vec<u8> {
        let (four_bit, quant_type, double) = match self.options.method {
            Method::FourBit { scheme, double, .. } => (true, scheme.name.to_lowercase(), double),
            // What transformers writes where it is not used.
            Method::Int8 => (false, "fp4".to_owned(), false),
        };
        let mut config = self.dir.config().clone();
        // Given modules replace transformers' own choice: the head has to be among them.
        let skipped = match self.options.skip_modules.as_slice() {
            [] => Value::Null,
            given => given.iter().map(String::as_str).chain([HEAD]).collect(),
        };
        if let Some(config) = config.as_object_mut() {
            let entry = json!({
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
            });
            config.insert("quantization_config".to_owned(), entry);
            config.sort_keys();
        }
        format!("{config:#}\n").into_bytes()
    }
}

/// Matrices of linear layers but the head; embeddings are none, norms are no matrices.
fn is_quantized(info: &TensorInfo, skip_modules: &[String]) -> bool {
    let module = module_of(&info.name);
    let matrix = info.name.ends_with(".weight") && info.shape.len() == 2 && info.elems() > 0;
    let embedding = module.rsplit('.').next().is_some_and(|part| part.contains("embed") || part.contains("norm"));
    let skipped = matches(module, HEAD) || skip_modules.iter().any(|name| matches(module, name));
    matrix && !embedding && !skipped
}

fn module_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// Whether `name` is a module's name or a run of its parts.
fn matches(module: &str, name: &str) -> bool {
    !name.is_empty() && format!(".{module}.").contains(&format!(".{name}."))
}

/// What config.json and a quant_state call a type.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_tensors_are_quantized() {
        let chosen = |name: &str, shape: &[u64], skip: &[&str]| {
            let info =
                TensorInfo { name: name.into(), dtype: DType::BF16, shape: shape.to_vec(), file: PathBuf::new(), offset: 0 };
            is_quantized(&info, &skip.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let weight = "model.layers.11.mlp.up_proj.weight";
        assert!(chosen(weight, &[8, 8], &[]));
        assert!(chosen(weight, &[8, 8], &["layers.1", "up", "proj", ""]));
        for skip in ["up_proj", "mlp", "mlp.up_proj", "layers.11", "model", "model.layers.11.mlp.up_proj"] {
            assert!(!chosen(weight, &[8, 8], &[skip]), "{skip}");
        }
        for (name, shape) in [
            ("lm_head.weight", vec![8, 8]),
            ("model.embed_tokens.weight", vec![8, 8]),
            ("model.norm.weight", vec![8]),
            ("model.layers.0.self_attn.q_proj.bias", vec![8]),
            ("model.layers.0.self_attn.q_proj.weight", vec![0, 8]),
        ] {
            assert!(!chosen(name, &shape, &[]), "{name}");
        }
    }
}
