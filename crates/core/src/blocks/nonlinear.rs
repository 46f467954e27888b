//! Groups of 32 elements whose codes stand for sixteen unevenly spaced values (ggml's `kvalues_iq4nl`), with a scale that is
//! searched for: value = `VALUES[q] * d`.
//!
//! `quantize_row_iq4_nl_impl` with its seven tries to each side. The groups of several blocks are the lanes of the search.

use super::each_row;
use super::lanes::{self, LANES, Lanes};
use super::search::ZERO_BELOW;
use super::simd::{self, Isa, Kernel};
use super::words::{self, BF16, F16, F32, Word};
use crate::encoder::{Rows, Words};
use std::marker::PhantomData;

/// Elements per group.
pub(crate) const GROUP: usize = 32;

/// What the codes stand for, ascending.
pub(crate) const VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Where the nearest value changes. A number in the middle belongs to the larger value.
const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut k = 0;
    while k < 15 {
        middles[k] = (VALUES[k] + VALUES[k + 1]) / 2.0;
        k += 1;
    }
    middles
};

/// Scales searched to each side of the one that maps the largest magnitude to the first value.
const TRIES: i32 = 7;

/// How a format writes its blocks.
pub(crate) trait NonLinear<const BYTES: usize> {
    /// Groups per block: 1, or more of them, which divide [`LANES`].
    const GROUPS: usize;

    /// A block from its groups' values and scales. `codes` gives a group's codes, each the nearest to a value times the number.
    /// Must be `#[inline(always)]`.
    fn block(values: &[[f32; GROUP]], scales: &[f32], codes: impl Fn(&[f32; GROUP], f32) -> [u8; GROUP]) -> [u8; BYTES];
}

/// ggml's `best_index_int8` over [`VALUES`].
fn nearest(x: f32) -> u8 {
    if x <= VALUES[0] {
        return 0;
    }
    if x >= VALUES[15] {
        return 15;
    }
    let (mut below, mut above) = (0, 15);
    while above - below > 1 {
        let middle = (below + above) / 2;
        if x < VALUES[middle] {
            above = middle;
        } else {
            below = middle;
        }
    }
    (if x - VALUES[above - 1] < VALUES[above] - x { above - 1 } else { above }) as u8
}

/// The value that [`nearest`] finds, in a form that vectorizes. NaN gets the last one, as there.
#[inline(always)]
fn nearest_value(x: f32) -> f32 {
    let mut value = VALUES[15];
    for k in (0..15).rev() {
        value = if x < MIDDLES[k] { VALUES[k] } else { value };
    }
    value
}

/// [`nearest`] of each value times `id`, in a form that vectorizes.
#[inline(always)]
fn nearest_codes(values: &[f32; GROUP], id: f32) -> [u8; GROUP] {
    words::map(values, |value| {
        let x = id * value;
        let mut code = 15;
        for middle in MIDDLES {
            code -= u8::from(x < middle);
        }
        code
    })
}

/// The scale of one group. `weights`: what each value's error counts.
fn scale(values: &[f32; GROUP], weights: &[f32; GROUP]) -> f32 {
    let (mut amax, mut max) = (0f32, 0f32);
    for &value in values {
        if value.abs() > amax {
            (amax, max) = (value.abs(), value);
        }
    }
    if amax < ZERO_BELOW {
        return 0.0;
    }
    let sums = |id: f32| {
        let (mut sumqx, mut sumq2) = (0f32, 0f32);
        for (&x, &w) in values.iter().zip(weights) {
            let q = VALUES[usize::from(nearest(id * x))];
            sumqx += w * q * x;
            sumq2 += w * q * q;
        }
        (sumqx, sumq2)
    };
    let (sumqx, sumq2) = sums(1.0 / (-max / VALUES[0]));
    let mut d = if sumq2 > 0.0 { sumqx / sumq2 } else { 0.0 };
    let mut best = d * sumqx;
    for step in -TRIES..=TRIES {
        let (sumqx, sumq2) = sums((step as f32 + VALUES[0]) / max);
        if sumq2 > 0.0 && sumqx * sumqx > best * sumq2 {
            d = sumqx / sumq2;
            best = d * sumqx;
        }
    }
    d
}

