//! What a pass runs over, and what it remembers.

use std::ops::Range;

/// Tokens of several sequences behind each other, each with the number of positions that were computed before.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    sequences: Vec<Sequence>,
    tokens: usize,
}

/// A run of tokens of a batch.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Where its tokens are in the batch.
    pub tokens: Range<usize>,
    /// Position of its first token.
    pub past: usize,
}

impl Batch {
    /// Sequences of these lengths from position 0 on.
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut batch = Batch::default();
        lengths.into_iter().for_each(|len| batch.push(len, 0));
        batch
    }

    /// Add a sequence of `len` tokens, the first at position `past`.
    pub fn push(&mut self, len: usize, past: usize) {
        self.sequences.push(Sequence { tokens: self.tokens..self.tokens + len, past });
        self.tokens += len;
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        self.sequences.iter().flat_map(|sequence| sequence.past..sequence.past + sequence.tokens.len())
    }

    /// Positions that have to be set up: one more than the last.
    pub(crate) fn context(&self) -> usize {
        self.positions().max().map_or(0, |last| last + 1)
    }
}

/// Keys and values of one sequence in one layer: `[positions, n_head_kv * head_dim]` each.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

/// Memory that every step reuses; it grows to what the largest step needs.
#[derive(Debug, Default)]
pub struct Buffers {
    pub(crate) tile: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) attention: AttentionBuffers,
    pub(crate) ffn: FfnBuffers,
    pub(crate) added: Vec<f32>,
}

#[derive(Debug, Default)]
pub(crate) struct AttentionBuffers {
    pub(crate) queries: Vec<f32>,
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
    pub(crate) attended: Vec<f32>,
}

#[derive(Debug, Default)]
pub(crate) struct FfnBuffers {
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
    /// Router logits, or the gate of a shared expert.
    pub(crate) routes: Vec<f32>,
    /// The tokens of one expert, and what it makes of them.
    pub(crate) chosen: Vec<f32>,
    pub(crate) result: Vec<f32>,
}
