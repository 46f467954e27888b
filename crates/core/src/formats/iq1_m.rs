//! `IQ1_M`: eight elements at a time are a point of -1, 0, 1 with a shift; 16 groups of 16 with a scale. 1.75 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 32 | lower 8 bits of the points |
//! | 16 | 4 bits per point, first point low: its upper 3 bits, then its shift's sign |
//! | 8 | four words of 16 bits: the scales `s` of four groups, 3 bits each, first group lowest; then 4 bits of `d` |
//!
//! Value: `d * (2 * s + 1)` times the point's element plus 1/8, or minus 1/8 where the sign is set. `d` is an F16,
//! its lowest bits in the first word. There are 2048 points.

use crate::blocks::{self, grids};
use crate::float;
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 56;
const _: () = assert!(BYTES == LEN / 8 + LEN / 16 + LEN / 32);

/// ggml's `IQ1_M`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 29, name: "IQ1_M", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let mut words = [0u16; 4];
    for (at, word) in words.iter_mut().enumerate() {
        *word = u16::from_le_bytes(blocks::field(block, 32 + 16 + at * 2));
    }
    let bits = words.iter().rev().fold(0, |bits, word| bits << 4 | word >> 12);
    let d = float::f16_to_f32(bits);
    for (at, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let group = at / 2;
        let scale = d * f32::from(2 * (words[group / 4] >> (group % 4 * 3) & 7) + 1);
        let high = block[32 + at / 2] >> (at % 2 * 4) & 15;
        let shift = if high >> 3 == 1 { -0.125 } else { 0.125 };
        grids::shifted(values, scale, grids::IQ1[usize::from(block[at]) | usize::from(high & 7) << 8], shift);
    }
}
