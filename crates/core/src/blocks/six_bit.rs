//! Eight groups of 32 codes above a minimum, scales and minimums of 6 bits: value = `code * scale * d - min * dmin`.

use super::kquants::{self, LEN};
use super::lanes::{self, LANES, Lanes};
use super::round;
use super::search::{self, Tries};

/// Elements per group.
pub(crate) const GROUP: usize = 32;
/// Groups per block.
const GROUPS: usize = LEN / GROUP;
/// Blocks that are searched at once.
pub(crate) const AT_ONCE: usize = LANES / GROUPS;
/// Bytes of a block's scales and minimums.
pub(crate) const SCALE_BYTES: usize = 12;

/// What differs between the formats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// Largest code.
    pub top: i32,
    /// What is tried without importance.
    pub tries: Tries,
    /// What a group's scale is limited to with importance. It is larger only where it wrapped from a negative number.
    pub limit: u8,
}

/// The fields of a block. Codes are not yet packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    /// F16 bits.
    pub d: u16,
    /// F16 bits.
    pub dmin: u16,
    pub scales: [u8; SCALE_BYTES],
    pub codes: [u8; LEN],
}

/// A block as ggml's scalar code makes it.
#[inline(always)]
pub(crate) fn textbook(kind: Kind, values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> Parts {
    let sigma2 = 2.0 * kquants::sum_of_squares(values) / LEN as f32;
    let mut found = [search::WithMin::default(); GROUPS];
    let mut sums = [0f32; GROUPS];
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let tries = if importance.is_some() { search::WITH_IMPORTANCE } else { kind.tries };
        let weights: [f32; GROUP] = match importance {
            Some(importance) => std::array::from_fn(|i| search::weight(values[i], importance[group * GROUP + i], sigma2)),
            None => {
                let mean = search::mean_square(values.iter().copied(), GROUP).sqrt();
                values.map(|value| mean + value.abs())
            }
        };
        sums[group] = weights.iter().fold(0f32, |sum, weight| sum + weight);
        found[group] = search::make_qkx3_quants::<false>(kind.top, tries, values, &weights);
    }
    let (scales, mins) = (found.map(|found| found.scale), found.map(|found| -found.min));
    let scales = match importance {
        Some(_) => Scales::searched(&scales, &mins, &sums, kind.limit),
        None => Scales::of_largest(&scales, &mins),
    };
    scales.block(kind.top, values, |i| found[i / GROUP].code(kind.top, values[i]))
}

/// The same for as many blocks as fill the lanes, in a form that vectorizes. Values are finite.
#[inline(always)]
pub(crate) fn fast(kind: Kind, values: &[[f32; LEN]; AT_ONCE], importance: Option<&[[f32; LEN]; AT_ONCE]>) -> [Parts; AT_ONCE] {
    let x: [Lanes; GROUP] = kquants::by_group(values);
    let mut w = [[0f32; LANES]; GROUP];
    let mut sums = [0f32; LANES];
    let found = match importance {
        Some(importance) => {
            let importance: [Lanes; GROUP] = kquants::by_group(importance);
            let mut sigma2 = [0f32; AT_ONCE];
            for (sigma2, values) in sigma2.iter_mut().zip(values) {
                *sigma2 = 2.0 * kquants::sum_of_squares(values) / LEN as f32;
            }
            for i in 0..GROUP {
                w[i] = lanes::lanes(|j| search::weight(x[i][j], importance[i][j], sigma2[j / GROUPS]));
                sums = lanes::lanes(|j| sums[j] + w[i][j]);
            }
            lanes::make_qkx3_quants::<false, GROUP>(kind.top, search::WITH_IMPORTANCE, &x, &w)
        }
        None => {
            let mut mean = [0f32; LANES];
            for x in &x {
                mean = lanes::lanes(|j| mean[j] + x[j] * x[j]);
            }
            mean = lanes::lanes(|j| (mean[j] / GROUP as f32).sqrt());
            for i in 0..GROUP {
                w[i] = lanes::lanes(|j| mean[j] + x[i][j].abs());
            }
            lanes::make_qkx3_quants::<false, GROUP>(kind.top, kind.tries, &x, &w)
        }
    };
    let mut parts = [Parts { d: 0, dmin: 0, scales: [0; SCALE_BYTES], codes: [0; LEN] }; AT_ONCE];
    for (at, (parts, values)) in parts.iter_mut().zip(values).enumerate() {
        let (mut scales, mut mins, mut weights) = ([0f32; GROUPS], [0f32; GROUPS], [0f32; GROUPS]);
        for group in 0..GROUPS {
            scales[group] = found.scale[at * GROUPS + group];
            mins[group] = -found.min[at * GROUPS + group];
            weights[group] = sums[at * GROUPS + group];
        }
        let scales = match importance {
            Some(_) => Scales::searched(&scales, &mins, &weights, kind.limit),
            None => Scales::of_largest(&scales, &mins),
        };
        *parts = scales.block(kind.top, values, |i| found.code(kind.top, values[i], at * GROUPS + i / GROUP));
    }
    parts
}

/// Quantized scales and minimums.
struct Scales {
    d: u16,
    dmin: u16,
    packed: [u8; SCALE_BYTES],
}

