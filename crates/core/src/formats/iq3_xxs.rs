//! `IQ3_XXS`: four elements are one of 256 points; 8 groups of 32 with a scale each. 3.0625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 64 | points |
//! | 32 | 32 bits per group: signs of seven of each eight elements, first ones lowest; its scale `s` (4 bits) |
//!
//! Value: `d * (s + 1/2) / 2` times the point's element, negative where its sign bit is set. The eighth sign makes
//! the number of negative elements even.

use crate::blocks::{self, grids};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 98;
const _: () = assert!(BYTES == 2 + LEN / 4 + LEN / 8);

/// ggml's `IQ3_XXS`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 18, name: "IQ3_XXS", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    let point = |at: usize| grids::IQ3_XXS[usize::from(block[2 + at])];
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let signs = u32::from_le_bytes(blocks::field(block, 2 + LEN / 4 + group * 4));
        let scale = d * (0.5 + (signs >> 28) as f32) * 0.5;
        for (l, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            let at = group * 8 + l * 2;
            let signs = grids::even_signs(signs >> (7 * l));
            grids::signed(values, scale, grids::joined(point(at), point(at + 1)), signs);
        }
    }
}
