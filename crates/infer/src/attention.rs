//! Causal attention of one sequence.

use crate::matmul::{View, small};
use crate::ops;
use ggufsmith_arch::decoder::Attention;
use rayon::prelude::*;

/// Keys and values of a sequence up to and including the tokens that attend, `[positions, n_head_kv * head_dim]` each.
#[derive(Clone, Copy)]
pub(crate) struct KeysValues<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
}

/// Queries per job.
const BLOCK: usize = 64;

/// `queries` and `out` are `[tokens, n_head * head_dim]`; the first token stands at position `past`.
pub(crate) fn attend(attention: &Attention, queries: &[f32], past: usize, kv: KeysValues<'_>, out: &mut [f32]) {
    let row = (attention.n_head * attention.head_dim) as usize;
    if queries.len() == row {
        // One token: heads are the only work to share.
        let head_dim = attention.head_dim as usize;
        out.par_chunks_mut(head_dim).enumerate().for_each(|(head, out)| {
            let mut scratch = Scratch::default();
            scratch.head(attention, head, &queries[head * head_dim..(head + 1) * head_dim], 1, row, past, kv);
            out.copy_from_slice(&scratch.out[..head_dim]);
        });
        return;
    }
    out.par_chunks_mut(row * BLOCK).zip(queries.par_chunks(row * BLOCK)).enumerate().for_each(|(block, (out, queries))| {
        let (tokens, first) = (out.len() / row, past + block * BLOCK);
        let head_dim = attention.head_dim as usize;
        let mut scratch = Scratch::default();
        for head in 0..attention.n_head as usize {
            scratch.head(attention, head, &queries[head * head_dim..], tokens, row, first, kv);
            for (token, result) in scratch.out[..tokens * head_dim].chunks_exact(head_dim).enumerate() {
                let at = token * row + head * head_dim;
                out[at..at + head_dim].copy_from_slice(result);
            }
        }
    });
}

#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    /// One head of `tokens` queries, `row` elements apart, the first at position `first`.
    #[allow(clippy::too_many_arguments, reason = "a block's place in three matrices")]
    fn head(
        &mut self,
        attention: &Attention,
        head: usize,
        queries: &[f32],
        tokens: usize,
        row: usize,
        first: usize,
        kv: KeysValues<'_>,
    ) {
        let head_dim = attention.head_dim as usize;
        let stride = attention.n_head_kv as usize * head_dim;
        let group = (attention.n_head / attention.n_head_kv) as usize;
        // Nothing before the window of the first query is looked at by any of them.
        let start = attention.window.map_or(0, |window| (first + 1).saturating_sub(window as usize));
        let len = first + tokens - start;
        let at = start * stride + head / group * head_dim;
        self.scores.resize(tokens * len, 0.0);
        self.out.resize(tokens * head_dim, 0.0);
        let queries = View { data: queries, stride: row, rows: tokens, cols: head_dim };
        let keys = View { data: &kv.keys[at..], stride, rows: len, cols: head_dim };
        small(queries, keys, true, &mut self.scores, attention.scale);
        let window = attention.window.map_or(usize::MAX, |window| window as usize);
        ops::vector(
            #[inline(always)]
            || {
                for (token, scores) in self.scores[..tokens * len].chunks_exact_mut(len).enumerate() {
                    let position = first + token;
                    let end = position + 1 - start;
                    let begin = (position + 1).saturating_sub(window).saturating_sub(start);
                    scores[..begin].fill(0.0);
                    scores[end..].fill(0.0);
                    if let Some(cap) = attention.softcap {
                        ops::softcap(&mut scores[begin..end], cap);
                    }
                    ops::softmax(&mut scores[begin..end]);
                }
            },
        );
        let scores = View { data: &self.scores, stride: len, rows: tokens, cols: len };
        let values = View { data: &kv.values[at..], stride, rows: len, cols: head_dim };
        small(scores, values, false, &mut self.out, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggufsmith_arch::decoder::Linear;

    fn attention(n_head: u32, n_head_kv: u32, head_dim: u32, window: Option<u32>) -> Attention {
        let linear = || Linear::new("", 0, 0);
        let projections = [linear(), linear(), linear(), linear()];
        Attention { window, ..Attention::new(n_head, n_head_kv, head_dim, projections, None) }
    }

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| (((i + seed) * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// Straight from the formula, in F64.
    fn textbook(a: &Attention, queries: &[f32], past: usize, kv: KeysValues<'_>) -> Vec<f64> {
        let (n_head, head_dim) = (a.n_head as usize, a.head_dim as usize);
        let stride = a.n_head_kv as usize * head_dim;
        let mut out = Vec::new();
        for (token, query) in queries.chunks(n_head * head_dim).enumerate() {
            let position = past + token;
            let begin = a.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
            for head in 0..n_head {
                let at = head / (n_head / a.n_head_kv as usize) * head_dim;
                let q = &query[head * head_dim..][..head_dim];
                let score = |p: usize| {
                    let k = &kv.keys[p * stride + at..][..head_dim];
                    let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let score = dot * f64::from(a.scale);
                    a.softcap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh()).exp()
                };
                let weights: Vec<f64> = (begin..=position).map(score).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..head_dim).map(|i| {
                    let value = |p: usize| f64::from(kv.values[p * stride + at + i]);
                    weights.iter().zip(begin..).map(|(w, p)| w * value(p)).sum::<f64>() / total
                }));
            }
        }
        out
    }

    #[test]
    fn every_shape_equals_the_textbook() {
        for (n_head, n_head_kv, head_dim, tokens, past, window) in [
            (4, 2, 8, 150, 0, None),
            (4, 4, 16, 1, 9, None),
            (6, 2, 8, 70, 33, Some(20)),
            (2, 1, 4, 1, 50, Some(7)),
            (3, 3, 8, 64, 0, Some(1)),
        ] {
            let plain = attention(n_head, n_head_kv, head_dim, window);
            // Large scores, so that a cap that is forgotten shows.
            let capped = Attention { scale: 3.0, softcap: Some(2.0), ..plain.clone() };
            let queries = numbers(tokens * (n_head * head_dim) as usize, 1);
            let len = (past + tokens) * (n_head_kv * head_dim) as usize;
            let (keys, values) = (numbers(len, 2), numbers(len, 3));
            let kv = KeysValues { keys: &keys, values: &values };
            for a in [plain, capped] {
                let mut out = vec![0.0; queries.len()];
                attend(&a, &queries, past, kv, &mut out);
                let expected = textbook(&a, &queries, past, kv);
                let worst = out.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-5, "{n_head} {tokens} {window:?} {:?}: {worst}", a.softcap);
            }
        }
    }
}
