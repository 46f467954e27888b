//! The files to publish, and what is known of them.

use super::Arguments;
use crate::failure::Failure;
use crate::hub::failure;
use crate::output::printable;
use crate::progress::Progress;
use ggufsmith_gguf::{Limits, Shards};
use ggufsmith_hub::card::Verdict;
use ggufsmith_hub::{Cancel, FileName, Local};
use ggufsmith_verify::report::{self, Report, Written};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A manifest has fewer bytes.
pub const MANIFEST_BYTES: u64 = 16 << 20;

/// What a manifest says that a card repeats.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    pub tool: String,
    pub reference: Option<String>,
    #[serde(default)]
    pub command: Vec<String>,
    pub source: String,
    pub repository: Option<String>,
    pub revision: Option<String>,
    pub file_type: Option<String>,
    pub imatrix: Option<Output>,
    #[serde(default)]
    pub outputs: Vec<Output>,
}

/// A file that a manifest names.
#[derive(Debug, Clone, Deserialize)]
pub struct Output {
    pub name: String,
    pub sha256: String,
}

/// A GGUF file, or the shards of one.
#[derive(Debug)]
pub struct Group {
    /// Hashed.
    pub shards: Vec<Local>,
    /// The report of these bytes.
    pub report: Option<Report>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why it is not faithful or not verified.
    pub problem: Option<String>,
    /// The manifest of these bytes.
    pub manifest: Option<Manifest>,
    /// Manifest and reports.
    pub beside: Vec<PathBuf>,
}

impl Group {
    /// Name of the file, of the first shard.
    pub fn name(&self) -> &str {
        self.shards.first().map_or("", |shard| shard.name.as_str())
    }
}

/// All files, each once, with their shards.
pub fn gather(arguments: &Arguments, cancel: &Cancel, shows: bool) -> Result<Vec<Group>, Failure> {
    let mut sets: Vec<Vec<PathBuf>> = Vec::new();
    for file in &arguments.files {
        let shards = Shards::open(file, &Limits::default())?;
        let paths: Vec<PathBuf> = shards.files().iter().map(|gguf| gguf.path().to_owned()).collect();
        if !sets.contains(&paths) {
            sets.push(paths);
        }
    }
    let names: Vec<_> = sets.iter().flatten().map(|path| name(path)).collect::<Result<_, _>>()?;
    if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Failure::new(format!("two files have the name {name}, and a repository has one place for it")));
    }
    let bytes = sets.iter().flatten().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum();
    let progress = Progress::new(bytes, !shows);
    let groups = sets.iter().map(|paths| group(paths, arguments, cancel, &progress)).collect();
    progress.end();
    groups
}

fn name(path: &Path) -> Result<FileName, Failure> {
    let name = path.file_name().unwrap_or_default().to_str();
    let name = name.ok_or_else(|| Failure::new(format!("{}: its name is no text", path.display())))?;
    if !name.to_lowercase().ends_with(".gguf") {
        let message = format!("{}: its name does not end in .gguf, so nobody would find it on the Hub", path.display());
        return Err(Failure::new(message));
    }
    name.parse().map_err(failure)
}

fn group(paths: &[PathBuf], arguments: &Arguments, cancel: &Cancel, progress: &Progress) -> Result<Group, Failure> {
    let mut shards = Vec::with_capacity(paths.len());
    for path in paths {
        shards.push(Local::of_file(name(path)?, path, cancel, &|bytes| progress.add(bytes)).map_err(failure)?);
    }
    let mut group =
        Group { shards, report: None, verdict: Verdict::NotVerified, problem: None, manifest: None, beside: Vec::new() };
    // A report lies beside whichever shard was named; a manifest beside the first.
    let mut stale = None;
    for path in paths {
        let written = Written::at(path, arguments.report_dir.as_deref())?;
        if !written.json.is_file() {
            continue;
        }
        let found = report::read(&written.json)?;
        if is_of(&found, &group.shards) {
            let pages = [written.json, written.markdown, written.html];
            group.beside.extend(pages.into_iter().filter(|page| page.is_file()));
            group.report = Some(found);
            break;
        }
        stale = Some(written.json);
    }
    (group.verdict, group.problem) = judge(group.report.as_ref(), stale.as_deref());
    if let Some((path, manifest)) = manifest(&paths[0], &group.shards)? {
        group.beside.insert(0, path);
        group.manifest = Some(manifest);
    }
    Ok(group)
}

/// Whether a report is about these bytes, all of them.
fn is_of(report: &Report, shards: &[Local]) -> bool {
    report.files.len() == shards.len()
        && report.files.iter().zip(shards).all(|(file, shard)| file.sha256 == shard.sha256 && file.bytes == shard.size)
}

/// What a report comes to, and why it is not enough.
pub fn judge(report: Option<&Report>, stale: Option<&Path>) -> (Verdict, Option<String>) {
    let Some(report) = report else {
        let problem = match stale {
            Some(path) => format!("{} is about other bytes: the file was changed or written anew since", path.display()),
            None => "there is no report beside it".to_owned(),
        };
        return (Verdict::NotVerified, Some(problem));
    };
    let failed = report.checks.iter().any(|check| check.status == report::Status::Failed);
    if failed || !report.gate.failures.is_empty() {
        return (Verdict::NotFaithful, Some(format!("its report says: {}", printable(&report.verdict))));
    }
    match &report.figures {
        _ if !report.faithful => (Verdict::NotVerified, Some(format!("its report says: {}", printable(&report.verdict)))),
        Some(figures) if figures.windows > 0 && figures.perplexity.is_finite() && figures.kld_mean.is_finite() => {
            (Verdict::Faithful, None)
        }
        _ => (Verdict::NotVerified, Some("its report has no window of a forward pass".to_owned())),
    }
}

/// The manifest beside a file, if it is about these bytes.
fn manifest(first: &Path, shards: &[Local]) -> Result<Option<(PathBuf, Manifest)>, Failure> {
    let mut path = first.as_os_str().to_owned();
    path.push(".manifest.json");
    let path = PathBuf::from(path);
    let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("{}: {what}", path.display()));
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(metadata) if metadata.len() > MANIFEST_BYTES => return Err(wrong(&"it is too large for a manifest")),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let same = manifest.outputs.len() == shards.len()
        && manifest.outputs.iter().zip(shards).all(|(output, shard)| output.sha256 == shard.sha256);
    if !same {
        crate::output::warning(&format!("{} is about other bytes: it is left out", path.display()));
        return Ok(None);
    }
    Ok(Some((path, manifest)))
}
