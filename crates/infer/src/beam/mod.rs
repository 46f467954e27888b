//! Beam search: several texts side by side, the best ones kept.
//!
//! As transformers 4.57.6 defines it (`GenerationMixin._beam_search` without sampling and logits processors). A text's score is the
//! sum of its tokens' log-probabilities divided by length^α, where the token that ends it counts for sum and length. In each step
//! the (1 + number of stop tokens)·n best continuations, at least 2n, are looked at: those that end a text become hypotheses if they
//! are among the n best; the n best others go on. Two differences: sums are kept in f64, and where there are fewer continuations
//! than places, places stay empty (transformers fills them with copies that score -10^9).

use crate::generate::{self, GenerateError, NextToken, Progress, Request, StopReason};
use crate::sampling::{SamplingError, log_softmax};
use std::ops::ControlFlow;
use thiserror::Error;

/// When to stop looking for better texts, once n hypotheses are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// At once. transformers: `early_stopping=True`.
    WhenFull,
    /// When the best unfinished text, scored as if it ended now, is no better than the worst hypothesis. `False`, the default.
    #[default]
    Heuristic,
    /// When no unfinished text can become better than the worst hypothesis. `"never"`.
    Never,
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Texts side by side, n.
    pub beams: usize,
    /// α: above 0 long texts are favoured, below 0 short ones.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

impl Default for Options {
    fn default() -> Self {
        Options { beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }
}

/// A finished text.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, without the prompt's and without the one that ended it.
    pub tokens: Vec<u32>,
    /// Sum of the log-probabilities, that of the ending token among them.
    pub log_probability: f64,
    /// That sum divided by length^α.
    pub score: f64,
    /// Why it ends.
    pub stop: StopReason,
}

/// Why there are no texts.
#[derive(Debug, Error)]
pub enum BeamError<E: std::error::Error + 'static> {
    /// There must be at least one beam, and a slot for each.
    #[error("--beams {beams} is out of range: it must be from 1 to {slots}, the sequences that the model's cache has room for")]
    Beams {
        /// What was asked for.
        beams: usize,
        /// What the model has.
        slots: usize,
    },
    /// The length penalty is no number that a length can be raised to.
    #[error("--length-penalty {0} is out of range: it must be a number from -10 to 10")]
    LengthPenalty(f64),
    /// As in any generation.
    #[error(transparent)]
    Generate(#[from] GenerateError<E>),
}

/// An unfinished text.
#[derive(Debug, Clone)]
struct Beam {
    /// Where the model has it.
    slot: usize,
    tokens: Vec<u32>,
    log_probability: f64,
}

/// A beam followed by one more token.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    /// Index of the beam.
    beam: usize,
    token: u32,
    /// Of the whole text.
    log_probability: f64,
}

/// The most probable texts that continue the prompt: at most n, best first.
///
/// The model's slots 0 to n-1 are used; slot 0 may hold tokens already, which the prompt follows. Where `progress` does not want
/// more, unfinished texts take part as they are, with [`StopReason::Cancelled`].
///
/// # Errors
/// [`BeamError`]: options out of range, or as [`generate::generate`].
pub fn search<M: NextToken + ?Sized>(
    model: &mut M,
    request: &Request,
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Hypothesis>, BeamError<M::Error>> {
    let &Options { beams: n, length_penalty, .. } = options;
    if n == 0 || n > model.slots() {
        return Err(BeamError::Beams { beams: n, slots: model.slots() });
    }
    if !(-10.0..=10.0).contains(&length_penalty) {
        return Err(BeamError::LengthPenalty(length_penalty));
    }
    let mut search = Search::new(request, options, generate::check(model, request)?);
    if search.limit == 0 {
        return Ok(Vec::new());
    }
    let Some(logits) = generate::read_prompt(model, request.prompt, progress)? else { return Ok(Vec::new()) };
    let mut logits = vec![logits];
    let mut beams = vec![Beam { slot: 0, tokens: Vec::new(), log_probability: 0.0 }];
    for length in 1.. {
        let continuations = best_continuations(&beams, &logits, search.looked_at())
            .map_err(|source| GenerateError::Sampling { position: model.used(0), source })?;
        let going_on = search.split(&beams, continuations, length);
        if going_on.is_empty() || !search.can_improve(going_on[0].log_probability, length) {
            break;
        }
        beams = place(model, &beams, &going_on, n).map_err(GenerateError::Model)?;
        if progress(Progress::Beams { length }).is_break() {
            for Beam { tokens, log_probability, .. } in beams {
                let hypothesis = search.hypothesis(tokens, log_probability, StopReason::Cancelled);
                search.finished.push(hypothesis);
            }
            search.keep_best();
            break;
        }
        let fed: Vec<(usize, u32)> = beams.iter().zip(&going_on).map(|(beam, c)| (beam.slot, c.token)).collect();
        logits = model.feed_each(&fed).map_err(GenerateError::Model)?;
    }
    Ok(search.finished)
}

struct Search<'a> {
    request: &'a Request<'a>,
    options: &'a Options,
    /// The most tokens of a text, and why no more.
    limit: usize,
    at_limit: StopReason,
    /// Best first.
    finished: Vec<Hypothesis>,
}

