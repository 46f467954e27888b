//! `IQ4_XS`: 256 codes of 4 bits for unevenly spaced values, in 8 groups with a scale each. 4.25 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 2 | `scales_h`: upper 2 bits of the groups' scales, first group lowest |
//! | 4 | `scales_l`: lower 4 bits of the groups' scales, two per byte, first group low |
//! | 128 | `q`: codes 0 to 15, 16 bytes per group; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `d * (scale[group] - 32) * VALUES[q]`. A group's scale is searched for, each value weighted by its square or, if given,
//! its importance; codes are then chosen for the scale as it is stored, with `d` before it is rounded to F16.

use crate::blocks::nonlinear::{self, GROUP, NonLinear, VALUES};
use crate::blocks::{self, round, search};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Groups per block.
const GROUPS: usize = LEN / GROUP;
/// Bytes per block.
const BYTES: usize = 136;
const _: () = assert!(BYTES == 2 + 2 + GROUPS / 2 + LEN / 2);

/// ggml's `IQ4_XS`.
pub static FORMAT: Format =
    Format { ggml_id: 23, name: "IQ4_XS", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_iq4_xs`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| nonlinear::fast::<Iq4Xs, BYTES>(rows, importance, out),
    textbook: |rows: Rows<'_>, importance, out| nonlinear::textbook::<Iq4Xs, BYTES>(rows, importance, out),
};

struct Iq4Xs;

impl NonLinear<BYTES> for Iq4Xs {
    const GROUPS: usize = GROUPS;

    #[inline(always)]
    fn block(values: &[[f32; GROUP]], scales: &[f32], codes: impl Fn(&[f32; GROUP], f32) -> [u8; GROUP]) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        let (mut amax, mut max) = (0f32, 0f32);
        for &scale in scales {
            if scale.abs() > amax {
                (amax, max) = (scale.abs(), scale);
            }
        }
        let d = -max / 32.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        let mut high = 0u16;
        for (group, (values, &scale)) in values.iter().zip(scales).enumerate() {
            let l = search::nearest_int(id * scale).clamp(-32, 31);
            let dl = d * l as f32;
            let idl = if dl != 0.0 { 1.0 / dl } else { 0.0 };
            let at = 8 + group * GROUP / 2;
            out[at..at + GROUP / 2].copy_from_slice(&blocks::nibbles(&codes(values, idl)));
            let stored = (l + 32) as u8;
            out[4 + group / 2] |= (stored & 15) << (group % 2 * 4);
            high |= u16::from(stored >> 4) << (group * 2);
        }
        out[..2].copy_from_slice(&round::scale_to_f16(d).to_le_bytes());
        out[2..4].copy_from_slice(&high.to_le_bytes());
        out
    }
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    let high = u16::from_le_bytes(blocks::field(block, 2));
    for (group, values) in values.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let scale = low | ((high >> (group * 2) & 3) as u8) << 4;
        let dl = d * (f32::from(scale) - 32.0);
        let codes = blocks::codes_of_nibbles(blocks::field(block, 8 + group * GROUP / 2));
        for (value, code) in values.iter_mut().zip(codes) {
            *value = dl * VALUES[usize::from(code)];
        }
    }
}
