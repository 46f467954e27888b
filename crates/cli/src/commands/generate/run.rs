//! One model continues one prompt.

use super::model::TextModel;
use crate::failure::Failure;
use crate::{output, units};
use ggufsmith_infer::beam;
use ggufsmith_infer::generate::{self, Progress, Request, StopReason, Utf8Stream};
use ggufsmith_infer::sampling::{self, Sampler};
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prompts that take longer are reported on while they are read.
const PATIENCE: Duration = Duration::from_secs(2);

/// How tokens are chosen.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    /// One after the other.
    Sample(sampling::Options),
    /// By the probability of whole texts.
    Beams(beam::Options),
}

/// What to do with any model.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    pub prompt: &'a str,
    pub max_tokens: usize,
    pub choice: Choice,
    /// Print ids instead of text.
    pub ids: bool,
    pub quiet: bool,
    /// Set once the user wants to stop.
    pub cancel: &'a AtomicBool,
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Text {
    pub text: String,
    pub ids: Vec<u32>,
    /// Why it ends.
    pub stop: &'static str,
    /// Beam search: log-probability divided by length^penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Beam search: of the whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_probability: Option<f64>,
}

/// What a model made of the prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub prompt_ids: Vec<u32>,
    /// One or, of a beam search, several, best first.
    pub texts: Vec<Text>,
    pub speed: Speed,
    #[serde(skip)]
    pub cancelled: bool,
}

/// How long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Speed {
    pub prompt_tokens: usize,
    pub prompt_seconds: f64,
    /// Tokens that took a forward pass behind the prompt's: all but the first. Of a beam search: of each beam.
    pub generated_tokens: usize,
    pub generated_seconds: f64,
}

/// Continue the prompt; `print` is given the text as it grows, or the whole texts of a beam search.
pub fn run(model: &dyn TextModel, task: &Task, print: &mut dyn FnMut(&str) -> Result<(), Failure>) -> Result<Run, Failure> {
    let prompt_ids = model.encode(task.prompt)?;
    let request = Request { prompt: &prompt_ids, stop: model.stop_tokens(), max_tokens: task.max_tokens };
    let mut watch = Watch::new(task);
    let (texts, cancelled) = match task.choice {
        Choice::Sample(options) => {
            let text = sample(model, &request, options, task, &mut watch, print)?;
            let cancelled = text.stop == stop_name(StopReason::Cancelled);
            (vec![text], cancelled)
        }
        Choice::Beams(options) => {
            let mut session = model.session(options.beams)?;
            let found = beam::search(&mut *session, &request, &options, &mut |progress| watch.see(progress))?;
            let cancelled = watch.cancelled();
            let texts: Vec<Text> = found.into_iter().map(|hypothesis| beam_text(model, hypothesis)).collect();
            for (rank, text) in texts.iter().enumerate() {
                let heading = format!("--- {} of {}: score {:.4}, {}", rank + 1, texts.len(), text.score.unwrap_or(f64::NAN), text.stop);
                print(&format!("{heading}\n{}", with_line_end(&if task.ids { ids_text(&text.ids) } else { text.text.clone() })))?;
            }
            (texts, cancelled)
        }
    };
    Ok(Run { texts, cancelled, speed: watch.speed(prompt_ids.len()), prompt_ids })
}

