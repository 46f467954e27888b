//! What happens to activations between matrix products. Everything runs row by row, so that threads change no bit.
//!
//! Loops are compiled for the machine's vector instructions when they run ([`vector`]); sums of rows are taken in eight parts, always
//! the same, so that the bits do not depend on the instructions either.

mod activation;
mod norm;

use crate::rope::Turn;
use ggufsmith_arch::decoder::RopeLayout;
use rayon::prelude::*;

pub(crate) use activation::{activate, clip, gate, scale_and_cap, sigmoid, softcap};
pub(crate) use norm::{Numbers, normalize};

/// Run plain loops as vector code of the machine. What is inlined into `f` is compiled for each instruction set; `f` itself must be a
/// closure that is `#[inline(always)]`, or it stays outside.
#[inline(always)]
pub fn vector<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Rows of activations that one job takes.
const ROWS: usize = 16;

/// `e^x` to about one unit in the last place for `x` at most 88; 0 below -87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with |r| <= ln 2 / 2; adding and subtracting 1.5 · 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.3);
    let n = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    // Taylor's series; the next term is below 2^-24.
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    let value = p * power;
    if x < -87.3 { 0.0 } else { value }
}

/// Sum of `f` over a row, in eight interleaved parts.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0; 8];
    let chunks = row.as_chunks::<8>();
    for chunk in chunks.0 {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part += f(*value);
        }
    }
    chunks.1.iter().fold(parts.iter().sum(), |sum, value| sum + f(*value))
}

/// Largest value of a row; NaN where one is in it. Negative infinity for an empty row.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    // A comparison with NaN is false, so that it leaves `parts` alone; it is remembered apart.
    let (mut parts, mut nan) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
    let chunks = row.as_chunks::<LANES>();
    for chunk in chunks.0 {
        for i in 0..LANES {
            parts[i] = if chunk[i] > parts[i] { chunk[i] } else { parts[i] };
            nan[i] |= chunk[i].is_nan();
        }
    }
    for (i, value) in chunks.1.iter().enumerate() {
        parts[i] = if *value > parts[i] { *value } else { parts[i] };
        nan[i] |= value.is_nan();
    }
    if nan.contains(&true) { f32::NAN } else { parts.into_iter().fold(f32::NEG_INFINITY, f32::max) }
}

/// `x += scale * y`.
pub(crate) fn add(x: &mut [f32], y: &[f32], scale: f32) {
    const CHUNK: usize = 1 << 14;
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        for (x, y) in x.iter_mut().zip(y) {
            *x += scale * y;
        }
    });
}

/// Add a vector to every row.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    rows.par_chunks_mut(bias.len()).for_each(|row| {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    });
}

/// Softmax of a row in place.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) {
    let top = max(row);
    for value in row.iter_mut() {
        *value = exp(*value - top);
    }
    let scale = 1.0 / sum(row, |value| value);
    for value in row.iter_mut() {
        *value *= scale;
    }
}

/// Turn every head of every row: rows are `[heads * head_dim]`, `turns` holds one entry for each row.
pub(crate) fn rotate(rows: &mut [f32], row: usize, head_dim: usize, layout: RopeLayout, turns: &[Turn<'_>]) {
    rows.par_chunks_mut(row).zip(turns).for_each(|(row, turn)| {
        vector(
            #[inline(always)]
            || {
                for head in row.chunks_exact_mut(head_dim) {
                    rotate_head(head, layout, turn);
                }
            },
        );
    });
}

#[inline(always)]
fn rotate_head(head: &mut [f32], layout: RopeLayout, turn: &Turn<'_>) {
    let pairs = turn.cos.len();
    match layout {
        RopeLayout::Halves => {
            let (low, high) = head.split_at_mut(pairs);
            for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(turn.cos).zip(turn.sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        RopeLayout::Pairs => {
            for (([a, b], cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(turn.cos).zip(turn.sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units() {
        let mut worst = 0f64;
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let expected = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / expected - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-200.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn max_finds_the_largest_and_keeps_nan() {
        let mut row: Vec<f32> = (0..37).map(|i| ((i * 7) % 23) as f32 - 30.0).collect();
        assert_eq!(max(&row), -8.0);
        row[36] = 5.0;
        assert_eq!(max(&row), 5.0);
        for at in [0, 9, 35] {
            let mut row = row.clone();
            row[at] = f32::NAN;
            assert!(max(&row).is_nan(), "{at}");
        }
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn softmax_is_a_distribution() {
        let mut row = [1.0, 3.0, -2.0, 0.5, 100.0, 99.0, 0.0, 1.0, 2.0];
        softmax(&mut row);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((row[5] / row[4] - (-1f32).exp()).abs() < 1e-6);
    }

    #[test]
    fn both_layouts_turn_the_same_pairs() {
        let (cos, sin) = ([0.6, 0.8], [0.8, -0.6]);
        let turn = Turn { cos: &cos, sin: &sin };
        let mut halves = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut halves, 4, 4, RopeLayout::Halves, &[turn]);
        let mut pairs = [1.0, 3.0, 2.0, 4.0];
        rotate(&mut pairs, 4, 4, RopeLayout::Pairs, &[turn]);
        assert_eq!([pairs[0], pairs[2], pairs[1], pairs[3]], halves);
    }

    #[test]
    fn elements_behind_the_rotated_ones_stay() {
        let (cos, sin) = ([0.6], [0.8]);
        let turn = Turn { cos: &cos, sin: &sin };
        for layout in [RopeLayout::Halves, RopeLayout::Pairs] {
            let mut row = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
            rotate(&mut row, 8, 4, layout, &[turn]);
            assert_eq!(row[..4], row[4..]);
            assert!((row[0] + 1.0).abs() < 1e-6 && (row[1] - 2.0).abs() < 1e-6 && row[2..4] == [3.0, 4.0], "{row:?}");
        }
    }
}
