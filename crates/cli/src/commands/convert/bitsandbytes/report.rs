//! What `--format safetensors` says: before the run and after it.

use crate::output::printable;
use crate::table::{Align, Table};
use crate::units;
use ggufsmith_convert::bitsandbytes::{Checked, MANIFEST, Quantization, QuantizePlan};
use ggufsmith_convert::sink::FinishedFile;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// A plan, for people and as JSON.
#[derive(Debug, Serialize)]
pub struct Plan<'a> {
    dry_run: bool,
    source: &'a Path,
    directory: &'a Path,
    #[serde(rename = "type")]
    type_name: &'a str,
    parameters: u64,
    source_bytes: u64,
    memory_bytes: u64,
    threads: usize,
    bytes: u64,
    /// Whether sizes are the final ones.
    exact: bool,
    bits_per_weight: f64,
    files: Vec<PlannedFile<'a>>,
    tensors: Vec<Tensor<'a>>,
    warnings: &'a [String],
    #[serde(skip)]
    quantized: usize,
}

#[derive(Debug, Serialize)]
struct PlannedFile<'a> {
    path: &'a Path,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Tensor<'a> {
    name: &'a str,
    shape: &'a [u64],
    source_type: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    bytes: u64,
    rule: &'a str,
}

impl<'a> Plan<'a> {
    /// Everything that is decided for `threads` threads.
    pub fn new(quantization: &'a Quantization, plan: &'a QuantizePlan, threads: usize) -> Self {
        let tensors = plan.tensors.iter().map(|tensor| Tensor {
            name: &tensor.name,
            shape: &tensor.shape,
            source_type: tensor.source_type,
            type_name: tensor.stored,
            bytes: tensor.bytes,
            rule: &tensor.rule,
        });
        Plan {
            dry_run: true,
            source: quantization.dir().path(),
            directory: quantization.directory(),
            type_name: quantization.method().name(),
            parameters: plan.elems,
            source_bytes: quantization.source_bytes(),
            memory_bytes: quantization.memory_bound(threads),
            threads,
            bytes: plan.bytes(),
            exact: plan.exact,
            bits_per_weight: plan.bits_per_weight(),
            files: plan.files.iter().map(|file| PlannedFile { path: &file.path, bytes: file.bytes }).collect(),
            tensors: tensors.collect(),
            warnings: &quantization.warnings,
            quantized: quantization.tensors().1,
        }
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.exact { "" } else { "about " };
        let (bytes, bits) = (units::bytes(self.bytes), self.bits_per_weight);
        writeln!(f, "{}: {about}{bytes}, {bits:.2} bits per weight", self.type_name)?;
        for file in &self.files {
            writeln!(f, "  {}  {about}{} bytes", printable(&file.path.to_string_lossy()), units::grouped(file.bytes))?;
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
                tensor.source_type.to_owned(),
                tensor.type_name.to_owned(),
                units::grouped(tensor.bytes),
                tensor.rule.to_owned(),
            ]);
        }
        let mut text = String::new();
        table.render("  ", &mut text);
        f.write_str(&text)?;
        let (all, source) = (units::plural(self.tensors.len(), "tensor"), units::bytes(self.source_bytes));
        writeln!(f, "\n{} of {all} quantized; {source} of source to read", self.quantized)?;
        let threads = units::plural(self.threads, "thread");
        writeln!(f, "buffers: at most {} with {threads}", units::bytes(self.memory_bytes))
    }
}

/// A run, for people and as JSON.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    source: &'a Path,
    directory: &'a Path,
    #[serde(rename = "type")]
    type_name: &'a str,
    tensors: usize,
    quantized: usize,
    bytes: u64,
    files: Vec<File<'a>>,
    manifest: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified<'a>>,
    seconds: f64,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a Path,
    bytes: u64,
    sha256: &'a str,
}

/// The directory, read again, against the source, quantized again.
#[derive(Debug, Serialize)]
struct Verified<'a> {
    tensors: usize,
    equal: usize,
    problems: &'a [String],
}

impl<'a> Summary<'a> {
    /// What a run came to.
    pub fn new(
        quantization: &'a Quantization,
        finished: &'a [FinishedFile],
        checked: Option<&'a Checked>,
        manifest: bool,
        seconds: f64,
    ) -> Self {
        let (tensors, quantized) = quantization.tensors();
        let verified =
            checked.map(|c| Verified { tensors: c.tensors, equal: c.equal, problems: &c.problems });
        Summary {
            source: quantization.dir().path(),
            directory: quantization.directory(),
            type_name: quantization.method().name(),
            tensors,
            quantized,
            bytes: finished.iter().map(|file| file.bytes).sum(),
            files: finished.iter().map(|file| File { path: &file.path, bytes: file.bytes, sha256: &file.sha256 }).collect(),
            manifest: manifest.then(|| quantization.directory().join(MANIFEST)),
            verified,
            seconds,
            warnings: &quantization.warnings,
        }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.to_string_lossy();
        let (directory, tensors) = (printable(&directory), units::plural(self.tensors, "tensor"));
        write!(f, "{directory}: {} of {tensors} in {}, {}", self.quantized, self.type_name, units::bytes(self.bytes))?;
        match &self.verified {
            Some(verified) => write!(
                f,
                "\nverified: {} of {} tensors are those of the source quantized again",
                verified.equal, verified.tensors
            ),
            None => Ok(()),
        }
    }
}
