//! `IQ2_S`: eight elements are one of 1024 points with signs; 16 groups of 16 with a scale each. 2.5625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 32 | lower 8 bits of the points |
//! | 32 | signs: a byte per point, its first element's bit lowest |
//! | 8 | upper 2 bits of the points, four points per byte, first point lowest |
//! | 8 | `s`: the groups' scales, 4 bits each, two per byte, first group low |
//!
//! Value: `d * (s + 1/2) / 4` times the point's element, negative where its sign bit is set.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 82;
const _: () = assert!(BYTES == 2 + LEN / 8 + LEN / 8 + LEN / 32 + LEN / 32);

/// ggml's `IQ2_S`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 22, name: "IQ2_S", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (at, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let high = block[2 + 64 + at / 4] >> (at % 4 * 2) & 3;
        let s = block[2 + 64 + 8 + at / 4] >> (at / 2 % 2 * 4) & 15;
        let scale = d * (0.5 + f32::from(s)) * 0.25;
        let point = usize::from(block[2 + at]) | usize::from(high) << 8;
        grids::signed(values, scale, grids::IQ2_S[point], block[2 + 32 + at]);
    }
}
