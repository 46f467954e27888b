//! All checks of any number of files against one source.

use crate::forward::{
    Base, Evaluation, ForwardError, Group, LogitsError, LogitsFile, LogitsWriter, Sample, Sink, Work, evaluate, figures,
};
use crate::imatrix::{Imatrix, ImatrixError};
use crate::reencoded::Reencoded;
use crate::report::{
    Check, Figures, Gate, HashedFile, Latency, Memory, Report, SCHEMA, Status, TensorFigures, TensorVerdict, TypeBytes,
};
use crate::side::{Side, SideError, Source};
use crate::{hash, latency, report, structure, tensors, tokens};
use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_core::TensorSource;
use ggufsmith_gguf::{GgufError, Limits, Shards};
use ggufsmith_infer::{Gemm, Model, Weights};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

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

/// Mean KL divergence between the file and the source at the file's precision, in nats, up to which both compute the same: only the order
/// of sums differs.
const SAME: f64 = 1e-4;

/// A file that is being checked.
struct File<'a> {
    path: &'a Path,
    shards: Arc<Shards>,
    report: Report,
}

/// Run every check. Thresholds and verdicts are the caller's: [`crate::gate::judge`].
///
/// # Errors
/// [`VerifyError`] where a side cannot be read, or the run was stopped. What is wrong with a file is no error, but a finding.
pub fn run(request: &Request<'_>) -> Result<Vec<Report>, VerifyError> {
    let in_source = |source| VerifyError::Source { path: request.source.to_owned(), source: Box::new(source) };
    let source = Source::open(request.source, request.open.clone()).map_err(in_source)?;
    let imatrix = request.imatrix.map(Imatrix::open).transpose()?;
    let described = describe_source(request, &source)?;
    let mut files = Vec::new();
    for path in request.files {
        let shards = Arc::new(Shards::open(path, &Limits::default())?);
        let report = begin_report(request, &shards, &described)?;
        files.push(File { path, shards, report });
    }
    for file in &mut files {
        check_statically(request, &source, imatrix.as_ref(), file)?;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build()?;
    pool.install(|| forward(request, &source, &mut files))?;
    Ok(files.into_iter().map(|file| file.report).collect())
}

fn describe_source(request: &Request<'_>, source: &Source) -> Result<crate::report::Source, VerifyError> {
    let weights: Vec<(PathBuf, u64)> = source.checkpoint.files().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    let small = ["config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors.index.json"];
    let small = small.iter().map(|name| source.dir.path().join(name)).filter(|path| path.is_file());
    let paths: Vec<PathBuf> = weights.iter().map(|(path, _)| path.clone()).chain(small).collect();
    let mut files = hash_files(request, "hashing the source", &paths)?;
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
    let File { path, shards, report } = file;
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
    let compared = tensors::check(shards, &*source.checkpoint, &source.model, &options);
    request.events.end();
    let (check, figures) = compared.map_err(|source| match source {
        tensors::Error::Cancelled => VerifyError::Cancelled,
        source => VerifyError::Tensors { path: path.to_path_buf(), source: Box::new(source) },
    })?;
    report.checks.push(check);
    report.tensors = figures;
    report.checks.push(tokens::check(&source.dir, &source.request(), shards.metadata())?);
    Ok(())
}

/// A file's model, or why it has none.
struct Candidate {
    /// Position in the list of files.
    file: usize,
    model: Model,
}

fn forward(request: &Request<'_>, source: &Source, files: &mut [File<'_>]) -> Result<(), VerifyError> {
    let Some(text) = &request.text else {
        for file in files {
            file.report.checks.push(skipped("not asked for (--no-forward)"));
        }
        return Ok(());
    };
    let side = match source.side() {
        Err(SideError::Decoder(error)) => {
            for file in files {
                file.report.checks.push(skipped(&error.to_string()));
            }
            return Ok(());
        }
        side => side?,
    };
    let mut saved = request.logits.map(LogitsFile::open).transpose()?;
    let mut n_ctx = saved.as_ref().map_or(request.n_ctx, LogitsFile::n_ctx);
    // Learned positions end: there is nothing to compute behind them.
    let learned = side.decoder.position_embd.as_ref().map(|positions| usize::try_from(positions.n_rows()).unwrap_or(usize::MAX));
    if let (Some(learned), None) = (learned.filter(|learned| n_ctx > *learned), &saved) {
        request.events.note(&format!("the model has learned {learned} positions: windows have {learned} tokens, not {n_ctx}"));
        n_ctx = learned;
    }
    let (trained, n_vocab) = (side.decoder.n_ctx_train, side.decoder.n_vocab as usize);
    if let Some(saved) = &saved
        && saved.n_vocab() != n_vocab
    {
        return Err(saved.other("vocabulary entries", saved.n_vocab(), n_vocab).into());
    }
    if n_ctx as u64 > u64::from(trained) {
        request.events.note(&format!(
            "the model was made for texts of {trained} tokens, windows have {n_ctx}: its figures are worse than they need to be{}",
            if saved.is_some() { String::new() } else { format!(" (--n-ctx {trained})") },
        ));
    }
    let (base, words) = side.model(n_ctx)?;
    let samples = match &saved {
        Some(saved) => saved.samples(words.bos()),
        None => words.windows(&text.text, n_ctx, request.windows).map_err(|error| match error {
            SideError::Text(short) => VerifyError::Text { tokens: short.tokens, n_ctx: short.n_ctx },
            other => other.into(),
        })?,
    };
    // Before the long part: a mistake in it should not come late.
    let sentences = match &request.sentences {
        None => None,
        Some(sentences) => match words.sentences(&sentences.text, n_ctx)? {
            samples if samples.is_empty() => return Err(VerifyError::NoSentences),
            samples => Some((sentences, samples)),
        },
    };
    let mut candidates = Vec::new();
    for (number, file) in files.iter_mut().enumerate() {
        let opened = Side::of_gguf(file.shards.clone()).and_then(|side| side.model(n_ctx));
        match opened {
            Ok((model, _)) => {
                if let Some(check) = control(request, source, &base, &model, &samples[..1], file)? {
                    let runs = check.status == Status::Passed;
                    file.report.checks.push(check);
                    if runs || file.report.checks.iter().all(|check| check.name != FORWARD || check.status != Status::Failed) {
                        candidates.push(Candidate { file: number, model });
                    }
                }
            }
            Err(SideError::Decoder(error)) => file.report.checks.push(skipped(&error.to_string())),
            Err(error) => file.report.checks.push(failed("the file's model cannot be run", error.to_string())),
        }
    }
    if candidates.is_empty() && request.save_logits.is_none() {
        return Ok(());
    }
    let names: Vec<String> = candidates.iter().map(|candidate| files[candidate.file].report.file.clone()).collect();
    let others: Vec<(&str, &Model)> = names.iter().map(String::as_str).zip(candidates.iter().map(|c| &c.model)).collect();
    let text_file =
        HashedFile { name: text.name.clone(), bytes: text.text.len() as u64, sha256: hash::bytes(text.text.as_bytes()) };

    let scores = measure(request, &base, &others, &samples, saved.as_mut())?;
    for (number, candidate) in candidates.iter().enumerate() {
        let figures = figures::compare(&scores, number, text_file.clone(), n_ctx as u64);
        files[candidate.file].report.figures = Some(figures);
    }
    if let Some((sentences, samples)) = sentences {
        let scores = run_over(request, "sentences", Base::Model(&base), &others, &samples, None, &mut |_| true)?;
        let sha256 = hash::bytes(sentences.text.as_bytes());
        let file = HashedFile { name: sentences.name.clone(), bytes: sentences.text.len() as u64, sha256 };
        for (number, candidate) in candidates.iter().enumerate() {
            files[candidate.file].report.sentences = Some(figures::sentences(&scores, number, file.clone()));
        }
    }
    if request.latency {
        speeds(request, base, candidates, &samples[0].tokens, files)?;
    }
    Ok(())
}

