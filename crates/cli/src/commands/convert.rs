//! `ggufsmith convert`.

mod bitsandbytes;
mod carrier;
pub(super) mod device;
pub(super) mod dry_run;
mod publish;
pub(super) mod run;
mod source;
pub(super) mod summary;
mod target;
pub(super) mod types;

pub(super) use bitsandbytes::schemes;
pub(super) use source::check as check_source;

use super::{push, verify};
use crate::failure::Failure;
use crate::hub::{self, Located, Need};
use crate::interrupt::Interrupt;
use crate::{names, output, threads};
use target::{create_directory, target};
use clap::ValueEnum;
use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_convert::metadata::Overrides;
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::recipe::{self, FileType};
use ggufsmith_checkpoint::Rounding;
use ggufsmith_convert::{Conversion, ConvertError, Options, Preparation};
use ggufsmith_core::Words;
use ggufsmith_gguf::{SplitLimits, parse_size};
use ggufsmith_verify::report::{self, Report};
use std::path::PathBuf;
use std::time::Instant;

/// Convert a model to GGUF: any number of types from one read of its weights
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("convert/help.txt"))]
pub struct Arguments {
    /// Directory with config.json, safetensors and the tokenizer's files, or a model of the Hugging Face Hub: org/name, or
    /// org/name@revision
    source: PathBuf,

    /// Type to write, in any case; repeat it, or separate several by commas (`ggufsmith list types` shows all)
    #[arg(short, long = "type", visible_alias = "outtype", value_name = "TYPE", value_delimiter = ',', value_parser = output_type)]
    types: Vec<OutputType>,

    /// The 16- or 32-bit file that llama.cpp's two steps would have in between; auto loses nothing
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    via: ViaArgument,

    /// Importance matrix of llama-imatrix, in its GGUF or its older .dat form; what it does not name is quantized without
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    #[command(flatten)]
    tensor_types: types::Arguments,

    /// File or directory to write to; in a file's name {ftype} stands for the type [default: the current directory, names as
    /// llama.cpp's converter chooses them]
    #[arg(short, long, visible_alias = "outfile", value_name = "PATH", help_heading = "Output")]
    out: Option<PathBuf>,

    /// Overwrite files that exist
    #[arg(short, long, help_heading = "Output")]
    force: bool,

    /// Show what would be written and why: every tensor's shape, type, bytes and the rule that chose the type
    #[arg(short = 'n', long, visible_alias = "explain", overrides_with = "dry_run", help_heading = "Output")]
    dry_run: bool,

    /// Write no FILE.gguf.manifest.json (sha256 of every input and output, and how the file was made)
    #[arg(long, help_heading = "Output")]
    no_manifest: bool,

    /// Begin a new shard before one holds more than this much tensor data: bytes, or with K, M or G behind (1000-based)
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Output")]
    split_max_size: Option<u64>,

    /// Begin a new shard after this many tensors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Output")]
    split_max_tensors: Option<u64>,

    /// Keep the first shard free of tensors
    #[arg(long, help_heading = "Output")]
    no_tensor_first_split: bool,

    /// The model's name [default: from its model card, config.json or directory]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    model_name: Option<String>,

    /// JSON file with general.* metadata that overrides what the model says
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    metadata: Option<PathBuf>,

    /// Name of the pre-tokenizer where it is not recognized (`ggufsmith list pre-tokenizers` shows all)
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pre: Option<String>,

    /// Take the model for one of this architecture, or class, whatever its config.json says: for classes that are known ones under
    /// another name (`ggufsmith list architectures` shows all)
    #[arg(long, value_name = "NAME", value_parser = names::class, help_heading = "Model")]
    arch: Option<String>,

    /// Convert weights that are NaN or infinite, or that become infinite, and count them
    #[arg(long, help_heading = "Model")]
    allow_nonfinite: bool,

    /// Refuse keys of config.json that this architecture does not know
    #[arg(long, help_heading = "Model")]
    strict_config: bool,

    /// Follow links that leave the model's directory
    #[arg(long, help_heading = "Model")]
    follow_symlinks: bool,

