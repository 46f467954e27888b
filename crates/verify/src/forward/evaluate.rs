//! Any number of models over the same samples, layer by layer in lockstep.

use super::head::{Rescale, Running, add_cross};
use super::{BaseScore, LogitsError, LogitsFile, OtherScore, Sample, logits_file};
use ggufsmith_infer::{Batch, Buffers, InferError, Model, TILE_BYTES, ops};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of logits of one model that are held at a time.
const LOGITS_BYTES: usize = 96 << 20;

/// What errors call the base.
const SOURCE: &str = "the source";

/// Why a forward pass gave no figures.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ForwardError {
    #[error("{side}: {source}")]
    Infer { side: String, source: InferError },
    #[error("{side} has {what} = {found}, the source has {expected}: it is another model")]
    Sizes { side: String, what: &'static str, found: u64, expected: u64 },
    #[error(transparent)]
    Logits(#[from] LogitsError),
    #[error("one sample of {tokens} tokens needs {needed} bytes, {memory} are allowed: raise --memory or lower --n-ctx")]
    Memory { tokens: usize, needed: u64, memory: u64 },
    #[error("cancelled")]
    Cancelled,
}

/// What the others are compared with.
pub enum Base<'a> {
    /// A model that runs.
    Model(&'a Model),
    /// Log-probabilities that were saved before.
    File(&'a mut LogitsFile),
}

/// Gets the base's logits (`[n_vocab]`) of every scored position, in order.
pub type Sink<'a> = &'a mut dyn FnMut(&[f32]) -> Result<(), LogitsError>;

/// What is to be run.
pub struct Evaluation<'a> {
    /// What the others are compared with; the only one where there are no others.
    pub base: Base<'a>,
    /// The models that are compared, with the names that errors give them.
    pub others: &'a [(&'a str, &'a Model)],
    /// What they run over.
    pub samples: &'a [Sample],
    /// Bytes that activations, logits and decoded weights may take.
    pub memory: u64,
    /// Where the base's logits go, too.
    pub sink: Option<Sink<'a>>,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told multiplications as they are done; [`Work::of`] says how many there will be.
    pub progress: &'a dyn Fn(u64),
}

/// What a run will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Multiplications.
    pub multiplications: u64,
    /// Bytes that are held at most, the resident weights not counted.
    pub bytes: u64,
}

/// Scores so far: what [`evaluate`] tells after each group of samples, and gives at the end.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Scored positions of each sample that is done, as ranges of the lists below.
    pub samples: Vec<Range<usize>>,
    /// The base.
    pub base: Vec<BaseScore>,
    /// Each other model.
    pub others: Vec<Vec<OtherScore>>,
    /// For each other model and layer: squared difference of the hidden state to the base's, and the base's squares. Empty where the
    /// base is a file.
    pub hidden: Vec<Vec<(f64, f64)>>,
}

impl Work {
    /// What running `models` over `samples` costs in groups that fit `memory`.
    pub fn of(models: &[&Model], samples: &[Sample], memory: u64) -> Work {
        let multiplications = models.iter().flat_map(|model| samples.iter().map(|sample| sample_cost(model, sample))).sum();
        let largest = groups(models, samples, memory).map(|group| group_tokens(&samples[group])).max().unwrap_or(0);
        let per_token = models.iter().map(|model| model.buffer_bytes()).max().unwrap_or(0)
            + models.iter().map(|model| hidden_per_token(model)).sum::<u64>();
        Work { multiplications, bytes: fixed_bytes() + largest as u64 * per_token }
    }
}

fn fixed_bytes() -> u64 {
    // One decoded tile, the raw bytes behind it, and logits of the base and one other.
    (2 * TILE_BYTES + 2 * LOGITS_BYTES) as u64
}

fn hidden_per_token(model: &Model) -> u64 {
    4 * u64::from(model.decoder().n_embd)
}

fn sample_cost(model: &Model, sample: &Sample) -> u64 {
    let layers: u64 = (0..model.decoder().layers.len()).map(|index| model.layer_multiplications(index)).sum();
    layers * sample.tokens.len() as u64 + model.head_multiplications() * sample.scored.len() as u64
}

