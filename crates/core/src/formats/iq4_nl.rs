//! `IQ4_NL`: 32 codes of 4 bits for unevenly spaced values, with one scale. 4.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 16 | `q`: codes 0 to 15; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `d * VALUES[q]`. The scale is searched for, each value weighted by its square or, if given, its importance.

use crate::blocks::nonlinear::{self, GROUP, NonLinear, VALUES};
use crate::blocks::{self, round};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = GROUP;
/// Bytes per block.
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2);

/// ggml's `IQ4_NL`.
pub static FORMAT: Format =
    Format { ggml_id: 20, name: "IQ4_NL", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_iq4_nl`. (`quantize_row_iq4_nl_ref` does not search.)
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| nonlinear::fast::<Iq4Nl, BYTES>(rows, importance, out),
    textbook: |rows: Rows<'_>, importance, out| nonlinear::textbook::<Iq4Nl, BYTES>(rows, importance, out),
};

struct Iq4Nl;

impl NonLinear<BYTES> for Iq4Nl {
    const GROUPS: usize = 1;

    #[inline(always)]
    fn block(values: &[[f32; GROUP]], scales: &[f32], codes: impl Fn(&[f32; GROUP], f32) -> [u8; GROUP]) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        let id = if scales[0] != 0.0 { 1.0 / scales[0] } else { 0.0 };
        out[..2].copy_from_slice(&round::searched_to_f16(scales[0]).to_le_bytes());
        out[2..].copy_from_slice(&blocks::nibbles(&codes(&values[0], id)));
        out
    }
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (value, code) in values.iter_mut().zip(blocks::codes_of_nibbles(blocks::field(block, 2))) {
        *value = d * VALUES[usize::from(code)];
    }
}
