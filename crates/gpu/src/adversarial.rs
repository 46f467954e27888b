//! Data on which a sloppy encoder shows: ties and their neighbours, every magnitude a float has, zeros of both signs, denormals,
//! infinities and NaN.
//!
//! The self-test encodes about a hundred thousand such elements, the crate's tests ten million per kernel and source type. Random
//! weights alone are no test: a reciprocal that is one unit in the last place off changes 0 to 9 of 31,000 blocks of them.

use ggufsmith_core::Words;
use ggufsmith_core::float;

/// Whole blocks of `block_len` elements (at least `elems`, rounded up to 64 blocks' worth) as raw words. The same arguments give the
/// same bytes.
pub fn data(words: Words, block_len: usize, elems: usize, seed: u64) -> Vec<u8> {
    let blocks = elems.div_ceil(block_len).next_multiple_of(64);
    let mut block =
        Block { words, len: block_len, random: Random(seed), out: Vec::with_capacity(blocks * block_len * words.bytes()) };
    for _ in 0..blocks {
        let kind = block.random.below(KINDS.len() as u64);
        KINDS[kind as usize](&mut block);
    }
    block.out
}

/// Ordinary weights, for measuring: bell-shaped around 0, at most 0.06.
pub fn plain(words: Words, elems: usize, seed: u64) -> Vec<u8> {
    let mut block = Block { words, len: elems, random: Random(seed), out: Vec::with_capacity(elems * words.bytes()) };
    weights(&mut block);
    block.out
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Uniform in [low, high].
    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Uniform in [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 39) as f32 / 16_777_216.0 - 1.0
    }

    fn sign(&mut self) -> f32 {
        if self.next() & 1 == 0 { 1.0 } else { -1.0 }
    }

    /// 1.0 to 2.0, times a power of two.
    fn scale(&mut self, exponents: (i64, i64)) -> f32 {
        let exponent = self.between(exponents.0, exponents.1);
        f32::from_bits((((exponent + 127) as u32) << 23) | (self.next() as u32 & 0x7f_ffff))
    }
}

struct Block {
    words: Words,
    len: usize,
    random: Random,
    out: Vec<u8>,
}

/// Each appends one block.
const KINDS: &[fn(&mut Block)] = &[
    raw_bits,
    raw_bits,
    any_scale,
    any_scale,
    weights,
    weights,
    eight_bit_ties,
    eight_bit_ties,
    eight_bit_power_of_two_ties,
    four_bit_ties,
    four_bit_ties,
    four_bit_range_ties,
    four_bit_range_ties,
    five_bit_ties,
    five_bit_ties,
    five_bit_range_ties,
    five_bit_range_ties,
    nf4_boundaries,
    nf4_boundaries,
    fp4_boundaries,
    fp4_boundaries,
    far_below_the_largest,
    small_integers,
    small_integers,
    groups_of_many_scales,
    groups_of_many_scales,
    mostly_on_a_grid,
    mostly_on_a_grid,
    scales_near_a_step,
    on_one_side,
    nearly_constant_groups,
    both_extremes,
    zeros,
    zeros_and_positives,
    denormals,
    one_normal_among_denormals,
    specials,
    half_precision_scale_ties,
    half_precision_scale_ties,
    half_precision_scale_ties,
    subnormal_and_huge_scales,
    largest_floats,
    constant,
    edge_of_the_safe_range,
    narrow_range_far_from_zero,
    one_hot,
];

impl Block {
    /// Exponents of scales that the word type still has some precision for.
    fn exponents(&self) -> (i64, i64) {
        match self.words {
            Words::F16 => (-14, 8),
            Words::F32 | Words::BF16 => (-80, 80),
        }
    }

    fn scale(&mut self) -> f32 {
        // Most of them where every kernel computes by itself.
        let exponents = if self.random.below(4) != 0 { (-14, 8) } else { self.exponents() };
        self.random.scale(exponents)
    }

    /// Append a value, rounded to the word type and then moved by some units in its last place.
    fn push(&mut self, value: f32, ulps: i64) {
        let step = |bits: u32| (i64::from(bits) + ulps).max(0) as u32;
        match self.words {
            Words::F32 => self.out.extend(step(value.to_bits()).to_le_bytes()),
            Words::F16 => self.out.extend((step(float::f32_to_f16(value).into()) as u16).to_le_bytes()),
            Words::BF16 => self.out.extend((step(float::f32_to_bf16(value).into()) as u16).to_le_bytes()),
        }
    }

