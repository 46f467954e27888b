//! All checks of any number of files against one source.

mod forward;

use crate::forward::{ForwardError, LogitsError};
use crate::imatrix::{Imatrix, ImatrixError};
use crate::report::{Gate, HashedFile, Memory, Report, SCHEMA, TensorFigures, TensorVerdict, TypeBytes};
use crate::side::{SideError, Source};
use crate::{hash, structure, tensors, tokens, values};
use ggufsmith_checkpoint::{OpenOptions, Rounded, Rounding};
use ggufsmith_core::{FourBit, SCHEMES, TensorSource};
use ggufsmith_gguf::{GgufError, Limits, Shards};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A text with its name.
#[derive(Debug, Clone)]
pub struct NamedText {
    /// Its file's name.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What is to be checked, and how.
pub struct Request<'a> {
    /// GGUF files; of several shards any one.
    pub files: &'a [PathBuf],
    /// The model directory.
    pub source: &'a Path,
    /// How it is opened.
    pub open: OpenOptions,
    /// The arguments of the run, for the report.
    pub command: Vec<String>,
    /// The text of the forward pass; `None`: no forward pass.
    pub text: Option<NamedText>,
    /// Tokens per window.
    pub n_ctx: usize,
    /// The most windows; `None`: the whole text.
    pub windows: Option<usize>,
    /// Sentences, one on each line.
    pub sentences: Option<NamedText>,
    /// The importance matrix that the files were made with.
    pub imatrix: Option<&'a Path>,
    /// Bytes for activations, logits and decoded weights.
    pub memory: u64,
    /// Threads.
    pub threads: usize,
    /// Stop when the mean KL divergences are known well enough, or after this time.
    pub budget: Option<Duration>,
    /// Whether speed is measured.
    pub latency: bool,
    /// Where the source's log-probabilities are saved.
    pub save_logits: Option<&'a Path>,
    /// Saved log-probabilities that take the source's place.
    pub logits: Option<&'a Path>,
    /// The name of a `general.file_type`.
    pub file_type: fn(u32) -> Option<&'static str>,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told what happens.
    pub events: &'a dyn Events,
}

