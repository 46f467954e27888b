//! `LLM.int8` of bitsandbytes (`int8_vectorwise_quant`): per matrix row one F32, the largest magnitude `SCB`, per element a signed
//! byte `CB`. The value is `CB * SCB / 127`, computed in F32 from the left, each step rounded.

use crate::float::{f16_to_f32, f32_to_f16};

/// One element.
#[inline]
pub fn decode(code: i8, scale: f32) -> f32 {
    f32::from(code) * scale / 127.0
}

/// Encode one row: elements are rounded to F16 first, the code is `x * (1 / SCB * 127)`, rounded to the nearest integer, ties to
/// even. Returns the scale. A row of zeros (in F16) gets codes 0; what overflows F16 makes the scale infinite.
///
/// # Panics
/// Where `codes` is shorter than `row`.
pub fn encode(row: &[f32], codes: &mut [i8]) -> f32 {
    let half = |value: &f32| f16_to_f32(f32_to_f16(*value));
    let scale = row.iter().map(|value| half(value).abs()).fold(0f32, f32::max);
    // torch divides a number by a tensor in two steps, the reciprocal first.
    let factor = 1.0 / scale * 127.0;
    for (code, value) in codes[..row.len()].iter_mut().zip(row) {
        // NaN, from 0 times infinity, becomes 0.
        *code = (half(value) * factor).round_ties_even() as i8;
    }
    scale
}
