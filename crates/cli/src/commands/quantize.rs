//! `ggufsmith quantize`.

mod operands;

use super::convert::{device, dry_run, run, summary, types};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::{output, threads};
use ggufsmith_convert::recipe::COPY;
use ggufsmith_convert::requantize::{KeyOverride, Requantization, RequantizeOptions};
use operands::Operands;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Quantize a GGUF file, as llama-quantize does, with its options
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "ggufsmith quantize [OPTIONS] <IN.gguf> [OUT.gguf] <TYPE> [THREADS]",
    after_help = include_str!("quantize/help.txt")
)]
pub struct Arguments {
    /// GGUF file to quantize (of a model in shards: any of them)
    #[arg(value_name = "IN.gguf")]
    input: PathBuf,

    /// File to write [default: ggml-model-TYPE.gguf beside the input]; type in any case, or its number; worker threads
    #[arg(value_name = "[OUT.gguf] TYPE [THREADS]", num_args = 1..=3, required = true)]
    operands: Vec<String>,

    /// Quantize what is quantized already: decode it first. It loses more than quantizing the original
    #[arg(long)]
    allow_requantize: bool,

    /// Importance matrix of llama-imatrix, in its GGUF or its older .dat form; what it does not name is quantized without
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    /// Use the importance of these tensors alone: a part of their names; repeat it for several
    #[arg(long, value_name = "NAME", conflicts_with = "exclude_weights", requires = "imatrix")]
    include_weights: Vec<String>,

    /// Do not use the importance of these tensors: a part of their names; repeat it for several
    #[arg(long, value_name = "NAME", requires = "imatrix")]
    exclude_weights: Vec<String>,

    #[command(flatten)]
    tensor_types: types::Arguments,

    /// Set a key of the output: TYPE is int (stored as u32), float, bool or str; repeat it for several
    #[arg(long, value_name = "KEY=TYPE:VALUE", help_heading = "Output")]
    override_kv: Vec<KeyOverride>,

    /// Leave out these layers, separated by commas, and renumber those behind them
    #[arg(long, value_name = "L0,L1,...", value_delimiter = ',', help_heading = "Output")]
    prune_layers: Vec<u64>,

    /// Write as many shards as the input has, with the same tensors in each
    #[arg(long, help_heading = "Output")]
    keep_split: bool,

    /// Overwrite files that exist
    #[arg(short, long, help_heading = "Output")]
    force: bool,

    /// Show what would be written and why: every tensor's shape, type, bytes and the rule that chose the type
    #[arg(short = 'n', long, visible_alias = "explain", help_heading = "Output")]
    dry_run: bool,

    /// Write no FILE.gguf.manifest.json (sha256 of every input and output, and how the file was made)
    #[arg(long, help_heading = "Output")]
    no_manifest: bool,

    /// Quantize weights that are NaN or infinite, or that become infinite, and count them
    #[arg(long, help_heading = "Run")]
    allow_nonfinite: bool,

    /// Worker threads, as the operand [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Understood for llama-quantize's sake; buffers are always smaller than its smallest
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Run")]
    max_buffer_size: Option<u32>,

    /// What encodes; as in convert, the bytes are the same
    #[arg(long, value_enum, default_value_t, value_name = "DEVICE", help_heading = "Run")]
    device: device::Device,

    /// Print the plan or the summary as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

impl Arguments {
    /// Quantize, or show the plan.
    pub fn run(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let operands = Operands::parse(&self.operands)?;
        check(&self.input)?;
        let threads = self.count(&operands)?;
        let options = self.options(&operands)?;
        if self.dry_run {
            return self.show(&Requantization::prepare(&self.input, &options)?, threads);
        }
        let interrupt = Interrupt::listen()?;
        let requantization = Requantization::prepare(&self.input, &options)?;
        interrupt.check()?;
        requantization.warnings.iter().for_each(|warning| output::warning(warning));
        let settings = run::Settings {
            started,
            threads,
            device: self.device,
            force: self.force,
            allow_nonfinite: self.allow_nonfinite,
            manifest: !self.no_manifest,
            quiet: self.quiet,
        };
        let outcome = run::run(&requantization.plan, &settings, &interrupt, |options| run::finished(requantization.run(options)))?;
        let summary = summary::Summary::new((&requantization).into(), &outcome, settings.manifest);
        if !self.quiet {
            summary.print();
        }
        if self.json { output::json(&summary) } else { Ok(()) }
    }

    /// The number of threads, said in one of two places.
    fn count(&self, operands: &Operands) -> Result<usize, Failure> {
        match (operands.threads, self.threads) {
            (Some(operand), Some(flag)) if operand != flag => {
                Err(Failure::new(format!("--threads {flag} and the operand {operand} ask for different numbers of threads")))
            }
            (operand, flag) => Ok(threads::count(operand.or(flag))),
        }
    }

    fn options(&self, operands: &Operands) -> Result<RequantizeOptions, Failure> {
        let choices = self.tensor_types.choices()?;
        if std::ptr::eq(operands.file_type, &COPY) && !choices.is_empty() {
            return Err(Failure::new("COPY keeps the type of every tensor; options that decide types have no meaning with it"));
        }
        let name = || format!("ggml-model-{}.gguf", operands.file_type.name());
        Ok(RequantizeOptions {
            file_type: operands.file_type,
            out: operands.out.clone().unwrap_or_else(|| self.input.with_file_name(name())),
            choices,
            imatrix: self.imatrix.clone(),
            include_weights: self.include_weights.clone(),
            exclude_weights: self.exclude_weights.clone(),
            overrides: self.override_kv.clone(),
            prune_layers: self.prune_layers.clone(),
            keep_split: self.keep_split,
            allow_requantize: self.allow_requantize,
        })
    }

    fn show(&self, requantization: &Requantization, threads: usize) -> Result<(), Failure> {
        requantization.warnings.iter().for_each(|warning| output::warning(warning));
        for file in requantization.plan.files().filter(|file| !self.force && file.path.exists()) {
            output::warning(&format!("{} exists; writing it needs --force", file.path.display()));
        }
        let report = dry_run::Report::new(requantization.into(), threads);
        if self.json { output::json(&report) } else { output::data(&report.to_string()) }
    }
}

/// Refuse what is no GGUF file's name, and say what to do.
fn check(file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => Err(Failure::new(format!("{shown} is a directory; quantize takes a GGUF file"))
            .hint("`ggufsmith convert` makes GGUF files of any type of a model's directory, without a file in between")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(format!("there is no file {shown}"))),
        _ => Ok(()),
    }
}
