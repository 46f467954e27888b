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

use crate::blocks::kquants::{self, LEN, Searched};
use crate::blocks::lanes::{self, Lanes};
use crate::blocks::{self, round, search};
use crate::encoder::Encoder;
use crate::float;
use crate::format::Format;

/// Elements per group.
const GROUP: usize = 16;
/// Bytes per block.
const BYTES: usize = 210;
const _: () = assert!(BYTES == LEN / 2 + LEN / 4 + LEN / GROUP + 2);

/// ggml's `Q6_K`.
pub static FORMAT: Format =
    Format { ggml_id: 14, name: "Q6_K", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q6_K`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: kquants::fast::<Q6K, BYTES, 1>,
    textbook: kquants::textbook::<Q6K, BYTES, 1>,
};

/// Largest code plus one half of the range.
const NMAX: i32 = 32;

struct Q6K;

impl Searched<BYTES, 1> for Q6K {
    fn textbook(values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [u8; BYTES] {
        let mut codes = [0u8; LEN];
        let mut scales = [0f32; LEN / GROUP];
        for (group, scale) in scales.iter_mut().enumerate() {
            let range = group * GROUP..(group + 1) * GROUP;
            let weights = importance.map(|importance| &importance[range.clone()]);
            *scale = search::make_qx_quants(NMAX, &values[range.clone()], weights, &mut codes[range]);
        }
        block(values, scales, |i| codes[i])
    }

    #[inline(always)]
    fn fast([values]: &[[f32; LEN]; 1], importance: Option<&[[f32; LEN]; 1]>) -> [[u8; BYTES]; 1] {
        let x: [Lanes; GROUP] = kquants::by_group(&[*values]);
        let mut w = x;
        match importance {
            Some(importance) => w = kquants::by_group(importance),
            None => w.as_flattened_mut().iter_mut().for_each(|w| *w *= *w),
        }
        let found = lanes::make_qx_quants(NMAX, &x, &w);
        [block(values, found.scale, |i| found.code(NMAX, values[i], i / GROUP))]
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
