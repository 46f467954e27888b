//! `ggufsmith generate`.

mod comparison;
mod model;
mod run;
#[cfg(test)]
mod tests;

use crate::failure::Failure;
use crate::hub::{self, Need};
use crate::interrupt::Interrupt;
use crate::{output, texts};
use comparison::Comparison;
use ggufsmith_gguf::parse_size;
use ggufsmith_infer::{beam, sampling};
use model::OpenOptions;
use run::{Choice, Run, Task};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// A prompt is no book.
const PROMPT_FILE_BYTES: u64 = 64 << 20;

/// Continue a prompt with a model, or with two of them side by side
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("generate/help.txt"))]
pub struct Arguments {
    /// GGUF file (of a model in shards: any of them), model directory, or `org/name[@revision]` on the Hub
    model: PathBuf,

    /// Text to continue
    #[arg(required_unless_present = "prompt_file")]
    prompt: Option<String>,

    /// Read the prompt from a file; one line break at its end does not count
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,

    /// The most tokens to add
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value_t = 128)]
    max_tokens: u32,

    /// Continue it with this model, too, and tell where the texts part
    #[arg(long, value_name = "MODEL")]
    compare: Option<PathBuf>,

    #[command(flatten)]
    tokens: Tokens,

    /// Texts side by side: look for the most probable whole text instead of token by token
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), conflicts_with_all = Tokens::NAMES, help_heading = "Beam search")]
    beams: Option<u16>,

    /// Divide a text's log-probability by its length to this power: above 0 favours long texts, below 0 short ones [default: 1]
    #[arg(long, value_name = "A", requires = "beams", allow_negative_numbers = true, help_heading = "Beam search")]
    length_penalty: Option<f64>,

    /// Tokens that the context has room for, prompt and text together [default: the model's]
    #[arg(short = 'c', long, visible_alias = "ctx-size", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Run")]
    n_ctx: Option<u32>,

    /// Keep weights in memory up to this many bytes, or with K, M or G behind (1000-based); what is larger is read for every token
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "2G", help_heading = "Run")]
    memory: u64,

    /// Threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Run")]
    threads: Option<u16>,

    /// Print the ids of the tokens, one a line, instead of text
    #[arg(long, help_heading = "Run")]
    ids: bool,

    /// Print JSON: texts, ids, why they end, and timings
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

/// How a token is chosen.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Choice of tokens")]
struct Tokens {
    /// 0 takes the most probable token each time; above 0 tokens are drawn, the higher the more surprising [default: 0]
    #[arg(long, visible_alias = "temp", value_name = "T")]
    temperature: Option<f32>,

    /// Draw among the K most probable tokens; 0 is off [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,

    /// Draw among the most probable tokens that together have this probability; 1 is off [default: 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,

    /// Draw among tokens at least this probable, relative to the most probable one; 0 is off [default: 0.05]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,

    /// Make recent tokens less likely: divide their logits by this where positive, multiply elsewhere [default: 1, off]
    #[arg(long, value_name = "R")]
    repeat_penalty: Option<f32>,

    /// How many tokens are recent, the prompt's among them [default: 64]
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<u32>,

    /// Subtract this from a recent token's logit for every time it occurs [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,

    /// Subtract this from a recent token's logit [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,

    /// The same seed draws the same text [default: 0]
    #[arg(short, long, value_name = "S")]
    seed: Option<u64>,
}

impl Tokens {
    /// Ids of all arguments; beam search has no use for them.
    const NAMES: [&str; 9] = [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repeat_penalty",
        "repeat_last_n",
        "frequency_penalty",
        "presence_penalty",
        "seed",
    ];

    fn options(&self) -> Result<sampling::Options, Failure> {
        let default = sampling::Options { temperature: 0.0, ..sampling::Options::default() };
        let options = sampling::Options {
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            repeat_last_n: self.repeat_last_n.map_or(default.repeat_last_n, |n| n as usize),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            top_k: self.top_k.map_or(default.top_k, |k| k as usize),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            temperature: self.temperature.unwrap_or(default.temperature),
            seed: self.seed.unwrap_or(default.seed),
        };
        options.validate()?;
        Ok(options)
    }