/// [`scale`] of one group per lane, for finite values.
#[inline(always)]
fn scales(x: &[Lanes; GROUP], w: &[Lanes; GROUP]) -> Lanes {
    let (mut amax, mut max) = ([0f32; LANES], [0f32; LANES]);
    for x in x {
        for j in 0..LANES {
            let larger = x[j].abs() > amax[j];
            amax[j] = if larger { x[j].abs() } else { amax[j] };
            max[j] = if larger { x[j] } else { max[j] };
        }
    }
    let (mut d, mut best) = ([0f32; LANES], [0f32; LANES]);
    for step in std::iter::once(None).chain((-TRIES..=TRIES).map(Some)) {
        let id = match step {
            None => lanes::lanes(|j| 1.0 / (-max[j] / VALUES[0])),
            Some(step) => lanes::lanes(|j| (step as f32 + VALUES[0]) / max[j]),
        };
        let (mut sumqx, mut sumq2) = ([0f32; LANES], [0f32; LANES]);
        for i in 0..GROUP {
            for j in 0..LANES {
                let q = nearest_value(id[j] * x[i][j]);
                sumqx[j] += w[i][j] * q * x[i][j];
                sumq2[j] += w[i][j] * q * q;
            }
        }
        for j in 0..LANES {
            let better = sumq2[j] > 0.0 && (step.is_none() || sumqx[j] * sumqx[j] > best[j] * sumq2[j]);
            let scale = sumqx[j] / sumq2[j];
            d[j] = if better { scale } else { d[j] };
            best[j] = if better { scale * sumqx[j] } else { best[j] };
        }
    }
    lanes::lanes(|j| if amax[j] < ZERO_BELOW { 0.0 } else { d[j] })
}

/// A block's share in the weights: twice its mean square, summed in order.
#[inline(always)]
fn spread(values: &[[f32; GROUP]]) -> f32 {
    let values = values.as_flattened();
    values.iter().fold(0f32, |sum, value| sum + value * value) * (2.0 / values.len() as f32)
}

/// What a value's error counts: its square, or by its importance.
#[inline(always)]
fn weights(values: &[f32; GROUP], importance: Option<&[f32; GROUP]>, spread: f32) -> [f32; GROUP] {
    let mut weights = [0.0; GROUP];
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = match importance {
            Some(importance) => importance[i] * (spread + values[i] * values[i]).sqrt(),
            None => values[i] * values[i],
        };
    }
    weights
}

/// Write every block as ggml's scalar code does.
pub(crate) fn textbook<B: NonLinear<BYTES>, const BYTES: usize>(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) {
    let importance = importance.map(|importance| importance.as_chunks().0);
    each_row(rows, out, |row, out| {
        let blocks = row.as_chunks().0.chunks_exact(B::GROUPS).zip(out.as_chunks_mut().0);
        for (at, (values, out)) in blocks.enumerate() {
            *out = textbook_block::<B, BYTES>(values, importance.map(|importance| &importance[at * B::GROUPS..]));
        }
    });
}

fn textbook_block<B: NonLinear<BYTES>, const BYTES: usize>(
    values: &[[f32; GROUP]],
    importance: Option<&[[f32; GROUP]]>,
) -> [u8; BYTES] {
    let spread = spread(values);
    let mut scales = [0f32; LANES];
    for (group, values) in values.iter().enumerate() {
        scales[group] = scale(values, &weights(values, importance.map(|importance| &importance[group]), spread));
    }
    B::block(values, &scales[..B::GROUPS], |values, id| values.map(|value| nearest(id * value)))
}

/// NaN or infinity among the values.
#[cold]
#[inline(never)]
fn rare<B: NonLinear<BYTES>, const BYTES: usize>(
    values: &[[f32; GROUP]],
    importance: Option<&[[f32; GROUP]]>,
    out: &mut [u8; BYTES],
) {
    *out = textbook_block::<B, BYTES>(values, importance);
}

