//! Thresholds: from the command line, from `verify.toml`, and those that need no asking.
//!
//! ```toml
//! [gate]                 # for every file
//! max_ppl_ratio = 1.05   # perplexity of the file over the source's
//! max_kld = 0.1          # mean KL divergence, nats
//! min_top1 = 0.9         # share of positions with the same most probable token, 0 to 1
//!
//! [gate.Q4_0]            # for files of this type, where it says something else
//! max_kld = 0.2
//! ```
//!
//! What the command line says comes first, then the type's section, then `[gate]`. A threshold on a figure that was not measured is
//! a failure. Without any threshold a file still fails where it has collapsed: a figure that is not finite, or a perplexity of more
//! than twice the source's. A `max_ppl_ratio` of the user's takes the place of that factor.

use crate::report::text::number;
use crate::report::{Gate, Report, Status};
use ggufsmith_arch::nearest;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Largest perplexity ratio of a file for which the user set none.
pub const COLLAPSE_RATIO: f64 = 2.0;

/// A larger file is no `verify.toml`.
const MAX_BYTES: u64 = 1 << 20;

/// The thresholds' names, as keys of [`Thresholds`] and of the file.
const KEYS: [&str; 3] = ["max_ppl_ratio", "max_kld", "min_top1"];

/// What a file must reach. Nothing is demanded where a value is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Thresholds {
    /// Largest perplexity of the file over the source's.
    pub max_ppl_ratio: Option<f64>,
    /// Largest mean KL divergence, in nats.
    pub max_kld: Option<f64>,
    /// Smallest share of positions with the same most probable token, 0 to 1.
    pub min_top1: Option<f64>,
}

impl Thresholds {
    /// These, and where one is missing that of `other`.
    pub fn or(self, other: Thresholds) -> Thresholds {
        Thresholds {
            max_ppl_ratio: self.max_ppl_ratio.or(other.max_ppl_ratio),
            max_kld: self.max_kld.or(other.max_kld),
            min_top1: self.min_top1.or(other.min_top1),
        }
    }

    /// Whether the values mean something.
    ///
    /// # Errors
    /// [`ThresholdError`] for the first one that does not.
    pub fn check(&self) -> Result<(), ThresholdError> {
        let error = |key: &'static str, value: f64, must: &'static str| Err(ThresholdError { key, value, must });
        match *self {
            Thresholds { max_ppl_ratio: Some(value), .. } if !(value.is_finite() && value > 0.0) => {
                error(KEYS[0], value, "a positive number, e.g. 1.05")
            }
            Thresholds { max_kld: Some(value), .. } if !(value.is_finite() && value >= 0.0) => {
                error(KEYS[1], value, "a number of nats, 0 or more, e.g. 0.1")
            }
            Thresholds { min_top1: Some(value), .. } if !(0.0..=1.0).contains(&value) => {
                error(KEYS[2], value, "a share of 0 to 1, e.g. 0.9 for 90 %")
            }
            _ => Ok(()),
        }
    }

    fn set(&mut self, key: &str, value: f64) {
        let place = match key {
            "max_ppl_ratio" => &mut self.max_ppl_ratio,
            "max_kld" => &mut self.max_kld,
            _ => &mut self.min_top1,
        };
        *place = Some(value);
    }
}

/// A threshold that cannot be meant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} is {value}, and has to be {must}")]
pub struct ThresholdError {
    /// Its key.
    pub key: &'static str,
    /// What it was set to.
    pub value: f64,
    /// What it may be.
    pub must: &'static str,
}

/// Thresholds of a `verify.toml`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    every: Thresholds,
    /// By type name in upper case.
    types: BTreeMap<String, Thresholds>,
}

/// Why a `verify.toml` was not taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("reading {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} has {bytes} bytes, more than the {MAX_BYTES} that a file of thresholds may have", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{} is not TOML: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}: unknown {what} {key:?} in {section}{}", path.display(), hint(names, *near))]
    UnknownKey { path: PathBuf, section: String, what: &'static str, key: String, names: Vec<String>, near: bool },
    #[error("{}: {key} in {section} is {found}, and has to be {must}", path.display())]
    WrongType { path: PathBuf, section: String, key: String, found: &'static str, must: &'static str },
    #[error("{}: {section}: {source}", path.display())]
    Threshold { path: PathBuf, section: String, source: ThresholdError },
    #[error("{}: {section} is there twice, in different letters", path.display())]
    Twice { path: PathBuf, section: String },
}

/// The names that may have been meant, or all that there are.
fn hint(names: &[String], near: bool) -> String {
    if near { format!(" (did you mean {}?)", names.join(" or ")) } else { format!(" (known: {})", names.join(", ")) }
}

