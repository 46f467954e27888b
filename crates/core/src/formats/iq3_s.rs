//! `IQ3_S`: four elements at a time are one of 512 points with signs; 8 groups of 32 with a scale each. 3.4375 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 64 | lower 8 bits of the points |
//! | 8 | upper bit of the points, eight points per byte, first point lowest |
//! | 32 | signs: a byte per eight elements, the first one's bit lowest |
//! | 4 | `s`: the groups' scales, 4 bits each, two per byte, first group low |
//!
//! Value: `d * (2 * s + 1)` times the point's element, negative where its sign bit is set.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 110;
const _: () = assert!(BYTES == 2 + LEN / 4 + LEN / 32 + LEN / 8 + LEN / 64);

/// ggml's `IQ3_S`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 21, name: "IQ3_S", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    let point = |at: usize| {
        let high = block[2 + 64 + at / 8] >> (at % 8) & 1;
        grids::IQ3_S[usize::from(block[2 + at]) | usize::from(high) << 8]
    };
    for (at, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let s = block[2 + 64 + 8 + 32 + at / 8] >> (at / 4 % 2 * 4) & 15;
        let scale = d * f32::from(1 + 2 * s);
        grids::signed(values, scale, grids::joined(point(2 * at), point(2 * at + 1)), block[2 + 64 + 8 + at]);
    }
}