fn sample(
    model: &dyn TextModel,
    request: &Request,
    options: sampling::Options,
    task: &Task,
    watch: &mut Watch,
    print: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Text, Failure> {
    let mut session = model.session(1)?;
    let mut sampler = Sampler::new(options)?;
    let (mut stream, mut text) = (Utf8Stream::default(), String::new());
    let mut printed = Ok(());
    let mut line_open = false;
    let mut say = |piece: &str| {
        line_open = if piece.is_empty() { line_open } else { !piece.ends_with('\n') };
        if piece.is_empty() { Ok(()) } else { print(piece) }
    };
    let generation = generate::generate(&mut *session, request, &mut sampler, &mut |progress| {
        if let Progress::Token(token) = progress {
            let piece = stream.push(&model.bytes(token));
            printed = say(&if task.ids { format!("{token}\n") } else { piece.clone() });
            text.push_str(&piece);
        }
        if printed.is_err() { ControlFlow::Break(()) } else { watch.see(progress) }
    })?;
    printed?;
    let rest = stream.finish();
    text.push_str(&rest);
    if !task.ids {
        say(&rest)?;
    }
    if line_open {
        print("\n")?;
    }
    Ok(Text { text, ids: generation.tokens, stop: stop_name(generation.stop), score: None, log_probability: None })
}

fn beam_text(model: &dyn TextModel, hypothesis: beam::Hypothesis) -> Text {
    let beam::Hypothesis { tokens, log_probability, score, stop } = hypothesis;
    Text {
        text: decode(model, &tokens),
        ids: tokens,
        stop: stop_name(stop),
        score: Some(score),
        log_probability: Some(log_probability),
    }
}

/// The text of tokens.
pub fn decode(model: &dyn TextModel, tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|&token| model.bytes(token)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ids_text(ids: &[u32]) -> String {
    ids.iter().map(|id| format!("{id}\n")).collect()
}

fn with_line_end(text: &str) -> String {
    format!("{text}{}", if text.is_empty() || text.ends_with('\n') { "" } else { "\n" })
}

fn stop_name(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndOfGeneration(_) => "end of text",
        StopReason::MaxTokens => "--max-tokens reached",
        StopReason::ContextFull => "context full",
        StopReason::Cancelled => "interrupted",
    }
}

/// Looks at the clock, and whether the user still wants to go on.
struct Watch<'a> {
    task: &'a Task<'a>,
    started: Instant,
    prompt_read: Option<Instant>,
    steps: usize,
    last_step: Instant,
}

impl<'a> Watch<'a> {
    fn new(task: &'a Task<'a>) -> Self {
        let now = Instant::now();
        Watch { task, started: now, prompt_read: None, steps: 0, last_step: now }
    }

    fn cancelled(&self) -> bool {
        self.task.cancel.load(Ordering::Relaxed)
    }

    fn see(&mut self, progress: Progress) -> ControlFlow<()> {
        let now = Instant::now();
        match progress {
            Progress::Prompt { done, total } => {
                if done == total {
                    self.prompt_read = Some(now);
                } else if !self.task.quiet && now - self.started > PATIENCE {
                    output::note(&format!("prompt: {} of {} tokens", units::grouped(done as u64), units::grouped(total as u64)));
                }
            }
            Progress::Token(_) | Progress::Beams { length: _ } => {
                self.steps += 1;
                self.last_step = now;
            }
        }
        if self.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn speed(&self, prompt_tokens: usize) -> Speed {
        let Some(read) = self.prompt_read else { return Speed::default() };
        // The first step needs no pass of its own: it follows from the prompt's.
        let generated_tokens = self.steps.saturating_sub(1);
        let generated_seconds = if generated_tokens > 0 { (self.last_step - read).as_secs_f64() } else { 0.0 };
        Speed { prompt_tokens, prompt_seconds: (read - self.started).as_secs_f64(), generated_tokens, generated_seconds }
    }
}

impl Speed {
    /// For people.
    pub fn line(&self) -> String {
        let rate = |tokens: usize, seconds: f64| {
            let duration = units::duration(Duration::from_secs_f64(seconds));
            format!("{} in {duration} ({:.1}/s)", units::plural(tokens, "token"), tokens as f64 / seconds.max(1e-9))
        };
        let prompt = format!("prompt: {}", rate(self.prompt_tokens, self.prompt_seconds));
        match self.generated_tokens {
            0 => prompt,
            tokens => format!("{prompt}; generated: {}", rate(tokens, self.generated_seconds)),
        }
    }
}