    fn each(&mut self, mut value: impl FnMut(&mut Random, usize) -> f32) {
        for index in 0..self.len {
            let value = value(&mut self.random, index);
            self.push(value, 0);
        }
    }

    /// `extremes` at random places, elsewhere `value(k)` within `reach` units in the last place.
    fn ties(&mut self, extremes: &[f32], reach: i64, mut value: impl FnMut(&mut Random) -> f32) {
        let places: Vec<usize> = extremes.iter().map(|_| self.random.below(self.len as u64) as usize).collect();
        for index in 0..self.len {
            match places.iter().position(|place| *place == index) {
                Some(extreme) => self.push(extremes[extreme], 0),
                None => {
                    let (value, ulps) = (value(&mut self.random), self.random.between(-reach, reach));
                    self.push(value, ulps);
                }
            }
        }
    }
}

fn raw_bits(block: &mut Block) {
    for _ in 0..block.len {
        let bits = block.random.next().to_le_bytes();
        block.out.extend(&bits[..block.words.bytes()]);
    }
}

fn any_scale(block: &mut Block) {
    let exponents = if block.words == Words::F16 { (-24, 15) } else { (-126, 123) };
    let scale = block.random.scale(exponents);
    block.each(|random, _| random.unit() * scale);
}

fn weights(block: &mut Block) {
    block.each(|random, _| (random.unit() + random.unit() + random.unit()) * 0.02);
}

/// x / d is a half, or next to one: amax = 127 s, x = (k + 1/2) s.
fn eight_bit_ties(block: &mut Block) {
    let s = block.scale();
    let extreme = 127.0 * s * block.random.sign();
    block.ties(&[extreme], 2, |random| (random.between(-127, 126) as f32 + 0.5) * s);
}

/// The same with values that every word type holds exactly.
fn eight_bit_power_of_two_ties(block: &mut Block) {
    let s = f32::from_bits(block.scale().to_bits() & 0x7f80_0000);
    let extreme = 127.0 * s * block.random.sign();
    block.ties(&[extreme], 0, |random| (random.between(-127, 126) as f32 + 0.5) * s);
}

/// x / d + 8.5 is an integer, or next to one.
fn four_bit_ties(block: &mut Block) {
    signed_ties(block, 8);
}

/// x / d + 16.5 is an integer, or next to one.
fn five_bit_ties(block: &mut Block) {
    signed_ties(block, 16);
}

fn signed_ties(block: &mut Block, half: i64) {
    let d = block.scale() * block.random.sign();
    block.ties(&[-half as f32 * d], 3, |random| (random.between(-half, half) as f32 - 0.5) * d);
}

/// (x - min) / d + 0.5 is an integer, or next to one, d being a 15th of the range.
fn four_bit_range_ties(block: &mut Block) {
    range_ties(block, 15);
}

/// The same for a 31st.
fn five_bit_range_ties(block: &mut Block) {
    range_ties(block, 31);
}

fn range_ties(block: &mut Block, top: i64) {
    let d = block.scale();
    let min = match block.random.below(4) {
        0 | 1 => 0.0,
        2 => -(top / 2 + 1) as f32 * d,
        _ => block.random.unit() * 20.0 * d,
    };
    // Below 0.5 a product has finer steps than its sum with 0.5: the only place where rounding once or twice makes a difference.
    let lowest = block.random.next() & 1 == 0;
    let last = if lowest { 0 } else { top - 1 };
    block.ties(&[min, min + top as f32 * d], 3, |random| min + (random.between(0, last) as f32 + 0.5) * d);
}

/// x / absmax is the mean of two neighbouring NF4 values, or next to it.
fn nf4_boundaries(block: &mut Block) {
    const BOUNDARIES: [f32; 15] = [
        -0.848_096_4,
        -0.610_632_9,
        -0.459_995_27,
        -0.339_679_42,
        -0.234_607_4,
        -0.137_911_74,
        -0.045_525_018,
        0.039_790_15,
        0.120_255_25,
        0.203_521_25,
        0.292_013_76,
        0.389_312_54,
        0.501_663_45,
        0.642_786_9,
        0.861_478_45,
    ];
    let absmax = block.scale();
    let extreme = absmax * block.random.sign();
    block.ties(&[extreme], 3, |random| BOUNDARIES[random.below(15) as usize] * absmax);
}

/// x / absmax is the mean of two neighbouring FP4 values, or next to it.
fn fp4_boundaries(block: &mut Block) {
    const TIMES_192: [f32; 8] = [0.5, 16.5, 40.0, 56.0, 80.0, 112.0, 160.0, 0.0];
    let absmax = block.scale();
    let extreme = absmax * block.random.sign();
    block.ties(&[extreme], 3, |random| {
        let magnitude = TIMES_192[random.below(8) as usize] / 192.0;
        magnitude * absmax * random.sign()
    });
}

