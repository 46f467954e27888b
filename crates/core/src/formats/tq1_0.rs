//! `TQ1_0`: 256 codes of three values, five of them in a byte, with one scale. 1.6875 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 48 | `qs`: elements 0 to 239, five codes per byte |
//! | 4 | `qh`: elements 240 to 255, four codes per byte |
//! | 2 | `d`: scale, F16 |
//!
//! Value: `(q - 1) * d`, with `d` the largest magnitude. Byte `j` < 32 of `qs` holds elements `j`, `j + 32`, ..., `j + 128`; byte
//! `32 + j` elements `160 + j`, `176 + j`, ..., `224 + j`; byte `j` of `qh` elements `240 + j`, ..., `252 + j`. Codes are the base-3
//! digits of a number below 243, the first element's leading, and the byte is that number * 256 / 243, rounded up: the leading
//! digit is then what a product by 3 carries out of the byte. Importance changes nothing.

use crate::blocks::{self, Block, simd::Isa, ternary, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Bytes per block.
const BYTES: usize = 54;
/// Where parts of a block begin: bytes, and their first element. A byte's next element is as many further as the part has bytes.
const PARTS: [(usize, usize); 3] = [(0, 0), (32, 160), (48, 240)];
const _: () = assert!(BYTES == 48 + 4 + 2 && LEN == 48 * 5 + 4 * 4);

/// ggml's `TQ1_0`.
pub static FORMAT: Format =
    Format { ggml_id: 34, name: "TQ1_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_tq1_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| blocks::fast::<Tq1_0, LEN, BYTES>(rows, out),
    textbook: |rows: Rows<'_>, _, out| blocks::textbook::<Tq1_0, LEN, BYTES>(rows, out),
};

struct Tq1_0;

impl Block<LEN, BYTES> for Tq1_0 {
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
    let [(a, from_a), (b, from_b), (c, from_c)] = PARTS;
    out[a..a + 32].copy_from_slice(&pack::<32, 5>(&codes[from_a..]));
    out[b..b + 16].copy_from_slice(&pack::<16, 5>(&codes[from_b..]));
    out[c..c + 4].copy_from_slice(&pack::<4, 4>(&codes[from_c..]));
    out[BYTES - 2..].copy_from_slice(&d.to_le_bytes());
    out
}

/// `PER` codes in each of `N` bytes; where they are four, the last digit is 0. Wraps as C's bytes do.
#[inline(always)]
fn pack<const N: usize, const PER: usize>(codes: &[u8]) -> [u8; N] {
    let mut bytes = [0u8; N];
    for codes in codes[..N * PER].as_chunks::<N>().0 {
        for (byte, code) in bytes.iter_mut().zip(codes) {
            *byte = byte.wrapping_mul(3).wrapping_add(*code);
        }
    }
    for byte in &mut bytes {
        if PER == 4 {
            *byte = byte.wrapping_mul(3);
        }
        *byte = (u16::from(*byte) * 256).div_ceil(243) as u8;
    }
    bytes
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, BYTES - 2);
    let [(a, from_a), (b, from_b), (c, from_c)] = PARTS;
    unpack::<32>(blocks::field(block, a), d, &mut values[from_a..from_b]);
    unpack::<16>(blocks::field(block, b), d, &mut values[from_b..from_c]);
    unpack::<4>(blocks::field(block, c), d, &mut values[from_c..]);
}

/// The reverse of [`pack`], times `d`.
#[inline(always)]
fn unpack<const N: usize>(mut bytes: [u8; N], d: f32, values: &mut [f32]) {
    for values in values.as_chunks_mut::<N>().0 {
        for (value, byte) in values.iter_mut().zip(&mut bytes) {
            let product = u16::from(*byte) * 3;
            *value = (f32::from(product >> 8) - 1.0) * d;
            *byte = product as u8;
        }
    }
}
