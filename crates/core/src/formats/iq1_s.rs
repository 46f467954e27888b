//! `IQ1_S`: eight elements at a time are a point of -1, 0, 1; 8 groups of 32 with a scale and a shift. 1.5625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 32 | lower 8 bits of the points |
//! | 16 | a word of 16 bits per group: upper 3 bits of its points, first lowest; its scale `s` (3 bits); its shift's sign |
//!
//! Value: `d * (2 * s + 1)` times the point's element plus 1/8, or minus 1/8 where the sign is set. There are
//! 2048 points.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 50;
const _: () = assert!(BYTES == 2 + LEN / 8 + LEN / 16);

/// ggml's `IQ1_S`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 19, name: "IQ1_S", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes(blocks::field(block, 2 + 32 + group * 2));
        let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
        let shift = if word >> 15 == 1 { -0.125 } else { 0.125 };
        for (l, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            let high = usize::from(word >> (3 * l) & 7) << 8;
            grids::shifted(values, scale, grids::IQ1[usize::from(block[2 + group * 4 + l]) | high], shift);
        }
    }
}
