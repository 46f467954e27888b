//! The forward pass of both sides: the check of a file's computation, and what quantization cost.

use super::{FORWARD, File, Request, VerifyError};
use crate::forward::{Base, Evaluation, Group, LogitsFile, LogitsWriter, Sample, Sink, Work, evaluate, figures};
use crate::imatrix::Imatrix;
use crate::reencoded::Reencoded;
use crate::report::{Check, Figures, HashedFile, Latency, Status, TensorFigures, TensorVerdict};
use crate::side::{Side, SideError, Source};
use crate::{hash, latency, report};
use ggufsmith_infer::{Gemm, Model, Weights};
use std::time::{Duration, Instant};

/// Mean KL divergence between the file and the source at the file's precision, in nats, up to which both compute the same: only the order
/// of sums differs.
const SAME: f64 = 1e-4;

/// A file's model, or why it has none.
struct Candidate {
    /// Position in the list of files.
    file: usize,
    model: Model,
}

/// The forward check and the figures of all files, in one pass over the source.
pub(super) fn forward(
    request: &Request<'_>,
    source: &Source,
    imatrix: Option<&Imatrix>,
    files: &mut [File<'_>],
) -> Result<(), VerifyError> {
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
                if let Some(check) = control(request, source, imatrix, &base, &model, &samples[..1], file)? {
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
    imatrix: Option<&Imatrix>,
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
    let precise = match &file.values {
        None => Reencoded::new(source.checkpoint.clone(), &source.model, &report.tensors, imatrix),
        Some(carried) => {
            // What is read has the scheme's values already.
            let mut figures = report.tensors.clone();
            let scheme = carried.source.rounding().scheme.name;
            figures.iter_mut().for_each(|figures| figures.via = figures.via.take().filter(|via| via != scheme));
            Reencoded::new(carried.source.clone(), &carried.model, &figures, imatrix)
        }
    };
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
    // A wrong tensor is no other precision: what the file should have computed is known.
    let other = |figures: &TensorFigures| matches!(figures.verdict, TensorVerdict::Bounded | TensorVerdict::Unknown);
    let exact = !report.tensors.iter().any(other);
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
