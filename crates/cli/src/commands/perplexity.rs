//! `ggufsmith perplexity`.

use crate::failure::Failure;
use crate::hub::{self, Need};
use crate::interrupt::Interrupt;
use crate::steps::Steps;
use crate::{output, texts, threads};
use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_gguf::parse_size;
use ggufsmith_verify::forward::figures::{self, Perplexity};
use ggufsmith_verify::forward::{Base, Evaluation, ForwardError, LogitsWriter, Work, evaluate};
use ggufsmith_verify::{Events, NamedText, Side};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measure the perplexity of a GGUF file or a model directory
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("perplexity/help.txt"))]
pub struct Arguments {
    /// GGUF file, or directory with config.json, safetensors and the tokenizer's files, or `org/name[@revision]` on the Hub
    model: PathBuf,

    /// Text to measure on [default: an embedded article of the Encyclopaedia Britannica of 1911]
    #[arg(long, short, value_name = "FILE")]
    text: Option<PathBuf>,

    /// Tokens per window; the second half of each is scored, as llama-perplexity does
    #[arg(long, short = 'c', value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    n_ctx: u32,

    /// Windows at most [default: the whole text]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chunks: Option<u64>,

    /// The text is sentences, one on each line: each is scored by itself, from its first token on
    #[arg(long, conflicts_with_all = ["chunks", "save_logits"])]
    sentences: bool,

    /// Save the log-probabilities in llama-perplexity's --kl-divergence-base form
    #[arg(long, value_name = "FILE")]
    save_logits: Option<PathBuf>,

    /// Memory for activations, logits and decoded weights
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size, help_heading = "Run")]
    memory: u64,

    /// Worker threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Follow links that leave the model's directory
    #[arg(long, help_heading = "Run")]
    follow_symlinks: bool,

    /// Print the result as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

/// The result, for people and as JSON. Numbers that are not finite are `null`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    model: &'a Path,
    text: &'a str,
    n_ctx: u32,
    /// Windows or sentences.
    samples: usize,
    /// Scored tokens.
    tokens: usize,
    perplexity: f64,
    perplexity_error: f64,
    /// Mean and median of the sentences' own perplexities.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_perplexity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    median_perplexity: Option<f64>,
    seconds: f64,
    tokens_per_second: f64,
}

impl Arguments {
    /// Measure and print.
    pub fn run(&self) -> Result<(), Failure> {
        let path = hub::locate(&self.model, Need::Weights, self.quiet)?.path;
        super::check_exists(&path)?;
        let interrupt = Interrupt::listen()?;
        let text = texts::evaluation(self.text.as_deref())?;
        let open = OpenOptions { follow_symlinks: self.follow_symlinks, ..OpenOptions::default() };
        let side = Side::open(&path, open)?;
        let threads = threads::pool(self.threads)?;
        let summary = threads.install(|| self.measure(side, &text, &interrupt))?;
        if self.json {
            return output::json(&summary);
        }
        output::data(&summary.text(self.sentences))
    }

    fn measure<'a>(&'a self, side: Side, text: &'a NamedText, interrupt: &Interrupt) -> Result<Summary<'a>, Failure> {
        let n_ctx = self.n_ctx as usize;
        let (model, words) = side.model(n_ctx)?;
        let samples = match self.sentences {
            true => words.sentences(&text.text, n_ctx)?,
            false => words.windows(&text.text, n_ctx, self.chunks.map(|chunks| chunks as usize))?,
        };
        if samples.is_empty() {
            return Err(Failure::new(format!("{}: no line has a token to score", text.name)));
        }
        let events = Steps::new(self.quiet);
        let work = Work::of(&[&model], &samples, self.memory);
        let n_vocab = model.decoder().n_vocab as usize;
        let mut writer = self.save_logits.as_deref().map(|path| LogitsWriter::create(path, n_vocab, &samples)).transpose()?;
        let started = Instant::now();
        events.begin("forward pass", work.multiplications);
        let mut save = |logits: &[f32]| writer.as_mut().map_or(Ok(()), |writer| writer.row(logits));
        let progress = |steps| events.advance(steps);
        let evaluation = Evaluation {
            base: Base::Model(&model),
            others: &[],
            samples: &samples,
            memory: self.memory,
            sink: if self.save_logits.is_some() { Some(&mut save) } else { None },
            cancel: interrupt.flag(),
            progress: &progress,
        };
        let scores = evaluate(evaluation, &mut |_| true);
        events.end();
        let scores = scores.map_err(|error| match error {
            ForwardError::Cancelled => Failure::Interrupted,
            other => Failure::from(other).hint(format!("`ggufsmith verify` compares {} with its source", self.model.display())),
        })?;
        if let Some(writer) = writer {
            writer.finish()?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let nll: Vec<f64> = scores.base.iter().map(|score| score.nll).collect();
        let Perplexity { value, error } = Perplexity::of(nll.iter().copied());
        let each = self.sentences.then(|| figures::of_sentences(&nll, &scores.samples));
        let read: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        Ok(Summary {
            model: &self.model,
            text: &text.name,
            n_ctx: self.n_ctx,
            samples: samples.len(),
            tokens: nll.len(),
            perplexity: value,
            perplexity_error: error,
            mean_perplexity: each.map(|each| each.mean),
            median_perplexity: each.map(|each| each.median),
            seconds,
            tokens_per_second: read as f64 / seconds,
        })
    }
}

impl Summary<'_> {
    fn text(&self, sentences: bool) -> String {
        let what = if sentences { "sentences".to_owned() } else { format!("windows of {} tokens", self.n_ctx) };
        let mut text = format!(
            "perplexity {:.4} ± {:.4} over {} tokens in {} {what} ({:.0} tokens/s)\n",
            self.perplexity, self.perplexity_error, self.tokens, self.samples, self.tokens_per_second
        );
        if let (Some(mean), Some(median)) = (self.mean_perplexity, self.median_perplexity) {
            text.push_str(&format!("of single sentences: mean {mean:.4}, median {median:.4}\n"));
        }
        text
    }
}