/// Gets to know how a run goes on.
pub trait Events: Sync {
    /// Something with `total` steps begins.
    fn begin(&self, what: &str, total: u64);
    /// Steps were done.
    fn advance(&self, steps: u64);
    /// It ended.
    fn end(&self);
    /// Something a user should know before the long part begins.
    fn note(&self, text: &str);
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerifyError {
    #[error("the source {}: {source}", path.display())]
    Source { path: PathBuf, source: Box<SideError> },
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{}: {source}", path.display())]
    Tensors { path: PathBuf, source: Box<tensors::Error> },
    #[error("the tokenizer: {0}")]
    Tokens(#[from] tokens::Error),
    #[error(transparent)]
    Imatrix(#[from] ImatrixError),
    #[error(transparent)]
    Logits(#[from] LogitsError),
    #[error("the forward pass: {0}")]
    Forward(ForwardError),
    #[error(transparent)]
    Side(Box<SideError>),
    #[error(transparent)]
    Damaged(#[from] ggufsmith_checkpoint::Damaged),
    #[error("hashing {}: {source}", path.display())]
    Hash { path: PathBuf, source: io::Error },
    #[error("no threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    #[error("the text has {tokens} tokens, one window needs {n_ctx}: take a longer text or a smaller --n-ctx")]
    Text { tokens: usize, n_ctx: usize },
    #[error("no line of the sentences has a token to score")]
    NoSentences,
    #[error("interrupted")]
    Cancelled,
}

impl From<SideError> for VerifyError {
    fn from(error: SideError) -> Self {
        VerifyError::Side(Box::new(error))
    }
}

impl From<ForwardError> for VerifyError {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Cancelled => VerifyError::Cancelled,
            other => VerifyError::Forward(other),
        }
    }
}

/// The name of the forward check.
pub const FORWARD: &str = "forward";

/// A file that is being checked.
struct File<'a> {
    path: &'a Path,
    shards: Arc<Shards>,
    report: Report,
    /// The source with the values that the file carries.
    values: Option<Carried>,
}

/// The source with the values of a scheme, and the model described by it.
struct Carried {
    source: Arc<Rounded>,
    model: ggufsmith_arch::Model,
}

impl Carried {
    fn new(source: &Source, rounding: Rounding) -> Result<Self, SideError> {
        let raw: Arc<dyn TensorSource> = source.checkpoint.clone();
        // Block lengths were checked when they were read.
        let rounded = Rounded::new(raw, rounding).map_err(|error| SideError::Rounding(error.to_string()))?;
        let model = ggufsmith_arch::describe(source.dir.config(), rounded.tensors(), &ggufsmith_arch::Options::default())?;
        Ok(Carried { source: Arc::new(rounded), model })
    }

    fn values(&self) -> tensors::Values<'_> {
        tensors::Values { source: &self.source, model: &self.model }
    }
}

/// Run every check. Thresholds and verdicts are the caller's: [`crate::gate::judge`].
///
/// # Errors
/// [`VerifyError`] where a side cannot be read, or the run was stopped. What is wrong with a file is no error, but a finding.
pub fn run(request: &Request<'_>) -> Result<Vec<Report>, VerifyError> {
    run_with(request, None)
}

/// As [`run`], of files that carry the values of a scheme. Without it the manifest beside a file tells.
///
/// # Errors
/// As [`run`].
pub fn run_with(request: &Request<'_>, rounding: Option<&Rounding>) -> Result<Vec<Report>, VerifyError> {
    let in_source = |source| VerifyError::Source { path: request.source.to_owned(), source: Box::new(source) };
    let source = Source::open(request.source, request.open.clone()).map_err(in_source)?;
    let imatrix = request.imatrix.map(Imatrix::open).transpose()?;
    let described = describe_source(request, &source)?;
    let mut files = Vec::new();
    for path in request.files {
        let shards = Arc::new(Shards::open(path, &Limits::default())?);
        let mut report = begin_report(request, &shards, &described)?;
        let rounding = rounding.cloned().or_else(|| values::of_manifest(shards.files()[0].path(), &report.sha256));
        let values = rounding.map(|rounding| Carried::new(&source, rounding)).transpose()?;
        if let Some(carried) = &values {
            report.file_type = format!("{} in {}", carried.source.rounding().scheme.name, report.file_type);
        }
        files.push(File { path, shards, report, values });
    }
    for file in &mut files {
        check_statically(request, &source, imatrix.as_ref(), file)?;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build()?;
    pool.install(|| forward::forward(request, &source, imatrix.as_ref(), &mut files))?;
    Ok(files.into_iter().map(|file| file.report).collect())
}

fn describe_source(request: &Request<'_>, source: &Source) -> Result<crate::report::Source, VerifyError> {
    let weights: Vec<(PathBuf, u64)> = source.checkpoint.files().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    let small = ["config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors.index.json"];
    let small = small.iter().map(|name| source.dir.path().join(name)).filter(|path| path.is_file());
    let paths: Vec<PathBuf> = weights.iter().map(|(path, _)| path.clone()).chain(small).collect();
    let mut files = hash_files(request, "hashing the source", &paths)?;
    for (path, file) in paths.iter().zip(&files) {
        ggufsmith_checkpoint::keeps_promise(path, &file.sha256)?;
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(crate::report::Source {
        name: source.dir.name(),
        revision: hash::revision(source.dir.path()),
        files,
        bytes: source.checkpoint.tensors().iter().map(ggufsmith_core::TensorInfo::bytes).sum(),
    })
}

fn hash_files(request: &Request<'_>, what: &str, paths: &[PathBuf]) -> Result<Vec<HashedFile>, VerifyError> {
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    request.events.begin(what, paths.iter().map(size).sum());
    let hash = |path: &PathBuf| {
        let hashed = hash::file(path, request.cancel, &|bytes| request.events.advance(bytes));
        hashed.map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => VerifyError::Cancelled,
            _ => VerifyError::Hash { path: path.clone(), source },
        })
    };
    let hashed = paths.iter().map(hash).collect();
    request.events.end();
    hashed
}

fn begin_report(request: &Request<'_>, shards: &Shards, source: &crate::report::Source) -> Result<Report, VerifyError> {
    let paths: Vec<PathBuf> = shards.files().iter().map(|file| file.path().to_owned()).collect();
    let name = paths.first().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy().into_owned();
    let files = hash_files(request, &format!("hashing {name}"), &paths)?;
    let metadata = shards.metadata();
    let text = |key| metadata.lookup::<&str>(key).ok().flatten().unwrap_or_default().to_owned();
    let parameters: u64 = shards.tensors().map(ggufsmith_gguf::GgufTensor::elems).sum();
    let data: u64 = shards.tensors().map(|tensor| tensor.bytes).sum();
    let memory = types(shards.tensors().map(|tensor| (tensor.format.name, tensor.bytes)));
    let most = memory.iter().max_by_key(|entry| entry.bytes).map(|entry| entry.format.clone());
    let file_type = metadata.lookup::<u32>("general.file_type").ok().flatten().and_then(request.file_type);
    Ok(Report {
        schema: SCHEMA.to_owned(),
        tool: format!("ggufsmith {}", env!("CARGO_PKG_VERSION")),
        command: request.command.clone(),
        file: name,
        sha256: files.first().map(|file| file.sha256.clone()).unwrap_or_default(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        architecture: text("general.architecture"),
        file_type: file_type.map_or_else(|| most.unwrap_or_default(), str::to_owned),
        parameters,
        bits_per_weight: data as f64 * 8.0 / parameters as f64,
        source: source.clone(),
        faithful: false,
        verdict: String::new(),
        checks: Vec::new(),
        gate: Gate::default(),
        figures: None,
        sentences: None,
        engine: None,
        memory: Memory { source: Vec::new(), file: memory },
        latency: None,
        tensors: Vec::new(),
    })
}

/// Bytes by type, in order of first appearance.
fn types<'a>(tensors: impl Iterator<Item = (&'a str, u64)>) -> Vec<TypeBytes> {
    let mut list: Vec<TypeBytes> = Vec::new();
    for (format, bytes) in tensors {
        match list.iter_mut().find(|entry| entry.format == format) {
            Some(entry) => {
                entry.tensors += 1;
                entry.bytes += bytes;
            }
            None => list.push(TypeBytes { format: format.to_owned(), tensors: 1, bytes }),
        }
    }
    list
}