    /// Read the weights of a model on the Hub once, from front to back, and store none of them; files get their names only when every
    /// hash is the Hub's
    #[arg(long, conflicts_with = "verify", help_heading = "Model")]
    stream: bool,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Verify every output against the source afterwards (`ggufsmith verify --help` explains the options that go with it); exit
    /// code 1 where a check or a threshold fails
    #[arg(long, conflicts_with = "dry_run", help_heading = "Verify")]
    verify: bool,

    #[command(flatten)]
    verification: verify::Options,

    /// Then publish the files in this repository of the Hub, with their reports and a model card; not where a check or a threshold
    /// fails (`ggufsmith push --help` explains)
    #[arg(long, value_name = "ORG/NAME", requires = "verify", conflicts_with = "no_report", help_heading = "Publish")]
    push: Option<String>,

    #[command(flatten)]
    publication: push::Options,

    #[command(flatten)]
    bitsandbytes: bitsandbytes::Options,

    /// What encodes: auto takes a GPU beside the CPU where it pays (at least 4 GB of weights, and 20 % more throughput in a short
    /// measurement); gpu takes any adapter and fails without one. The bytes are the same
    #[arg(long, value_enum, default_value_t, value_name = "DEVICE", help_heading = "Run")]
    device: device::Device,

    /// Print the plan or the summary as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

/// `--via`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ViaArgument {
    #[default]
    Auto,
    Bf16,
    F16,
    F32,
}

impl From<ViaArgument> for Via {
    fn from(argument: ViaArgument) -> Via {
        match argument {
            ViaArgument::Auto => Via::Auto,
            ViaArgument::Bf16 => Via::Words(Words::BF16),
            ViaArgument::F16 => Via::Words(Words::F16),
            ViaArgument::F32 => Via::Words(Words::F32),
        }
    }
}

/// `--type`: of a GGUF file, or a scheme of other libraries.
#[derive(Debug, Clone)]
enum OutputType {
    File(&'static FileType),
    Scheme(String),
}

impl OutputType {
    fn name(&self) -> &str {
        match self {
            OutputType::File(file_type) => file_type.name(),
            OutputType::Scheme(name) => name,
        }
    }
}

fn output_type(name: &str) -> Result<OutputType, names::TypeNameError> {
    match bitsandbytes::is_type(name) {
        true => Ok(OutputType::Scheme(name.to_uppercase())),
        false => names::planned_file_type(name).map(OutputType::File),
    }
}

impl Arguments {
    /// Convert, or show the plan.
    pub fn run(&self) -> Result<(), Failure> {
        let started = Instant::now();
        if self.bitsandbytes.format == bitsandbytes::Format::Safetensors {
            return self.quantize();
        }
        let preparation = Preparation { rounding: self.rounding()?, draft: self.dry_run };
        let options = self.options()?;
        if let Some(flag) = self.verification.given().filter(|_| !self.verify) {
            return Err(Failure::new(format!("{flag} says how to verify, and --verify was not given")).hint("add --verify"));
        }
        if let Some(flag) = self.publication.given().filter(|_| self.push.is_none()) {
            return Err(Failure::new(format!("{flag} says how to publish, and --push was not given")).hint("add --push ORG/NAME"));
        }
        let publication = self.push.as_deref().map(|repo| publish::begin(self, repo)).transpose()?;
        if !self.dry_run && !self.stream {
            self.rehearse(&options, &preparation)?;
        }
        let located = self.locate()?;
        let source = located.path.as_path();
        let options = Options { open: self.open_options(&located), ..options };
        let threads = threads::count(self.threads);
        if self.dry_run {
            let conversion = Conversion::prepare_with(source, &options, preparation)?;
            return self.show(&conversion, threads);
        }
        let interrupt = Interrupt::listen()?;
        let conversion = Conversion::prepare_with(source, &options, preparation)?;
        interrupt.check()?;
        create_directory(&options)?;
        conversion.warnings.iter().for_each(|warning| output::warning(warning));
        let settings = run::Settings {
            started,
            threads,
            device: self.device,
            force: self.force,
            allow_nonfinite: self.allow_nonfinite,
            manifest: !self.no_manifest,
            quiet: self.quiet,
        };
        let outcome = run::run(&conversion.plan, &settings, &interrupt, |options| run::finished(conversion.run(options)))?;
        let summary = summary::Summary::new((&conversion).into(), &outcome, settings.manifest);
        if !self.quiet {
            summary.print();
        }
        if !self.verify {
            return if self.json { output::json(&summary) } else { Ok(()) };
        }
        let reports = self.verify_outputs(&conversion, &located, threads, &interrupt)?;
        if !self.json && !self.quiet {
            output::data(&report::terminal(&reports))?;
        }
        let concluded = self.verification.conclude(&reports);
        let published = match publication.filter(|_| concluded.is_ok()) {
            Some(publication) => publication.finish(&conversion, source, &interrupt),
            None => Ok(None),
        };
        if self.json {
            let mut summary = serde_json::to_value(&summary)?;
            summary["reports"] = serde_json::to_value(&reports)?;
            if let Ok(Some(published)) = &published {
                summary["published"] = published.clone();
            }
            output::json(&summary)?;
        }
        concluded.and(published.map(drop))
    }