/// The same bytes, compiled for the machine that runs it.
pub(crate) fn fast<B: NonLinear<BYTES>, const BYTES: usize>(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) {
    match rows.words {
        Words::F32 => simd::dispatch(Batches::<B, F32, BYTES>::new(rows, importance, out)),
        Words::F16 => simd::dispatch(Batches::<B, F16, BYTES>::new(rows, importance, out)),
        Words::BF16 => simd::dispatch(Batches::<B, BF16, BYTES>::new(rows, importance, out)),
    }
}

/// Groups of the whole input in batches of [`LANES`], whatever rows they belong to.
struct Batches<'a, B, W: Word, const BYTES: usize> {
    words: &'a [[W::Bytes; GROUP]],
    importance: Option<&'a [[f32; GROUP]]>,
    out: &'a mut [[u8; BYTES]],
    block: PhantomData<B>,
}

impl<'a, B: NonLinear<BYTES>, W: Word, const BYTES: usize> Batches<'a, B, W, BYTES> {
    fn new(rows: Rows<'a>, importance: Option<&'a [f32]>, out: &'a mut [u8]) -> Self {
        let importance = importance.map(|importance| importance.as_chunks().0);
        Batches { words: W::split(rows.bytes).as_chunks().0, importance, out: out.as_chunks_mut().0, block: PhantomData }
    }
}

impl<B: NonLinear<BYTES>, W: Word, const BYTES: usize> Kernel for Batches<'_, B, W, BYTES> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        const { assert!(LANES.is_multiple_of(B::GROUPS)) };
        let batches = self.words.chunks(LANES).zip(self.out.chunks_mut(LANES / B::GROUPS));
        for (batch, (groups, out)) in batches.enumerate() {
            // Lanes beyond the last group stay zero.
            let mut values = [[0f32; GROUP]; LANES];
            for (values, words) in values.iter_mut().zip(groups) {
                *values = words::map(words, W::widen);
            }
            let importance = |group: usize| self.importance.map(|all| &all[(batch * LANES + group) % all.len()..]);
            if !lanes::all_finite(&values) {
                for (at, (values, out)) in values.chunks_exact(B::GROUPS).zip(out).enumerate() {
                    rare::<B, BYTES>(values, importance(at * B::GROUPS), out);
                }
                continue;
            }
            let (mut x, mut w) = ([[0f32; LANES]; GROUP], [[0f32; LANES]; GROUP]);
            for (at, block) in values.chunks_exact(B::GROUPS).enumerate() {
                // Without importance nobody needs it.
                let spread = if self.importance.is_some() { spread(block) } else { 0.0 };
                for (group, values) in (at * B::GROUPS..).zip(block) {
                    let weights = weights(values, importance(group).map(|importance| &importance[0]), spread);
                    for i in 0..GROUP {
                        x[i][group] = values[i];
                        w[i][group] = weights[i];
                    }
                }
            }
            let scales = scales(&x, &w);
            let blocks = values.chunks_exact(B::GROUPS).zip(scales.chunks_exact(B::GROUPS));
            for ((values, scales), out) in blocks.zip(out) {
                *out = B::block(values, scales, nearest_codes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middles_are_where_the_nearest_value_changes() {
        let near = |x: f32| [x.next_down().next_down(), x.next_down(), x, x.next_up(), x.next_up().next_up()];
        let wide = (-40_000..40_000).map(|k| k as f32 / 256.0);
        let rest = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40, -1e-40, -0.0];
        let middles = MIDDLES.into_iter().chain(VALUES).flat_map(near);
        for x in middles.chain(wide).chain(rest) {
            assert_eq!(nearest_value(x), VALUES[usize::from(nearest(x))], "{x}");
            assert_eq!(nearest_codes(&[x; GROUP], 1.0), [nearest(x); GROUP], "{x}");
        }
    }
}
