//! `Q4_0`: 32 codes of 4 bits with one scale. 4.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 16 | `q`: codes 0 to 15; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `(q - 8) * d`, with `d` the value of largest magnitude / -8, so that this value's code is 0.
//! With importance, `d` is searched for.

use crate::blocks::lanes::Lanes;
use crate::blocks::simd::Isa;
use crate::blocks::weighted::{self, Weighted};
use crate::blocks::words::Word;
use crate::blocks::{self, Block, symmetric};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = symmetric::LEN;
/// Bytes per block.
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2);

/// ggml's `Q4_0`.
pub static FORMAT: Format =
    Format { ggml_id: 2, name: "Q4_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q4_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::fast::<Q4_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted::fast::<Q4_0, BYTES>(rows, importance, out),
    },
    textbook: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::textbook::<Q4_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted::textbook::<Q4_0, BYTES>(rows, importance, out),
    },
};

struct Q4_0;

impl Block<LEN, BYTES> for Q4_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        *out = block(symmetric::textbook::<15>(values));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        symmetric::fast::<15, I, W>(isa, words).map(|parts| *out = block(parts)).is_some()
    }
}

impl Weighted<BYTES> for Q4_0 {
    fn textbook(values: &[f32; LEN], weights: &[f32; LEN]) -> [u8; BYTES] {
        block(symmetric::weighted::<15>(values, weights))
    }

    #[inline(always)]
    fn fast<I: Isa>(_isa: I, values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]) {
        for (out, parts) in out.iter_mut().zip(symmetric::weighted_lanes::<15>(values, weights)) {
            *out = block(parts);
        }
    }
}

#[inline(always)]
fn block((d, codes): (u16, [u8; LEN])) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..].copy_from_slice(&blocks::nibbles(&codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (value, code) in values.iter_mut().zip(blocks::codes_of_nibbles(blocks::field(block, 2))) {
        *value = (f32::from(code) - 8.0) * d;
    }
}
