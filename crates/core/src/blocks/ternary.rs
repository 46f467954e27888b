//! Three values per element: codes 0, 1, 2 for -d, 0, d, with `d` the largest magnitude of a block.

use super::{Word, round, words};
use crate::float;

/// Scale and codes of blocks as weights have them. None for blocks that are not ordinary.
#[inline(always)]
pub(crate) fn fast<W: Word, const LEN: usize>(words: &[W::Bytes; LEN]) -> Option<(u16, [u8; LEN])> {
    let values = words::map(words, W::widen);
    let d = W::magnitude(words, &values);
    if !round::is_ordinary(d) {
        return None;
    }
    let id = 1.0 / d;
    // To the nearest of -1, 0, 1, halves away from zero.
    let codes = words::map(&values, |value| {
        let x = value * id;
        1 + u8::from(x >= 0.5) - u8::from(x <= -0.5)
    });
    Some((float::f32_to_f16(d), codes))
}

/// Scale and codes as the scalar code of ggml's `TQ1_0` and `TQ2_0` finds them. Where NaN has hidden a larger value, a code is
/// more than 2 or less than 0.
pub(crate) fn textbook<const LEN: usize>(values: &[f32; LEN]) -> (u16, [i32; LEN]) {
    let mut amax = 0f32;
    for value in values {
        // ggml's MAX gives its second operand where either is NaN.
        amax = if amax > value.abs() { amax } else { value.abs() };
    }
    let d = amax;
    let id = if d != 0.0 { 1.0 / d } else { 0.0 };
    (round::scale_to_f16(d), values.map(|value| round::lround(value * id).wrapping_add(1)))
}