/// Structure, tensors, tokenizer.
fn check_statically(
    request: &Request<'_>,
    source: &Source,
    imatrix: Option<&Imatrix>,
    file: &mut File<'_>,
) -> Result<(), VerifyError> {
    let File { path, shards, report, values } = file;
    let sizes = source.checkpoint.tensors().iter().map(|info| (info.dtype.name(), info.bytes()));
    report.memory.source = types(sizes);
    report.checks.push(structure::check(shards));
    request.events.begin(&format!("tensors of {}", report.file), tensors::source_bytes(shards, &source.model));
    let options = tensors::Options {
        threads: request.threads,
        imatrix,
        cancel: request.cancel,
        progress: &|bytes| request.events.advance(bytes),
    };
    let check = |values: Option<&Carried>, options: &tensors::Options<'_>| {
        let values = values.map(Carried::values);
        let compared = tensors::check_values(shards, &*source.checkpoint, &source.model, values, options);
        compared.map_err(|source| match source {
            tensors::Error::Cancelled => VerifyError::Cancelled,
            source => VerifyError::Tensors { path: path.to_path_buf(), source: Box::new(source) },
        })
    };
    let compared = check(values.as_ref(), &options);
    request.events.end();
    let (mut check_of_tensors, figures) = compared?;
    if values.is_none() && looks_rounded(&figures) {
        let silent = tensors::Options { progress: &|_| (), ..options };
        for &scheme in SCHEMES {
            let block_len = FourBit::DEFAULT_BLOCK_LEN as u64;
            let carried = Carried::new(source, Rounding { scheme, block_len, double: false, skip_modules: Vec::new() })?;
            let (_, found) = check(Some(&carried), &silent)?;
            if found.iter().all(|figures| figures.verdict != TensorVerdict::Wrong) {
                let name = scheme.name;
                check_of_tensors.problems.insert(
                    0,
                    format!("the file is that of a conversion to {name} (blocks of {block_len}), whose values its matrices hold exactly: --values {name} says that this was meant"),
                );
                break;
            }
        }
    }
    let check = check_of_tensors;
    report.checks.push(check);
    report.tensors = figures;
    report.checks.push(tokens::check(&source.dir, &source.request(), shards.metadata())?);
    Ok(())
}

/// Whether there are wrong tensors, all with errors as those of sixteen values have.
fn looks_rounded(figures: &[TensorFigures]) -> bool {
    let mut wrong = figures.iter().filter(|figures| figures.verdict == TensorVerdict::Wrong).peekable();
    wrong.peek().is_some() && wrong.all(|figures| (0.02..0.3).contains(&figures.relative_rmse))
}