impl Config {
    /// A file of thresholds; `types` are the names of all file types.
    ///
    /// # Errors
    /// [`ConfigError`], naming section and key.
    pub fn open(path: &Path, types: &[&str]) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Io { path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(io)?.len();
        if bytes > MAX_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(io)?, types)
    }

    /// Its text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::open`].
    pub fn parse(path: &Path, text: &str, types: &[&str]) -> Result<Self, ConfigError> {
        let root: Table =
            text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax { path: path.to_owned(), message: e.to_string() })?;
        let file = Parser { path, types };
        let mut config = Config::default();
        for (key, value) in &root {
            if key != "gate" {
                return Err(file.unknown("the file", "section", key, &["gate"]));
            }
            let gate = value.as_table().ok_or_else(|| file.wrong("the file", key, value, "a section"))?;
            let sections = gate.iter().filter(|(_, value)| value.is_table());
            for (name, section) in sections {
                if !types.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    return Err(file.unknown("[gate]", "type", name, types));
                }
                let title = format!("[gate.{name}]");
                let thresholds = file.thresholds(&title, section.as_table().into_iter().flatten())?;
                if config.types.insert(name.to_ascii_uppercase(), thresholds).is_some() {
                    return Err(ConfigError::Twice { path: path.to_owned(), section: title });
                }
            }
            config.every = file.thresholds("[gate]", gate.iter().filter(|(_, value)| !value.is_table()))?;
        }
        Ok(config)
    }

    /// What it demands of files of a type; of `NF4 in Q8_0`, what it does of NF4.
    pub fn for_type(&self, file_type: &str) -> Thresholds {
        let values = file_type.split(' ').next().unwrap_or_default();
        self.types.get(&values.to_ascii_uppercase()).copied().unwrap_or_default().or(self.every)
    }
}

struct Parser<'a> {
    path: &'a Path,
    types: &'a [&'a str],
}

impl Parser<'_> {
    fn thresholds<'t>(
        &self,
        section: &str,
        entries: impl Iterator<Item = (&'t String, &'t Value)>,
    ) -> Result<Thresholds, ConfigError> {
        let mut thresholds = Thresholds::default();
        for (key, value) in entries {
            if !KEYS.contains(&key.as_str()) {
                // In [gate] somebody may also have meant a type.
                let types = if section == "[gate]" { self.types } else { &[] };
                let known: Vec<&str> = KEYS.iter().chain(types).copied().collect();
                return Err(self.unknown(section, "key", key, &known));
            }
            let number = match value {
                Value::Float(number) => *number,
                Value::Integer(number) => *number as f64,
                _ => return Err(self.wrong(section, key, value, "a number")),
            };
            thresholds.set(key, number);
        }
        let threshold = |source| ConfigError::Threshold { path: self.path.to_owned(), section: section.to_owned(), source };
        thresholds.check().map_err(threshold)?;
        Ok(thresholds)
    }

    fn unknown(&self, section: &str, what: &'static str, key: &str, known: &[&str]) -> ConfigError {
        let close = nearest(key, known.iter().copied());
        let near = !close.is_empty();
        let names = if near { &close } else { known }.iter().map(|name| (*name).to_owned()).collect();
        let (section, key) = (section.to_owned(), key.to_owned());
        ConfigError::UnknownKey { path: self.path.to_owned(), section, what, key, names, near }
    }

    fn wrong(&self, section: &str, key: &str, value: &Value, must: &'static str) -> ConfigError {
        let (section, key) = (section.to_owned(), key.to_owned());
        ConfigError::WrongType { path: self.path.to_owned(), section, key, found: value.type_str(), must }
    }
}

/// Fill [`Report::gate`], then [`Report::faithful`] and [`Report::verdict`] from everything that is in the report.
pub fn judge(report: &mut Report, thresholds: &Thresholds) {
    let failures = failures(report, thresholds);
    let Thresholds { max_ppl_ratio, max_kld, min_top1 } = *thresholds;
    report.gate = Gate { max_ppl_ratio, max_kld, min_top1, failures };
    report.faithful = !report.checks.is_empty() && report.checks.iter().all(|check| check.status == Status::Passed);
    report.verdict = verdict(report);
}

