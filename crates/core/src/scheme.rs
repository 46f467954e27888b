//! The contract of a scheme that is no ggml format: it has no `ggml_id`, and what it writes are several arrays, not blocks.
//!
//! bitsandbytes' 4-bit blocks (`quantize_4bit`, `dequantize_4bit` on the CPU, without double quantization).
//!
//! A tensor is one sequence of elements, whatever its shape, in blocks of `block_len`; the last one may be shorter. Per block there
//! is one F32, the largest magnitude `absmax`; per element a code of 4 bits, two to a byte, the first element in the *high* half.
//! Value: `values[code] * absmax`. The values in ascending order have ranks; the rank of an element is the number of bounds,
//! midpoints between neighbouring values, below `x / absmax`, and `codes[rank]` is its code.

use crate::blocks::simd::{self, Isa, Kernel};
use crate::blocks::words::{self, BF16, F16, F32, Word};
use crate::encoder::Words;

/// Elements that a step of the fast encoder takes.
const STEP: usize = 32;

/// A scheme of sixteen values.
#[derive(Debug)]
pub struct FourBit {
    /// Its name.
    pub name: &'static str,
    /// What each code stands for, relative to the block's largest magnitude.
    pub values: [f32; 16],
    /// Midpoints between neighbouring values, ascending.
    pub bounds: [f32; 15],
    /// The code of each rank.
    pub codes: [u8; 16],
}

