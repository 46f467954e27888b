//! `Q6_K`: 256 codes of 6 bits in 16 groups with a scale each, and one scale of scales. 6.5625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 128 | `ql`: lower 4 bits of the codes |
//! | 64 | `qh`: upper 2 bits of the codes |
//! | 16 | `scales`: one signed byte per group of 16 elements |
//! | 2 | `d`: scale of the scales, F16 |
//!
//! Value: `(q - 32) * scales[group] * d`. Of each half of 128 elements, elements `l`, `l + 32`, `l + 64`, `l + 96` (`l` < 32) have
//! their lower bits in `ql[l]` low, `ql[l + 32]` low, `ql[l]` high, `ql[l + 32]` high, and their upper bits in `qh[l]`, lowest pair
//! first. A group's scale is searched for, each value weighted by its square or, if given, its importance.

use crate::blocks::lanes::{self, LANES};
use crate::blocks::simd::{self, Isa, Kernel};
use crate::blocks::words::{self, BF16, F16, F32, Word};
use crate::blocks::{self, round, search};
use crate::encoder::{Encoder, Rows, Words};
use crate::float;
use crate::format::Format;

/// Elements per block.
const LEN: usize = 256;
/// Elements per group.
const GROUP: usize = 16;
/// Bytes per block.
const BYTES: usize = 210;
const _: () = assert!(BYTES == LEN / 2 + LEN / 4 + LEN / GROUP + 2);

/// ggml's `Q6_K`.
pub static FORMAT: Format = Format {
    ggml_id: 14,
    name: "Q6_K",
    block_len: LEN,
    block_bytes: BYTES,
    decode: Some(|blocks, values| {
        blocks::decode(
            blocks,
            values,
            #[inline(always)]
            |block, values| decode(block, values),
        )
    }),
};

/// `quantize_q6_K`.
pub static ENCODER: Encoder = Encoder { name: "ggml", format: &FORMAT, needs_importance: false, fast, textbook };

/// Largest code plus one half of the range.
const NMAX: i32 = 32;

fn textbook(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) {
    let importance = importance.map(|importance| importance.as_chunks().0);
    blocks::each_row(rows, out, |row, out| {
        let blocks = row.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<BYTES>().0);
        for (at, (values, out)) in blocks.enumerate() {
            *out = textbook_block(values, importance.map(|importance| &importance[at]));
        }
    });
}

fn textbook_block(values: &[f32; LEN], weights: Option<&[f32; LEN]>) -> [u8; BYTES] {
    let mut codes = [0u8; LEN];
    let mut scales = [0f32; LEN / GROUP];
    for (group, scale) in scales.iter_mut().enumerate() {
        let range = group * GROUP..(group + 1) * GROUP;
        let weights = weights.map(|weights| &weights[range.clone()]);
        *scale = search::make_qx_quants(NMAX, &values[range.clone()], weights, &mut codes[range]);
    }
    block(values, scales, |i| codes[i])
}

/// NaN or infinity among the values.
#[cold]
#[inline(never)]
fn rare_block(values: &[f32; LEN], weights: Option<&[f32; LEN]>) -> [u8; BYTES] {
    textbook_block(values, weights)
}

fn fast(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) {
    match rows.words {
        Words::F32 => simd::dispatch(Blocks::<F32>::new(rows, importance, out)),
        Words::F16 => simd::dispatch(Blocks::<F16>::new(rows, importance, out)),
        Words::BF16 => simd::dispatch(Blocks::<BF16>::new(rows, importance, out)),
    }
}

struct Blocks<'a, W: Word> {
    words: &'a [[W::Bytes; LEN]],
    importance: Option<&'a [[f32; LEN]]>,
    out: &'a mut [[u8; BYTES]],
}

