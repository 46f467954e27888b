//! What the formats of 256 elements share: groups with a scale each, the scales quantized in turn.

use super::lanes::{self, LANES, Lanes};
use super::simd::{self, Isa, Kernel};
use super::words::{BF16, F16, F32, Word};
use super::{each_row, search};
use crate::encoder::{Rows, Words};

/// Elements per block.
pub(crate) const LEN: usize = 256;

/// How a format writes blocks whose scales are searched for. `N` blocks have as many groups as a search has lanes.
pub(crate) trait Searched<const BYTES: usize, const N: usize> {
    /// One block, as ggml's scalar code writes it, for any values.
    fn textbook(values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [u8; BYTES];

    /// The same for `N` blocks. Values are finite. Must be `#[inline(always)]`.
    fn fast(values: &[[f32; LEN]; N], importance: Option<&[[f32; LEN]; N]>) -> [[u8; BYTES]; N];
}

/// Write every block with [`Searched::textbook`].
pub(crate) fn textbook<B: Searched<BYTES, N>, const BYTES: usize, const N: usize>(
    rows: Rows<'_>,
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    let importance = importance.map(|importance| importance.as_chunks().0);
    each_row(rows, out, |row, out| {
        let blocks = row.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<BYTES>().0);
        for (at, (values, out)) in blocks.enumerate() {
            *out = B::textbook(values, importance.map(|importance| &importance[at]));
        }
    });
}

/// Write every block with [`Searched::fast`], compiled for the machine that runs it.
pub(crate) fn fast<B: Searched<BYTES, N>, const BYTES: usize, const N: usize>(
    rows: Rows<'_>,
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    match rows.words {
        Words::F32 => simd::dispatch(Blocks::<B, F32, BYTES, N>::new(rows, importance, out)),
        Words::F16 => simd::dispatch(Blocks::<B, F16, BYTES, N>::new(rows, importance, out)),
        Words::BF16 => simd::dispatch(Blocks::<B, BF16, BYTES, N>::new(rows, importance, out)),
    }
}

/// Blocks of whatever rows, and the importance of one row.
struct Blocks<'a, B, W: Word, const BYTES: usize, const N: usize> {
    words: &'a [[W::Bytes; LEN]],
    importance: Option<&'a [[f32; LEN]]>,
    out: &'a mut [[u8; BYTES]],
    block: std::marker::PhantomData<B>,
}

impl<'a, B, W: Word, const BYTES: usize, const N: usize> Blocks<'a, B, W, BYTES, N> {
    fn new(rows: Rows<'a>, importance: Option<&'a [f32]>, out: &'a mut [u8]) -> Self {
        Blocks {
            words: W::split(rows.bytes).as_chunks().0,
            importance: importance.map(|importance| importance.as_chunks().0),
            out: out.as_chunks_mut().0,
            block: std::marker::PhantomData,
        }
    }
}

impl<B: Searched<BYTES, N>, W: Word, const BYTES: usize, const N: usize> Kernel for Blocks<'_, B, W, BYTES, N> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        for (group, (words, out)) in self.words.chunks(N).zip(self.out.chunks_mut(N)).enumerate() {
            // Beyond the last block all values stay zero.
            let mut values = [[0f32; LEN]; N];
            for (values, words) in values.iter_mut().zip(words) {
                for (value, word) in values.iter_mut().zip(words) {
                    *value = W::widen(*word);
                }
            }
            let importance = self.importance.map(|importance| {
                let mut own = [[0f32; LEN]; N];
                for (at, own) in own.iter_mut().enumerate() {
                    *own = importance[(group * N + at) % importance.len()];
                }
                own
            });
            if lanes::all_finite(&values) {
                out.copy_from_slice(&B::fast(&values, importance.as_ref())[..out.len()]);
            } else {
                rare::<B, BYTES, N>(&values, importance.as_ref(), out);
            }
        }
    }
}

/// NaN or infinity among the values.
#[cold]
#[inline(never)]
fn rare<B: Searched<BYTES, N>, const BYTES: usize, const N: usize>(
    values: &[[f32; LEN]; N],
    importance: Option<&[[f32; LEN]; N]>,
    out: &mut [[u8; BYTES]],
) {
    for (at, out) in out.iter_mut().enumerate() {
        *out = B::textbook(&values[at], importance.map(|importance| &importance[at]));
    }
}

/// Groups as lanes: element `i` of group `j` of all the blocks.
#[inline(always)]
pub(crate) fn by_group<const GROUP: usize, const N: usize>(values: &[[f32; LEN]; N]) -> [Lanes; GROUP] {
    const { assert!(N * LEN == LANES * GROUP) };
    let values = values.as_flattened();
    let mut groups = [[0f32; LANES]; GROUP];
    for (i, group) in groups.iter_mut().enumerate() {
        *group = lanes::lanes(|j| values[j * GROUP + i]);
    }
    groups
}

/// In order.
#[inline(always)]
pub(crate) fn sum_of_squares(values: &[f32; LEN]) -> f32 {
    values.iter().fold(0f32, |sum, value| sum + value * value)
}

/// Codes of one group's values, in `bottom..=top`, stored minus `bottom`: of `(value + m) / d`.
#[inline(always)]
pub(crate) fn codes_of<const GROUP: usize>(values: &[f32], d: f32, m: f32, bottom: i32, top: i32) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (search::nearest_int((value + m) / d).min(top).max(bottom) - bottom) as u8;
    }
    codes
}

/// Four codes of 2 bits per byte: of each half of 128, element `l + 32 * k` is pair `k` of byte `l`.
#[inline(always)]
pub(crate) fn pairs(codes: &[u8; LEN]) -> [u8; LEN / 4] {
    let mut bytes = [0; LEN / 4];
    for (bytes, codes) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(codes.as_chunks::<128>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[l] | codes[l + 32] << 2 | codes[l + 64] << 4 | codes[l + 96] << 6;
        }
    }
    bytes
}

/// The reverse of [`pairs`].
#[inline(always)]
pub(crate) fn codes_of_pairs(bytes: &[u8; LEN / 4]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (codes, bytes) in codes.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        for (k, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * k) & 3;
            }
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_comes_back() {
        let codes = std::array::from_fn(|i| (i * 5 / 3 % 4) as u8);
        assert_eq!(codes_of_pairs(&pairs(&codes)), codes);
    }

    #[test]
    fn groups_are_lanes() {
        let values = std::array::from_fn(|block| std::array::from_fn(|i| (block * LEN + i) as f32));
        let lanes: [Lanes; 32] = by_group::<32, 2>(&values);
        assert_eq!((lanes[3][0], lanes[3][9], lanes[31][15]), (3.0, 291.0, 511.0));
    }
}