fn group_tokens(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.tokens.len()).sum()
}

/// Runs of samples whose activations fit; at least one sample each.
fn groups<'a>(models: &[&Model], samples: &'a [Sample], memory: u64) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let per_token = models.iter().map(|model| model.buffer_bytes()).max().unwrap_or(0)
        + models.iter().map(|model| hidden_per_token(model)).sum::<u64>();
    let capacity = (memory.saturating_sub(fixed_bytes()) / per_token.max(1)) as usize;
    // More tokens than this gain nothing: weights are decoded once for each group.
    let capacity = capacity.min(16_384);
    let mut from = 0;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fit = samples[from..].iter().take_while(|sample| {
            tokens += sample.tokens.len();
            tokens <= capacity
        });
        let to = (from + fit.count().max(1)).min(samples.len());
        let group = from..to;
        from = to;
        (!group.is_empty()).then_some(group)
    })
}

/// Run the models over the samples. After each group `go_on` sees the scores so far and says whether to continue.
///
/// Runs on the threads of the current rayon pool; scores do not depend on their number, nor on how samples are grouped.
///
/// # Errors
/// [`ForwardError`]: the models do not belong together, one of them computes something that is not finite, or its weights cannot be
/// read.
pub fn evaluate(mut evaluation: Evaluation<'_>, go_on: &mut dyn FnMut(&Group) -> bool) -> Result<Group, ForwardError> {
    let base = match &evaluation.base {
        Base::Model(model) => Some(*model),
        Base::File(_) => None,
    };
    check_sizes(&evaluation, base)?;
    let models: Vec<&Model> = base.into_iter().chain(evaluation.others.iter().map(|(_, model)| *model)).collect();
    let others = evaluation.others.len();
    let layers = models.first().map_or(0, |model| model.decoder().layers.len());
    let mut scores = Group { others: vec![Vec::new(); others], ..Group::default() };
    if base.is_some() {
        scores.hidden = vec![vec![(0.0, 0.0); layers]; others];
    }
    let mut buffers = Buffers::default();
    for group in groups(&models, evaluation.samples, evaluation.memory) {
        let samples = &evaluation.samples[group];
        let hidden = run_layers(&evaluation, &models, samples, &mut scores.hidden, &mut buffers)?;
        score(&mut evaluation, &models, samples, &hidden, &mut scores, &mut buffers)?;
        if !go_on(&scores) {
            break;
        }
    }
    Ok(scores)
}

fn check_sizes(evaluation: &Evaluation<'_>, base: Option<&Model>) -> Result<(), ForwardError> {
    for (side, other) in evaluation.others {
        let other = other.decoder();
        let Some(base) = base.map(Model::decoder) else { continue };
        for (what, found, expected) in [
            ("layers", other.layers.len() as u64, base.layers.len() as u64),
            ("width", other.n_embd.into(), base.n_embd.into()),
            ("vocabulary size", other.n_vocab.into(), base.n_vocab.into()),
        ] {
            if found != expected {
                return Err(ForwardError::Sizes { side: (*side).to_owned(), what, found, expected });
            }
        }
    }
    if let Base::File(file) = &evaluation.base {
        for (_, other) in evaluation.others {
            let n_vocab = other.decoder().n_vocab as usize;
            if file.n_vocab() != n_vocab {
                return Err(file.other("vocabulary entries", file.n_vocab(), n_vocab).into());
            }
        }
    }
    Ok(())
}

/// The name of a model in errors: the base, where it runs, is first in every list.
fn side(evaluation: &Evaluation<'_>, index: usize) -> String {
    let first = usize::from(matches!(evaluation.base, Base::Model(_)));
    match index.checked_sub(first) {
        Some(other) => evaluation.others[other].0.to_owned(),
        None => SOURCE.to_owned(),
    }
}

