//! `Q5_0`: 32 codes of 5 bits with one scale. 5.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 4 | `qh`: fifth bit of the codes, element `j` in bit `j` |
//! | 16 | `q`: lower 4 bits of the codes; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `(q - 16) * d`, with `d` the value of largest magnitude / -16, so that this value's code is 0.
//! With importance, `d` is searched for.

use crate::blocks::lanes::Lanes;
use crate::blocks::simd::{Isa, Portable};
use crate::blocks::weighted::{self, Weighted};
use crate::blocks::words::Word;
use crate::blocks::{self, Block, symmetric};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = symmetric::LEN;
/// Bytes per block.
const BYTES: usize = 22;
const _: () = assert!(BYTES == 2 + LEN / 8 + LEN / 2);

/// ggml's `Q5_0`.
pub static FORMAT: Format =
    Format { ggml_id: 6, name: "Q5_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q5_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::fast::<Q5_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted::fast::<Q5_0, BYTES>(rows, importance, out),
    },
    textbook: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::textbook::<Q5_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted::textbook::<Q5_0, BYTES>(rows, importance, out),
    },
};

struct Q5_0;

impl Block<LEN, BYTES> for Q5_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        *out = block(Portable, symmetric::textbook::<31>(values));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        symmetric::fast::<31, I, W>(isa, words).map(|parts| *out = block(isa, parts)).is_some()
    }
}

impl Weighted<BYTES> for Q5_0 {
    fn textbook(values: &[f32; LEN], weights: &[f32; LEN]) -> [u8; BYTES] {
        block(Portable, symmetric::weighted::<31>(values, weights))
    }

    #[inline(always)]
    fn fast<I: Isa>(isa: I, values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]) {
        for (out, parts) in out.iter_mut().zip(symmetric::weighted_lanes::<31>(values, weights)) {
            *out = block(isa, parts);
        }
    }
}

#[inline(always)]
fn block<I: Isa>(isa: I, (d, codes): (u16, [u8; LEN])) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..6].copy_from_slice(&isa.fifth_bits(&codes).to_le_bytes());
    out[6..].copy_from_slice(&blocks::nibbles(&codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (value, code) in values.iter_mut().zip(blocks::codes_of_five_bits(blocks::field(block, 2), blocks::field(block, 6))) {
        *value = (f32::from(code) - 16.0) * d;
    }
}