fn skipped(why: &str) -> Check {
    Check { name: FORWARD.to_owned(), status: Status::Skipped, summary: why.to_owned(), problems: Vec::new() }
}

fn failed(summary: &str, problem: String) -> Check {
    Check { name: FORWARD.to_owned(), status: Status::Failed, summary: summary.to_owned(), problems: vec![problem] }
}

/// The forward check: one window of the file against the source at the file's precision.
fn control(
    request: &Request<'_>,
    source: &Source,
    base: &Model,
    model: &Model,
    samples: &[Sample],
    file: &File<'_>,
) -> Result<Option<Check>, VerifyError> {
    let report = &file.report;
    let run = |base: &Model, others: &[(&str, &Model)]| {
        let what = format!("one window of {}", report.file);
        run_over(request, &what, Base::Model(base), others, samples, None, &mut |_| true)
    };
    let weights: Arc<dyn TensorSource> = source.checkpoint.clone();
    let precise = Reencoded::new(weights, &source.model, &report.tensors);
    let precise =
        precise.map(|tensors| Model::new(base.decoder().clone(), Weights::new(Box::new(tensors)), Box::new(Gemm), base.n_ctx()));
    let precise = match precise {
        None => None,
        Some(model) => Some(model.map_err(SideError::from)?),
    };
    let scores = match &precise {
        Some(precise) => run(precise, &[("the file", model), ("the source", base)]),
        None => run(base, &[("the file", model)]),
    };
    let scores = match scores {
        Err(VerifyError::Forward(error)) => return Ok(Some(failed("the forward pass failed", error.to_string()))),
        scores => scores?,
    };
    let exact = |figures: &TensorFigures| matches!(figures.verdict, TensorVerdict::Exact | TensorVerdict::Lossless);
    let exact = report.tensors.iter().all(exact);
    let mean = |other: usize| scores.others[other].iter().map(|score| score.kld).sum::<f64>() / scores.others[other].len() as f64;
    let found = mean(0);
    let tokens = samples[0].tokens.len();
    // What re-encoding did not reproduce may differ by about what quantization itself costs.
    let (bound, than) = match precise {
        Some(_) if exact => (SAME, "the source's own layout at the same precision"),
        Some(_) => (SAME + 2.0 * mean(1), "the source's own layout at about the same precision"),
        None => (f64::INFINITY, "the source"),
    };
    let figures = format!("mean KL divergence {found:.1e} from {than} over a window of {tokens} tokens");
    if found <= bound {
        return Ok(Some(Check {
            name: FORWARD.to_owned(),
            status: Status::Passed,
            summary: format!("both sides compute the same: {figures}"),
            problems: Vec::new(),
        }));
    }
    let problem = format!(
        "{figures}, at most {bound:.1e} is expected: the file computes something else than the source. If its tensors are right, a key (rope, norm, head counts) or the order of rows is wrong"
    );
    Ok(Some(failed("the two sides compute different things", problem)))
}