    /// `--format safetensors`.
    fn quantize(&self) -> Result<(), Failure> {
        if let Some(flag) = self.of_gguf() {
            return Err(Failure::new(format!("{flag} is for GGUF files, not for --format safetensors")));
        }
        let located = self.locate()?;
        self.bitsandbytes.run(&bitsandbytes::Request {
            source: &located.path,
            types: self.types.iter().map(OutputType::name).collect(),
            out: self.out.as_deref(),
            only: self.tensor_types.only(),
            force: self.force,
            dry_run: self.dry_run,
            verify: self.verify,
            manifest: !self.no_manifest,
            threads: threads::count(self.threads),
            open: self.open_options(&located),
            json: self.json,
            quiet: self.quiet,
        })
    }

    /// Before weights are downloaded: what would stop the conversion afterwards.
    fn rehearse(&self, options: &Options, preparation: &Preparation) -> Result<(), Failure> {
        let located = hub::locate(&self.source, Need::FirstLook, true)?;
        if located.remote.is_none() {
            return Ok(());
        }
        let options = Options { open: self.open_options(&located), ..options.clone() };
        match Conversion::prepare_with(&located.path, &options, preparation.clone()) {
            Ok(conversion) => {
                create_directory(&options)?;
                Ok(conversion.check_outputs(self.force)?)
            }
            // A server that sends no parts of a file may well send the whole, and only that has a hash.
            Err(error @ ConvertError::Checkpoint(_)) if !hub::is_refusal(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The model's directory, downloaded if it is on the Hub.
    fn locate(&self) -> Result<Located, Failure> {
        let need = match (self.dry_run, self.stream) {
            (true, _) => Need::Headers,
            (false, true) => Need::Stream,
            (false, false) => Need::Weights,
        };
        let located = hub::locate(&self.source, need, self.quiet)?;
        source::check(&located.path)?;
        Ok(located)
    }

    fn open_options(&self, located: &Located) -> OpenOptions {
        let (class, remote) = (self.arch.clone(), located.remote.clone());
        OpenOptions { class, follow_symlinks: self.follow_symlinks, remote, ..OpenOptions::default() }
    }

    /// The first option that was given and means something to GGUF files alone.
    fn of_gguf(&self) -> Option<&'static str> {
        let given = [
            (self.via != ViaArgument::Auto, "--via"),
            (self.imatrix.is_some(), "--imatrix"),
            (self.split_max_size.is_some(), "--split-max-size"),
            (self.split_max_tensors.is_some(), "--split-max-tensors"),
            (self.no_tensor_first_split, "--no-tensor-first-split"),
            (self.model_name.is_some(), "--model-name"),
            (self.metadata.is_some(), "--metadata"),
            (self.pre.is_some(), "--pre"),
            (self.allow_nonfinite, "--allow-nonfinite"),
            (self.strict_config, "--strict-config"),
            (self.device == device::Device::Gpu, "--device gpu"),
            (self.bitsandbytes.carrier.is_some(), "--nf4-carrier"),
            (self.stream, "--stream"),
            (self.push.is_some(), "--push"),
        ];
        let given = given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag);
        given.or(self.tensor_types.of_gguf()).or(self.verification.given()).or(self.publication.given())
    }

    /// The scheme whose values GGUF files are to carry.
    fn rounding(&self) -> Result<Option<Rounding>, Failure> {
        let scheme = self.types.iter().find_map(|output_type| match output_type {
            OutputType::Scheme(name) => Some(name.as_str()),
            OutputType::File(_) => None,
        });
        let Some(name) = scheme else {
            return match self.bitsandbytes.given() {
                Some((flag, hint)) => Err(Failure::new(format!("{flag} has no meaning for these GGUF files")).hint(hint)),
                None => Ok(None),
            };
        };
        let rounding = self.bitsandbytes.rounding(name)?;
        if self.types.len() > 1 {
            let message = format!("{name} in GGUF is a run of its own: its values would be those of all other types, too");
            return Err(Failure::new(message));
        }
        let chosen = self.tensor_types.of_gguf().or(self.imatrix.as_ref().map(|_| "--imatrix"));
        let chosen = chosen.or((!self.tensor_types.only().is_everything()).then_some("--only"));
        let chosen = chosen.or((self.via != ViaArgument::Auto).then_some("--via"));
        if let Some(flag) = chosen {
            let message = format!("{flag} does not go with {name} in GGUF: every matrix has the type that carries it");
            return Err(Failure::new(message).hint("--skip-modules names modules that keep their own values"));
        }
        Ok(Some(rounding))
    }

    /// The outputs, of split ones the first shard, against the source.
    fn verify_outputs(
        &self,
        conversion: &Conversion,
        located: &Located,
        threads: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<Report>, Failure> {
        let first = conversion.plan.outputs.iter().filter_map(|output| output.files.first());
        let files: Vec<PathBuf> = first.map(|file| file.path.clone()).collect();
        self.verification.verify(&verify::Run {
            files: &files,
            source: &located.path,
            threads,
            imatrix: self.imatrix.as_deref(),
            values: conversion.rounding(),
            quiet: self.quiet,
            open: self.open_options(located),
            interrupt,
        })
    }

    fn show(&self, conversion: &Conversion, threads: usize) -> Result<(), Failure> {
        conversion.warnings.iter().for_each(|warning| output::warning(warning));
        for file in conversion.plan.files().filter(|file| !self.force && file.path.exists()) {
            output::warning(&format!("{} exists; writing it needs --force", file.path.display()));
        }
        let report = dry_run::Report::new(conversion.into(), threads);
        if self.json { output::json(&report) } else { output::data(&report.to_string()) }
    }

    fn options(&self) -> Result<Options, Failure> {
        let mut types: Vec<&'static FileType> = Vec::new();
        for output_type in &self.types {
            let file_type = match output_type {
                OutputType::File(file_type) => *file_type,
                OutputType::Scheme(_) => self.bitsandbytes.carrier().ok_or_else(no_type)?,
            };
            if !self.dry_run {
                // What can be planned alone says so before anything is read.
                let refused = |error| Failure::new(format!("--type {}: {error}", file_type.name())).hint("--dry-run plans it");
                names::file_type(file_type.name()).map_err(refused)?;
            }
            if !types.iter().any(|known| known.ftype == file_type.ftype) {
                types.push(file_type);
            }
        }
        if types.is_empty() {
            return Err(no_type());
        }
        Ok(Options {
            target: target(self.out.as_deref(), types.len())?,
            types,
            via: self.via.into(),
            split: SplitLimits {
                max_tensors: self.split_max_tensors.unwrap_or(0),
                max_bytes: self.split_max_size.unwrap_or(0),
                no_tensor_first: self.no_tensor_first_split,
            },
            choices: self.tensor_types.choices()?,
            imatrix: self.imatrix.clone(),
            overrides: Overrides {
                model_name: self.model_name.clone(),
                metadata_file: self.metadata.as_deref().map(source::metadata_file).transpose()?,
                ..Overrides::default()
            },
            pre: self.pre.clone(),
            strict_config: self.strict_config,
            // Known once the source is found, which may take a download: what is wrong with the wishes is said before.
            open: OpenOptions::default(),
        })
    }
}

fn no_type() -> Failure {
    let types = recipe::writable().iter().map(|r| format!("{} ({} bits)", r.name(), r.bits_per_weight()));
    Failure::new("which type is to be written? Name one or more with --type")
        .hint(format!("the types and their bits per weight: {}", types.collect::<Vec<_>>().join(", ")))
}