/// The hidden state of every model behind its last layer.
fn run_layers(
    evaluation: &Evaluation<'_>,
    models: &[&Model],
    samples: &[Sample],
    drift: &mut [Vec<(f64, f64)>],
    buffers: &mut Buffers,
) -> Result<Vec<Vec<f32>>, ForwardError> {
    let infer = |index: usize| move |source| ForwardError::Infer { side: side(evaluation, index), source };
    let batch = Batch::of_lengths(samples.iter().map(|sample| sample.tokens.len()));
    let tokens: Vec<u32> = samples.iter().flat_map(|sample| sample.tokens.iter().copied()).collect();
    let mut hidden = Vec::with_capacity(models.len());
    for (index, model) in models.iter().enumerate() {
        hidden.push(model.embed(&batch, &tokens).map_err(infer(index))?);
    }
    let layers = models.first().map_or(0, |model| model.decoder().layers.len());
    for layer in 0..layers {
        for (index, model) in models.iter().enumerate() {
            if evaluation.cancel.load(Ordering::Relaxed) {
                return Err(ForwardError::Cancelled);
            }
            model.layer(layer, &batch, &mut hidden[index], None, buffers).map_err(infer(index))?;
            (evaluation.progress)(model.layer_multiplications(layer) * tokens.len() as u64);
        }
        for (other, drift) in drift.iter_mut().enumerate() {
            let (difference, squares) = distance(&hidden[0], &hidden[other + 1]);
            drift[layer].0 += difference;
            drift[layer].1 += squares;
        }
    }
    Ok(hidden)
}

/// `Σ (a - b)²` and `Σ a²`, in pieces of one size, whatever the number of threads.
fn distance(a: &[f32], b: &[f32]) -> (f64, f64) {
    const PIECE: usize = 1 << 14;
    let piece = |(a, b): (&[f32], &[f32])| {
        let (mut difference, mut squares) = (0.0, 0.0);
        for (a, b) in a.iter().zip(b) {
            difference += f64::from(a - b).powi(2);
            squares += f64::from(*a).powi(2);
        }
        (difference, squares)
    };
    let pieces: Vec<(f64, f64)> = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).map(piece).collect();
    pieces.iter().fold((0.0, 0.0), |sum, piece| (sum.0 + piece.0, sum.1 + piece.1))
}

/// Scores of the samples' positions, appended to `scores`.
fn score(
    evaluation: &mut Evaluation<'_>,
    models: &[&Model],
    samples: &[Sample],
    hidden: &[Vec<f32>],
    scores: &mut Group,
    buffers: &mut Buffers,
) -> Result<(), ForwardError> {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    let mut start = 0;
    for sample in samples {
        let from = scores.base.len() + rows.len();
        rows.extend(sample.scored.clone().map(|position| start + position));
        targets.extend(sample.scored.clone().map(|position| sample.tokens[position + 1]));
        scores.samples.push(from..from + sample.scored.len());
        start += sample.tokens.len();
    }
    let n_vocab = models.first().map_or(0, |model| model.decoder().n_vocab as usize);
    // Who wants whole rows gets as many as fit, everybody else tiles of the vocabulary.
    let whole = evaluation.sink.is_some() || matches!(evaluation.base, Base::File(_));
    let (block, tile) = if whole {
        ((LOGITS_BYTES / 4 / n_vocab).max(1), n_vocab)
    } else {
        let block = rows.len().clamp(1, 4096);
        let n_embd = models.first().map_or(1, |model| model.decoder().n_embd as usize);
        (block, (LOGITS_BYTES / 4 / block).min(TILE_BYTES / 4 / n_embd).clamp(1, n_vocab))
    };
    for (rows, targets) in rows.chunks(block).zip(targets.chunks(block)) {
        let mut head = Head::new(evaluation, models, rows, targets, hidden)?;
        let mut from = 0;
        while from < n_vocab {
            let to = (from + tile).min(n_vocab);
            head.tile(evaluation, from..to, buffers)?;
            from = to;
        }
        head.finish(scores);
    }
    Ok(())
}

