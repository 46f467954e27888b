//! `ggufsmith verify`.

mod engine;

use crate::failure::Failure;
use crate::hub::{self, Need};
use crate::interrupt::Interrupt;
use crate::steps::Steps;
use crate::{names, output, texts, threads};
use ggufsmith_checkpoint::{OpenOptions, Rounding};
use ggufsmith_convert::recipe::RECIPES;
use ggufsmith_gguf::parse_size;
use ggufsmith_gguf::shard_name;
use ggufsmith_verify::gate::{self, Config, Thresholds};
use ggufsmith_verify::report::{self, Report, Status};
use ggufsmith_verify::{FORWARD, Request, VerifyError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prove that GGUF files are their source, and measure what quantization cost
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("verify/help.txt"))]
pub struct Arguments {
    /// GGUF files, ours or llama.cpp's (of a model in shards: any one of them)
    #[arg(required = true, value_name = "FILE.gguf")]
    files: Vec<PathBuf>,

    /// The model they were made from: a directory with config.json, safetensors and the tokenizer's files, or `org/name[@revision]` on
    /// the Hub
    #[arg(long, visible_alias = "source", value_name = "SOURCE")]
    against: PathBuf,

    /// Importance matrix that the files were made with, in either of llama.cpp's forms
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    /// Values that the files carry in another type (convert --type NF4): NF4 or FP4, with the block length where it is not 64, and
    /// "double" where the scales are quantized, as in NF4/128/double [default: what a manifest beside a file says]
    #[arg(long, value_name = "VALUES", value_parser = ggufsmith_verify::values::parse)]
    values: Option<Rounding>,

    #[command(flatten)]
    options: Options,

    /// Print the reports as JSON on standard output: one object for one file, a list for several
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Take the source for a model of this architecture, or class, whatever its config.json says
    #[arg(long, value_name = "NAME", value_parser = names::class, help_heading = "Run")]
    arch: Option<String>,

    /// Follow links that leave the model's directory
    #[arg(long, help_heading = "Run")]
    follow_symlinks: bool,
}

/// What `convert --verify` takes, too.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Text of the forward pass [default: an embedded article of the Encyclopaedia Britannica of 1911]
    #[arg(long, value_name = "FILE", help_heading = "Forward pass")]
    text: Option<PathBuf>,

    /// Tokens per window; the second half of each is scored [default: 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=1 << 20), help_heading = "Forward pass")]
    n_ctx: Option<u32>,

    /// Windows at most; 0 takes the whole text [default: 8, with --budget the whole text]
    #[arg(long, value_name = "N", help_heading = "Forward pass")]
    chunks: Option<usize>,

    /// Also score sentences, one on each line of this file
    #[arg(long, value_name = "FILE", help_heading = "Forward pass")]
    sentences: Option<PathBuf>,

    /// Stop when every mean KL divergence is known to 5 % (95 % interval), or after so many minutes
    #[arg(long, value_name = "MINUTES", help_heading = "Forward pass")]
    budget: Option<f64>,

    /// Memory for activations, logits and decoded weights [default: 2G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Forward pass")]
    memory: Option<u64>,

    /// Leave the forward pass out; the file is not called faithful then
    #[arg(long, help_heading = "Forward pass")]
    no_forward: bool,

    /// Do not measure speed
    #[arg(long, help_heading = "Forward pass")]
    no_latency: bool,

    /// Save the source's log-probabilities in llama-perplexity's --kl-divergence-base form
    #[arg(long, value_name = "FILE", help_heading = "llama.cpp")]
    save_logits: Option<PathBuf>,

    /// Compare with log-probabilities that were saved before, ours or llama-perplexity's, over the windows that they hold
    #[arg(long, value_name = "FILE", conflicts_with = "save_logits", help_heading = "llama.cpp")]
    logits: Option<PathBuf>,

    /// A llama-perplexity binary: it measures the files against the source's log-probabilities, too
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["logits", "no_forward"], help_heading = "llama.cpp")]
    llama_perplexity: Option<PathBuf>,

    /// Largest perplexity of a file over the source's [default: 2, where a file has collapsed]
    #[arg(long, value_name = "RATIO", help_heading = "Gate")]
    max_ppl_ratio: Option<f64>,

    /// Largest mean KL divergence, in nats
    #[arg(long, value_name = "NATS", help_heading = "Gate")]
    max_kld: Option<f64>,

    /// Smallest share of positions with the same most probable token, 0 to 1
    #[arg(long, value_name = "SHARE", help_heading = "Gate")]
    min_top1: Option<f64>,

    /// Thresholds by type [default: verify.toml in the current directory, if there is one]
    #[arg(long, value_name = "FILE", help_heading = "Gate")]
    config: Option<PathBuf>,

    /// Where reports go [default: beside each file, as FILE.gguf.report.{json,md,html}]
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    report_dir: Option<PathBuf>,

    /// Write no reports
    #[arg(long, conflicts_with = "report_dir", help_heading = "Report")]
    no_report: bool,
}