impl<'a> Search<'a> {
    /// `room`: tokens that the context can hold behind the prompt.
    fn new(request: &'a Request, options: &'a Options, room: usize) -> Self {
        // A text's last token need not fit: nothing follows it.
        let room = room.saturating_add(1);
        let (limit, at_limit) = if request.max_tokens <= room {
            (request.max_tokens, StopReason::MaxTokens)
        } else {
            (room, StopReason::ContextFull)
        };
        Search { request, options, limit, at_limit, finished: Vec::new() }
    }

    /// How many continuations to look at: enough that n go on even if every beam's best ones end it.
    fn looked_at(&self) -> usize {
        (1 + self.request.stop.len()).max(2).saturating_mul(self.options.beams)
    }

    /// What goes on of `continuations`, best first, to texts of `length` tokens; what ends is noted.
    fn split(&mut self, beams: &[Beam], continuations: Vec<Continuation>, length: usize) -> Vec<Continuation> {
        let n = self.options.beams;
        let mut going_on = Vec::with_capacity(n);
        for (rank, c) in continuations.into_iter().enumerate() {
            let stop = match () {
                () if self.request.stop.contains(&c.token) => StopReason::EndOfGeneration(c.token),
                () if length >= self.limit => self.at_limit,
                () => {
                    if going_on.len() < n {
                        going_on.push(c);
                    }
                    continue;
                }
            };
            if rank < n {
                let mut tokens = beams[c.beam].tokens.clone();
                tokens.push(c.token);
                let hypothesis = self.hypothesis(tokens, c.log_probability, stop);
                self.finished.push(hypothesis);
            }
        }
        self.keep_best();
        going_on
    }

    /// `tokens` with the ending one.
    fn hypothesis(&self, mut tokens: Vec<u32>, log_probability: f64, stop: StopReason) -> Hypothesis {
        let score = self.score(log_probability, tokens.len());
        if let StopReason::EndOfGeneration(_) = stop {
            tokens.pop();
        }
        Hypothesis { tokens, log_probability, score, stop }
    }

    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.options.length_penalty)
    }

    fn keep_best(&mut self) {
        // Stable: of equals the older one stays.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(self.options.beams);
    }

    /// Whether to go on, given the best unfinished text and the length of all.
    fn can_improve(&self, best: f64, length: usize) -> bool {
        let Some(worst) = self.finished.get(self.options.beams - 1) else { return true };
        let length = match self.options.early_stopping {
            EarlyStopping::WhenFull => return false,
            // Sums only fall, and a negative sum is best over the longest length.
            EarlyStopping::Never if self.options.length_penalty > 0.0 => self.limit,
            EarlyStopping::Never | EarlyStopping::Heuristic => length,
        };
        self.score(best, length) > worst.score
    }
}

/// The `count` most probable continuations, best first; of equals the better beam's, then the lower token. `logits` is
/// `[beams, n_vocab]`.
fn best_continuations(beams: &[Beam], logits: &[Vec<f32>], count: usize) -> Result<Vec<Continuation>, SamplingError> {
    let best_first = |a: &Continuation, b: &Continuation| {
        b.log_probability.total_cmp(&a.log_probability).then(a.beam.cmp(&b.beam)).then(a.token.cmp(&b.token))
    };
    let mut all = Vec::new();
    for (beam, (text, logits)) in beams.iter().zip(logits).enumerate() {
        let continued = |(token, log): (u32, f64)| Continuation { beam, token, log_probability: text.log_probability + log };
        let possible = (0..=u32::MAX).zip(log_softmax(logits)?).filter(|&(_, log)| log > f64::NEG_INFINITY);
        let mut own: Vec<Continuation> = possible.map(continued).collect();
        if count < own.len() {
            own.select_nth_unstable_by(count, best_first);
            own.truncate(count);
        }
        all.append(&mut own);
    }
    all.sort_unstable_by(best_first);
    all.truncate(count);
    Ok(all)
}

/// Give each continuation a slot that holds its beam: the beam's own for the first one, copies in slots that are free for others.
fn place<M: NextToken + ?Sized>(
    model: &mut M,
    beams: &[Beam],
    going_on: &[Continuation],
    slots: usize,
) -> Result<Vec<Beam>, M::Error> {
    let mut free = (0..slots).filter(|slot| !going_on.iter().any(|c| beams[c.beam].slot == *slot));
    let mut own_taken = vec![false; beams.len()];
    let mut placed = Vec::with_capacity(going_on.len());
    for c in going_on {
        let Beam { slot, tokens, .. } = &beams[c.beam];
        let mut slot = *slot;
        if std::mem::replace(&mut own_taken[c.beam], true) {
            // There are at most as many continuations as slots, hence a free slot for each one that is not its beam's first.
            let Some(to) = free.next() else { break };
            model.fork(slot, to)?;
            slot = to;
        }
        let tokens = tokens.iter().copied().chain([c.token]).collect();
        placed.push(Beam { slot, tokens, log_probability: c.log_probability });
    }
    Ok(placed)
}

#[cfg(test)]
mod tests;
