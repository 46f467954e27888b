//! `ggufsmith convert --format safetensors`: a model directory that transformers loads with bitsandbytes.

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::{output, units};
use clap::ValueEnum;
use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_convert::bitsandbytes::{Method, Quantization, QuantizeError, QuantizeOptions, QuantizeRun};
use ggufsmith_convert::export::DEFAULT_SHARD_BYTES;
use ggufsmith_core::SCHEMES;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Gguf,
    Safetensors,
}

/// Options of this format.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What is written: GGUF files, or a model directory for transformers and bitsandbytes (types NF4, FP4, INT8)
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", help_heading = "bitsandbytes")]
    pub format: Format,

    /// Elements per scale of NF4 and FP4: a power of 2 from 32 to 4096 [default: 64]
    #[arg(long, value_name = "N", help_heading = "bitsandbytes")]
    block_size: Option<u64>,

    /// Quantize the scales of NF4 and FP4, too
    #[arg(long, help_heading = "bitsandbytes")]
    double_quant: bool,

    /// Modules that stay as they are, beside the head and the embeddings, such as `layers.0` or `down_proj`; repeat it, or separate
    /// several by commas
    #[arg(long, value_name = "MODULE", value_delimiter = ',', help_heading = "bitsandbytes")]
    skip_modules: Vec<String>,
}

/// What the command gives beside [`Options`].
pub struct Request<'a> {
    pub source: &'a Path,
    /// `--type`.
    pub types: Vec<&'a str>,
    pub out: Option<&'a Path>,
    pub force: bool,
    pub threads: usize,
    pub open: OpenOptions,
    pub json: bool,
    pub quiet: bool,
}

/// A run, for people and as JSON.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    source: &'a Path,
    directory: &'a Path,
    #[serde(rename = "type")]
    type_name: &'a str,
    tensors: usize,
    quantized: usize,
    bytes: u64,
    files: Vec<File<'a>>,
    seconds: f64,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    bytes: u64,
    sha256: &'a str,
}

impl Options {
    /// The first option that has no meaning for GGUF files.
    pub fn given(&self) -> Option<&'static str> {
        let given =
            [("--block-size", self.block_size.is_some()), ("--double-quant", self.double_quant), ("--skip-modules", !self.skip_modules.is_empty())];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn method(&self, name: &str) -> Result<Method, Failure> {
        if let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name)) {
            return Ok(Method::FourBit { scheme, block_len: self.block_size.unwrap_or(64), double: self.double_quant });
        }
        if !name.eq_ignore_ascii_case("INT8") {
            return Err(Failure::new(format!("--format safetensors has no type {name}; there are {}", names().join(", "))));
        }
        if self.block_size.is_some() || self.double_quant {
            return Err(Failure::new("INT8 has a scale per row: --block-size and --double-quant are for NF4 and FP4"));
        }
        Ok(Method::Int8)
    }

    /// Quantize.
    pub fn run(&self, request: &Request<'_>) -> Result<(), Failure> {
        let started = Instant::now();
        let [type_name] = request.types[..] else {
            return Err(Failure::new("--format safetensors writes one type to one directory: name one with --type"));
        };
        let method = self.method(type_name)?;
        let Some(out) = request.out.filter(|out| !out.as_os_str().is_empty()) else {
            return Err(Failure::new("--format safetensors needs a directory to write: name it with --out"));
        };
        let options = QuantizeOptions {
            method,
            out: out.to_owned(),
            skip_modules: self.skip_modules.clone(),
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            open: request.open.clone(),
        };
        let interrupt = Interrupt::listen()?;
        let quantization = Quantization::prepare(request.source, options)?;
        interrupt.check()?;
        quantization.warnings.iter().for_each(|warning| output::warning(warning));
        let progress = Progress::new(quantization.source_bytes(), request.quiet);
        let add = |bytes| progress.add(bytes);
        let run = QuantizeRun { threads: request.threads, force: request.force, cancel: interrupt.flag(), progress: &add };
        let result = quantization.run(&run);
        progress.end();
        let finished = match result {
            Err(QuantizeError::Cancelled) => return Err(Failure::Interrupted),
            other => other?,
        };
        let (tensors, quantized) = quantization.tensors();
        let bytes = finished.iter().map(|file| file.bytes).sum();
        if !request.quiet {
            let tensors = units::plural(tensors, "tensor");
            output::note(&format!("{}: {quantized} of {tensors} in {type_name}, {}", out.display(), units::bytes(bytes)));
        }
        if !request.json {
            return Ok(());
        }
        output::json(&Summary {
            source: request.source,
            directory: out,
            type_name,
            tensors,
            quantized,
            bytes,
            files: finished.iter().map(|file| File { path: &file.path, bytes: file.bytes, sha256: &file.sha256 }).collect(),
            seconds: started.elapsed().as_secs_f64(),
            warnings: &quantization.warnings,
        })
    }
}

/// The types of this format.
fn names() -> Vec<&'static str> {
    SCHEMES.iter().map(|scheme| scheme.name).chain(["INT8"]).collect()
}

/// Whether a name is one of them.
pub fn is_type(name: &str) -> bool {
    names().iter().any(|known| known.eq_ignore_ascii_case(name))
}
