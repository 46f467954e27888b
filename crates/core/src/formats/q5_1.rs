//! `Q5_1`: 32 codes of 5 bits with a scale and a minimum. 6 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 2 | `m`: minimum, F16 |
//! | 4 | `qh`: fifth bit of the codes, element `j` in bit `j` |
//! | 16 | `q`: lower 4 bits of the codes; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `q * d + m`, with `m` the smallest value and `d` the range / 31.
//! With importance, both are searched for and `m` is at most 0.

use crate::blocks::lanes::Lanes;
use crate::blocks::simd::{Isa, Portable};
use crate::blocks::weighted::{self, Weighted};
use crate::blocks::words::Word;
use crate::blocks::{self, Block, affine};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = affine::LEN;
/// Bytes per block.
const BYTES: usize = 24;
const _: () = assert!(BYTES == 2 + 2 + LEN / 8 + LEN / 2);

/// ggml's `Q5_1`.
pub static FORMAT: Format =
    Format { ggml_id: 7, name: "Q5_1", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q5_1`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::fast::<Q5_1, LEN, BYTES>(rows, out),
        Some(importance) => weighted::fast::<Q5_1, BYTES>(rows, importance, out),
    },
    textbook: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::textbook::<Q5_1, LEN, BYTES>(rows, out),
        Some(importance) => weighted::textbook::<Q5_1, BYTES>(rows, importance, out),
    },
};

struct Q5_1;

impl Block<LEN, BYTES> for Q5_1 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        *out = block(Portable, affine::textbook::<31>(values));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        affine::fast::<31, I, W>(isa, words).map(|parts| *out = block(isa, parts)).is_some()
    }
}

impl Weighted<BYTES> for Q5_1 {
    fn textbook(values: &[f32; LEN], weights: &[f32; LEN]) -> [u8; BYTES] {
        block(Portable, affine::weighted::<31>(values, weights))
    }

    #[inline(always)]
    fn fast<I: Isa>(isa: I, values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]) {
        for (out, parts) in out.iter_mut().zip(affine::weighted_lanes::<31>(values, weights)) {
            *out = block(isa, parts);
        }
    }
}

#[inline(always)]
fn block<I: Isa>(isa: I, (d, m, codes): (u16, u16, [u8; LEN])) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    out[4..8].copy_from_slice(&isa.fifth_bits(&codes).to_le_bytes());
    out[8..].copy_from_slice(&blocks::nibbles(&codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let (d, m) = (blocks::f16_field(block, 0), blocks::f16_field(block, 2));
    for (value, code) in values.iter_mut().zip(blocks::codes_of_five_bits(blocks::field(block, 4), blocks::field(block, 8))) {
        *value = f32::from(code) * d + m;
    }
}