/// What a run needs beside its options.
pub struct Run<'a> {
    /// GGUF files.
    pub files: &'a [PathBuf],
    /// The model directory.
    pub source: &'a Path,
    /// Worker threads.
    pub threads: usize,
    /// The importance matrix that the files were made with.
    pub imatrix: Option<&'a Path>,
    /// The values that the files carry, where no manifest says so.
    pub values: Option<&'a Rounding>,
    /// Print nothing but errors and warnings.
    pub quiet: bool,
    /// How the source is opened.
    pub open: OpenOptions,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
}

impl Arguments {
    /// Verify, write reports, tell the verdict.
    pub fn run(&self) -> Result<(), Failure> {
        if self.against.is_file() {
            let message = format!("--against {} is a file; a model's directory is needed", self.against.display());
            return Err(Failure::new(message).hint("the directory has config.json, safetensors and the tokenizer's files"));
        }
        self.files.iter().try_for_each(|file| super::check_exists(file))?;
        let files = one_of_each(&self.files);
        let source = hub::locate(&self.against, Need::Weights, self.quiet)?.path;
        super::convert::check_source(&source)?;
        let interrupt = Interrupt::listen()?;
        let run = Run {
            files: &files,
            source: &source,
            threads: threads::count(self.threads),
            imatrix: self.imatrix.as_deref(),
            values: self.values.as_ref(),
            quiet: self.quiet,
            open: OpenOptions { class: self.arch.clone(), follow_symlinks: self.follow_symlinks, ..OpenOptions::default() },
            interrupt: &interrupt,
        };
        let reports = self.options.verify(&run)?;
        if self.json {
            match reports.as_slice() {
                [report] => output::json(report)?,
                reports => output::json(&reports)?,
            }
        } else if !self.quiet {
            output::data(&report::terminal(&reports))?;
        }
        self.options.conclude(&reports)
    }
}

/// Of the shards of one file the one that was named first: any stands for all.
fn one_of_each(files: &[PathBuf]) -> Vec<PathBuf> {
    let set = |file: &PathBuf| shard_name(file.to_str()?).map(|(stem, _, count)| (stem.to_owned(), count));
    let mut seen = Vec::new();
    let is_new = |file: &&PathBuf| match set(file) {
        Some(set) if seen.contains(&set) => false,
        Some(set) => {
            seen.push(set);
            true
        }
        None => true,
    };
    files.iter().filter(is_new).cloned().collect()
}

impl Options {
    /// Run the checks, judge them, write reports.
    pub fn verify(&self, run: &Run<'_>) -> Result<Vec<Report>, Failure> {
        let (thresholds, config) = self.thresholds()?;
        if !self.no_report {
            run.files.iter().try_for_each(|file| report::check_writable(file, self.report_dir.as_deref()))?;
        }
        let events = Steps::new(run.quiet);
        let saved = self.saved_logits()?;
        let request = Request {
            files: run.files,
            source: run.source,
            open: run.open.clone(),
            command: super::command_line(),
            text: if self.no_forward { None } else { Some(texts::evaluation(self.text.as_deref())?) },
            n_ctx: self.n_ctx() as usize,
            windows: self.windows(),
            sentences: self.sentences.as_deref().map(|file| texts::read("--sentences", file)).transpose()?,
            imatrix: run.imatrix,
            memory: self.memory.unwrap_or(2_000_000_000),
            threads: run.threads,
            budget: self.budget()?,
            latency: !self.no_latency,
            save_logits: saved.as_ref().map(engine::Saved::path),
            logits: self.logits.as_deref(),
            file_type: |ftype| RECIPES.iter().find(|recipe| recipe.ftype == ftype).map(|recipe| recipe.name()),
            cancel: run.interrupt.flag(),
            events: &events,
        };
        let mut reports = ggufsmith_verify::run_with(&request, run.values).map_err(failure)?;
        if let (Some(binary), Some(saved)) = (&self.llama_perplexity, &saved) {
            for (report, file) in reports.iter_mut().zip(run.files) {
                if report.figures.is_some() {
                    report.engine = Some(engine::measure(binary, file, saved.path(), self.n_ctx(), run)?);
                }
            }
        }
        for report in &mut reports {
            let thresholds = thresholds.or(config.for_type(&report.file_type));
            gate::judge(report, &thresholds);
        }
        if !self.no_report {
            let pairs: Vec<(&Path, &Report)> = run.files.iter().map(PathBuf::as_path).zip(&reports).collect();
            let written = report::write(&pairs, self.report_dir.as_deref())?;
            if let (false, Some(last)) = (run.quiet, written.last()) {
                output::note(&format!("report: {}", last.html.display()));
            }
        }
        Ok(reports)
    }

