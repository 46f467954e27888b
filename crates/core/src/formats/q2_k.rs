//! `Q2_K`: 256 codes of 2 bits in 16 groups with a scale and a minimum each. 2.625 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 16 | `scales`: per group of 16 elements, its scale in the low and its minimum in the high half |
//! | 64 | `q`: of each half of 128 elements, elements `l`, `l + 32`, `l + 64`, `l + 96` are in byte `l`, lowest pair first |
//! | 2 | `d`: scale of the scales, F16 |
//! | 2 | `dmin`: scale of the minimums, F16 |
//!
//! Value: `q * scale * d - min * dmin`. Scale and minimum of a group are searched for.

use crate::blocks::kquants::{self, LEN, Searched};
use crate::blocks::lanes::{self, LANES, Lanes};
use crate::blocks::search::{self, Tries};
use crate::blocks::{self, round};
use crate::encoder::Encoder;
use crate::float;
use crate::format::Format;

/// Elements per group.
const GROUP: usize = 16;
/// Groups per block.
const GROUPS: usize = LEN / GROUP;
/// Bytes per block.
const BYTES: usize = 84;
const _: () = assert!(BYTES == GROUPS + LEN / 4 + 2 + 2);

/// ggml's `Q2_K`.
pub static FORMAT: Format =
    Format { ggml_id: 10, name: "Q2_K", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q2_K`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: kquants::fast::<Q2K, BYTES, 1>,
    textbook: kquants::textbook::<Q2K, BYTES, 1>,
};

/// Largest code.
const TOP: i32 = 3;
/// Largest scale.
const TOP_SCALE: i32 = 15;
/// What is tried without importance. The error is then by magnitude, and each value weighted by its own.
const TRIES: Tries = Tries { first: -0.5, delta: 0.1, steps: 15 };

struct Q2K;

impl Searched<BYTES, 1> for Q2K {
    fn textbook(values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [u8; BYTES] {
        let sigma2 = kquants::sum_of_squares(values) / LEN as f32;
        let mut found = [search::WithMin::default(); GROUPS];
        let mut sums = [0f32; GROUPS];
        for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
            found[group] = match importance {
                Some(importance) => {
                    let weights: [f32; GROUP] =
                        std::array::from_fn(|i| search::weight(values[i], importance[group * GROUP + i], sigma2));
                    sums[group] = weights.iter().fold(0f32, |sum, weight| sum + weight);
                    search::make_qkx3_quants::<false>(TOP, search::WITH_IMPORTANCE, values, &weights)
                }
                None => search::make_qkx3_quants::<true>(TOP, TRIES, values, &values.map(f32::abs)),
            };
        }
        let weights = importance.map(|_| &sums);
        let (scales, mins) = (found.map(|found| found.scale), found.map(|found| -found.min));
        block(values, &scales, &mins, weights, |i| found[i / GROUP].code(TOP, values[i]))
    }

    #[inline(always)]
    fn fast([values]: &[[f32; LEN]; 1], importance: Option<&[[f32; LEN]; 1]>) -> [[u8; BYTES]; 1] {
        let x: [Lanes; GROUP] = kquants::by_group(&[*values]);
        let mut w = [[0f32; LANES]; GROUP];
        let mut sums = [0f32; LANES];
        let found = match importance {
            Some(importance) => {
                let importance: [Lanes; GROUP] = kquants::by_group(importance);
                let sigma2 = kquants::sum_of_squares(values) / LEN as f32;
                for i in 0..GROUP {
                    w[i] = lanes::lanes(|j| search::weight(x[i][j], importance[i][j], sigma2));
                    sums = lanes::lanes(|j| sums[j] + w[i][j]);
                }
                lanes::make_qkx3_quants::<false, GROUP>(TOP, search::WITH_IMPORTANCE, &x, &w)
            }
            None => {
                for i in 0..GROUP {
                    w[i] = lanes::lanes(|j| x[i][j].abs());
                }
                lanes::make_qkx3_quants::<true, GROUP>(TOP, TRIES, &x, &w)
            }
        };
        let weights = importance.map(|_| &sums);
        let mins = lanes::lanes(|j| -found.min[j]);
        [block(values, &found.scale, &mins, weights, |i| found.code(TOP, values[i], i / GROUP))]
    }
}

/// A block from its groups' scales and minimums, these searched for in turn if `weights` are given. `searched` is the code that the
/// search gave element `i`; it stays where a group's scale becomes 0.
#[inline(always)]
fn block(
    values: &[f32; LEN],
    scales: &[f32; GROUPS],
    mins: &[f32; GROUPS],
    weights: Option<&[f32; GROUPS]>,
    searched: impl Fn(usize) -> u8,
) -> [u8; BYTES] {
    let ((d, scales), (dmin, mins)) = match weights {
        Some(weights) => (quantized_by_search(scales, weights), quantized_by_search(mins, weights)),
        None => (quantized(scales), quantized(mins)),
    };
    let mut out = [0; BYTES];
    let mut codes = [0; LEN];
    for (group, codes) in codes.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        // The high half counts even where a negative scale wrapped.
        out[group] = scales[group] | mins[group] << 4;
        let scale = float::f16_to_f32(d) * f32::from(out[group] & 15);
        let min = float::f16_to_f32(dmin) * f32::from(out[group] >> 4);
        let first = group * GROUP;
        if scale == 0.0 {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = searched(first + i);
            }
        } else {
            *codes = kquants::codes_of(&values[first..first + GROUP], scale, min, 0, TOP);
        }
    }
    out[GROUPS..BYTES - 4].copy_from_slice(&kquants::pairs(&codes));
    out[BYTES - 4..BYTES - 2].copy_from_slice(&d.to_le_bytes());
    out[BYTES - 2..].copy_from_slice(&dmin.to_le_bytes());
    out
}

/// Scales or minimums so that the largest becomes 15.
#[inline(always)]
fn quantized(values: &[f32; GROUPS]) -> (u16, [u8; GROUPS]) {
    let max = values.iter().fold(0f32, |max, &x| if x > max { x } else { max });
    let mut codes = [0; GROUPS];
    if max > 0.0 {
        let iscale = TOP_SCALE as f32 / max;
        for (code, value) in codes.iter_mut().zip(values) {
            *code = search::nearest_int(iscale * value) as u8;
        }
    }
    let d = if max > 0.0 { max / TOP_SCALE as f32 } else { 0.0 };
    (round::scale_to_f16(d), codes)
}

/// Scales or minimums by search, each group weighted.
#[inline(always)]
fn quantized_by_search(values: &[f32; GROUPS], weights: &[f32; GROUPS]) -> (u16, [u8; GROUPS]) {
    let (d, codes) = search::make_qp_quants(TOP_SCALE, values, weights);
    (round::searched_to_f16(d), codes)
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let (d, dmin) = (blocks::f16_field(block, BYTES - 4), blocks::f16_field(block, BYTES - 2));
    let codes = kquants::codes_of_pairs(&blocks::field(block, GROUPS));
    let groups = values.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes.as_chunks::<GROUP>().0);
    for (group, (values, codes)) in groups.enumerate() {
        let (d, min) = (d * f32::from(block[group] & 15), dmin * f32::from(block[group] >> 4));
        for (value, code) in values.iter_mut().zip(codes) {
            *value = d * f32::from(*code) - min;
        }
    }
}
