//! Looking for values that are not finite.

use ggufsmith_core::{Format, Words};

/// The largest magnitude for which no format overflows: scales are stored as F16, and no scale exceeds the largest weight.
const LARGEST_SAFE: f32 = 32_000.0;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scan {
    /// Number of NaN and infinite elements.
    pub nonfinite: u64,
    /// Position of the first one in the chunk.
    pub first_nonfinite: u64,
    /// Magnitude of the largest finite element, as bits of an F32.
    largest_bits: u32,
}

impl Scan {
    /// Whether a finite element can become infinite in some format.
    pub fn may_overflow(&self) -> bool {
        self.largest() > LARGEST_SAFE
    }

    /// Magnitude of the largest finite element.
    pub fn largest(&self) -> f32 {
        f32::from_bits(self.largest_bits)
    }
}

/// Scan little-endian words. Magnitudes order as integers, so the common case is one integer maximum.
pub(crate) fn scan(words: Words, bytes: &[u8]) -> Scan {
    match words {
        Words::F32 => {
            let words = bytes.as_chunks::<4>().0;
            let magnitude = |w: &[u8; 4]| u32::from_le_bytes(*w) & 0x7fff_ffff;
            finish(words, words.iter().map(magnitude).max(), magnitude, 0x7f80_0000, |m| m)
        }
        Words::F16 => {
            let words = bytes.as_chunks::<2>().0;
            let magnitude = |w: &[u8; 2]| u16::from_le_bytes(*w) & 0x7fff;
            finish(words, words.iter().map(magnitude).max(), magnitude, 0x7c00, |m| {
                ggufsmith_core::float::f16_to_f32(m).to_bits()
            })
        }
        Words::BF16 => {
            let words = bytes.as_chunks::<2>().0;
            let magnitude = |w: &[u8; 2]| u16::from_le_bytes(*w) & 0x7fff;
            finish(words, words.iter().map(magnitude).max(), magnitude, 0x7f80, |m| u32::from(m) << 16)
        }
    }
}

fn finish<W, M: Copy + Ord + Default>(
    words: &[W],
    largest: Option<M>,
    magnitude: impl Fn(&W) -> M,
    infinity: M,
    f32_bits: impl Fn(M) -> u32,
) -> Scan {
    let largest = largest.unwrap_or_default();
    if largest < infinity {
        return Scan { nonfinite: 0, first_nonfinite: 0, largest_bits: f32_bits(largest) };
    }
    let nonfinite = words.iter().filter(|w| magnitude(w) >= infinity).count() as u64;
    let first = words.iter().position(|w| magnitude(w) >= infinity).unwrap_or(0) as u64;
    let finite = words.iter().map(&magnitude).filter(|m| *m < infinity).max().unwrap_or_default();
    Scan { nonfinite, first_nonfinite: first, largest_bits: f32_bits(finite) }
}

/// Elements that decode to NaN or infinity; whole blocks are given.
pub(crate) fn nonfinite_values(format: &Format, blocks: &[u8]) -> u64 {
    nonfinite_blocks(format, blocks).0
}

/// The same, and the position of the first one. A format that cannot be decoded has none: it holds integers, or nobody stores it.
pub(crate) fn nonfinite_blocks(format: &Format, blocks: &[u8]) -> (u64, u64) {
    let (mut count, mut first) = (0, 0);
    let Some(decode) = format.decode else { return (count, first) };
    let mut values = vec![0.0; format.block_len];
    for (number, block) in blocks.chunks_exact(format.block_bytes).enumerate() {
        decode(block, &mut values);
        for (within, _) in values.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
            if count == 0 {
                first = (number * format.block_len + within) as u64;
            }
            count += 1;
        }
    }
    (count, first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggufsmith_core::float::{f32_to_bf16, f32_to_f16};
    use ggufsmith_core::formats;

    #[test]
    fn counts_and_places_in_every_word_type() {
        let values = [1.0, -3.0e4, f32::NAN, 2.0, f32::NEG_INFINITY, 0.0];
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|v| f32_to_f16(*v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| f32_to_bf16(*v).to_le_bytes()).collect();
        for (words, bytes) in [(Words::F32, f32s), (Words::F16, f16s), (Words::BF16, bf16s)] {
            let found = scan(words, &bytes);
            assert_eq!((found.nonfinite, found.first_nonfinite), (2, 2), "{words:?}");
            assert!((found.largest() - 3.0e4).abs() < 100.0 && !found.may_overflow());
            let clean = scan(words, &bytes[..2 * words.bytes()]);
            assert_eq!((clean.nonfinite, clean.largest_bits), (0, found.largest_bits));
        }
        assert_eq!(scan(Words::F32, &[]).nonfinite, 0);
    }

    #[test]
    fn overflow_to_f16_is_seen() {
        let blocks: Vec<u8> = [1.0f32, 7.0e4].iter().flat_map(|v| f32_to_f16(*v).to_le_bytes()).collect();
        assert_eq!(nonfinite_values(&formats::f16::FORMAT, &blocks), 1);
        assert!(scan(Words::F32, &7.0e4f32.to_le_bytes()).may_overflow());
        assert_eq!(nonfinite_blocks(&formats::f16::FORMAT, &blocks), (1, 1));
    }

    #[test]
    fn damaged_scales_are_seen_in_blocks() {
        let format = &formats::q8_0::FORMAT;
        let mut blocks = vec![1; 3 * format.block_bytes];
        assert_eq!(nonfinite_blocks(format, &blocks), (0, 0));
        let scale = format.block_bytes..format.block_bytes + 2;
        blocks[scale].copy_from_slice(&0x7e00u16.to_le_bytes());
        assert_eq!(nonfinite_blocks(format, &blocks), (32, 32), "the second block's scale is NaN");
    }
}
