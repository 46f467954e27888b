//! Codes above a minimum: value = `q * d + m`, `q` from 0 to `TOP`.

use super::lanes::{self, LANES, Lanes};
use super::{Isa, Word, round, search, words};
use crate::float;

/// Elements per block.
pub(crate) const LEN: usize = 32;

/// Scale, minimum and codes as ggml's scalar code finds them.
pub(crate) fn textbook<const TOP: u8>(values: &[f32; LEN]) -> (u16, u16, [u8; LEN]) {
    let (mut min, mut max) = (f32::MAX, -f32::MAX);
    for &value in values {
        if value < min {
            min = value;
        }
        if value > max {
            max = value;
        }
    }
    let d = (max - min) / f32::from(TOP);
    let id = if d != 0.0 { 1.0 / d } else { 0.0 };
    let codes = values.map(|value| (round::low_byte((value - min) * id + 0.5) as i8).min(TOP as i8) as u8);
    (round::scale_to_f16(d), round::scale_to_f16(min), codes)
}

/// The same, in a form that vectorizes. None for blocks that are not ordinary.
#[inline(always)]
pub(crate) fn fast<const TOP: u8, I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN]) -> Option<(u16, u16, [u8; LEN])> {
    let values = words::map(words, W::widen);
    let (min, max) = W::extremes(words, &values);
    // The sign of a minimum of zero is that of the first zero: left to the scalar code.
    if min == 0.0 || !round::is_ordinary(max - min) {
        return None;
    }
    let d = (max - min) / f32::from(TOP);
    let id = 1.0 / d;
    let codes = words::map(&values, |value| (value - min) * id + 0.5);
    Some((float::f32_to_f16(d), float::f32_to_f16(min), isa.truncate::<TOP>(&codes)))
}

/// Scale, minimum and codes by search, each value weighted.
pub(crate) fn weighted<const TOP: u8>(values: &[f32; LEN], weights: &[f32; LEN]) -> (u16, u16, [u8; LEN]) {
    let found = search::make_qkx3_quants::<false>(TOP.into(), search::WITH_IMPORTANCE, values, weights);
    let codes = values.map(|value| found.code(TOP.into(), value));
    (round::searched_to_f16(found.scale), round::searched_to_f16(found.min), codes)
}

/// The same for one block per lane, in a form that vectorizes.
#[inline(always)]
pub(crate) fn weighted_lanes<const TOP: u8>(values: &[Lanes; LEN], weights: &[Lanes; LEN]) -> [(u16, u16, [u8; LEN]); LANES] {
    let found = lanes::make_qkx3_quants::<false, LEN>(TOP.into(), search::WITH_IMPORTANCE, values, weights);
    let mut blocks = [(0, 0, [0; LEN]); LANES];
    for (j, block) in blocks.iter_mut().enumerate() {
        block.0 = round::searched_to_f16(found.scale[j]);
        block.1 = round::searched_to_f16(found.min[j]);
        for (code, values) in block.2.iter_mut().zip(values) {
            *code = found.code(TOP.into(), values[j], j);
        }
    }
    blocks
}
