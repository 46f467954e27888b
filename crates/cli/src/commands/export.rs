//! `ggufsmith export`.

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{self, printable};
use crate::progress::Progress;
use crate::units;
use clap::ValueEnum;
use ggufsmith_convert::export::{DEFAULT_SHARD_BYTES, DTypeChoice, Export, ExportError, ExportOptions, ExportRun};
use ggufsmith_convert::sink::{FinishedFile, temporary_name};
use ggufsmith_core::Words;
use ggufsmith_gguf::parse_size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Turn a GGUF file back into a Hugging Face model directory
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("export/help.txt"))]
pub struct Arguments {
    /// GGUF file (of a model in shards: any of them)
    file: PathBuf,

    /// Directory to write
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    out: PathBuf,

    /// Type of the weights. auto loses nothing of an F32, F16 or BF16 file, and takes F16 for what was quantized
    #[arg(long, value_enum, default_value_t, value_name = "TYPE", help_heading = "Output")]
    dtype: DTypeArgument,

    /// Begin a new safetensors file before one holds more than this much data: bytes, or with K, M or G behind (1000-based)
    /// [default: 5G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Output")]
    max_shard_size: Option<u64>,

    /// Overwrite files that exist
    #[arg(short, long, help_heading = "Output")]
    force: bool,

    /// The class in config.json, such as MistralForCausalLM [default: by the file's name where several fit]
    #[arg(long, value_name = "CLASS", help_heading = "Model")]
    class: Option<String>,

    /// Write no tokenizer files
    #[arg(long, help_heading = "Model")]
    no_tokenizer: bool,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Print the summary as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

/// `--dtype`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum DTypeArgument {
    #[default]
    Auto,
    F32,
    F16,
    Bf16,
}

impl From<DTypeArgument> for DTypeChoice {
    fn from(argument: DTypeArgument) -> DTypeChoice {
        match argument {
            DTypeArgument::Auto => DTypeChoice::Auto,
            DTypeArgument::F32 => DTypeChoice::Words(Words::F32),
            DTypeArgument::F16 => DTypeChoice::Words(Words::F16),
            DTypeArgument::Bf16 => DTypeChoice::Words(Words::BF16),
        }
    }
}

/// A run, for people and as JSON.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    source: &'a Path,
    architecture: &'a str,
    class: &'a str,
    parameters: u64,
    tensors: usize,
    /// The type that config.json names.
    dtype: &'a str,
    /// Tensors by the type that they are written in.
    dtypes: BTreeMap<&'a str, usize>,
    /// Dequantized tensors by the type that the file stores.
    dequantized: BTreeMap<&'a str, usize>,
    directory: &'a Path,
    bytes: u64,
    files: Vec<File<'a>>,
    seconds: f64,
    warnings: &'a [String],
    #[serde(skip)]
    elapsed: Duration,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    bytes: u64,
    sha256: &'a str,
}

impl Arguments {
    /// Export.
    pub fn run(&self) -> Result<(), Failure> {
        let started = Instant::now();
        check(&self.file)?;
        if self.out.as_os_str().is_empty() {
            return Err(Failure::new("--out is empty"));
        }
        let interrupt = Interrupt::listen()?;
        let options = ExportOptions {
            out: self.out.clone(),
            dtype: self.dtype.into(),
            class: self.class.clone(),
            max_shard_bytes: self.max_shard_size.unwrap_or(DEFAULT_SHARD_BYTES),
            tokenizer: !self.no_tokenizer,
        };
        let export = Export::prepare(&self.file, &options).map_err(advise)?;
        interrupt.check()?;
        export.warnings.iter().for_each(|warning| output::warning(warning));

        let progress = Progress::new(export.bytes(), self.quiet);
        let temporary: Vec<PathBuf> = export.paths().map(|path| temporary_name(&path)).collect();
        let add = |bytes| {
            // From the first chunk on the temporary files are ours, not those of another run that is refused.
            interrupt.remove_at_end(&temporary);
            progress.add(bytes);
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let run = ExportRun {
            threads: self.threads.map_or_else(cores, usize::from),
            force: self.force,
            cancel: interrupt.flag(),
            progress: &add,
        };
        let result = export.run(&run);
        progress.end();
        let finished = result.map_err(advise)?;
        let summary = self.summary(&export, &finished, started.elapsed());
        if !self.quiet {
            output::note(&summary.text());
        }
        if self.json { output::json(&summary) } else { Ok(()) }
    }

    fn summary<'a>(&'a self, export: &'a Export, finished: &'a [FinishedFile], elapsed: Duration) -> Summary<'a> {
        let (mut dtypes, mut dequantized) = (BTreeMap::new(), BTreeMap::new());
        for tensor in &export.tensors {
            *dtypes.entry(tensor.dtype.name()).or_default() += 1;
            if tensor.dequantized {
                *dequantized.entry(tensor.stored).or_default() += 1;
            }
        }
        Summary {
            source: &self.file,
            architecture: export.arch,
            class: export.class,
            parameters: export.elems(),
            tensors: export.tensors.len(),
            dtype: export.dtype.name(),
            dtypes,
            dequantized,
            directory: &self.out,
            bytes: finished.iter().map(|file| file.bytes).sum(),
            files: finished.iter().map(|file| File { path: &file.path, bytes: file.bytes, sha256: &file.sha256 }).collect(),
            seconds: elapsed.as_secs_f64(),
            warnings: &export.warnings,
            elapsed,
        }
    }
}

impl Summary<'_> {
    fn text(&self) -> String {
        let types: Vec<String> = self.dtypes.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let (class, tensors) = (self.class, units::plural(self.tensors, "tensor"));
        let mut text = format!("{class}: {tensors} ({}), {}\n", types.join(", "), units::bytes(self.bytes));
        for file in &self.files {
            text.push_str(&format!("  {}\n", printable(&file.path.to_string_lossy())));
        }
        text.push_str(&units::duration(self.elapsed));
        text
    }
}

/// Refuse what is no GGUF file's name, and say what to do.
fn check(file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => Err(Failure::new(format!("{shown} is a directory; export takes a GGUF file"))
            .hint("`ggufsmith convert` makes GGUF files of a model's directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(format!("there is no file {shown}"))),
        _ => Ok(()),
    }
}

/// The failure, with what to do about it where the error does not say.
fn advise(error: ExportError) -> Failure {
    let hint = match &error {
        ExportError::Cancelled => return Failure::Interrupted,
        ExportError::Tokenizer(_) => "--no-tokenizer exports the weights and config.json alone",
        ExportError::Arch(ggufsmith_arch::ExportError::UnknownArchitecture { .. }) => {
            "`ggufsmith list architectures` shows what is known"
        }
        _ => return Failure::from(error),
    };
    Failure::from(error).hint(hint)
}