    /// The end of the process: fine, or a check that failed or did not run.
    pub fn conclude(&self, reports: &[Report]) -> Result<(), Failure> {
        let switched_off: &[&str] = if self.no_forward { &[FORWARD] } else { &[] };
        match gate::exit_code(reports, switched_off) {
            0 => Ok(()),
            code => Err(Failure::Verdict { code, problems: problems(reports) }),
        }
    }

    /// The first option that was given: without `--verify` none means anything to `convert`.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.text.is_some(), "--text"),
            (self.n_ctx.is_some(), "--n-ctx"),
            (self.chunks.is_some(), "--chunks"),
            (self.sentences.is_some(), "--sentences"),
            (self.budget.is_some(), "--budget"),
            (self.memory.is_some(), "--memory"),
            (self.no_forward, "--no-forward"),
            (self.no_latency, "--no-latency"),
            (self.save_logits.is_some(), "--save-logits"),
            (self.logits.is_some(), "--logits"),
            (self.llama_perplexity.is_some(), "--llama-perplexity"),
            (self.max_ppl_ratio.is_some(), "--max-ppl-ratio"),
            (self.max_kld.is_some(), "--max-kld"),
            (self.min_top1.is_some(), "--min-top1"),
            (self.config.is_some(), "--config"),
            (self.report_dir.is_some(), "--report-dir"),
            (self.no_report, "--no-report"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// Where reports go, if not beside the files.
    #[cfg(feature = "hub")]
    pub fn report_dir(&self) -> Option<&Path> {
        self.report_dir.as_deref()
    }

    fn n_ctx(&self) -> u32 {
        self.n_ctx.unwrap_or(512)
    }

    fn windows(&self) -> Option<usize> {
        // With a budget the text is the limit, unless the user set one.
        let default = if self.budget.is_some() { 0 } else { 8 };
        Some(self.chunks.unwrap_or(default)).filter(|chunks| *chunks > 0)
    }

    fn budget(&self) -> Result<Option<Duration>, Failure> {
        let duration = |minutes: f64| {
            let positive = Some(minutes * 60.0).filter(|seconds| *seconds > 0.0);
            let duration = positive.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            duration.ok_or_else(|| Failure::new(format!("--budget {minutes}: not a number of minutes above 0")))
        };
        self.budget.map(duration).transpose()
    }

    fn thresholds(&self) -> Result<(Thresholds, Config), Failure> {
        const FILE: &str = "verify.toml";
        let thresholds =
            Thresholds { max_ppl_ratio: self.max_ppl_ratio, max_kld: self.max_kld, min_top1: self.min_top1 };
        thresholds.check()?;
        let file = self.config.clone().or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.is_file()));
        let schemes = ggufsmith_core::SCHEMES.iter().map(|scheme| scheme.name);
        let types: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name()).chain(schemes).collect();
        let config = file.map(|file| Config::open(&file, &types)).transpose()?.unwrap_or_default();
        Ok((thresholds, config))
    }

    /// Where the source's log-probabilities go: where the user wants them, or for llama-perplexity alone into a file that vanishes.
    fn saved_logits(&self) -> Result<Option<engine::Saved>, Failure> {
        match (&self.save_logits, &self.llama_perplexity) {
            (Some(path), _) => Ok(Some(engine::Saved::Kept(path.clone()))),
            (None, Some(_)) => engine::Saved::temporary(self.report_dir.as_deref()).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// What standard error says where the reports are not shown.
fn problems(reports: &[Report]) -> Vec<String> {
    let failed = reports.iter().filter(|report| !report.faithful || !report.gate.failures.is_empty());
    let found = |report: &Report| {
        // The first of each check: where nothing else is printed or written, this is all that there is.
        let checks = report.checks.iter().filter(|check| check.status == Status::Failed);
        let first = checks.filter_map(|check| check.problems.first().map(|problem| format!("; {}: {problem}", check.name)));
        format!("{}: {}{}", report.file, report.verdict, first.collect::<String>())
    };
    failed.map(found).collect()
}

fn failure(error: VerifyError) -> Failure {
    match error {
        VerifyError::Cancelled => Failure::Interrupted,
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_stands_for_all() {
        let files = ["a-00002-of-00003.gguf", "a-00001-of-00003.gguf", "a-00001-of-00002.gguf", "b/a-00003-of-00003.gguf", "c.gguf"];
        let kept = one_of_each(&files.map(PathBuf::from));
        assert_eq!(kept, [files[0], files[2], files[3], files[4]].map(PathBuf::from));
    }
}
