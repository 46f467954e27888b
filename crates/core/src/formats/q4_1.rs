//! `Q4_1`: 32 codes of 4 bits with a scale and a minimum. 5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 2 | `m`: minimum, F16 |
//! | 16 | `q`: codes 0 to 15; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `q * d + m`, with `m` the smallest value and `d` the range / 15.
//! With importance, both are searched for and `m` is at most 0.

use crate::blocks::lanes::Lanes;
use crate::blocks::simd::Isa;
use crate::blocks::weighted::{self, Weighted};
use crate::blocks::words::Word;
use crate::blocks::{self, Block, affine};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = affine::LEN;
/// Bytes per block.
const BYTES: usize = 20;
const _: () = assert!(BYTES == 2 + 2 + LEN / 2);

/// ggml's `Q4_1`.
pub static FORMAT: Format =
    Format { ggml_id: 3, name: "Q4_1", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q4_1`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::fast::<Q4_1, LEN, BYTES>(rows, out),
        Some(importance) => weighted::fast::<Q4_1, BYTES>(rows, importance, out),
    },
    textbook: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::textbook::<Q4_1, LEN, BYTES>(rows, out),
        Some(importance) => weighted::textbook::<Q4_1, BYTES>(rows, importance, out),
    },
};

struct Q4_1;

impl Block<LEN, BYTES> for Q4_1 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        *out = block(affine::textbook::<15>(values));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        affine::fast::<15, I, W>(isa, words).map(|parts| *out = block(parts)).is_some()
    }
}

impl Weighted<BYTES> for Q4_1 {
    fn textbook(values: &[f32; LEN], weights: &[f32; LEN]) -> [u8; BYTES] {
        block(affine::weighted::<15>(values, weights))
    }

    #[inline(always)]
    fn fast<I: Isa>(_isa: I, values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]) {
        for (out, parts) in out.iter_mut().zip(affine::weighted_lanes::<15>(values, weights)) {
            *out = block(parts);
        }
    }
}

#[inline(always)]
fn block((d, m, codes): (u16, u16, [u8; LEN])) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    out[4..].copy_from_slice(&blocks::nibbles(&codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let (d, m) = (blocks::f16_field(block, 0), blocks::f16_field(block, 2));
    for (value, code) in values.iter_mut().zip(blocks::codes_of_nibbles(blocks::field(block, 4))) {
        *value = f32::from(code) * d + m;
    }
}
