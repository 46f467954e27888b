//! `ggufsmith convert --format safetensors`: a quantized model directory, for transformers with bitsandbytes or in plain 8-bit codes.

mod report;

use super::carrier;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use clap::ValueEnum;
use ggufsmith_checkpoint::int8::{Int8Config, Int8Scheme};
use ggufsmith_checkpoint::{OpenOptions, Rounding};
use ggufsmith_convert::bitsandbytes::{Checked, Method, Quantization, QuantizeError, QuantizeOptions, QuantizeRun};
use ggufsmith_convert::export::DEFAULT_SHARD_BYTES;
use ggufsmith_convert::recipe::{FileType, Only};
use ggufsmith_core::schemes::int8_affine::Codes;
use ggufsmith_core::schemes::{int8_absmax, int8_affine};
use ggufsmith_core::{FourBit, SCHEMES};
use ggufsmith_gguf::parse_size;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Gguf,
    Safetensors,
}

/// `--granularity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Granularity {
    Tensor,
    Row,
}

const HEADING: &str = "Schemes of other libraries (NF4, FP4, INT8, INT8_AFFINE, INT8_ABSMAX)";

/// Options of these schemes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What is written: GGUF files, or a model directory: for transformers and bitsandbytes (NF4, FP4, INT8), or of plain 8-bit codes
    /// with a scale (INT8_ABSMAX) and a zero point (INT8_AFFINE)
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", help_heading = HEADING)]
    pub format: Format,

    /// The type that carries the values of NF4 or FP4 in GGUF, which has neither: Q8_0 or F16 [default: Q8_0]
    #[arg(long = "nf4-carrier", visible_alias = "fp4-carrier", value_name = "TYPE", value_parser = carrier::parse, help_heading = HEADING)]
    pub carrier: Option<&'static FileType>,

    /// Elements per scale of NF4 and FP4: a power of 2 from 32 to 4096 [default: 64]
    #[arg(long, value_name = "N", help_heading = HEADING)]
    block_size: Option<u64>,

    /// Quantize the scales of NF4 and FP4, too
    #[arg(long, help_heading = HEADING)]
    double_quant: bool,

    /// What has a scale (and a zero point) of its own in INT8_AFFINE and INT8_ABSMAX [default: tensor]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = HEADING)]
    granularity: Option<Granularity>,

    /// Codes of INT8_AFFINE are 0 to 255 instead of -128 to 127
    #[arg(long, help_heading = HEADING)]
    unsigned: bool,

    /// Modules that stay as they are, beside the head and the embeddings, such as `layers.0` or `down_proj`; repeat it, or separate
    /// several by commas
    #[arg(long, value_name = "MODULE", value_delimiter = ',', help_heading = HEADING)]
    skip_modules: Vec<String>,

    /// Begin a new safetensors file before one holds more than this much data: bytes, or with K, M or G behind (1000-based)
    /// [default: 5G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = HEADING)]
    max_shard_size: Option<u64>,
}

/// What the command gives beside [`Options`].
pub struct Request<'a> {
    pub source: &'a Path,
    /// `--type`.
    pub types: Vec<&'a str>,
    pub out: Option<&'a Path>,
    pub only: Only,
    pub force: bool,
    pub dry_run: bool,
    pub verify: bool,
    pub manifest: bool,
    pub threads: usize,
    pub open: OpenOptions,
    pub json: bool,
    pub quiet: bool,
}

impl Options {
    /// The first option that has no meaning for GGUF files of GGUF's own types, and what would give it one.
    pub fn given(&self) -> Option<(&'static str, &'static str)> {
        const EITHER: &str = "it goes with --type NF4 or FP4, or with --format safetensors";
        const FORMAT: &str = "add --format safetensors";
        let given = [
            (self.carrier.is_some(), "--nf4-carrier", "it goes with --type NF4 or FP4"),
            (self.block_size.is_some(), "--block-size", EITHER),
            (self.double_quant, "--double-quant", EITHER),
            (!self.skip_modules.is_empty(), "--skip-modules", EITHER),
        ];
        let given = given.into_iter().find(|(given, ..)| *given).map(|(_, flag, hint)| (flag, hint));
        given.or_else(|| self.of_safetensors().map(|flag| (flag, FORMAT)))
    }

