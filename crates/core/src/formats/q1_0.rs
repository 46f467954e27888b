//! `Q1_0`: 128 signs with one scale. 1.125 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 16 | `q`: bit `j % 8` of byte `j / 8` is element `j`'s |
//!
//! Value: `d` where the bit is set, else `-d`, with `d` the mean magnitude. A bit is set where the weight is at least 0, be it a
//! negative zero. Importance changes nothing.

use crate::blocks::simd::{self, Isa, Kernel};
use crate::blocks::words::{self, BF16, F16, F32, Word};
use crate::blocks::{self, round};
use crate::encoder::{Encoder, Rows, Words};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 128;
/// Bytes per block.
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 8);

/// ggml's `Q1_0`.
pub static FORMAT: Format =
    Format { ggml_id: 41, name: "Q1_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q1_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| match rows.words {
        Words::F32 => simd::dispatch(Blocks::<F32>::new(rows, out)),
        Words::F16 => simd::dispatch(Blocks::<F16>::new(rows, out)),
        Words::BF16 => simd::dispatch(Blocks::<BF16>::new(rows, out)),
    },
    textbook: |rows: Rows<'_>, _, out| {
        blocks::each_row(rows, out, |row, out| {
            for (values, out) in row.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
                textbook(values, out);
            }
        });
    },
};

fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
    let mut sum_abs = 0f32;
    for value in values {
        sum_abs += value.abs();
    }
    let d = sum_abs / LEN as f32;
    out.fill(0);
    out[..2].copy_from_slice(&round::scale_to_f16(d).to_le_bytes());
    for (j, &value) in values.iter().enumerate() {
        if value >= 0.0 {
            out[2 + j / 8] |= 1 << (j % 8);
        }
    }
}

/// Blocks whose sums are built at the same time, each in its order: a sum alone would wait for itself.
const SUMS: usize = 8;

struct Blocks<'a, W: Word> {
    words: &'a [[W::Bytes; LEN]],
    out: &'a mut [[u8; BYTES]],
}

impl<'a, W: Word> Blocks<'a, W> {
    fn new(rows: Rows<'a>, out: &'a mut [u8]) -> Self {
        Blocks { words: W::split(rows.bytes).as_chunks().0, out: out.as_chunks_mut().0 }
    }
}

impl<W: Word> Kernel for Blocks<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (blocks, out) in self.words.chunks(SUMS).zip(self.out.chunks_mut(SUMS)) {
            let mut sums = [0f32; SUMS];
            if let Ok(blocks) = <&[[W::Bytes; LEN]; SUMS]>::try_from(blocks) {
                #[allow(clippy::needless_range_loop)] // an element of each block at a time
                for i in 0..LEN {
                    sums = std::array::from_fn(|j| sums[j] + W::widen(blocks[j][i]).abs());
                }
            } else {
                for (sum, words) in sums.iter_mut().zip(blocks) {
                    *sum = words.iter().fold(0f32, |sum, word| sum + W::widen(*word).abs());
                }
            }
            for ((words, sum), out) in blocks.iter().zip(sums).zip(out) {
                out[..2].copy_from_slice(&round::scale_to_f16(sum / LEN as f32).to_le_bytes());
                for (words, out) in words.as_chunks::<32>().0.iter().zip(out[2..].as_chunks_mut::<4>().0) {
                    let marks = words::map(words, |word| if W::widen(word) >= 0.0 { 16 } else { 0 });
                    *out = isa.fifth_bits(&marks).to_le_bytes();
                }
            }
        }
    }
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (values, bytes) in values.as_chunks_mut::<32>().0.iter_mut().zip(block[2..].as_chunks::<4>().0) {
        let bits = u32::from_le_bytes(*bytes);
        for (j, value) in values.iter_mut().enumerate() {
            *value = if bits >> j & 1 == 1 { d } else { -d };
        }
    }
}
