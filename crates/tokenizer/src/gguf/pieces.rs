//! SentencePiece's BPE: of all neighbours that together are a piece those with the highest score merge first, the leftmost of equals
//! (`llm_tokenizer_spm_session` of llama-vocab.cpp; `bpe_model.cc` of SentencePiece).

use super::bpe::Chain;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// Pieces and their scores.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    /// Texts and ids.
    pub(super) ids: &'a HashMap<String, u32>,
    /// By id; no NaN.
    pub(super) scores: &'a [f32],
    /// Bytes of the longest piece.
    pub(super) longest: usize,
}

/// What a text is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'t> {
    /// A piece.
    Piece(u32),
    /// A character that is no piece.
    Unknown(&'t str),
}

#[derive(Debug, PartialEq)]
struct Proposal {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both together.
    size: u32,
}

impl Eq for Proposal {}

impl Ord for Proposal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Proposal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Pieces<'_> {
    /// Cut a text (spaces already spelled `▁`) into pieces.
    pub(super) fn encode<'t>(&self, text: &'t str, mut emit: impl FnMut(Found<'t>)) {
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        // A link's value is its length in bytes.
        let mut chain = Chain::new(text.chars().map(|c| c.len_utf8() as u32));
        let mut queue = BinaryHeap::new();
        let propose = |chain: &Chain, left: usize, queue: &mut BinaryHeap<Proposal>| {
            let Some(right) = chain.next(left) else { return };
            let size = chain.value(left) + chain.value(right);
            if size as usize > self.longest {
                return;
            }
            if let Some(&id) = self.ids.get(&text[starts[left]..starts[left] + size as usize]) {
                // -0 and 0 are equal scores.
                let score = self.scores.get(id as usize).copied().unwrap_or_default() + 0.0;
                queue.push(Proposal { score, left, right, size });
            }
        };
        for left in 0..chain.len() {
            propose(&chain, left, &mut queue);
        }
        while let Some(Proposal { left, right, size, .. }) = queue.pop() {
            // Both still there, and neither longer than it was.
            let alive = chain.alive(left) && chain.alive(right) && chain.value(left) + chain.value(right) == size;
            if !alive {
                continue;
            }
            chain.merge(left, right, size);
            if let Some(before) = chain.previous(left) {
                propose(&chain, before, &mut queue);
            }
            propose(&chain, left, &mut queue);
        }
        for (at, size) in chain.positions() {
            let part = &text[starts[at]..starts[at] + size as usize];
            emit(self.ids.get(part).map_or(Found::Unknown(part), |&id| Found::Piece(id)));
        }
    }
}