/// Ratios to the largest that are denormal, or nearly.
fn far_below_the_largest(block: &mut Block) {
    let absmax = block.scale();
    let reach = if block.random.next() & 1 == 0 { (-150, -100) } else { (-60, -20) };
    block.ties(&[absmax], 0, |random| absmax * random.scale(reach) * random.sign());
}

/// Few distinct values, so that candidates of a search tie, and errors of 0.
fn small_integers(block: &mut Block) {
    let step = f32::from_bits(block.scale().to_bits() & 0x7f80_0000);
    let most = [1, 3, 15, 16, 30, 100][block.random.below(6) as usize];
    let least = [0, -most, -most / 2][block.random.below(3) as usize];
    block.each(|random, _| random.between(least, most) as f32 * step);
}

/// Groups of 32 that differ in scale and offset, so that some scales come to few of 63 parts, and some groups to 0.
fn groups_of_many_scales(block: &mut Block) {
    let (scale, reach) = (block.scale(), [2, 6, 12][block.random.below(3) as usize]);
    let (mut own, mut offset) = (0.0, 0.0);
    block.each(|random, index| {
        if index % 32 == 0 {
            own = scale * random.scale((-reach, 0));
            offset = own * [0.0, 0.0, 0.5, 2.0, -1.0, -30.0][random.below(6) as usize];
        }
        (random.unit() + random.unit()) * own + offset
    });
}

/// A scale and a minimum fit nearly all values exactly; the others are halves.
fn mostly_on_a_grid(block: &mut Block) {
    let d = block.scale();
    let low = -(block.random.below(16) as f32) * d;
    block.ties(&[low, low + 15.0 * d], 2, |random| {
        let half = if random.below(8) == 0 { 0.5 } else { 0.0 };
        low + (random.between(0, 14) as f32 + half) * d
    });
}

/// Each group of 32 covers k + 1/2 of 63 parts of what the first one does, or nearly, or is next to it.
fn scales_near_a_step(block: &mut Block) {
    let d = block.scale();
    let (mut own, mut ulps) = (d, 0);
    for index in 0..block.len {
        let place = index % 32;
        if place == 0 && index > 0 {
            own = (block.random.between(0, 62) as f32 + 0.5) / 63.0 * d;
            ulps = block.random.between(-2, 2);
        }
        let value = if place < 16 { place as i64 } else { block.random.between(0, 15) };
        block.push(own * value as f32, if value == 15 { ulps } else { 0 });
    }
}

/// All positive, or all negative, often far from 0.
fn on_one_side(block: &mut Block) {
    let scale = block.scale() * block.random.sign();
    let offset = [0.0, 0.1, 1.0, 100.0][block.random.below(4) as usize];
    block.each(|random, _| (random.unit().abs() + offset) * scale);
}

/// Groups of 32 of one value, but for one or two elements.
fn nearly_constant_groups(block: &mut Block) {
    let scale = block.scale();
    let (mut value, mut places) = (0.0, [0; 2]);
    block.each(|random, index| {
        if index % 32 == 0 {
            value = scale * [1.0, -1.0, 0.0][random.below(3) as usize];
            places = [random.below(64) as usize, random.below(64) as usize];
        }
        if places.contains(&(index % 32)) { random.unit() * scale } else { value }
    });
}

/// The largest magnitude occurs with both signs: the first one counts.
fn both_extremes(block: &mut Block) {
    let scale = block.scale();
    block.each(|random, _| if random.below(8) == 0 { scale * random.sign() } else { scale * random.unit() * 0.99 });
}

fn zeros(block: &mut Block) {
    block.each(|random, _| 0.0 * random.sign());
}

/// The minimum is a zero: its sign is that of the first one.
fn zeros_and_positives(block: &mut Block) {
    let scale = block.scale() * block.random.sign();
    block.each(|random, _| if random.below(3) == 0 { 0.0 * random.sign() } else { scale * random.unit().abs() });
}

/// In the word type's own denormals.
fn denormals(block: &mut Block) {
    let mask: u32 = if block.words == Words::F16 { 0x3ff } else { 0x7f };
    for _ in 0..block.len {
        let bits = block.random.next() as u32;
        match block.words {
            Words::F32 => block.out.extend((bits & 0x807f_ffff).to_le_bytes()),
            Words::F16 | Words::BF16 => block.out.extend((bits as u16 & (0x8000 | mask as u16)).to_le_bytes()),
        }
    }
}

