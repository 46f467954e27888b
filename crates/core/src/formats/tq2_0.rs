//! `TQ2_0`: 256 codes of three values in 2 bits each, with one scale. 2.0625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 64 | `q`: codes; byte `j` < 32 of each half holds elements `j`, `j + 32`, `j + 64`, `j + 96` of 128, first lowest |
//! | 2 | `d`: scale, F16 |
//!
//! Value: `(q - 1) * d`, with `d` the largest magnitude. Importance changes nothing.

use crate::blocks::{self, Block, simd::Isa, ternary, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 66;
const _: () = assert!(BYTES == LEN / 4 + 2);

/// ggml's `TQ2_0`.
pub static FORMAT: Format =
    Format { ggml_id: 35, name: "TQ2_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_tq2_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| blocks::fast::<Tq2_0, LEN, BYTES>(rows, out),
    textbook: |rows: Rows<'_>, _, out| blocks::textbook::<Tq2_0, LEN, BYTES>(rows, out),
};

struct Tq2_0;

impl Block<LEN, BYTES> for Tq2_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        let (d, codes) = ternary::textbook(values);
        *out = block(d, &codes.map(|code| code as u8));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(_isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        ternary::fast::<W, LEN>(words).map(|(d, codes)| *out = block(d, &codes)).is_some()
    }
}

#[inline(always)]
fn block(d: u16, codes: &[u8; LEN]) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    for half in 0..2 {
        for j in 0..32 {
            let code = |n: usize| codes[half * 128 + n * 32 + j] & 3;
            out[half * 32 + j] = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
        }
    }
    out[BYTES - 2..].copy_from_slice(&d.to_le_bytes());
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, BYTES - 2);
    for (at, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let bytes: [u8; 32] = blocks::field(block, at / 4 * 32);
        for (value, byte) in values.iter_mut().zip(bytes) {
            *value = (f32::from(byte >> (at % 4 * 2) & 3) - 1.0) * d;
        }
    }
}
