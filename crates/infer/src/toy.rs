//! A model for tests: the logits follow from the last two tokens by a table.

use crate::generate::NextToken;
use std::fmt;

/// Why a toy breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken(pub &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// Counts what it is asked and refuses what a real cache could not do.
#[derive(Debug, Clone)]
pub(crate) struct Toy {
    pub n_vocab: usize,
    pub n_ctx: usize,
    /// `[n_vocab + 1, n_vocab, n_vocab]`: last token but one (none: the first row), last token, next token.
    pub table: Vec<f32>,
    pub slots: Vec<Vec<u32>>,
    pub fed: usize,
    pub forks: usize,
}

impl Toy {
    pub fn new(n_vocab: usize, n_ctx: usize, slots: usize, table: Vec<f32>) -> Self {
        assert_eq!(table.len(), (n_vocab + 1) * n_vocab * n_vocab);
        Toy { n_vocab, n_ctx, table, slots: vec![Vec::new(); slots], fed: 0, forks: 0 }
    }

    /// Whatever comes before, `next(last)` follows.
    pub fn chain(n_vocab: usize, n_ctx: usize, next: impl Fn(usize) -> usize) -> Self {
        let cell = |i: usize| f32::from(u8::from(next(i / n_vocab % n_vocab) == i % n_vocab)) * 9.0;
        Toy::new(n_vocab, n_ctx, 1, (0..(n_vocab + 1) * n_vocab * n_vocab).map(cell).collect())
    }

    /// Logits `[n_vocab]` of what follows `text`.
    pub fn logits(&self, text: &[u32]) -> &[f32] {
        let last = text[text.len() - 1] as usize;
        let before = text.len().checked_sub(2).map_or(0, |at| text[at] as usize + 1);
        let at = (before * self.n_vocab + last) * self.n_vocab;
        &self.table[at..at + self.n_vocab]
    }
}

impl NextToken for Toy {
    type Error = Broken;

    fn feed(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>, Broken> {
        self.slots[slot].extend_from_slice(tokens);
        self.fed += tokens.len();
        match &self.slots[slot] {
            full if full.len() > self.n_ctx => Err(Broken("the context overflows")),
            _ if tokens.is_empty() => Err(Broken("nothing was fed")),
            text => Ok(self.logits(text).to_vec()),
        }
    }

    fn fork(&mut self, from: usize, to: usize) -> Result<(), Broken> {
        self.slots[to] = self.slots[from].clone();
        self.forks += 1;
        Ok(())
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn used(&self, slot: usize) -> usize {
        self.slots[slot].len()
    }
}
