//! Queries, keys and values in one matrix: one behind the other, or group by group.

use crate::sizes::Sizes;
use crate::tensors::Dims;
use ggufsmith_core::TensorExpr;
use std::ops::Range;

/// How the rows of a fused matrix lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All queries, all keys, all values.
    Behind,
    /// For each key head: the queries that share it, the key, the value. GPT-NeoX (where each query has a key) and Falcon.
    Groups,
}

impl Layout {
    /// The rows of queries, keys and values.
    pub(crate) fn rows(self, sizes: &Sizes) -> [Vec<Range<u64>>; 3] {
        let (head, kv) = (u64::from(sizes.head_dim()), u64::from(sizes.n_head_kv));
        let queries = u64::from(sizes.n_head) / kv.max(1) * head;
        match self {
            Layout::Behind => {
                let (q, kv) = (queries * kv, kv * head);
                let one = |from: u64, len: u64| std::iter::once(from..from + len).collect();
                [one(0, q), one(q, kv), one(q + kv, kv)]
            }
            Layout::Groups => {
                let group = queries + 2 * head;
                let every = |from: u64, len: u64| (0..kv).map(move |i| i * group + from..i * group + from + len).collect();
                [every(0, queries), every(queries, head), every(queries + head, head)]
            }
        }
    }
}

/// From [`Layout::Groups`] to [`Layout::Behind`].
pub(crate) fn regroup(input: TensorExpr, dims: &Dims) -> TensorExpr {
    let (head, kv) = (u64::from(dims.head_dim), u64::from(dims.n_head_kv));
    let shared = u64::from(dims.n_head) / kv.max(1);
    if kv == 1 {
        return input;
    }
    if shared == 1 {
        return TensorExpr::PermuteRows { input: Box::new(input), dims: vec![kv, 3, head], axes: vec![1, 0, 2] };
    }
    let group = (shared + 2) * head;
    let cut = |from: u64, len: u64| {
        let input = &input;
        (0..kv).map(move |i| TensorExpr::SliceRows(Box::new(input.clone()), i * group + from..i * group + from + len))
    };
    let keys = cut(shared * head, head);
    TensorExpr::Concat(cut(0, shared * head).chain(keys).chain(cut((shared + 1) * head, head)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(n_head: u32, n_head_kv: u32) -> Sizes {
        Sizes { n_vocab: 0, n_ctx: 0, n_layer: 1, n_embd: n_head * 4, n_ff: 0, n_head, n_head_kv, n_rot: 4, eps: 1e-5 }
    }

    #[test]
    fn every_row_is_somewhere_once() {
        for (n_head, n_head_kv) in [(6, 6), (6, 2), (6, 1)] {
            for layout in [Layout::Behind, Layout::Groups] {
                let rows = layout.rows(&sizes(n_head, n_head_kv));
                let mut all: Vec<u64> = rows.iter().flatten().cloned().flatten().collect();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..u64::from(n_head + 2 * n_head_kv) * 4), "{layout:?} of {n_head}, {n_head_kv}");
                let len = |part: usize| rows[part].iter().map(|range| range.end - range.start).sum::<u64>();
                assert_eq!([len(0), len(1), len(2)], [n_head, n_head_kv, n_head_kv].map(|heads| u64::from(heads) * 4));
            }
        }
    }

    #[test]
    fn groups_of_one_and_of_all() {
        assert_eq!(Layout::Groups.rows(&sizes(2, 2)), [[0..4, 12..16], [4..8, 16..20], [8..12, 20..24]]);
        assert_eq!(Layout::Groups.rows(&sizes(3, 1)), Layout::Behind.rows(&sizes(3, 1)));
    }
}
