//! What a finished conversion says.

use crate::output::{self, printable};
use super::device::GpuReport;
use super::run::Outcome;
use crate::units;
use ggufsmith_convert::pipeline::Nonfinite;
use ggufsmith_convert::plan::{Plan, PlannedOutput, plain_format};
use ggufsmith_convert::requantize::Requantization;
use ggufsmith_convert::{Conversion, ImatrixFile};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How long the parts of a run took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Headers, config, tokenizer, plan.
    pub prepare: Duration,
    /// Reading, encoding and handing to the system.
    pub convert: Duration,
    /// All of it, with flushing to disk.
    pub total: Duration,
}

/// What is converted, from whatever source.
pub struct Subject<'a> {
    /// Where it is read from.
    pub source: &'a Path,
    /// `general.architecture`.
    pub architecture: &'a str,
    /// Everything decided.
    pub plan: &'a Plan,
    /// `--imatrix`.
    pub imatrix: Option<&'a ImatrixFile>,
    /// What the matrices hold, where that is not what their type says.
    pub values: Option<super::carrier::Values>,
    /// None where the source is a GGUF file.
    pub pre_tokenizer: Option<PreTokenizer<'a>>,
    /// Source tensors that no output holds.
    pub dropped: Vec<Dropped<'a>>,
    /// What a user should know.
    pub warnings: &'a [String],
}

impl<'a> From<&'a Conversion> for Subject<'a> {
    fn from(conversion: &'a Conversion) -> Self {
        let tokenizer = &conversion.tokenizer;
        let found = tokenizer.pre_source.to_string();
        Subject {
            source: conversion.dir().path(),
            architecture: conversion.model.arch,
            plan: &conversion.plan,
            imatrix: conversion.imatrix.as_ref(),
            values: super::carrier::Values::of(conversion),
            pre_tokenizer: Some(PreTokenizer { tokenizer: tokenizer.model, name: &tokenizer.pre, found }),
            dropped: conversion.model.dropped.iter().map(|(tensor, reason)| Dropped { tensor, reason }).collect(),
            warnings: &conversion.warnings,
        }
    }
}

impl<'a> From<&'a Requantization> for Subject<'a> {
    fn from(requantization: &'a Requantization) -> Self {
        Subject {
            source: &requantization.path,
            architecture: &requantization.arch,
            plan: &requantization.plan,
            imatrix: requantization.imatrix.as_ref(),
            values: None,
            pre_tokenizer: None,
            dropped: Vec::new(),
            warnings: &requantization.warnings,
        }
    }
}

/// A run, for people and as JSON.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    source: &'a Path,
    /// What a file holds that carries another scheme's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<super::carrier::Values>,
    architecture: &'a str,
    parameters: u64,
    outputs: Vec<Output<'a>>,
    source_bytes: u64,
    seconds: Seconds,
    /// Source bytes per nanosecond of the conversion, without flushing to disk.
    source_gb_per_second: f64,
    workers: Vec<Workers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<&'a GpuReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_tokenizer: Option<PreTokenizer<'a>>,
    nonfinite: Vec<Overflow<'a>>,
    dropped: Vec<Dropped<'a>>,
    warnings: &'a [String],
    #[serde(skip)]
    times: Times,
}

#[derive(Debug, Serialize)]
struct Seconds {
    prepare: f64,
    convert: f64,
    flush: f64,
    total: f64,
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    #[serde(rename = "type")]
    type_name: &'a str,
    via: Option<&'a str>,
    bytes: u64,
    bits_per_weight: f64,
    files: Vec<File<'a>>,
    manifest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    importance: Option<Importance<'a>>,
}

/// How an importance matrix was used.
#[derive(Debug, Serialize)]
pub struct Importance<'a> {
    imatrix: &'a str,
    /// Tensors encoded with it.
    tensors: usize,
    /// Tensors that it does not name.
    without: Vec<&'a str>,
}

impl<'a> Importance<'a> {
    /// Of one output.
    pub fn of(subject: &Subject<'a>, output: &'a PlannedOutput) -> Option<Self> {
        // Files of the converter know no importance.
        let by_converter = subject.pre_tokenizer.is_some() && output.via.is_none();
        let imatrix = subject.imatrix.filter(|_| !by_converter)?;
        let name = |&index: &usize| subject.plan.tensors[index].name.as_str();
        Some(Importance {
            imatrix: &imatrix.file.name,
            tensors: output.places.iter().filter(|place| place.weighted).count(),
            without: output.without_importance.iter().map(name).collect(),
        })
    }
}

impl fmt::Display for Importance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "importance: {} by {}", units::plural(self.tensors, "tensor"), printable(self.imatrix))?;
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().take(SHOWN).map(|name| printable(name)).collect();
            write!(f, "; {} quantized without: {}", self.without.len(), names.join(", "))?;
        }
        match self.without.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more (--json lists them)"),
        }
    }
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    bytes: u64,
    sha256: &'a str,
}

/// Workers of one kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Workers {
    name: String,
    threads: usize,
    source_bytes: u64,
}

/// Weights that are not finite.
#[derive(Debug, Serialize)]
struct Overflow<'a> {
    tensor: &'a str,
    /// The type in which finite weights became infinite; none where the source itself is not finite.
    #[serde(rename = "type")]
    type_name: Option<&'a str>,
    count: u64,
}

/// A source tensor that no output holds.
#[derive(Debug, Serialize)]
pub struct Dropped<'a> {
    pub tensor: &'a str,
    pub reason: &'a str,
}

