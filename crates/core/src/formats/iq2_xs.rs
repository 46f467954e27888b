//! `IQ2_XS`: eight elements are one of 512 points with signs; 16 groups of 16 with a scale each. 2.3125 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 64 | a word of 16 bits per eight elements: the point (9 bits) and the signs of its first seven elements |
//! | 8 | `s`: the groups' scales, 4 bits each, two per byte, first group low |
//!
//! Value: `d * (s + 1/2) / 4` times the point's element, negative where its sign bit is set. The eighth sign makes
//! the number of negative elements even.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 74;
const _: () = assert!(BYTES == 2 + LEN / 4 + LEN / 32);

/// ggml's `IQ2_XS`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 17, name: "IQ2_XS", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (at, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes(blocks::field(block, 2 + at * 2));
        let s = block[2 + LEN / 4 + at / 4] >> (at / 2 % 2 * 4) & 15;
        let scale = d * (0.5 + f32::from(s)) * 0.25;
        grids::signed(values, scale, grids::IQ2_XS[usize::from(word & 511)], grids::even_signs(u32::from(word >> 9)));
    }
}