    fn of_safetensors(&self) -> Option<&'static str> {
        self.of_plain().or(self.max_shard_size.map(|_| "--max-shard-size"))
    }

    fn of_plain(&self) -> Option<&'static str> {
        let given = [(self.granularity.is_some(), "--granularity"), (self.unsigned, "--unsigned")];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// What GGUF files of `--type NAME` hold.
    pub fn rounding(&self, name: &str) -> Result<Rounding, Failure> {
        let Some(scheme) = scheme(name) else {
            let message = format!("GGUF has no type {name}");
            return Err(Failure::new(message).hint("--format safetensors writes a model directory of it"));
        };
        if let Some(flag) = self.of_safetensors() {
            return Err(Failure::new(format!("{flag} has no meaning for GGUF files")).hint("add --format safetensors"));
        }
        let skip_modules = self.skip_modules.clone();
        let block_len = self.block_size.unwrap_or(FourBit::DEFAULT_BLOCK_LEN as u64);
        Ok(Rounding { scheme, block_len, double: self.double_quant, skip_modules })
    }

    /// The type of GGUF files that carry another scheme's values.
    pub fn carrier(&self) -> Option<&'static FileType> {
        self.carrier.or_else(carrier::default)
    }

    fn method(&self, name: &str) -> Result<Method, Failure> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let refuse = |message: String| Err(Failure::new(message));
        if let Some(scheme) = scheme(name) {
            if let Some(flag) = self.of_plain() {
                return refuse(format!("{flag} is for {} and {}, not for {}", int8_affine::NAME, int8_absmax::NAME, scheme.name));
            }
            let block_len = self.block_size.unwrap_or(FourBit::DEFAULT_BLOCK_LEN as u64);
            return Ok(Method::FourBit { scheme, block_len, double: self.double_quant });
        }
        if ![Method::INT8, int8_affine::NAME, int8_absmax::NAME].into_iter().any(is) {
            return refuse(format!("--format safetensors has no type {name}; there are {}", names().join(", ")));
        }
        if self.block_size.is_some() || self.double_quant {
            return refuse(format!("{name} has no blocks: --block-size and --double-quant are for NF4 and FP4"));
        }
        if is(Method::INT8) {
            return match self.of_plain() {
                Some(flag) => refuse(format!("INT8 has signed codes and a scale per row: {flag} is for {}", int8_affine::NAME)),
                None => Ok(Method::Int8),
            };
        }
        if self.unsigned && is(int8_absmax::NAME) {
            return refuse(format!("{name} has signed codes: --unsigned is for {}", int8_affine::NAME));
        }
        let codes = if self.unsigned { Codes::Unsigned } else { Codes::Signed };
        let scheme = if is(int8_absmax::NAME) { Int8Scheme::Absmax } else { Int8Scheme::Affine(codes) };
        Ok(Method::Plain(Int8Config { scheme, per_row: self.granularity == Some(Granularity::Row) }))
    }

    /// Quantize, or show the plan.
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
            skip_modules: self.skip_modules.clone(),
            only: request.only.clone(),
            max_shard_bytes: self.max_shard_size.unwrap_or(DEFAULT_SHARD_BYTES),
            open: request.open.clone(),
            ..QuantizeOptions::new(method, out.to_owned())
        };
        if request.dry_run {
            let quantization = Quantization::prepare(request.source, options)?;
            quantization.warnings.iter().for_each(|warning| output::warning(warning));
            let plan = quantization.plan()?;
            let report = report::Plan::new(&quantization, &plan, request.threads);
            return if request.json { output::json(&report) } else { output::data(&report.to_string()) };
        }
        let interrupt = Interrupt::listen()?;
        let quantization = Quantization::prepare(request.source, options)?;
        interrupt.check()?;
        quantization.warnings.iter().for_each(|warning| output::warning(warning));
        let begun = |files: &[PathBuf]| interrupt.remove_at_end(files);
        let read = |quantization: &Quantization, check: bool| {
            let progress = Progress::new(quantization.source_bytes(), request.quiet);
            let run = QuantizeRun {
                threads: request.threads,
                force: request.force,
                manifest: request.manifest.then(crate::commands::command_line),
                cancel: interrupt.flag(),
                progress: &|bytes| progress.add(bytes),
                begun: &begun,
            };
            let result = match check {
                false => quantization.run(&run).map(|files| (files, None)),
                true => quantization.check(&run).map(|checked| (Vec::new(), Some(checked))),
            };
            progress.end();
            result.map_err(|error| match error {
                QuantizeError::Cancelled => Failure::Interrupted,
                other => other.into(),
            })
        };
        let (finished, _) = read(&quantization, false)?;
        let checked = if request.verify { read(&quantization, true)?.1 } else { None };
        let seconds = started.elapsed().as_secs_f64();
        let summary = report::Summary::new(&quantization, &finished, checked.as_ref(), request.manifest, seconds);
        if !request.quiet {
            output::note(&summary.to_string());
        }
        if request.json {
            output::json(&summary)?;
        }
        conclude(out, checked.as_ref())
    }
}

/// The end of the process: fine, or a check that failed.
fn conclude(out: &Path, checked: Option<&Checked>) -> Result<(), Failure> {
    match checked.map(|checked| checked.problems.as_slice()).unwrap_or_default() {
        [] => Ok(()),
        problems => {
            let problems = problems.iter().map(|problem| format!("{}: {problem}", out.display())).collect();
            Err(Failure::Verdict { code: 1, problems })
        }
    }
}

fn scheme(name: &str) -> Option<&'static FourBit> {
    SCHEMES.iter().copied().find(|scheme| scheme.name.eq_ignore_ascii_case(name))
}

/// Name, bits per weight, elements that share a scale by default (0: a row or a tensor), and whose bytes these are.
pub fn schemes() -> Vec<(&'static str, f64, usize, Option<&'static str>)> {
    const TOOL: Option<&str> = Some("bitsandbytes");
    let scale = 8.0 * size_of::<f32>() as f64 / FourBit::DEFAULT_BLOCK_LEN as f64;
    let four_bit = SCHEMES.iter().map(|scheme| (scheme.name, 4.0 + scale, FourBit::DEFAULT_BLOCK_LEN, TOOL));
    let plain = [(Method::INT8, TOOL), (int8_affine::NAME, None), (int8_absmax::NAME, None)];
    four_bit.chain(plain.map(|(name, tool)| (name, 8.0, 0, tool))).collect()
}

/// The types of this format.
fn names() -> Vec<&'static str> {
    SCHEMES.iter().map(|scheme| scheme.name).chain([Method::INT8, int8_affine::NAME, int8_absmax::NAME]).collect()
}

/// Whether a name is one of them.
pub fn is_type(name: &str) -> bool {
    names().iter().any(|known| known.eq_ignore_ascii_case(name))
}
