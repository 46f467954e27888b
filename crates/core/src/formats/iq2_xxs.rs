//! `IQ2_XXS`: eight elements are one of 256 points with signs; 8 groups of 32 with a scale each. 2.0625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 64 | 8 bytes per group: four points, then 32 bits: signs of each point's first seven elements, scale `s` (4 bits) |
//!
//! Value: `d * (s + 1/2) / 4` times the point's element, negative where its sign bit is set. The eighth sign makes
//! the number of negative elements even.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 66;
const _: () = assert!(BYTES == 2 + LEN / 4);

/// ggml's `IQ2_XXS`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 16, name: "IQ2_XXS", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let points: [u8; 4] = blocks::field(block, 2 + group * 8);
        let signs = u32::from_le_bytes(blocks::field(block, 2 + group * 8 + 4));
        let scale = d * (0.5 + (signs >> 28) as f32) * 0.25;
        for (l, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            let point = grids::IQ2_XXS[usize::from(points[l])];
            grids::signed(values, scale, point, grids::even_signs(signs >> (7 * l)));
        }
    }
}
