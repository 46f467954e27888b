//! `NVFP4`: 64 floats of 4 bits (E2M1) in 4 groups of 16 with a scale each. 4.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | `s`: the groups' scales, E4M3 whose sign is ignored |
//! | 32 | `q`: codes 0 to 15, 8 bytes per group; element `j` in the low, element `j + 8` in the high half of byte `j` |
//!
//! Value: `VALUES[q] * s / 2`, with the table of `MXFP4`, which holds twice what E2M1 means. A scale of 0x7f is 0.

use super::mxfp4::VALUES;
use crate::blocks;
use crate::format::Format;

/// Elements per block.
const LEN: usize = 64;
/// Bytes per block.
const BYTES: usize = 36;
const _: () = assert!(BYTES == 4 + LEN / 2);

/// ggml's `NVFP4`. It can be read, not yet written.
pub static FORMAT: Format =
    Format { ggml_id: 40, name: "NVFP4", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// Half of a group's scale (`ggml_ue4m3_to_fp32`).
#[inline(always)]
fn half_scale(bits: u8) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
    if bits == 0x7f {
        return 0.0;
    }
    // Of exponent 0 there is no leading one, and the unit is that of exponent 1.
    let (lead, exponent) = if exponent == 0 { (0.0, 1) } else { (1.0, exponent) };
    (lead + fraction) * f32::from_bits((127 - 7 - 1 + exponent) << 23)
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let d = half_scale(block[group]);
        let codes: [u8; 8] = blocks::field(block, 4 + group * 8);
        for (j, code) in codes.into_iter().enumerate() {
            values[j] = VALUES[usize::from(code & 15)] * d;
            values[j + 8] = VALUES[usize::from(code >> 4)] * d;
        }
    }
}
