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

use crate::blocks::{self, round, search};
use crate::encoder::{Encoder, Rows};
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
pub static FORMAT: Format = Format { ggml_id: 14, name: "Q6_K", block_len: LEN, block_bytes: BYTES, decode };

/// `quantize_q6_K`.
pub static ENCODER: Encoder = Encoder { name: "ggml", format: &FORMAT, needs_importance: false, fast: encode, textbook: encode };

fn encode(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) {
    blocks::each_row(rows, out, |row, out| {
        let blocks = row.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<BYTES>().0);
        for (index, (values, out)) in blocks.enumerate() {
            let weights = importance.map(|importance| &importance[index * LEN..(index + 1) * LEN]);
            *out = encode_block(values, weights);
        }
    });
}

fn encode_block(values: &[f32; LEN], weights: Option<&[f32]>) -> [u8; BYTES] {
    let mut codes = [0u8; LEN];
    let mut scales = [0f32; LEN / GROUP];
    for (group, scale) in scales.iter_mut().enumerate() {
        let range = group * GROUP..(group + 1) * GROUP;
        let weights = weights.map(|weights| &weights[range.clone()]);
        *scale = search::make_qx_quants(32, &values[range.clone()], weights, &mut codes[range]);
    }
    finish(values, scales, &mut codes)
}

/// Write a block whose groups' scales and codes have been searched for.
fn finish(values: &[f32; LEN], scales: [f32; LEN / GROUP], codes: &mut [u8; LEN]) -> [u8; BYTES] {
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
    for (group, scale) in scales.into_iter().enumerate() {
        let quantized = search::nearest_int(iscale * scale).min(127) as i8;
        out[LEN / 2 + LEN / 4 + group] = quantized as u8;
        let d = float::f16_to_f32(d) * f32::from(quantized);
        if d == 0.0 {
            continue;
        }
        for i in group * GROUP..(group + 1) * GROUP {
            codes[i] = (search::nearest_int(values[i] / d).clamp(-32, 31) + 32) as u8;
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

fn decode(blocks: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<LEN>().0.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        let d = float::f16_to_f32(u16::from_le_bytes([block[BYTES - 2], block[BYTES - 1]]));
        for (i, value) in values.iter_mut().enumerate() {
            let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
            let low = block[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
            let high = block[LEN / 2 + half * 32 + l] >> (quarter * 2) & 3;
            let scale = f32::from(block[LEN / 2 + LEN / 4 + i / GROUP] as i8);
            *value = d * scale * (f32::from(high << 4 | low) - 32.0);
        }
    }
}