/// The windows of a text, with everything that was asked for.
fn measure(
    request: &Request<'_>,
    base: &Model,
    others: &[(&str, &Model)],
    samples: &[Sample],
    saved: Option<&mut LogitsFile>,
) -> Result<Group, VerifyError> {
    let models: Vec<&Model> = std::iter::once(base).chain(others.iter().map(|(_, model)| *model)).collect();
    let work = Work::of(&models, samples, request.memory);
    request.events.note(&format!(
        "forward pass: {} of {} tokens, {} and the source, about {}, at most {:.1} GB of memory",
        plural(samples.len(), "window"),
        samples[0].tokens.len(),
        plural(others.len(), "file"),
        duration(estimate(&work)),
        work.bytes as f64 / 1e9,
    ));
    let n_vocab = base.decoder().n_vocab as usize;
    let mut writer = match request.save_logits {
        None => None,
        Some(path) => {
            let bytes = LogitsWriter::bytes(n_vocab, samples);
            request.events.note(&format!("{} takes {}", path.display(), report::text::bytes(bytes)));
            Some(LogitsWriter::create(path, n_vocab, samples)?)
        }
    };
    let started = Instant::now();
    let mut go_on = |scores: &Group| match request.budget {
        None => true,
        Some(budget) => started.elapsed() < budget && !known_well(scores),
    };
    let mut saved = saved;
    let base = match &mut saved {
        Some(saved) => Base::File(saved),
        None => Base::Model(base),
    };
    let scores = match &mut writer {
        None => run_over(request, "forward pass", base, others, samples, None, &mut go_on)?,
        Some(writer) => {
            let mut sink = |logits: &[f32]| writer.row(logits);
            run_over(request, "forward pass", base, others, samples, Some(&mut sink), &mut |_| true)?
        }
    };
    if let Some(writer) = writer {
        writer.finish()?;
    }
    if let Some(cut) = saved.map(|saved| saved.cut_off()).filter(|cut| *cut > 0) {
        request.events.note(&format!(
            "{cut} of {} scored tokens are less probable than saved log-probabilities tell (e^-16 of the largest): the source's perplexity is higher than its figure, the ratio lower",
            scores.base.len()
        ));
    }
    Ok(scores)
}

