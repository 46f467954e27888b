//! bitsandbytes' 8-bit dynamic quantization, as it is used for the scales of double quantization (`quantize_blockwise` on the CPU):
//! 256 values, dense near 0 ("8-bit Optimizers via Block-wise Quantization", Dettmers et al. 2021), one F32 scale per block.
//!
//! Its kernel does not search the nearest value of each element but rounds the element to a grid of 65536 points from -1 to 1 and
//! takes the value nearest to that point. So do we.

/// Elements per block of scales.
pub const BLOCK_LEN: usize = 256;

/// Points of the grid on which elements are looked up.
const GRID: usize = 1 << 16;

/// The values of all codes, ascending (`create_dynamic_map`): 0, 1, and for every power of ten from 1e-6 to 1 and either sign the
/// means of 2, 3, 5, ... 65 equally spaced numbers from a tenth of it to itself.
pub fn values() -> [f32; 256] {
    const POWERS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut values = [0.0; 256];
    values[255] = 1.0;
    let mut at = 1;
    for (exponent, power) in POWERS.into_iter().enumerate() {
        let intervals = 1usize << exponent;
        let step = (1.0 - 0.1f32) / intervals as f32;
        // torch.linspace: from both ends, with fused multiply-adds.
        let bound = |i: usize| match i < intervals.div_ceil(2) {
            true => step.mul_add(i as f32, 0.1),
            false => (-step).mul_add((intervals - i) as f32, 1.0),
        };
        for i in 0..intervals {
            let value = power * ((bound(i) + bound(i + 1)) / 2.0);
            values[127 + at] = value;
            values[127 - at] = -value;
            at += 1;
        }
    }
    values
}

/// The encoder: the code of each point of the grid.
#[derive(Debug)]
pub struct Dynamic8 {
    codes: Vec<u8>,
}

impl Default for Dynamic8 {
    fn default() -> Self {
        Self::new()
    }
}

impl Dynamic8 {
    /// Fill the table; 64 KiB.
    pub fn new() -> Self {
        let values = values();
        let mut code = 0;
        let codes = (0..GRID).map(|i| {
            let point = -1.0 + 2.0 * i as f64 / (GRID - 1) as f64;
            while code < 255 && (f64::from(values[code + 1]) - point).abs() < (f64::from(values[code]) - point).abs() {
                code += 1;
            }
            code as u8
        });
        Dynamic8 { codes: codes.collect() }
    }

    /// Codes and, per block of [`BLOCK_LEN`] elements (the last may be shorter), the largest magnitude. A block of zeros gets code 0
    /// everywhere, as in the reference.
    pub fn encode(&self, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let mut codes = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(values.len().div_ceil(BLOCK_LEN));
        for block in values.chunks(BLOCK_LEN) {
            let absmax = block.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            scales.push(absmax);
            codes.extend(block.iter().map(|value| self.code(*value, absmax)));
        }
        (codes, scales)
    }

    /// The code of one element of a block of this largest magnitude.
    #[inline]
    pub fn code(&self, value: f32, absmax: f32) -> u8 {
        let inverse = 1.0 / absmax;
        // NaN, from 0 times infinity, becomes point 0.
        let point = ((value * inverse).clamp(-1.0, 1.0) + 1.0) * ((GRID - 1) as f32 / 2.0) + 0.5;
        self.codes[(point as usize).min(GRID - 1)]
    }
}

/// `torch.mean` of F32 numbers in one thread: 8 lanes times 4 rows of partial sums in a cascade of 4 levels (`cascade_sum` of ATen),
/// so that the error grows slowly. The order of additions decides the last bits.
pub fn mean(values: &[f32]) -> f32 {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    type Row = [[f32; LANES]; ROWS];
    let (vectors, rest) = values.as_chunks::<LANES>();
    let (rows, last) = vectors.as_chunks::<ROWS>();
    let add = |into: &mut Row, from: &Row| {
        for (into, from) in into.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
            *into += from;
        }
    };

    let mut levels = [Row::default(); 4];
    // A quarter of the binary logarithm of the number of rows, at least 4.
    let power = (rows.len().next_power_of_two().trailing_zeros() / 4).max(4);
    let (steps, tail) = rows.split_at(rows.len() >> power << power);
    for (step, rows) in steps.chunks(1 << power).enumerate() {
        rows.iter().for_each(|row| add(&mut levels[0], row));
        let done = (step + 1) << power;
        for level in 1..levels.len() {
            let lower = std::mem::take(&mut levels[level - 1]);
            add(&mut levels[level], &lower);
            if done & (((1 << power) - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    let [mut sums, others @ ..] = levels;
    tail.iter().for_each(|row| add(&mut sums, row));
    others.iter().for_each(|level| add(&mut sums, level));

    let [mut lanes, others @ ..] = sums;
    for vector in last.iter().chain(&others) {
        for (lane, value) in lanes.iter_mut().zip(vector) {
            *lane += value;
        }
    }
    let sum = rest.iter().chain(&lanes).fold(0f32, |sum, value| sum + value);
    sum / values.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_ascend_and_mirror() {
        let values = values();
        assert!(values.is_sorted_by(|a, b| a < b));
        assert_eq!((values[127], values[255]), (0.0, 1.0));
        for i in 1..128 {
            assert_eq!(values[127 - i], -values[127 + i]);
        }
    }

    #[test]
    fn means_of_all_lengths_are_close_to_the_exact_ones() {
        for len in (1..200).chain([1000, 4096, 20_001, 131_072, 1_000_003]) {
            let values: Vec<f32> = (1..=len).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0).collect();
            let exact = values.iter().map(|value| f64::from(*value)).sum::<f64>() / f64::from(len);
            assert!((f64::from(mean(&values)) / exact - 1.0).abs() < 3e-7, "{len}");
        }
    }

    #[test]
    fn blocks_of_zeros() {
        let (codes, scales) = Dynamic8::new().encode(&[0.0; 300]);
        assert_eq!((codes, scales), (vec![0; 300], vec![0.0; 2]));
    }
}
