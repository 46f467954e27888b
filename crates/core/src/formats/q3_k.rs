//! `Q3_K`: 256 codes of 3 bits in 16 groups with a scale each, and one scale of scales. 3.4375 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 32 | `qh`: bit `k` of byte `l` is the upper bit of code `l + 32 * k` |
//! | 64 | `ql`: lower 2 bits; of each half of 128 elements, `l`, `l + 32`, `l + 64`, `l + 96` are in byte `l`, lowest pair first |
//! | 12 | `scales`: 16 numbers of 6 bits. Lower 4 bits: group `j` in the low, `j + 8` in the high half of byte `j`; upper 2 bits: groups `j`, `j + 4`, `j + 8`, `j + 12` in byte `8 + j`, lowest pair first |
//! | 2 | `d`: scale of the scales, F16 |
//!
//! Value: `(q - 4) * (scales[group] - 32) * d`. A group's scale is searched for; without importance by moving one code after the other.

use crate::blocks::kquants::{self, LEN, Searched};
use crate::blocks::lanes::{self, LANES, Lanes};
use crate::blocks::{self, round, search};
use crate::encoder::Encoder;
use crate::float;
use crate::format::Format;

/// Elements per group.
const GROUP: usize = 16;
/// Groups per block.
const GROUPS: usize = LEN / GROUP;
/// Bytes of a block's scales.
const SCALE_BYTES: usize = 12;
/// Bytes in front of the codes' lower bits.
const LOWER: usize = LEN / 8;
/// Bytes in front of the scales.
const SCALES: usize = LOWER + LEN / 4;
/// Bytes per block.
const BYTES: usize = 110;
const _: () = assert!(BYTES == SCALES + SCALE_BYTES + 2);