fn failures(report: &Report, thresholds: &Thresholds) -> Vec<String> {
    let mut failures = Vec::new();
    let Some(figures) = &report.figures else {
        let asked = [
            (thresholds.max_ppl_ratio, "perplexity ratio"),
            (thresholds.max_kld, "mean KL divergence"),
            (thresholds.min_top1, "same top-1"),
        ];
        let unmeasured = asked.into_iter().filter(|(threshold, _)| threshold.is_some());
        failures
            .extend(unmeasured.map(|(_, name)| format!("{name} has a threshold and was not measured: run verify with a text")));
        return failures;
    };
    let sentences = report.sentences.as_ref();
    let finite = [
        ("perplexity of the source", Some(figures.perplexity_source)),
        ("perplexity", Some(figures.perplexity)),
        ("perplexity ratio", Some(figures.perplexity_ratio)),
        ("mean KL divergence", Some(figures.kld_mean)),
        ("largest KL divergence", Some(figures.kld_max)),
        ("same top-1", Some(figures.same_top1)),
        ("perplexity of the sentences", sentences.map(|s| s.perplexity)),
    ];
    for (name, _) in finite.iter().filter(|(_, value)| value.is_some_and(|value| !value.is_finite())) {
        failures.push(format!("{name} is not finite"));
    }
    // Only numbers are compared from here on; what is not finite has failed above, once.
    let exceeded = |value: f64, most: f64| value.is_finite() && value > most;
    let (ratio, kld, top1) = (figures.perplexity_ratio, figures.kld_mean, figures.same_top1);
    match thresholds.max_ppl_ratio {
        Some(most) if exceeded(ratio, most) => failures.push(format!("perplexity ratio is {}", beside(ratio, most))),
        None if exceeded(ratio, COLLAPSE_RATIO) => {
            failures.push(format!("perplexity ratio is {}: the file has collapsed", beside(ratio, COLLAPSE_RATIO)));
        }
        _ => {}
    }
    if let Some(most) = thresholds.max_kld.filter(|most| exceeded(kld, *most)) {
        failures.push(format!("mean KL divergence in nats is {}", beside(kld, most)));
    }
    if let Some(least) = thresholds.min_top1.filter(|least| top1.is_finite() && top1 < *least) {
        failures.push(format!("same top-1 is {}", beside(top1, least)));
    }
    failures
}

/// A figure and its limit, in as many digits as tell them apart.
fn beside(value: f64, limit: f64) -> String {
    let (short, limit_short) = (number(value), number(limit));
    if short == limit_short { format!("{value}, the limit is {limit}") } else { format!("{short}, the limit is {limit}") }
}

/// The verdict in one sentence.
fn verdict(report: &Report) -> String {
    let named = |status: Status| {
        let names: Vec<_> =
            report.checks.iter().filter(|check| check.status == status).map(|check| check.name.as_str()).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(one.to_string()),
            [first @ .., last] => Some(format!("{} and {last}", first.join(", "))),
        }
    };
    let gate = match report.gate.failures.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first}, and {} more", rest.len())),
    };
    let (failed, skipped) = (named(Status::Failed), named(Status::Skipped));
    match (failed, skipped, gate) {
        (Some(failed), _, None) => format!("Not faithful: {failed} failed."),
        (Some(failed), _, Some(gate)) => format!("Not faithful: {failed} failed; the gate failed too: {gate}."),
        (None, Some(skipped), None) => format!("Passed as far as it was checked: {skipped} did not run."),
        (None, Some(skipped), Some(gate)) => format!("The gate failed: {gate}; {skipped} did not run."),
        (None, None, Some(gate)) => format!("Faithful, but the gate failed: {gate}."),
        (None, None, None) if !report.faithful => "Nothing was checked.".to_owned(),
        (None, None, None) => match &report.figures {
            None => format!("Faithful: all {} checks passed.", report.checks.len()),
            Some(figures) => format!(
                "Faithful: all {} checks passed; perplexity is {} times the source's, mean KL divergence {} nats.",
                report.checks.len(),
                number(figures.perplexity_ratio),
                number(figures.kld_mean)
            ),
        },
    }
}

/// The exit code for judged reports: 1 where a check or a gate failed, 2 where a check did not run that is not in `switched_off` (names
/// of checks that the user asked to leave out) or where there is nothing to judge, otherwise 0.
pub fn exit_code(reports: &[Report], switched_off: &[&str]) -> u8 {
    let failed =
        |report: &Report| !report.gate.failures.is_empty() || report.checks.iter().any(|check| check.status == Status::Failed);
    let unexpected = |report: &Report| {
        let mut skipped = report.checks.iter().filter(|check| check.status == Status::Skipped);
        report.checks.is_empty() || skipped.any(|check| !switched_off.contains(&check.name.as_str()))
    };
    match () {
        () if reports.iter().any(failed) => 1,
        () if reports.is_empty() || reports.iter().any(unexpected) => 2,
        () => 0,
    }
}