fn one_normal_among_denormals(block: &mut Block) {
    let start = block.out.len();
    denormals(block);
    let scale = block.scale() * block.random.sign();
    let place = block.random.below(block.len as u64) as usize * block.words.bytes();
    let end = block.out.len();
    block.push(scale, 0);
    let word = block.out.split_off(end);
    block.out[start + place..][..word.len()].copy_from_slice(&word);
}

/// Infinities and NaN among weights.
fn specials(block: &mut Block) {
    block.each(|random, _| match random.below(24) {
        0 => f32::NAN,
        1 => f32::INFINITY * random.sign(),
        2 => -f32::NAN,
        _ => random.unit(),
    });
}

/// The scale lies between two F16 values, or next to the middle.
fn half_precision_scale_ties(block: &mut Block) {
    let exponent = block.random.between(-26, 15);
    let tie = f32::from_bits((((exponent + 127) as u32) << 23) | (block.random.next() as u32 & 0x7f_e000) | 0x1000);
    let (divisor, low) = [(127.0, -1.0), (8.0, -1.0), (16.0, -1.0), (15.0, 0.0), (31.0, 0.0)][block.random.below(5) as usize];
    let place = block.random.below(block.len as u64) as usize;
    let ulps = block.random.between(-1, 1);
    for index in 0..block.len {
        if index == place {
            block.push(tie * divisor, ulps);
        } else {
            let value = tie * divisor * block.random.unit().max(low) * 0.99;
            block.push(value, 0);
        }
    }
}

/// Scales that are denormal as F16 or too large for it.
fn subnormal_and_huge_scales(block: &mut Block) {
    let exponents = if block.random.next() & 1 == 0 { (-26, -8) } else { (12, 24) };
    let scale = block.random.scale(exponents);
    block.each(|random, _| random.unit() * scale);
}

fn largest_floats(block: &mut Block) {
    let exponents = if block.words == Words::F16 { (14, 15) } else { (124, 127) };
    let scale = block.random.scale(exponents);
    block.each(|random, _| random.unit() * scale);
}

fn constant(block: &mut Block) {
    let value = match block.random.below(3) {
        0 => block.random.scale((-126, 127)) * block.random.sign(),
        _ => block.scale() * block.random.sign(),
    };
    block.each(|_, _| value);
}

/// Around 2^-90 and 2^90, where kernels hand over to the CPU.
fn edge_of_the_safe_range(block: &mut Block) {
    let exponents = if block.random.next() & 1 == 0 { (-92, -88) } else { (88, 92) };
    let scale = block.random.scale(exponents);
    let wide = block.random.next() & 1 == 0;
    block.each(|random, _| if wide { random.unit() * random.scale((-120, 0)) * scale } else { random.unit() * scale });
}

/// A range of few units in the last place: d may be denormal, or much smaller than min.
fn narrow_range_far_from_zero(block: &mut Block) {
    let value = block.scale() * block.random.sign();
    let reach = [1, 2, 16, 1000][block.random.below(4) as usize];
    block.ties(&[], reach, |_| value);
}

fn one_hot(block: &mut Block) {
    let scale = block.scale() * block.random.sign();
    let place = block.random.below(block.len as u64) as usize;
    block.each(|_, index| if index == place { scale } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_whole_blocks() {
        for words in [Words::F32, Words::F16, Words::BF16] {
            let bytes = data(words, 64, 10_000, 7);
            assert_eq!(bytes, data(words, 64, 10_000, 7));
            assert_ne!(bytes, data(words, 64, 10_000, 8));
            assert_eq!(bytes.len() % (64 * 64 * words.bytes()), 0);
            assert!(bytes.len() >= 10_000 * words.bytes());
        }
    }

    /// What the generators are for occurs: exact halves of the 8-bit scale, both zeros, denormals, NaN.
    #[test]
    fn the_data_are_adversarial() {
        let bytes = data(Words::BF16, 32, 200_000, 1);
        let values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(|w| float::bf16_to_f32(u16::from_le_bytes(*w))).collect();
        let has_tie = values.chunks(32).any(|block| {
            let amax = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            amax.is_normal() && block.iter().any(|v| (v / (amax / 127.0)).fract().abs() == 0.5)
        });
        assert!(has_tie);
        assert!(values.iter().any(|v| *v == 0.0 && v.is_sign_negative()));
        assert!(values.iter().any(|v| v.is_subnormal()));
        assert!(values.iter().any(|v| v.is_nan()));
        assert!(values.iter().any(|v| v.is_infinite()));
    }
}