/// ggml's `Q3_K`.
pub static FORMAT: Format =
    Format { ggml_id: 11, name: "Q3_K", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q3_K`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: kquants::fast::<Q3K, BYTES, 1>,
    textbook: kquants::textbook::<Q3K, BYTES, 1>,
};

/// Largest code plus one half of the range.
const NMAX: i32 = 4;
/// The same of a scale.
const SCALE_NMAX: i32 = 32;

struct Q3K;

impl Searched<BYTES, 1> for Q3K {
    fn textbook(values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [u8; BYTES] {
        let sigma2 = 2.0 * kquants::sum_of_squares(values) / LEN as f32;
        let mut codes = [0u8; LEN];
        let (mut scales, mut sums) = ([0f32; GROUPS], [0f32; GROUPS]);
        let groups = values.as_chunks::<GROUP>().0.iter().zip(codes.as_chunks_mut::<GROUP>().0);
        for (group, (values, codes)) in groups.enumerate() {
            scales[group] = match importance {
                Some(importance) => {
                    let weights: [f32; GROUP] =
                        std::array::from_fn(|i| search::weight(values[i], importance[group * GROUP + i], sigma2));
                    sums[group] = weights.iter().fold(0f32, |sum, weight| sum + weight);
                    search::make_qx_quants(NMAX, values, Some(&weights), codes)
                }
                None => search::make_q3_quants(NMAX, values, codes),
            };
        }
        block(values, &scales, importance.map(|_| &sums), |i| codes[i])
    }

    #[inline(always)]
    fn fast([values]: &[[f32; LEN]; 1], importance: Option<&[[f32; LEN]; 1]>) -> [[u8; BYTES]; 1] {
        let x: [Lanes; GROUP] = kquants::by_group(&[*values]);
        let Some(importance) = importance else {
            let (scales, codes) = lanes::make_q3_quants(NMAX, &x);
            return [block(values, &scales, None, |i| codes[i % GROUP][i / GROUP])];
        };
        let importance: [Lanes; GROUP] = kquants::by_group(&[importance[0]]);
        let sigma2 = 2.0 * kquants::sum_of_squares(values) / LEN as f32;
        let mut w = [[0f32; LANES]; GROUP];
        let mut sums = [0f32; LANES];
        for i in 0..GROUP {
            w[i] = lanes::lanes(|j| search::weight(x[i][j], importance[i][j], sigma2));
            sums = lanes::lanes(|j| sums[j] + w[i][j]);
        }
        let found = lanes::make_qx_quants(NMAX, &x, &w);
        [block(values, &found.scale, Some(&sums), |i| found.code(NMAX, values[i], i / GROUP))]
    }
}

/// A block from its groups' scales, these searched for in turn if `weights` are given. `searched` is the code that the search gave
/// element `i`; it stays where a group's scale becomes 0.
#[inline(always)]
fn block(
    values: &[f32; LEN],
    scales: &[f32; GROUPS],
    weights: Option<&[f32; GROUPS]>,
    searched: impl Fn(usize) -> u8,
) -> [u8; BYTES] {
    let (d, scales) = match weights {
        Some(weights) => quantized_by_search(scales, weights),
        None => quantized(scales),
    };
    let mut codes = [0; LEN];
    for (group, codes) in codes.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let d = float::f16_to_f32(d) * (f32::from(scales[group]) - SCALE_NMAX as f32);
        let first = group * GROUP;
        if d == 0.0 {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = searched(first + i);
            }
        } else {
            *codes = kquants::codes_of(&values[first..first + GROUP], d, 0.0, -NMAX, NMAX - 1);
        }
    }
    let mut out = [0; BYTES];
    for (k, codes) in codes.as_chunks_mut::<{ LEN / 8 }>().0.iter_mut().enumerate() {
        for (byte, code) in out[..LOWER].iter_mut().zip(codes) {
            *byte |= *code >> 2 << k;
            *code &= 3;
        }
    }
    out[LOWER..SCALES].copy_from_slice(&kquants::pairs(&codes));
    out[SCALES..BYTES - 2].copy_from_slice(&pack(&scales));
    out[BYTES - 2..].copy_from_slice(&d.to_le_bytes());
    out
}

/// Scales so that the largest magnitude becomes -32, stored plus 32. All stored as 0 where all are 0.
#[inline(always)]
fn quantized(scales: &[f32; GROUPS]) -> (u16, [u8; GROUPS]) {
    let (mut max, mut amax) = (0f32, 0f32);
    for &scale in scales {
        if scale.abs() > amax {
            (amax, max) = (scale.abs(), scale);
        }
    }
    let mut codes = [0; GROUPS];
    if max == 0.0 {
        return (0, codes);
    }
    let iscale = -(SCALE_NMAX as f32) / max;
    for (code, scale) in codes.iter_mut().zip(scales) {
        let l = i32::from(search::nearest_int(iscale * scale) as i8);
        *code = (l.clamp(-SCALE_NMAX, SCALE_NMAX - 1) + SCALE_NMAX) as u8;
    }
    (round::scale_to_f16(1.0 / iscale), codes)
}

/// Scales by search, each group weighted.
#[inline(always)]
fn quantized_by_search(scales: &[f32; GROUPS], weights: &[f32; GROUPS]) -> (u16, [u8; GROUPS]) {
    let mut codes = [0; GROUPS];
    let d = search::make_qx_quants(SCALE_NMAX, scales, Some(weights), &mut codes);
    (round::searched_to_f16(d), codes)
}

#[inline(always)]
fn pack(scales: &[u8; GROUPS]) -> [u8; SCALE_BYTES] {
    let mut packed = [0; SCALE_BYTES];
    for j in 0..GROUPS {
        packed[j % 8] |= (scales[j] & 15) << (j / 8 * 4);
        packed[8 + j % 4] |= scales[j] >> 4 << (j / 4 * 2);
    }
    packed
}

/// The reverse of [`pack`].
#[inline(always)]
fn unpack(packed: &[u8; SCALE_BYTES]) -> [u8; GROUPS] {
    let mut scales = [0; GROUPS];
    for (j, scale) in scales.iter_mut().enumerate() {
        *scale = packed[j % 8] >> (j / 8 * 4) & 15 | (packed[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
    }
    scales
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, BYTES - 2);
    let scales = unpack(&blocks::field(block, SCALES));
    let mut codes = kquants::codes_of_pairs(&blocks::field(block, LOWER));
    let mut upper: [u8; LEN / 8] = blocks::field(block, 0);
    for codes in codes.as_chunks_mut::<{ LEN / 8 }>().0 {
        for (code, byte) in codes.iter_mut().zip(&mut upper) {
            *code |= (*byte & 1) << 2;
            *byte >>= 1;
        }
    }
    let groups = values.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes.as_chunks::<GROUP>().0);
    for (group, (values, codes)) in groups.enumerate() {
        let d = d * (f32::from(scales[group]) - SCALE_NMAX as f32);
        for (value, code) in values.iter_mut().zip(codes) {
            *value = d * (f32::from(*code) - NMAX as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_comes_back() {
        for j in 0..GROUPS {
            for value in 0..64 {
                let mut scales = [42; GROUPS];
                scales[j] = value;
                assert_eq!(unpack(&pack(&scales)), scales);
            }
        }
    }
}
