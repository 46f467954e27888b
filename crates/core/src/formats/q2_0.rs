//! `Q2_0`: 64 codes of 2 bits with one scale. 2.25 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 16 | `q`: codes 0 to 3, four elements in a row per byte, the first in the lowest bits |
//!
//! Value: `(q - 1) * d`, with `d` the largest magnitude, so that no weight gets code 3. Importance changes nothing.

use crate::blocks::{self, Block, round, simd::Isa, ternary, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 64;
/// Bytes per block.
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 4);

/// ggml's `Q2_0`.
pub static FORMAT: Format =
    Format { ggml_id: 42, name: "Q2_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q2_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| blocks::fast::<Q2_0, LEN, BYTES>(rows, out),
    textbook: |rows: Rows<'_>, _, out| blocks::textbook::<Q2_0, LEN, BYTES>(rows, out),
};

struct Q2_0;

impl Block<LEN, BYTES> for Q2_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        let mut amax = 0f32;
        for value in values {
            if value.abs() > amax {
                amax = value.abs();
            }
        }
        let d = amax;
        let id = if d > 0.0 { 1.0 / d } else { 0.0 };
        let code = |value: f32| round::to_int((value * id).round()).wrapping_add(1).clamp(0, 3) as u8;
        *out = block(round::scale_to_f16(d), &values.map(code));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(_isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        ternary::fast::<W, LEN>(words).map(|(d, codes)| *out = block(d, &codes)).is_some()
    }
}

#[inline(always)]
fn block(d: u16, codes: &[u8; LEN]) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..2].copy_from_slice(&d.to_le_bytes());
    for (byte, codes) in out[2..].iter_mut().zip(codes.as_chunks::<4>().0) {
        *byte = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6;
    }
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    let bytes: [u8; LEN / 4] = blocks::field(block, 2);
    for (j, value) in values.iter_mut().enumerate() {
        *value = (f32::from(bytes[j / 4] >> (j % 4 * 2) & 3) - 1.0) * d;
    }
}