    /// What was asked for and changes nothing.
    fn without_effect(&self) -> Option<String> {
        if self.temperature.is_some_and(|t| t != 0.0) {
            return None;
        }
        let given = [
            (self.top_k.is_some(), "--top-k"),
            (self.top_p.is_some(), "--top-p"),
            (self.min_p.is_some(), "--min-p"),
            (self.seed.is_some(), "--seed"),
        ];
        let names: Vec<&str> = given.iter().filter(|(given, _)| *given).map(|&(_, name)| name).collect();
        (!names.is_empty()).then(|| format!("{} changes nothing at temperature 0; add --temperature 0.8", names.join(", ")))
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    prompt: &'a str,
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct Model<'a> {
    model: &'a Path,
    #[serde(flatten)]
    run: Run,
}

impl Arguments {
    /// Continue the prompt.
    pub fn run(&self) -> Result<(), Failure> {
        let choice = self.choice()?;
        let prompt = self.prompt()?;
        let interrupt = Interrupt::listen()?;
        let task = Task {
            prompt: &prompt,
            max_tokens: self.max_tokens as usize,
            choice,
            ids: self.ids,
            quiet: self.quiet,
            cancel: interrupt.flag(),
        };
        // The forward pass takes the threads of the pool it runs in.
        let threads = self.threads.map_or(0, usize::from);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| self.continue_with(&task))
    }

    fn continue_with(&self, task: &Task) -> Result<(), Failure> {
        let paths: Vec<&Path> = std::iter::once(&self.model).chain(&self.compare).map(PathBuf::as_path).collect();
        let options = OpenOptions { n_ctx: self.n_ctx.map(|n| n as usize), memory: self.memory };
        let locate = |path: &&Path| {
            let located = hub::locate(path, Need::Weights, self.quiet)?.path;
            super::check_exists(&located)?;
            Ok(located)
        };
        let located = paths.iter().map(locate).collect::<Result<Vec<PathBuf>, Failure>>()?;
        // All are opened before the first one works: a mistake in the second path should not come late.
        let models = located.iter().map(|path| model::open(path, &options)).collect::<Result<Vec<_>, _>>()?;
        let mut runs = Vec::new();
        for (path, model) in paths.iter().zip(&models) {
            if paths.len() > 1 && !self.json {
                print(&format!("--- {}\n", path.display()))?;
            }
            let run = run::run(model.as_ref(), task, &mut |text| if self.json { Ok(()) } else { print(text) })?;
            if !task.quiet {
                output::note(&run.speed.line());
            }
            let cancelled = run.cancelled;
            runs.push(run);
            if cancelled {
                break;
            }
        }
        let comparison = match (models.as_slice(), runs.as_slice()) {
            ([a, b], [x, y]) => Some(Comparison::new([a.as_ref(), b.as_ref()], [x, y])),
            _ => None,
        };
        let cancelled = runs.iter().any(|run| run.cancelled);
        if self.json {
            let models = paths.iter().zip(runs).map(|(model, run)| Model { model, run }).collect();
            output::json(&Report { prompt: task.prompt, models, comparison })?;
        } else if let Some(comparison) = comparison {
            let names = [paths[0].to_string_lossy(), paths[1].to_string_lossy()];
            print(&format!("--- {}\n", comparison.line([&names[0], &names[1]])))?;
        }
        if cancelled { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn choice(&self) -> Result<Choice, Failure> {
        let Some(beams) = self.beams else {
            let options = self.tokens.options()?;
            if let Some(warning) = self.tokens.without_effect() {
                output::warning(&warning);
            }
            return Ok(Choice::Sample(options));
        };
        let default = beam::Options::default();
        Ok(Choice::Beams(beam::Options {
            beams: beams.into(),
            length_penalty: self.length_penalty.unwrap_or(default.length_penalty),
            ..default
        }))
    }

    fn prompt(&self) -> Result<String, Failure> {
        let path = match (&self.prompt, &self.prompt_file) {
            (Some(prompt), _) => return Ok(prompt.clone()),
            (None, Some(path)) => path,
            (None, None) => return Err(Failure::new("there is no prompt")),
        };
        let text = texts::text("--prompt-file", path, PROMPT_FILE_BYTES)?;
        Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned())
    }
}

/// Text of a model to standard output: as it is, but harmless on a terminal.
fn print(text: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return output::data(text);
    }
    let parts: Vec<_> = text.split('\t').map(output::printable).collect();
    output::data(&parts.join("\t"))
}