/// The heads of all models over some positions.
struct Head<'a> {
    models: &'a [&'a Model],
    targets: &'a [u32],
    /// Per model, what its head sees.
    outputs: Vec<Vec<f32>>,
    base: Vec<Running>,
    others: Vec<Vec<(Running, f64)>>,
    base_logits: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Head<'a> {
    fn new(
        evaluation: &Evaluation<'_>,
        models: &'a [&'a Model],
        rows: &[usize],
        targets: &'a [u32],
        hidden: &[Vec<f32>],
    ) -> Result<Self, ForwardError> {
        let outputs = models.iter().zip(hidden).enumerate().map(|(index, (model, hidden))| {
            model.output_rows(hidden, rows).map_err(|source| ForwardError::Infer { side: side(evaluation, index), source })
        });
        Ok(Head {
            models,
            targets,
            outputs: outputs.collect::<Result<_, _>>()?,
            base: vec![Running::new(); rows.len()],
            others: vec![vec![(Running::new(), 0.0); rows.len()]; evaluation.others.len()],
            base_logits: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// Take the vocabulary entries `vocab`.
    fn tile(&mut self, evaluation: &mut Evaluation<'_>, vocab: Range<usize>, buffers: &mut Buffers) -> Result<(), ForwardError> {
        let width = vocab.len();
        let first_other = usize::from(matches!(evaluation.base, Base::Model(_)));
        match &mut evaluation.base {
            Base::Model(model) => model
                .logits(&self.outputs[0], vocab.clone(), &mut self.base_logits, buffers)
                .map_err(|source| ForwardError::Infer { side: SOURCE.to_owned(), source })?,
            Base::File(file) => {
                self.base_logits.resize(self.targets.len() * width, 0.0);
                for (row, target) in self.base_logits.chunks_exact_mut(width).zip(self.targets) {
                    file.row(row)?;
                    logits_file::leave_out_the_rest(row, *target);
                }
            }
        }
        let rows = self.base.par_iter_mut().zip(self.base_logits.par_chunks_exact(width)).zip(self.targets);
        // Rows that are not finite give no rescaling.
        let rescales: Option<Vec<_>> =
            rows.map(|((running, logits), target)| take(running, vocab.start, logits, *target)).collect();
        let rescales = rescales.ok_or_else(|| {
            let side = if first_other == 1 { SOURCE } else { "the saved logits" };
            ForwardError::Infer { side: side.to_owned(), source: InferError::Logits }
        })?;
        if let Some(sink) = &mut evaluation.sink {
            self.base_logits.chunks_exact(width).try_for_each(sink)?;
        }
        if first_other == 1 {
            (evaluation.progress)(width as u64 * self.outputs[0].len() as u64);
        }
        for (number, others) in self.others.iter_mut().enumerate() {
            let index = number + first_other;
            if evaluation.cancel.load(Ordering::Relaxed) {
                return Err(ForwardError::Cancelled);
            }
            self.models[index]
                .logits(&self.outputs[index], vocab.clone(), &mut self.logits, buffers)
                .map_err(|source| ForwardError::Infer { side: side(evaluation, index), source })?;
            let rows = others.par_iter_mut().zip(self.logits.par_chunks_exact(width));
            let rows = rows.zip(self.base_logits.par_chunks_exact(width)).zip(&rescales).zip(self.targets);
            let finite = rows.map(|(((((running, cross), logits), base), rescale), target)| {
                let taken = take(running, vocab.start, logits, *target);
                ops::vector(
                    #[inline(always)]
                    || add_cross(cross, *rescale, base, logits),
                );
                taken.is_some()
            });
            if !finite.reduce(|| true, |a, b| a && b) {
                return Err(ForwardError::Infer { side: side(evaluation, index), source: InferError::Logits });
            }
            (evaluation.progress)(width as u64 * self.outputs[index].len() as u64);
        }
        Ok(())
    }

    fn finish(self, scores: &mut Group) {
        for (number, others) in self.others.iter().enumerate() {
            let other = others.iter().zip(&self.base).map(|((running, cross), base)| running.other(base, *cross));
            scores.others[number].extend(other);
        }
        scores.base.extend(self.base.iter().map(Running::base));
    }
}

/// [`Running::add`] as vector code.
fn take(running: &mut Running, first: usize, logits: &[f32], target: u32) -> Option<Rescale> {
    ops::vector(
        #[inline(always)]
        || running.add(first, logits, target),
    )
}
