//! `MXFP4`: 32 floats of 4 bits (E2M1) with one power of two as their scale. 4.25 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | `e`: scale, E8M0 |
//! | 16 | `q`: codes 0 to 15; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `VALUES[q] * 2^(e - 128)`: the table holds twice what E2M1 means. `e` is the exponent of the largest magnitude minus 2,
//! plus 127. Importance changes nothing.

use crate::blocks::{self, Block, round, simd::Isa, words, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::format::Format;

/// Elements per block.
const LEN: usize = 32;
/// Bytes per block.
const BYTES: usize = 17;
const _: () = assert!(BYTES == 1 + LEN / 2);

/// ggml's `MXFP4`.
pub static FORMAT: Format =
    Format { ggml_id: 39, name: "MXFP4", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_mxfp4`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| blocks::fast::<Mxfp4, LEN, BYTES>(rows, out),
    textbook: |rows: Rows<'_>, _, out| blocks::textbook::<Mxfp4, LEN, BYTES>(rows, out),
};

/// What the codes stand for (ggml's `kvalues_mxfp4`). Code 8 is 0 and not -0, as there.
pub(crate) const VALUES: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Between the magnitudes. The smaller magnitude, which is the earlier code, gets what lies in the middle.
const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// Half of an E8M0 scale (`GGML_E8M0_TO_FP32_HALF`).
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// C's `floorf(log2f(amax))`. Next below a power of two the logarithm rounds up to an integer, so that this is more than the
/// exponent.
///
/// Rounding the logarithm once, from F64, gives what glibc's `log2f` gives: that rounds from an error far smaller than the
/// distance of these logarithms to where rounding changes.
fn floor_log2(amax: f32) -> f32 {
    (f64::from(amax).log2() as f32).floor()
}

struct Mxfp4;

impl Block<LEN, BYTES> for Mxfp4 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        let mut amax = 0f32;
        for value in values {
            if amax < value.abs() {
                amax = value.abs();
            }
        }
        let e = if amax > 0.0 { round::low_byte(floor_log2(amax) - 2.0 + 127.0) } else { 0 };
        let d = half_scale(e);
        let code = |x: f32| {
            let mut best = (0, (VALUES[0] * d - x).abs());
            for (code, value) in (1..).zip(&VALUES[1..]) {
                let error = (value * d - x).abs();
                if error < best.1 {
                    best = (code, error);
                }
            }
            best.0
        };
        *out = block(e, &values.map(code));
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(_isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        let values = words::map(words, W::widen);
        let amax = W::magnitude(words, &values);
        // Few values are so close to the next power of two that their logarithm may be rounded up to it.
        const CLOSE: u32 = 0x7f_ff00;
        if !round::is_ordinary(amax) || amax.to_bits() & CLOSE == CLOSE {
            return false;
        }
        let e = (amax.to_bits() >> 23) as u8 - 2;
        let d = half_scale(e);
        let middles = words::map(&MIDDLES, |middle| middle * d);
        let codes = words::map(&values, |value| {
            let mut code = 0u8;
            for middle in middles {
                code += u8::from(value.abs() > middle);
            }
            let negative = u8::from(value < -middles[0]);
            code | negative << 3
        });
        *out = block(e, &codes);
        true
    }
}

#[inline(always)]
fn block(e: u8, codes: &[u8; LEN]) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[0] = e;
    out[1..].copy_from_slice(&blocks::nibbles(codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = half_scale(block[0]);
    for (value, code) in values.iter_mut().zip(blocks::codes_of_nibbles(blocks::field(block, 1))) {
        *value = VALUES[usize::from(code)] * d;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many values below 2^`k` have the logarithm `k`: from the spacing of floats there. None for `k` of 0;
    /// below 2^-126 values lie twice as far apart.
    #[test]
    fn logarithms_next_below_a_power_of_two() {
        for (k, expected) in [(0, 0), (-1, 0), (1, 0), (-6, 2), (6, 2), (8, 2), (-8, 5), (127, 44), (-100, 44), (-126, 22)] {
            let power = 2f32.powi(k);
            let bumped = (1..1000).take_while(|j| floor_log2(f32::from_bits(power.to_bits() - j)) == k as f32).count();
            assert_eq!((bumped, floor_log2(power)), (expected, k as f32), "2^{k}");
        }
    }
}
