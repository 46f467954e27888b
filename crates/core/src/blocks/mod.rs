//! What the block formats share: loops over blocks, and conversions that round as ggml's do on x86-64.

pub(crate) mod affine;
pub(crate) mod round;
pub(crate) mod search;
pub mod simd;
pub(crate) mod symmetric;
pub(crate) mod words;

use crate::encoder::{Rows, Words};
use simd::{Isa, Kernel};
use std::marker::PhantomData;
use words::{BF16, F16, F32, Word};

/// How a format writes one block without importance.
pub(crate) trait Block<const LEN: usize, const BYTES: usize> {
    /// As ggml's scalar code does it, for any values.
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]);

    /// The same bytes in a form that vectorizes; must be `#[inline(always)]`. May leave a block alone and return false: it is then
    /// written by [`Block::textbook`]. That is for what weights hardly ever are (zero, next to zero, infinite, NaN).
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool;
}

/// Write every block with [`Block::textbook`].
pub(crate) fn textbook<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize>(rows: Rows<'_>, out: &mut [u8]) {
    match rows.words {
        Words::F32 => Each::<B, F32, LEN, BYTES>::new(rows, out).textbook(),
        Words::F16 => Each::<B, F16, LEN, BYTES>::new(rows, out).textbook(),
        Words::BF16 => Each::<B, BF16, LEN, BYTES>::new(rows, out).textbook(),
    }
}

/// Write every block with [`Block::fast`] where it can, compiled for the machine that runs it.
pub(crate) fn fast<B: Block<LEN, BYTES>, const LEN: usize, const BYTES: usize>(rows: Rows<'_>, out: &mut [u8]) {
    match rows.words {
        Words::F32 => simd::dispatch(Each::<B, F32, LEN, BYTES>::new(rows, out)),
        Words::F16 => simd::dispatch(Each::<B, F16, LEN, BYTES>::new(rows, out)),
        Words::BF16 => simd::dispatch(Each::<B, BF16, LEN, BYTES>::new(rows, out)),
    }
}

/// Blocks of words and of output bytes, of equal number: lengths have been checked.
struct Each<'a, B, W: Word, const LEN: usize, const BYTES: usize> {
    words: &'a [[W::Bytes; LEN]],
    out: &'a mut [[u8; BYTES]],
    block: PhantomData<B>,
}

impl<'a, B: Block<LEN, BYTES>, W: Word, const LEN: usize, const BYTES: usize> Each<'a, B, W, LEN, BYTES> {
    fn new(rows: Rows<'a>, out: &'a mut [u8]) -> Self {
        Each { words: W::split(rows.bytes).as_chunks().0, out: out.as_chunks_mut().0, block: PhantomData }
    }

    fn textbook(self) {
        for (words, out) in self.words.iter().zip(self.out) {
            B::textbook(&words.map(W::widen), out);
        }
    }

    #[cold]
    #[inline(never)]
    fn rare(words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) {
        B::textbook(&words.map(W::widen), out);
    }
}

impl<B: Block<LEN, BYTES>, W: Word, const LEN: usize, const BYTES: usize> Kernel for Each<'_, B, W, LEN, BYTES> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (words, out) in self.words.iter().zip(self.out) {
            if !B::fast::<I, W>(isa, words, out) {
                Self::rare(words, out);
            }
        }
    }
}

/// Write every block from its values and their weights ([`search::weigh`]).
pub(crate) fn weighted<const LEN: usize, const BYTES: usize>(
    rows: Rows<'_>,
    importance: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], &[f32; LEN], &mut [u8; BYTES]),
) {
    each_row(rows, out, |row, out| {
        let mean_square = search::mean_square(row);
        let inputs = row.as_chunks::<LEN>().0.iter().zip(importance.as_chunks::<LEN>().0);
        for ((values, importance), out) in inputs.zip(out.as_chunks_mut::<BYTES>().0) {
            encode(values, &search::weigh(values, importance, mean_square), out);
        }
    });
}

/// Two codes of 4 bits per byte, as ggml's 32-element types hold them: element `j` low, element `j + 16` high.
#[inline(always)]
pub(crate) fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] & 15 | codes[j + 16] << 4;
    }
    bytes
}

/// Bit 4 of each code: element `j` in bit `j`.
#[inline(always)]
pub(crate) fn fifth_bits(codes: &[u8; 32]) -> u32 {
    let eight = |at: usize| {
        let bytes: [u8; 8] = std::array::from_fn(|i| codes[at + i]);
        // One bit per byte; the product moves byte `i`'s to bit `56 + i`.
        let bits = u64::from_le_bytes(bytes) >> 4 & 0x0101_0101_0101_0101;
        (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    eight(0) | eight(8) << 8 | eight(16) << 16 | eight(24) << 24
}

/// Widen each row to F32 and hand it to `encode` with its part of the output.
pub(crate) fn each_row(rows: Rows<'_>, out: &mut [u8], mut encode: impl FnMut(&[f32], &mut [u8])) {
    fn widen<W: Word>(bytes: &[u8], values: &mut Vec<f32>) {
        values.clear();
        values.extend(W::split(bytes).iter().map(|word| W::widen(*word)));
    }
    let row_bytes = rows.cols * rows.words.bytes();
    if rows.bytes.is_empty() {
        return;
    }
    let out_bytes = out.len() / (rows.bytes.len() / row_bytes);
    let mut values = Vec::with_capacity(rows.cols);
    for (row, out) in rows.bytes.chunks_exact(row_bytes).zip(out.chunks_exact_mut(out_bytes)) {
        match rows.words {
            Words::F32 => widen::<F32>(row, &mut values),
            Words::F16 => widen::<F16>(row, &mut values),
            Words::BF16 => widen::<BF16>(row, &mut values),
        }
        encode(&values, out);
    }
}