/// Whether the 95 % interval of every mean KL divergence is within 5 % of it.
fn known_well(scores: &Group) -> bool {
    const WINDOWS: usize = 8;
    let none = HashedFile { name: String::new(), bytes: 0, sha256: String::new() };
    scores.samples.len() >= WINDOWS
        && (0..scores.others.len()).all(|other| {
            let Figures { kld_mean, kld_mean_error, .. } = figures::compare(scores, other, none.clone(), 0);
            1.96 * kld_mean_error <= 0.05 * kld_mean
        })
}

#[allow(clippy::too_many_arguments, reason = "one call of `evaluate`, with its progress")]
fn run_over(
    request: &Request<'_>,
    what: &str,
    base: Base<'_>,
    others: &[(&str, &Model)],
    samples: &[Sample],
    sink: Option<Sink<'_>>,
    go_on: &mut dyn FnMut(&Group) -> bool,
) -> Result<Group, VerifyError> {
    let models: Vec<&Model> = match &base {
        Base::Model(model) => std::iter::once(*model).chain(others.iter().map(|(_, model)| *model)).collect(),
        Base::File(_) => others.iter().map(|(_, model)| *model).collect(),
    };
    request.events.begin(what, Work::of(&models, samples, request.memory).multiplications);
    // With a budget groups are small, so that it is kept.
    let memory = if request.budget.is_some() { 0 } else { request.memory };
    let progress = |steps| request.events.advance(steps);
    // Written out, so that its lifetime shrinks to that of the others.
    let sink = sink.map(|sink| sink as Sink<'_>);
    let evaluation = Evaluation { base, others, samples, memory, sink, cancel: request.cancel, progress: &progress };
    let scores = evaluate(evaluation, go_on);
    request.events.end();
    Ok(scores?)
}

/// What the work will take, by a short product on the current pool.
fn estimate(work: &Work) -> Duration {
    use ggufsmith_infer::{MatMul, View};
    const SIZE: usize = 1024;
    let (x, w, mut out) = (vec![0.5; 512 * SIZE], vec![0.5; SIZE * SIZE], vec![0.0; 512 * SIZE]);
    let view = View { data: &w, stride: SIZE, rows: SIZE, cols: SIZE };
    Gemm.matmul(&x, view, &mut out, SIZE, 0);
    let started = Instant::now();
    Gemm.matmul(&x, view, &mut out, SIZE, 0);
    let rate = (512 * SIZE * SIZE) as f64 / started.elapsed().as_secs_f64();
    // Attention, norms and decoding come to about a third on top.
    Duration::from_secs_f64(work.multiplications as f64 / rate * 1.3)
}

/// Speed of both sides; models are made resident for it, one after the other, where they fit the memory that is allowed.
fn speeds(
    request: &Request<'_>,
    mut base: Model,
    candidates: Vec<Candidate>,
    tokens: &[u32],
    files: &mut [File<'_>],
) -> Result<(), VerifyError> {
    let prompt = &tokens[..latency::PROMPT.min(tokens.len())];
    if prompt.len() + latency::GENERATED > base.n_ctx() {
        request.events.note("speed was not measured: it needs --n-ctx of at least 144");
        return Ok(());
    }
    request.events.begin("speed", 1 + candidates.len() as u64);
    let speed = |model: &mut Model| {
        model.make_resident(request.memory)?;
        let speed = latency::measure(model, prompt);
        request.events.advance(1);
        speed
    };
    let source = speed(&mut base).map_err(SideError::from)?;
    drop(base);
    for Candidate { file, mut model } in candidates {
        let own = speed(&mut model).map_err(SideError::from)?;
        files[file].report.latency = Some(Latency { threads: request.threads as u64, source: source.clone(), file: own });
    }
    request.events.end();
    Ok(())
}

fn plural(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        ..90.0 => format!("{:.0} s", duration.as_secs_f64().max(1.0)),
        seconds @ ..5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}
