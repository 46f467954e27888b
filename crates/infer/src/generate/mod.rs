//! A text, token by token.

mod utf8;

pub use utf8::Utf8Stream;

use crate::sampling::{Sampler, SamplingError};
use std::ops::ControlFlow;
use thiserror::Error;

/// Tokens that go into the model at once while it reads the prompt: between two such pieces a caller is asked whether to go on.
pub const PROMPT_CHUNK: usize = 512;

/// What generation needs of a model with a KV cache.
///
/// A *slot* is one sequence of the cache. The slots `0..slots()` exist from the start and are empty.
pub trait NextToken {
    /// What can go wrong in a forward pass.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Feed `tokens`, at least one, behind those already in `slot`. Logits `[n_vocab]` of what follows the last one.
    ///
    /// # Errors
    /// What the forward pass says. The slot is of no further use then.
    fn feed(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>, Self::Error>;

    /// Feed one token to each of several different slots. Logits `[n_vocab]` for each, in the order given.
    ///
    /// One after the other unless a model can do better.
    ///
    /// # Errors
    /// As [`NextToken::feed`].
    fn feed_each(&mut self, slots: &[(usize, u32)]) -> Result<Vec<Vec<f32>>, Self::Error> {
        slots.iter().map(|&(slot, token)| self.feed(slot, &[token])).collect()
    }

    /// Make the slot `to` a copy of the slot `from`, whatever it held.
    ///
    /// # Errors
    /// The copy needs more memory than there is.
    fn fork(&mut self, from: usize, to: usize) -> Result<(), Self::Error>;

    /// Number of slots.
    fn slots(&self) -> usize;

    /// The most tokens that a slot can hold.
    fn n_ctx(&self) -> usize;

    /// Number of tokens in a slot.
    fn used(&self, slot: usize) -> usize;
}

/// What to continue, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompt's tokens, behind those that the model's slot 0 holds already. At least one.
    pub prompt: &'a [u32],
    /// Tokens that end the text (llama.cpp's end-of-generation tokens).
    pub stop: &'a [u32],
    /// The most tokens to add.
    pub max_tokens: usize,
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose this token of [`Request::stop`].
    EndOfGeneration(u32),
    /// [`Request::max_tokens`] are there.
    MaxTokens,
    /// The context has no room for the last token, so nothing can follow it.
    ContextFull,
    /// The caller did not want more.
    Cancelled,
}

/// What a caller is told while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The model has read this much of the prompt.
    Prompt {
        /// Tokens read.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token of the text. One of [`Request::stop`] is not told.
    Token(u32),
    /// Beam search: its unfinished texts have this many tokens.
    Beams {
        /// Tokens of each text.
        length: usize,
    },
}

/// A generated text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its tokens, without the prompt's and without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ends.
    pub stop: StopReason,
}

/// Why there is no text.
#[derive(Debug, Error)]
pub enum GenerateError<E: std::error::Error + 'static> {
    /// The prompt has no tokens.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "the prompt has {tokens} tokens, the context has room for {room}; shorten the prompt, or raise --n-ctx if the model allows"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that fit behind those already there.
        room: usize,
    },
    /// The forward pass failed.
    #[error(transparent)]
    Model(E),
    /// No token can be chosen from the model's logits.
    #[error("token {position} of the text: {source}")]
    Sampling {
        /// Position in the context, counting the prompt, from 0.
        position: usize,
        /// What is wrong with the logits.
        source: SamplingError,
    },
}

/// The room that is left in slot 0, after checking that the prompt fits.
pub(crate) fn check<M: NextToken + ?Sized>(model: &M, request: &Request) -> Result<usize, GenerateError<M::Error>> {
    let room = model.n_ctx().saturating_sub(model.used(0));
    match request.prompt.len() {
        0 => Err(GenerateError::EmptyPrompt),
        tokens if tokens > room => Err(GenerateError::PromptTooLong { tokens, room }),
        tokens => Ok(room - tokens),
    }
}

/// Feed the prompt to slot 0. The logits behind it, or `None`: the caller did not want more.
pub(crate) fn read_prompt<M: NextToken + ?Sized>(
    model: &mut M,
    prompt: &[u32],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, GenerateError<M::Error>> {
    let (mut logits, mut done) = (Vec::new(), 0);
    for chunk in prompt.chunks(PROMPT_CHUNK) {
        logits = model.feed(0, chunk).map_err(GenerateError::Model)?;
        done += chunk.len();
        if progress(Progress::Prompt { done, total: prompt.len() }).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(logits))
}

/// Continue the prompt in slot 0.
///
/// `progress` is called after every piece of the prompt and for every token, and says whether to go on. The last token is not fed:
/// behind the call the slot holds the prompt and all tokens but that one.
///
/// # Errors
/// [`GenerateError`]: the prompt is empty or too long, the model fails, or it computes logits that are not numbers.
pub fn generate<M: NextToken + ?Sized>(
    model: &mut M,
    request: &Request,
    sampler: &mut Sampler,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Generation, GenerateError<M::Error>> {
    check(model, request)?;
    let mut tokens = Vec::new();
    if request.max_tokens == 0 {
        return Ok(Generation { tokens, stop: StopReason::MaxTokens });
    }
    request.prompt.iter().for_each(|&token| sampler.accept(token));
    let Some(mut logits) = read_prompt(model, request.prompt, progress)? else {
        return Ok(Generation { tokens, stop: StopReason::Cancelled });
    };
    let stop = loop {
        let position = model.used(0);
        let token = sampler.choose(&logits).map_err(|source| GenerateError::Sampling { position, source })?;
        if request.stop.contains(&token) {
            break StopReason::EndOfGeneration(token);
        }
        sampler.accept(token);
        tokens.push(token);
        if progress(Progress::Token(token)).is_break() {
            break StopReason::Cancelled;
        }
        if tokens.len() >= request.max_tokens {
            break StopReason::MaxTokens;
        }
        if position >= model.n_ctx() {
            break StopReason::ContextFull;
        }
        logits = model.feed(0, &[token]).map_err(GenerateError::Model)?;
    };
    Ok(Generation { tokens, stop })
}

#[cfg(test)]
mod tests;