impl Scales {
    /// So that the largest becomes 63.
    #[inline(always)]
    fn of_largest(scales: &[f32; GROUPS], mins: &[f32; GROUPS]) -> Self {
        let largest = |of: &[f32; GROUPS]| of.iter().fold(0f32, |max, &x| if x > max { x } else { max });
        let (max_scale, max_min) = (largest(scales), largest(mins));
        let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
        let (inv_scale, inv_min) = (inverse(max_scale), inverse(max_min));
        let (mut ls, mut lm) = ([0; GROUPS], [0; GROUPS]);
        for j in 0..GROUPS {
            ls[j] = (search::nearest_int(inv_scale * scales[j]) as u8).min(63);
            lm[j] = (search::nearest_int(inv_min * mins[j]) as u8).min(63);
        }
        Scales { d: round::scale_to_f16(max_scale / 63.0), dmin: round::scale_to_f16(max_min / 63.0), packed: pack(&ls, &lm) }
    }

    /// By search, each group weighted.
    #[inline(always)]
    fn searched(scales: &[f32; GROUPS], mins: &[f32; GROUPS], weights: &[f32; GROUPS], limit: u8) -> Self {
        let (d, ls) = search::make_qp_quants(63, scales, weights);
        let (dmin, lm) = search::make_qp_quants(63, mins, weights);
        let packed = pack(&ls.map(|l| l.min(limit)), &lm.map(|l| l.min(limit)));
        Scales { d: round::searched_to_f16(d), dmin: round::searched_to_f16(dmin), packed }
    }

    /// The block. `searched` is the code that the search gave element `i`; it stays where a group's scale becomes 0.
    #[inline(always)]
    fn block(self, top: i32, values: &[f32; LEN], searched: impl Fn(usize) -> u8) -> Parts {
        let (scales, mins) = unpack(&self.packed);
        let (d, dmin) = (crate::float::f16_to_f32(self.d), crate::float::f16_to_f32(self.dmin));
        let mut codes = [0; LEN];
        for (group, codes) in codes.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            let d = d * f32::from(scales[group]);
            let m = dmin * f32::from(mins[group]);
            let first = group * GROUP;
            if d == 0.0 {
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = searched(first + i);
                }
            } else {
                *codes = kquants::codes_of(&values[first..first + GROUP], d, m, 0, top);
            }
        }
        Parts { d: self.d, dmin: self.dmin, scales: self.packed, codes }
    }
}

/// Twelve bytes: lower 6 bits of bytes 0 to 7 are the first four scales, then the first four minimums; bytes 8 to 11 are the lower 4
/// bits of the other scales (low) and minimums (high), whose upper 2 bits are on top of bytes 0 to 7.
#[inline(always)]
fn pack(scales: &[u8; GROUPS], mins: &[u8; GROUPS]) -> [u8; SCALE_BYTES] {
    let mut packed = [0; SCALE_BYTES];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    packed
}

/// The reverse of [`pack`]: scales and minimums, ggml's `get_scale_min_k4`.
#[inline(always)]
pub(crate) fn unpack(packed: &[u8; SCALE_BYTES]) -> ([u8; GROUPS], [u8; GROUPS]) {
    let (mut scales, mut mins) = ([0; GROUPS], [0; GROUPS]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        mins[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The fields in front of the codes: `d`, `dmin`, scales.
#[inline(always)]
pub(crate) fn write_head(parts: &Parts, block: &mut [u8]) {
    block[..2].copy_from_slice(&parts.d.to_le_bytes());
    block[2..4].copy_from_slice(&parts.dmin.to_le_bytes());
    block[4..4 + SCALE_BYTES].copy_from_slice(&parts.scales);
}

/// Lower 4 bits of the codes, two groups per 32 bytes: the first low, the second high.
#[inline(always)]
pub(crate) fn nibbles(codes: &[u8; LEN]) -> [u8; LEN / 2] {
    let mut bytes = [0; LEN / 2];
    for (bytes, codes) in bytes.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes.as_chunks::<{ 2 * GROUP }>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[l] & 15 | codes[l + GROUP] << 4;
        }
    }
    bytes
}

/// The reverse of [`nibbles`].
#[inline(always)]
pub(crate) fn codes_of_nibbles(bytes: &[u8; LEN / 2]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (codes, bytes) in codes.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().zip(bytes.as_chunks::<GROUP>().0) {
        for (l, byte) in bytes.iter().enumerate() {
            codes[l] = byte & 15;
            codes[l + GROUP] = byte >> 4;
        }
    }
    codes
}

/// Values of a block from its head and its codes.
#[inline(always)]
pub(crate) fn decode(block: &[u8], codes: &[u8; LEN], values: &mut [f32; LEN]) {
    let (d, dmin) = (super::f16_field(block, 0), super::f16_field(block, 2));
    let (scales, mins) = unpack(&super::field(block, 4));
    let groups = values.as_chunks_mut::<GROUP>().0.iter_mut().zip(codes.as_chunks::<GROUP>().0);
    for (group, (values, codes)) in groups.enumerate() {
        let (d, m) = (d * f32::from(scales[group]), dmin * f32::from(mins[group]));
        for (value, code) in values.iter_mut().zip(codes) {
            *value = d * f32::from(*code) - m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_and_minimum_comes_back() {
        for j in 0..GROUPS {
            for value in 0..64 {
                let (mut scales, mut mins) = ([42; GROUPS], [21; GROUPS]);
                scales[j] = value;
                mins[GROUPS - 1 - j] = 63 - value;
                assert_eq!(unpack(&pack(&scales, &mins)), (scales, mins));
            }
        }
    }

    #[test]
    fn every_code_comes_back() {
        let codes = std::array::from_fn(|i| (i * 7 % 16) as u8);
        assert_eq!(codes_of_nibbles(&nibbles(&codes)), codes);
    }
}
