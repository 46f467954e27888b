//! Codes around zero with one scale: value = `(q - half) * d`, `q` from 0 to `TOP`, `half` = `(TOP + 1) / 2`.

use super::lanes::{self, LANES, Lanes};
use super::{Isa, Word, round, search, words};
use crate::float;

/// Elements per block.
pub(crate) const LEN: usize = 32;

/// Scale and codes as ggml's scalar code finds them: the value of largest magnitude (the first of them) gets code 0.
pub(crate) fn textbook<const TOP: u8>(values: &[f32; LEN]) -> (u16, [u8; LEN]) {
    let half = f32::from(TOP / 2 + 1);
    let (mut amax, mut max) = (0f32, 0f32);
    for &value in values {
        if amax < value.abs() {
            (amax, max) = (value.abs(), value);
        }
    }
    let d = max / -half;
    let id = if d != 0.0 { 1.0 / d } else { 0.0 };
    let codes = values.map(|value| (round::low_byte(value * id + (half + 0.5)) as i8).min(TOP as i8) as u8);
    (round::scale_to_f16(d), codes)
}

/// The same, in a form that vectorizes. None for blocks that are not ordinary.
#[inline(always)]
pub(crate) fn fast<const TOP: u8, I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN]) -> Option<(u16, [u8; LEN])> {
    let half = f32::from(TOP / 2 + 1);
    let values = words::map(words, W::widen);
    let max = words::first_largest::<W, LEN>(words, &values);
    if !round::is_ordinary(max.abs()) {
        return None;
    }
    let d = max / -half;
    let id = 1.0 / d;
    let codes = words::map(&values, |value| value * id + (half + 0.5));
    Some((float::f32_to_f16(d), isa.truncate::<TOP>(&codes)))
}

/// Scale and codes by search, each value weighted.
pub(crate) fn weighted<const TOP: u8>(values: &[f32; LEN], weights: &[f32; LEN]) -> (u16, [u8; LEN]) {
    let mut codes = [0; LEN];
    let d = search::make_qx_quants(i32::from(TOP / 2 + 1), values, Some(weights), &mut codes);
    (round::searched_to_f16(d), codes)
}

/// The same for one block per lane, in a form that vectorizes.
#[inline(always)]
pub(crate) fn weighted_lanes<const TOP: u8>(values: &[Lanes; LEN], weights: &[Lanes; LEN]) -> [(u16, [u8; LEN]); LANES] {
    let nmax = i32::from(TOP / 2 + 1);
    let found = lanes::make_qx_quants(nmax, values, weights);
    let mut blocks = [(0, [0; LEN]); LANES];
    for (j, block) in blocks.iter_mut().enumerate() {
        block.0 = round::searched_to_f16(found.scale[j]);
        for (code, values) in block.1.iter_mut().zip(values) {
            *code = found.code(nmax, values[j], j);
        }
    }
    blocks
}
