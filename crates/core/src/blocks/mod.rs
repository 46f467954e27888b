//! What the block formats share: loops over blocks, and conversions that round as ggml's do on x86-64.

pub(crate) mod affine;
pub(crate) mod grids;
pub(crate) mod kquants;
pub(crate) mod lanes;
pub(crate) mod nonlinear;
pub(crate) mod round;
pub(crate) mod search;
pub mod simd;
pub(crate) mod six_bit;
pub(crate) mod symmetric;
pub(crate) mod ternary;
pub(crate) mod weighted;
pub(crate) mod words;

use crate::encoder::{Rows, Words};
use crate::float;
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

/// Two codes of 4 bits per byte, as ggml's 32-element types hold them: element `j` low, element `j + 16` high.
#[inline(always)]
pub(crate) fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] & 15 | codes[j + 16] << 4;
    }
    bytes
}

/// The field of a block that starts at byte `at`.
#[inline(always)]
pub(crate) fn field<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&block[at..at + N]);
    field
}

/// A field that holds an F16.
#[inline(always)]
pub(crate) fn f16_field(block: &[u8], at: usize) -> f32 {
    float::f16_to_f32(u16::from_le_bytes(field(block, at)))
}

/// The reverse of [`nibbles`].
#[inline(always)]
pub(crate) fn codes_of_nibbles(bytes: [u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for (code, byte) in low.iter_mut().zip(bytes) {
        *code = byte & 15;
    }
    for (code, byte) in high.iter_mut().zip(bytes) {
        *code = byte >> 4;
    }
    codes
}

/// [`codes_of_nibbles`] with bit `j` of `fifth` as bit 4 of code `j`.
#[inline(always)]
pub(crate) fn codes_of_five_bits(fifth: [u8; 4], bytes: [u8; 16]) -> [u8; 32] {
    let mut codes = codes_of_nibbles(bytes);
    let fifth = u32::from_le_bytes(fifth);
    for (j, code) in codes.iter_mut().enumerate() {
        *code |= (fifth >> j & 1) as u8 * 16;
    }
    codes
}

/// The [`DecodeFn`](crate::format::DecodeFn) of a function that decodes one block and is `#[inline(always)]`.
macro_rules! decoder {
    ($decode:path) => {
        |blocks, values| {
            $crate::blocks::decode(
                blocks,
                values,
                #[inline(always)]
                |block, values| $decode(block, values),
            )
        }
    };
}
pub(crate) use decoder;

/// Decode every block with `decode`, compiled for the machine that runs it: it must be a closure that is `#[inline(always)]` itself, since
/// a function's name, passed on, is called without the instructions. [`decoder!`] makes it one.
pub(crate) fn decode<const LEN: usize, const BYTES: usize>(
    blocks: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    struct Decode<'a, F, const LEN: usize, const BYTES: usize>(&'a [[u8; BYTES]], &'a mut [[f32; LEN]], F);

    impl<F: Fn(&[u8; BYTES], &mut [f32; LEN]), const LEN: usize, const BYTES: usize> Kernel for Decode<'_, F, LEN, BYTES> {
        #[inline(always)]
        fn run<I: Isa>(self, _isa: I) {
            for (block, values) in self.0.iter().zip(self.1) {
                self.2(block, values);
            }
        }
    }
    // The compiler's AVX-512 code for codes of 4 bits takes four times as long as its AVX2 code.
    simd::dispatch_up_to(simd::Level::Avx2, Decode(blocks.as_chunks().0, values.as_chunks_mut().0, decode));
}

/// Write one element per word with `convert`, compiled for the machine that runs it.
pub(crate) fn each_word<W: Word, const BYTES: usize>(bytes: &[u8], out: &mut [u8], convert: impl Fn(W::Bytes) -> [u8; BYTES]) {
    struct EachWord<'a, B, F, const BYTES: usize>(&'a [B], &'a mut [[u8; BYTES]], F);

    impl<B: Copy, F: Fn(B) -> [u8; BYTES], const BYTES: usize> Kernel for EachWord<'_, B, F, BYTES> {
        #[inline(always)]
        fn run<I: Isa>(self, _isa: I) {
            for (word, out) in self.0.iter().zip(self.1) {
                *out = self.2(*word);
            }
        }
    }
    simd::dispatch(EachWord(W::split(bytes), out.as_chunks_mut().0, convert));
}

/// Widen each row to F32 and hand it to `encode` with its part of the output.
#[inline(always)]
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