/// The pre-tokenizer's name and how it was found.
#[derive(Debug, Serialize)]
pub struct PreTokenizer<'a> {
    tokenizer: &'a str,
    name: &'a str,
    found: String,
}

impl fmt::Display for PreTokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tokenizer: {}, pre-tokenizer {} ({})", self.tokenizer, self.name, self.found)
    }
}

impl<'a> Summary<'a> {
    /// What became of `subject`; `manifest` says whether manifests were written.
    pub fn new(subject: Subject<'a>, outcome: &'a Outcome, manifest: bool) -> Self {
        let (plan, times, finished) = (subject.plan, outcome.times, &outcome.finished);
        let mut files = finished.files.iter();
        let outputs = plan.outputs.iter().map(|output| {
            let files = files.by_ref().take(output.files.len());
            let first = output.files.first().filter(|_| manifest);
            Output {
                type_name: output.file_type.name(),
                via: output.via.map(|words| plain_format(words).name),
                bytes: output.bytes(),
                bits_per_weight: output.bits_per_weight(plan.elems()),
                files: files.map(|f| File { path: &f.path, bytes: f.bytes, sha256: &f.sha256 }).collect(),
                manifest: first.map(|file| format!("{}.manifest.json", file.path.display())),
                importance: Importance::of(&subject, output),
            }
        });
        let outputs = outputs.collect();
        let nonfinite = |n: &'a Nonfinite| Overflow { tensor: &n.tensor, type_name: n.format, count: n.count };
        let flush = times.total.saturating_sub(times.prepare + times.convert);
        let source_bytes = plan.source_bytes();
        Summary {
            source: subject.source,
            values: subject.values,
            architecture: subject.architecture,
            parameters: plan.elems(),
            outputs,
            source_bytes,
            seconds: Seconds {
                prepare: times.prepare.as_secs_f64(),
                convert: times.convert.as_secs_f64(),
                flush: flush.as_secs_f64(),
                total: times.total.as_secs_f64(),
            },
            source_gb_per_second: source_bytes as f64 / 1e9 / times.convert.as_secs_f64().max(1e-9),
            workers: by_kind(&finished.report.shares),
            gpu: outcome.gpu.as_ref(),
            pre_tokenizer: subject.pre_tokenizer,
            nonfinite: finished.report.nonfinite.iter().map(nonfinite).collect(),
            dropped: subject.dropped,
            warnings: subject.warnings,
            times,
        }
    }

    /// Tell it on standard error.
    pub fn print(&self) {
        for overflow in &self.nonfinite {
            output::warning(&overflow.to_string());
        }
        output::note(self.to_string().trim_end());
    }
}

/// Workers of the same name together, in the order of their first one.
fn by_kind(shares: &[(String, u64)]) -> Vec<Workers> {
    let mut kinds: Vec<Workers> = Vec::new();
    for (name, bytes) in shares {
        match kinds.iter_mut().find(|kind| kind.name == *name) {
            Some(kind) => {
                kind.threads += 1;
                kind.source_bytes += bytes;
            }
            None => kinds.push(Workers { name: name.clone(), threads: 1, source_bytes: *bytes }),
        }
    }
    kinds
}

impl fmt::Display for Overflow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tensor, count) = (printable(self.tensor), units::grouped(self.count));
        match self.type_name {
            None => write!(f, "tensor {tensor}: weights of the source that are NaN or infinite: {count}"),
            Some(name) => write!(f, "tensor {tensor}: finite weights that became infinite in {name}: {count}"),
        }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(values) = &self.values {
            writeln!(f, "{values}")?;
        }
        for output in &self.outputs {
            let (name, bits) = (output.type_name, output.bits_per_weight);
            writeln!(f, "{name}: {}, {bits:.2} bits per weight", units::bytes(output.bytes))?;
            for file in &output.files {
                writeln!(f, "  {}", printable(&file.path.to_string_lossy()))?;
                writeln!(f, "  sha256 {}", file.sha256)?;
            }
            if let Some(importance) = &output.importance {
                writeln!(f, "  {importance}")?;
            }
        }
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            writeln!(f, "{pre_tokenizer}")?;
        }
        match self.dropped.as_slice() {
            [] => {}
            [one] => writeln!(f, "not converted: {} ({})", printable(one.tensor), one.reason)?,
            [first, ..] => {
                let count = units::plural(self.dropped.len(), "source tensor");
                writeln!(f, "not converted: {count}, such as {} ({})", printable(first.tensor), first.reason)?;
            }
        }
        if self.workers.len() > 1 {
            let all = self.source_bytes.max(1) as f64;
            let share = |kind: &Workers| format!("{} {:.0} %", printable(&kind.name), kind.source_bytes as f64 * 100.0 / all);
            writeln!(f, "shares: {}", self.workers.iter().map(share).collect::<Vec<_>>().join(", "))?;
        }
        if let Some(gpu) = &self.gpu {
            writeln!(f, "{gpu}")?;
        }
        let (source, rate) = (units::bytes(self.source_bytes), units::rate(self.source_bytes, self.times.convert));
        let total = units::duration(self.times.total);
        writeln!(f, "{total}: {source} of source at {rate}, {:.2} s flushing to disk", self.seconds.flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_summed_by_kind() {
        let shares = [("cpu".to_owned(), 3), ("gpu".to_owned(), 5), ("cpu".to_owned(), 4)];
        let kind = |name: &str, threads, source_bytes| Workers { name: name.into(), threads, source_bytes };
        assert_eq!(by_kind(&shares), [kind("cpu", 2, 7), kind("gpu", 1, 5)]);
    }
}
