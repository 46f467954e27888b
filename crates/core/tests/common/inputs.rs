//! The inputs of the goldens, as `fixtures/formats/make.py` makes them: integers from a counter, then exact or once-rounded F32 operations.

use ggufsmith_core::{Words, float};

pub const ROWS: usize = 1024;
pub const COLS: usize = 1024;
const N: usize = ROWS * COLS;

/// SplitMix64 at one position of a stream.
pub fn mix(stream: u64, at: usize) -> u64 {
    let mut z = stream.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add((at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The sum of four 16-bit numbers, centred: exact multiples of 2^-17 between -1 and 1.
pub fn bell(stream: u64, at: usize) -> f32 {
    let z = mix(stream, at);
    let sum: i64 = (0..4).map(|k| (z >> (16 * k) & 0xFFFF) as i64).sum();
    (sum - 131_070) as f32 * 2f32.powi(-17)
}

/// 2^e for e from -149 to 127, exactly.
fn pow2(e: i64) -> f32 {
    f32::from_bits(if e >= -126 { ((e + 127) as u32) << 23 } else { 1 << (e + 149) })
}

fn steps(i: usize) -> f32 {
    let (b, lane) = (mix(20, i / 32), i % 32);
    let levels = [254, 16, 15, 32, 31, 64, 63, 128][(b & 7) as usize];
    let high = b & 8 != 0;
    let mut k = (mix(21, i) % (2 * levels as u64 + 1)) as i64;
    if lane == 0 {
        k = if high { 2 * levels } else { 0 };
    }
    if lane == 1 && b & 16 != 0 {
        k = if high { 0 } else { 2 * levels };
    }
    (k - levels) as f32 * pow2((b >> 8) as i64 % 24 - 17)
}

fn near_step(i: usize) -> f32 {
    let ulps = (mix(7, i) % 5) as i32 - 2;
    match steps(i) {
        0.0 => 0.0,
        value => f32::from_bits(value.to_bits().wrapping_add_signed(ulps)),
    }
}

type Input = (&'static str, fn(usize) -> f32);

fn gaussian(i: usize) -> f32 {
    bell(1, i) * 0.06
}

fn block(i: usize) -> u64 {
    mix(2, i / 32)
}

fn signed_zero(i: usize) -> f32 {
    f32::from_bits((mix(5, i) as u32 & 1) << 31)
}

/// Name and value of element `i` of each input, in the order of the goldens.
pub const INPUTS: &[Input] = &[
    ("gaussian", gaussian),
    ("heavy_tailed", |i| gaussian(i) * pow2((mix(3, i) & 0xFFF | 0x1000).trailing_zeros().into())),
    ("constant", |i| bell(4, i / COLS)),
    ("zero", |i| match block(i) & 3 {
        0 => 0.0,
        1 => -0.0,
        _ => signed_zero(i),
    }),
    ("one_hot", |i| if i as u64 % 32 == (block(i) >> 8) % 32 { gaussian(i) } else { signed_zero(i) }),
    ("tiny_scale", |i| gaussian(i) * pow2(-((block(i) % 125) as i64))),
    ("huge_scale", |i| gaussian(i) * pow2((block(i) % 127) as i64)),
    ("denormal", |i| f32::from_bits((mix(6, i) as u32 & 1) << 31 | (mix(6, i) >> 8 & 0x7F_FFFF) as u32 >> (block(i) % 23))),
    ("ties", steps),
    ("near_ties", near_step),
    ("spread", |i| bell(8, i) * pow2(-((mix(9, i) % 40) as i64))),
    ("one_sided", |i| {
        let magnitude = gaussian(i).abs() + 0.001 * (block(i) >> 4 & 1) as f32;
        if block(i) & 1 == 1 { -magnitude } else { magnitude }
    }),
    ("repeated", |i| ((mix(10, i) % 9) as i64 - 4) as f32 * pow2((block(i) % 16) as i64 - 12)),
    ("raw", |i| {
        let bits = mix(11, i) as u32;
        f32::from_bits(if bits & 0x7F80_0000 == 0x7F80_0000 { bits & 0xBFFF_FFFF } else { bits })
    }),
];

/// All values of an input.
pub fn values(input: Input) -> Vec<f32> {
    (0..N).map(input.1).collect()
}

/// One number per column: mostly positive, here and there zero, zero for one whole block.
pub fn importance() -> Vec<f32> {
    let entry = |j| if j % 97 == 0 || j / 32 == 3 { 0.0 } else { bell(12, j) * bell(12, j) + 2f32.powi(-10) };
    (0..COLS).map(entry).collect()
}

/// The values rounded to words; infinities become the largest finite number.
pub fn as_words(values: &[f32], words: Words) -> Vec<u8> {
    let finite = |bits: u16, infinity: u16| if bits & 0x7fff == infinity { bits - 1 } else { bits };
    match words {
        Words::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Words::F16 => values.iter().flat_map(|v| finite(float::f32_to_f16(*v), 0x7C00).to_le_bytes()).collect(),
        Words::BF16 => values.iter().flat_map(|v| finite(float::f32_to_bf16(*v), 0x7F80).to_le_bytes()).collect(),
    }
}
