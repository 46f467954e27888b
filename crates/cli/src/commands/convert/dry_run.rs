//! What `--dry-run` shows.

use super::summary::Subject;
use crate::output::printable;
use crate::table::{Align, Table};
use crate::units;
use ggufsmith_convert::plan::{PlannedOutput, plain_format};
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// A plan, for people and as JSON.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    dry_run: bool,
    source: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<super::carrier::Values>,
    architecture: &'a str,
    parameters: u64,
    source_bytes: u64,
    memory_bytes: u64,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_tokenizer: Option<super::summary::PreTokenizer<'a>>,
    outputs: Vec<Output<'a>>,
    dropped: Vec<super::summary::Dropped<'a>>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Output<'a> {
    #[serde(rename = "type")]
    type_name: &'a str,
    via: Option<&'a str>,
    bytes: u64,
    bits_per_weight: f64,
    files: Vec<File<'a>>,
    tensors: Vec<Tensor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    importance: Option<super::summary::Importance<'a>>,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Tensor<'a> {
    name: &'a str,
    shape: &'a [u64],
    source_type: Option<&'a str>,
    #[serde(rename = "type")]
    type_name: &'a str,
    bytes: u64,
    file: &'a Path,
    offset: u64,
    rule: &'a str,
}

impl<'a> Report<'a> {
    /// Everything that is decided for `threads` workers.
    pub fn new(subject: Subject<'a>, threads: usize) -> Self {
        let plan = subject.plan;
        let outputs = plan.outputs.iter().map(|output| Output::new(&subject, output)).collect();
        Report {
            dry_run: true,
            source: subject.source,
            values: subject.values,
            architecture: subject.architecture,
            parameters: plan.elems(),
            source_bytes: plan.source_bytes(),
            memory_bytes: plan.memory_bound(threads),
            threads,
            outputs,
            pre_tokenizer: subject.pre_tokenizer,
            dropped: subject.dropped,
            warnings: subject.warnings,
        }
    }
}

impl<'a> Output<'a> {
    fn new(subject: &Subject<'a>, output: &'a PlannedOutput) -> Self {
        let plan = subject.plan;
        let files: Vec<&Path> = plan.files().map(|file| file.path.as_path()).collect();
        let tensor = |&index: &usize| {
            let (tensor, place) = (&plan.tensors[index], &output.places[index]);
            Tensor {
                name: &tensor.name,
                shape: &tensor.shape,
                source_type: tensor.source_type,
                type_name: place.format.name,
                bytes: place.bytes,
                file: files[place.file],
                offset: place.offset,
                rule: &place.rule,
            }
        };
        Output {
            type_name: output.file_type.name(),
            via: output.via.map(|words| plain_format(words).name),
            bytes: output.bytes(),
            bits_per_weight: output.bits_per_weight(plan.elems()),
            files: output.files.iter().map(|f| File { path: &f.path, bytes: f.layout.file_size() }).collect(),
            tensors: output.order.iter().map(tensor).collect(),
            importance: super::summary::Importance::of(subject, output),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(values) = &self.values {
            writeln!(f, "{values}")?;
        }
        for output in &self.outputs {
            write!(f, "{output}")?;
            writeln!(f)?;
        }
        let (parameters, source) = (units::count(self.parameters), units::bytes(self.source_bytes));
        writeln!(f, "{} with {parameters} weights; {source} of source, read once for all outputs", self.architecture)?;
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            writeln!(f, "{pre_tokenizer}")?;
        }
        for dropped in &self.dropped {
            writeln!(f, "not converted: {} ({})", printable(dropped.tensor), dropped.reason)?;
        }
        let threads = units::plural(self.threads, "thread");
        writeln!(f, "buffers: at most {} with {threads}", units::bytes(self.memory_bytes))
    }
}

impl fmt::Display for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = self.via.map(|via| format!(", as if by way of a {via} file")).unwrap_or_default();
        writeln!(f, "{}{via}: {}, {:.2} bits per weight", self.type_name, units::bytes(self.bytes), self.bits_per_weight)?;
        for file in &self.files {
            writeln!(f, "  {}  {} bytes", printable(&file.path.to_string_lossy()), units::grouped(file.bytes))?;
        }
        let mut table = Table::new([
            ("tensor", Align::Left),
            ("shape", Align::Left),
            ("source", Align::Left),
            ("type", Align::Left),
            ("bytes", Align::Right),
            ("rule", Align::Left),
        ]);
        for tensor in &self.tensors {
            table.row([
                tensor.name.to_owned(),
                units::shape(tensor.shape),
                tensor.source_type.unwrap_or("computed").to_owned(),
                tensor.type_name.to_owned(),
                units::grouped(tensor.bytes),
                tensor.rule.to_owned(),
            ]);
        }
        let mut text = String::new();
        table.render("  ", &mut text);
        f.write_str(&text)?;
        match &self.importance {
            Some(importance) => writeln!(f, "  {importance}"),
            None => Ok(()),
        }
    }
}