impl<'a, W: Word> Blocks<'a, W> {
    fn new(rows: Rows<'a>, importance: Option<&'a [f32]>, out: &'a mut [u8]) -> Self {
        let importance = importance.map(|importance| importance.as_chunks().0);
        Blocks { words: W::split(rows.bytes).as_chunks().0, importance, out: out.as_chunks_mut().0 }
    }
}

impl<W: Word> Kernel for Blocks<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        // A block's groups are the lanes of the search.
        const _: () = assert!(LEN == LANES * GROUP);
        for (at, (words, out)) in self.words.iter().zip(self.out).enumerate() {
            let values = words::map(words, W::widen);
            let importance = self.importance.map(|importance| &importance[at % importance.len()]);
            if !lanes::all_finite(&[values]) {
                *out = rare_block(&values, importance);
                continue;
            }
            let weights = importance.copied().unwrap_or_else(|| words::map(&values, |value| value * value));
            let (mut x, mut w) = ([[0f32; LANES]; GROUP], [[0f32; LANES]; GROUP]);
            for i in 0..GROUP {
                x[i] = lanes::lanes(|j| values[j * GROUP + i]);
                w[i] = lanes::lanes(|j| weights[j * GROUP + i]);
            }
            let found = lanes::make_qx_quants(NMAX, &x, &w);
            *out = block(&values, found.scale, |i| found.code(NMAX, values[i], i / GROUP));
        }
    }
}

/// A block from its groups' scales. `searched` is the code that the search gave element `i`; it stays where a group's scale becomes 0.
#[inline(always)]
fn block(values: &[f32; LEN], scales: [f32; LEN / GROUP], searched: impl Fn(usize) -> u8) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    let (mut max, mut amax) = (0f32, 0f32);
    for scale in scales {
        if scale.abs() > amax {
            (amax, max) = (scale.abs(), scale);
        }
    }
    if amax < search::ZERO_BELOW {
        return out;
    }
    let iscale = -128.0 / max;
    let d = round::scale_to_f16(1.0 / iscale);
    let mut codes = [0u8; LEN];
    for (group, scale) in scales.into_iter().enumerate() {
        let quantized = search::nearest_int(iscale * scale).min(127) as i8;
        out[LEN / 2 + LEN / 4 + group] = quantized as u8;
        let d = float::f16_to_f32(d) * f32::from(quantized);
        for i in group * GROUP..(group + 1) * GROUP {
            let code = (search::nearest_int(values[i] / d).clamp(-NMAX, NMAX - 1) + NMAX) as u8;
            codes[i] = if d == 0.0 { searched(i) } else { code };
        }
    }
    for half in 0..2 {
        let code = |l: usize| codes[half * 128 + l];
        for l in 0..32 {
            out[half * 64 + l] = code(l) & 15 | code(l + 64) << 4;
            out[half * 64 + l + 32] = code(l + 32) & 15 | code(l + 96) << 4;
            out[LEN / 2 + half * 32 + l] =
                code(l) >> 4 | code(l + 32) >> 4 << 2 | code(l + 64) >> 4 << 4 | code(l + 96) >> 4 << 6;
        }
    }
    out[BYTES - 2..].copy_from_slice(&d.to_le_bytes());
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, BYTES - 2);
    for half in 0..2 {
        let ql: [u8; 64] = blocks::field(block, half * 64);
        let qh: [u8; 32] = blocks::field(block, LEN / 2 + half * 32);
        for quarter in 0..4 {
            let mut codes = [0u8; 32];
            for (l, code) in codes.iter_mut().enumerate() {
                let low = ql[quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
                *code = low | (qh[l] >> (quarter * 2) & 3) << 4;
            }
            for part in 0..2 {
                let group = half * 8 + quarter * 2 + part;
                let scale = d * f32::from(block[LEN / 2 + LEN / 4 + group] as i8);
                for l in 0..GROUP {
                    values[group * GROUP + l] = scale * (f32::from(codes[part * GROUP + l]) - 32.0);
                }
            }
        }
    }
}
