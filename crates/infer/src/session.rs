//! A model with a memory of what it has read.

use crate::generate::NextToken;
use crate::{Batch, Buffers, InferError, LayerCache, Model};

/// Sequences that grow: keys and values of every position are kept, in F32.
pub struct Session<'a> {
    model: &'a Model,
    /// Per sequence one cache for each layer.
    slots: Vec<Vec<LayerCache>>,
    used: Vec<usize>,
    buffers: Buffers,
}

impl<'a> Session<'a> {
    /// `slots` empty sequences.
    pub fn new(model: &'a Model, slots: usize) -> Self {
        let layers = model.decoder().layers.len();
        Session {
            model,
            slots: vec![vec![LayerCache::default(); layers]; slots],
            used: vec![0; slots],
            buffers: Buffers::default(),
        }
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Positions that a sequence has.
    pub fn used(&self, slot: usize) -> usize {
        self.used[slot]
    }

    /// Make sequence `to` a copy of `from`.
    pub fn fork(&mut self, from: usize, to: usize) {
        if from != to {
            let copy = self.slots[from].clone();
            self.slots[to] = copy;
            self.used[to] = self.used[from];
        }
    }

    /// Forget what a sequence has read behind its first `positions`.
    pub fn truncate(&mut self, slot: usize, positions: usize) {
        // The caches are cut when the next tokens arrive.
        self.used[slot] = self.used[slot].min(positions);
    }

    /// Append tokens to sequences, each at least one, and give the logits (`[n_vocab]`) behind the last token of each.
    ///
    /// # Errors
    /// [`InferError`]; what the sequences hold behind their earlier positions does not count then.
    pub fn feed(&mut self, runs: &[(usize, &[u32])]) -> Result<Vec<Vec<f32>>, InferError> {
        let model = self.model;
        let mut batch = Batch::default();
        for (slot, tokens) in runs {
            batch.push(tokens.len(), self.used[*slot]);
        }
        let tokens: Vec<u32> = runs.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        let mut hidden = model.embed(&batch, &tokens)?;
        for layer in 0..model.decoder().layers.len() {
            let mut slots: Vec<Option<&mut Vec<LayerCache>>> = self.slots.iter_mut().map(Some).collect();
            let mut caches: Vec<&mut LayerCache> = Vec::with_capacity(runs.len());
            for (slot, _) in runs {
                // A sequence that is named twice has no second cache: a fault of the caller.
                let slot = slots[*slot].take().expect("each sequence is fed once");
                caches.push(&mut slot[layer]);
            }
            model.layer(layer, &batch, &mut hidden, Some(&mut caches), &mut self.buffers)?;
        }
        for ((slot, _), sequence) in runs.iter().zip(batch.sequences()) {
            self.used[*slot] = sequence.past + sequence.tokens.len();
        }
        let last: Vec<usize> = batch.sequences().iter().map(|sequence| sequence.tokens.end - 1).collect();
        let rows = model.output_rows(&hidden, &last)?;
        let n_vocab = model.decoder().n_vocab as usize;
        let mut logits = Vec::new();
        model.logits(&rows, 0..n_vocab, &mut logits, &mut self.buffers)?;
        if !logits.iter().all(|value| value.is_finite()) {
            return Err(InferError::Logits);
        }
        Ok(logits.chunks_exact(n_vocab).map(<[f32]>::to_vec).collect())
    }
}

impl NextToken for Session<'_> {
    type Error = InferError;

    fn feed(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>, InferError> {
        Ok(Session::feed(self, &[(slot, tokens)])?.swap_remove(0))
    }

    fn feed_each(&mut self, slots: &[(usize, u32)]) -> Result<Vec<Vec<f32>>, InferError> {
        let runs: Vec<(usize, &[u32])> = slots.iter().map(|(slot, token)| (*slot, std::slice::from_ref(token))).collect();
        Session::feed(self, &runs)
    }

    fn fork(&mut self, from: usize, to: usize) -> Result<(), InferError> {
        Session::fork(self, from, to);
        Ok(())
    }

    fn slots(&self) -> usize {
        self.used.len()
    }

    fn n_ctx(&self) -> usize {
        self.model.n_ctx()
    }

    fn used(&self, slot: usize) -> usize {
        self.used[slot]
    }
}
