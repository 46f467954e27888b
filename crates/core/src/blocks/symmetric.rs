//! Codes around zero with one scale: value = `(q - half) * d`, `q` from 0 to `2 * half - 1`.

use super::{Isa, Word, round, search, words};

/// Elements per block.
pub(crate) const LEN: usize = 32;

/// Scale and codes as ggml's scalar code finds them: the value of largest magnitude (the first of them) gets code 0.
pub(crate) fn textbook<const HALF: u8>(values: &[f32; LEN]) -> (u16, [u8; LEN]) {
    let (mut amax, mut max) = (0f32, 0f32);
    for &value in values {
        if amax < value.abs() {
            (amax, max) = (value.abs(), value);
        }
    }
    let d = max / -f32::from(HALF);
    let id = if d != 0.0 { 1.0 / d } else { 0.0 };
    let top = (2 * HALF - 1) as i8;
    let codes = values.map(|value| (round::low_byte(value * id + (f32::from(HALF) + 0.5)) as i8).min(top) as u8);
    (round::scale_to_f16(d), codes)
}

/// The same, in a form that vectorizes. None for blocks that are not ordinary.
#[inline(always)]
pub(crate) fn fast<const HALF: u8, I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN]) -> Option<(u16, [u8; LEN])> {
    let max = words::first_largest::<W, LEN>(words);
    if !round::is_ordinary(max.abs()) {
        return None;
    }
    let d = max / -f32::from(HALF);
    let id = 1.0 / d;
    let values = words::map(words, W::widen);
    let codes = isa.truncate(&words::map(&values, |value| value * id + (f32::from(HALF) + 0.5)));
    Some((crate::float::f32_to_f16(d), words::map(&codes, |code| code.min(2 * HALF - 1))))
}

/// Scale and codes by search, each value weighted.
pub(crate) fn weighted<const HALF: u8>(values: &[f32; LEN], weights: &[f32; LEN]) -> (u16, [u8; LEN]) {
    let mut codes = [0; LEN];
    let d = search::make_qx_quants(HALF.into(), values, Some(weights), &mut codes);
    (round::scale_to_f16(d), codes)
}
