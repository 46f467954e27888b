//! Blocks of 32 elements whose scales are searched for, each value weighted by its importance.

use super::lanes::{self, LANES, Lanes};
use super::simd::{self, Isa, Kernel};
use super::words::{BF16, F16, F32, Word};
use super::{each_row, search};
use crate::encoder::{Rows, Words};

/// Elements per block.
pub(crate) const LEN: usize = 32;

/// How a format writes blocks with importance.
pub(crate) trait Weighted<const BYTES: usize> {
    /// One block from its values and their weights, as ggml's scalar code does it.
    fn textbook(values: &[f32; LEN], weights: &[f32; LEN]) -> [u8; BYTES];

    /// The same for as many blocks as `out` has, at most [`LANES`]: one per lane of the values and weights.
    /// Values are finite. Must be `#[inline(always)]`.
    fn fast<I: Isa>(isa: I, values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]);
}

/// Write every block with [`Weighted::textbook`].
pub(crate) fn textbook<B: Weighted<BYTES>, const BYTES: usize>(rows: Rows<'_>, importance: &[f32], out: &mut [u8]) {
    each_row(rows, out, |row, out| {
        let mean_square = search::mean_square(row.iter().copied(), row.len());
        let inputs = row.as_chunks::<LEN>().0.iter().zip(importance.as_chunks::<LEN>().0);
        for ((values, importance), out) in inputs.zip(out.as_chunks_mut::<BYTES>().0) {
            let weights = std::array::from_fn(|i| search::weight(values[i], importance[i], mean_square));
            *out = B::textbook(values, &weights);
        }
    });
}

/// Write every block with [`Weighted::fast`], compiled for the machine that runs it.
pub(crate) fn fast<B: Weighted<BYTES>, const BYTES: usize>(rows: Rows<'_>, importance: &[f32], out: &mut [u8]) {
    match rows.words {
        Words::F32 => simd::dispatch(Groups::<B, F32, BYTES>::new(rows, importance, out)),
        Words::F16 => simd::dispatch(Groups::<B, F16, BYTES>::new(rows, importance, out)),
        Words::BF16 => simd::dispatch(Groups::<B, BF16, BYTES>::new(rows, importance, out)),
    }
}

/// Blocks in groups of [`LANES`], whatever rows they belong to.
struct Groups<'a, B, W: Word, const BYTES: usize> {
    words: &'a [[W::Bytes; LEN]],
    importance: &'a [[f32; LEN]],
    /// Of each row.
    mean_squares: Vec<f32>,
    out: &'a mut [[u8; BYTES]],
    block: std::marker::PhantomData<B>,
}

impl<'a, B, W: Word, const BYTES: usize> Groups<'a, B, W, BYTES> {
    fn new(rows: Rows<'a>, importance: &'a [f32], out: &'a mut [u8]) -> Self {
        let words = W::split(rows.bytes);
        let mean_square = |row: &[W::Bytes]| search::mean_square(row.iter().map(|word| W::widen(*word)), rows.cols);
        Groups {
            words: words.as_chunks().0,
            importance: importance.as_chunks().0,
            mean_squares: words.chunks_exact(rows.cols).map(mean_square).collect(),
            out: out.as_chunks_mut().0,
            block: std::marker::PhantomData,
        }
    }
}

impl<B: Weighted<BYTES>, W: Word, const BYTES: usize> Kernel for Groups<'_, B, W, BYTES> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let per_row = self.importance.len();
        for (group, (blocks, out)) in self.words.chunks(LANES).zip(self.out.chunks_mut(LANES)).enumerate() {
            // Lanes beyond the last block stay zero.
            let (mut values, mut importance, mut mean_squares) = ([[0.0; LANES]; LEN], [[0.0; LANES]; LEN], [0.0; LANES]);
            for (j, words) in blocks.iter().enumerate() {
                let at = group * LANES + j;
                mean_squares[j] = self.mean_squares[at / per_row];
                for i in 0..LEN {
                    values[i][j] = W::widen(words[i]);
                    importance[i][j] = self.importance[at % per_row][i];
                }
            }
            let mut weights = [[0.0; LANES]; LEN];
            for i in 0..LEN {
                weights[i] = lanes::lanes(|j| search::weight(values[i][j], importance[i][j], mean_squares[j]));
            }
            if !lanes::all_finite(&values) {
                rare::<B, BYTES>(&values, &weights, out);
                continue;
            }
            B::fast(isa, &values, &weights, out);
        }
    }
}

/// NaN or infinity among the values: what becomes of a NaN's payload depends on how the compiler orders operands.
#[cold]
#[inline(never)]
fn rare<B: Weighted<BYTES>, const BYTES: usize>(values: &[Lanes; LEN], weights: &[Lanes; LEN], out: &mut [[u8; BYTES]]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = B::textbook(&values.map(|values| values[j]), &weights.map(|weights| weights[j]));
    }
}