/// The codes of a scheme whose values ascend with them.
pub const ASCENDING: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Lengths that do not belong together. All of them are faults of the caller: data never makes a scheme fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SchemeError {
    #[error("{scheme} has no blocks of {block_len} elements: a multiple of 32 from 32 to 4096 is needed")]
    BlockLength { scheme: &'static str, block_len: usize },
    #[error("{bytes} bytes are no whole number of words of {word_bytes} bytes")]
    InputLength { bytes: usize, word_bytes: usize },
    #[error("{scheme} needs {expected} bytes of codes for {elems} elements, the buffer holds {found}")]
    CodesLength { scheme: &'static str, elems: usize, expected: usize, found: usize },
    #[error("{scheme} needs {expected} scales for {elems} elements, the buffer holds {found}")]
    ScalesLength { scheme: &'static str, elems: usize, expected: usize, found: usize },
}

impl FourBit {
    /// Block length where nothing else is asked for.
    pub const DEFAULT_BLOCK_LEN: usize = 64;

    /// A scheme of these values, one per code, and the codes in the order of their values.
    pub const fn new(name: &'static str, values: [f32; 16], codes: [u8; 16]) -> FourBit {
        let mut bounds = [0.0; 15];
        let mut i = 0;
        while i < 15 {
            bounds[i] = (values[codes[i] as usize] + values[codes[i + 1] as usize]) / 2.0;
            i += 1;
        }
        FourBit { name, values, bounds, codes }
    }

    /// What each code stands for in a block of this `absmax`.
    pub fn scaled(&self, absmax: f32) -> [f32; 16] {
        self.values.map(|value| value * absmax)
    }

    /// Bytes of codes for `elems` elements.
    pub fn codes_len(&self, elems: usize) -> usize {
        elems.div_ceil(2)
    }

    /// Encode elements that start at a block's start: a whole tensor, or a part that ends at a block's end or the tensor's.
    /// `codes` takes [`FourBit::codes_len`] bytes, `absmax` one number per block. Where the number of elements is odd, the last
    /// low half is the code of 0.
    ///
    /// For a block of zeros `absmax` is 0 and every code that of 0; a shorter last block gets at least 1e-38, as in the reference.
    /// NaN gets the last code and makes its block's `absmax` NaN.
    ///
    /// # Errors
    /// [`SchemeError`] where lengths do not belong together.
    pub fn encode(
        &self,
        words: Words,
        source: &[u8],
        block_len: usize,
        codes: &mut [u8],
        absmax: &mut [f32],
    ) -> Result<(), SchemeError> {
        self.check_source(words, source, block_len, codes.len(), absmax.len())?;
        match words {
            Words::F32 => self.fast::<F32>(F32::split(source), block_len, codes, absmax),
            Words::F16 => self.fast::<F16>(F16::split(source), block_len, codes, absmax),
            Words::BF16 => self.fast::<BF16>(BF16::split(source), block_len, codes, absmax),
        }
        Ok(())
    }

    /// As [`FourBit::encode`], one element after the other: the definition of what it must write.
    ///
    /// # Errors
    /// As [`FourBit::encode`].
    pub fn encode_textbook(
        &self,
        words: Words,
        source: &[u8],
        block_len: usize,
        codes: &mut [u8],
        absmax: &mut [f32],
    ) -> Result<(), SchemeError> {
        self.check_source(words, source, block_len, codes.len(), absmax.len())?;
        match words {
            Words::F32 => self.textbook::<F32>(F32::split(source), block_len, codes, absmax),
            Words::F16 => self.textbook::<F16>(F16::split(source), block_len, codes, absmax),
            Words::BF16 => self.textbook::<BF16>(BF16::split(source), block_len, codes, absmax),
        }
        Ok(())
    }

    /// Decode `out.len()` elements that start at a block's start.
    ///
    /// # Errors
    /// [`SchemeError`] where lengths do not belong together.
    pub fn decode(&self, codes: &[u8], absmax: &[f32], block_len: usize, out: &mut [f32]) -> Result<(), SchemeError> {
        self.check(out.len(), block_len, codes.len(), absmax.len())?;
        for ((out, codes), absmax) in out.chunks_mut(block_len).zip(codes.chunks(block_len / 2)).zip(absmax) {
            let scaled = self.scaled(*absmax);
            for (pair, byte) in out.chunks_mut(2).zip(codes) {
                pair[0] = scaled[usize::from(byte >> 4)];
                if let Some(second) = pair.get_mut(1) {
                    *second = scaled[usize::from(byte & 15)];
                }
            }
        }
        Ok(())
    }

    /// Whether lengths belong together: what [`FourBit::encode`] checks before it encodes; `codes` and `absmax` are the buffers'
    /// lengths.
    ///
    /// # Errors
    /// As [`FourBit::encode`].
    pub fn check_source(
        &self,
        words: Words,
        source: &[u8],
        block_len: usize,
        codes: usize,
        absmax: usize,
    ) -> Result<(), SchemeError> {
        if !source.len().is_multiple_of(words.bytes()) {
            return Err(SchemeError::InputLength { bytes: source.len(), word_bytes: words.bytes() });
        }
        self.check(source.len() / words.bytes(), block_len, codes, absmax)
    }

    fn check(&self, elems: usize, block_len: usize, codes: usize, absmax: usize) -> Result<(), SchemeError> {
        let scheme = self.name;
        if !(STEP..=4096).contains(&block_len) || !block_len.is_multiple_of(STEP) {
            return Err(SchemeError::BlockLength { scheme, block_len });
        }
        if codes != self.codes_len(elems) {
            return Err(SchemeError::CodesLength { scheme, elems, expected: self.codes_len(elems), found: codes });
        }
        let blocks = elems.div_ceil(block_len);
        if absmax != blocks {
            return Err(SchemeError::ScalesLength { scheme, elems, expected: blocks, found: absmax });
        }
        Ok(())
    }

    fn textbook<W: Word>(&self, source: &[W::Bytes], block_len: usize, codes: &mut [u8], absmax: &mut [f32]) {
        for ((words, codes), absmax) in source.chunks(block_len).zip(codes.chunks_mut(block_len / 2)).zip(absmax) {
            let whole = words.len() == block_len;
            *absmax = 0.0;
            for word in words {
                let magnitude = W::widen(*word).abs();
                // NaN stays.
                if magnitude > *absmax || magnitude.is_nan() {
                    *absmax = magnitude;
                }
            }
            if !whole {
                *absmax = at_least_tiny(*absmax);
            }
            let inverse = 1.0 / at_least_tiny(*absmax);
            let code = |word: &W::Bytes| {
                let x = W::widen(*word);
                let scaled = if whole { x * inverse } else { x / *absmax };
                self.codes[self.bounds.iter().filter(|bound| above(scaled, **bound)).count()]
            };
            for (byte, pair) in codes.iter_mut().zip(words.chunks(2)) {
                *byte = code(&pair[0]) << 4 | pair.get(1).map_or(self.code_of_zero(), code);
            }
        }
    }

    fn code_of_zero(&self) -> u8 {
        self.codes[self.bounds.iter().filter(|bound| above(0.0, **bound)).count()]
    }

    fn fast<W: Word>(&self, source: &[W::Bytes], block_len: usize, codes: &mut [u8], absmax: &mut [f32]) {
        let whole = source.len() / block_len;
        let (source, last) = source.split_at(whole * block_len);
        let (codes, last_codes) = codes.split_at_mut(whole * block_len / 2);
        let (absmax, last_absmax) = absmax.split_at_mut(whole);
        let blocks = WholeBlocks::<W> {
            bounds: &self.bounds,
            ranked: (self.codes != ASCENDING).then_some(&self.codes),
            steps: block_len / STEP,
            words: source.as_chunks().0,
            codes: codes.as_chunks_mut().0,
            absmax,
        };
        simd::dispatch(blocks);
        self.textbook::<W>(last, block_len, last_codes, last_absmax);
    }
}

/// The reference's guard against division by zero; a denormal F32.
fn at_least_tiny(absmax: f32) -> f32 {
    if absmax < 1e-38 { 1e-38 } else { absmax }
}

/// Whether a value is above a bound; NaN is above all.
#[inline(always)]
fn above(value: f32, bound: f32) -> bool {
    !matches!(value.partial_cmp(&bound), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal))
}

struct WholeBlocks<'a, W: Word> {
    bounds: &'a [f32; 15],
    /// The code of each rank, where it is not the rank itself.
    ranked: Option<&'a [u8; 16]>,
    steps: usize,
    words: &'a [[W::Bytes; STEP]],
    codes: &'a mut [[u8; STEP / 2]],
    absmax: &'a mut [f32],
}

impl<W: Word> Kernel for WholeBlocks<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let blocks = self.words.chunks_exact(self.steps).zip(self.codes.chunks_exact_mut(self.steps));
        for ((words, codes), absmax) in blocks.zip(self.absmax) {
            *absmax = 0.0;
            for words in words {
                let magnitude = W::magnitude(words, &words::map(words, W::widen));
                // By bits: NaN is larger than anything.
                *absmax = f32::from_bits(absmax.to_bits().max(magnitude.to_bits()));
            }
            let inverse = 1.0 / at_least_tiny(*absmax);
            for (words, codes) in words.iter().zip(codes) {
                let scaled = words::map(words, |word| W::widen(word) * inverse);
                let mut counts = [0f32; STEP];
                for bound in self.bounds {
                    for (count, value) in counts.iter_mut().zip(&scaled) {
                        *count += if above(*value, *bound) { 1.0 } else { 0.0 };
                    }
                }
                let mut counts = isa.truncate::<255>(&counts);
                if let Some(codes) = self.ranked {
                    counts = words::map(&counts, |rank: u8| codes[usize::from(rank & 15)]);
                }
                for (byte, pair) in codes.iter_mut().zip(counts.as_chunks::<2>().0) {
                    *byte = pair[0] << 4 | pair[1];
                }
            }
        }
    }
}
