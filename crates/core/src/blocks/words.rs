//! Source words as types, so that a loop is compiled once for each of them.

use crate::float;

/// A little-endian word that widens to F32 exactly.
///
/// The searches work on the words' bits, which order magnitudes as integers do; infinities and NaN come out as the largest.
pub(crate) trait Word: 'static {
    /// Its bytes.
    type Bytes: Copy + 'static;

    /// The words of a byte slice. Lengths have been checked: there is no remainder.
    fn split(bytes: &[u8]) -> &[Self::Bytes];

    /// Its value.
    fn widen(bytes: Self::Bytes) -> f32;

    /// The largest magnitude.
    fn magnitude<const N: usize>(words: &[Self::Bytes; N]) -> f32;

    /// The largest magnitude, and whether it occurs with a plus and with a minus.
    fn signed_magnitude<const N: usize>(words: &[Self::Bytes; N]) -> (f32, bool, bool);

    /// The smallest and the largest value. Among zeros the negative one is smaller; not finite where any value is not.
    fn extremes<const N: usize>(words: &[Self::Bytes; N]) -> (f32, f32);
}

/// `array::map` that is inlined whatever its size, as kernels need it.
#[inline(always)]
pub(crate) fn map<T: Copy, U: Copy + Default, const N: usize>(from: &[T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut to = [U::default(); N];
    for (to, from) in to.iter_mut().zip(from) {
        *to = f(*from);
    }
    to
}

/// IEEE binary32.
pub(crate) struct F32;
/// IEEE binary16.
pub(crate) struct F16;
/// The upper half of a binary32.
pub(crate) struct BF16;

impl Word for F32 {
    type Bytes = [u8; 4];

    #[inline(always)]
    fn split(bytes: &[u8]) -> &[[u8; 4]] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn magnitude<const N: usize>(words: &[[u8; 4]; N]) -> f32 {
        f32::from_bits(words.iter().fold(0, |max, word| max.max(u32::from_le_bytes(*word) & 0x7fff_ffff)))
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(words: &[[u8; 4]; N]) -> (f32, bool, bool) {
        let magnitude = Self::magnitude(words);
        let bits = magnitude.to_bits();
        let occurs = |wanted| words.iter().fold(false, |found, word| found | (u32::from_le_bytes(*word) == wanted));
        (magnitude, occurs(bits), occurs(bits | 1 << 31))
    }

    #[inline(always)]
    fn extremes<const N: usize>(words: &[[u8; 4]; N]) -> (f32, f32) {
        // Integers that order as the floats do: of negative ones all bits but the sign are inverted. The mapping is its own inverse.
        let ordered = |bits: i32| bits ^ ((bits >> 31) as u32 >> 1) as i32;
        let min = words.iter().fold(i32::MAX, |min, word| min.min(ordered(i32::from_le_bytes(*word))));
        let max = words.iter().fold(i32::MIN, |max, word| max.max(ordered(i32::from_le_bytes(*word))));
        (f32::from_bits(ordered(min) as u32), f32::from_bits(ordered(max) as u32))
    }
}

/// [`Word::magnitude`] of 16-bit words, as bits.
#[inline(always)]
fn magnitude16<const N: usize>(words: &[[u8; 2]; N]) -> u16 {
    words.iter().fold(0, |max, word| max.max(u16::from_le_bytes(*word) & 0x7fff))
}

/// [`Word::signed_magnitude`] of 16-bit words, with the magnitude as bits.
#[inline(always)]
fn signed_magnitude16<const N: usize>(words: &[[u8; 2]; N]) -> (u16, bool, bool) {
    let magnitude = magnitude16(words);
    let occurs = |wanted| words.iter().fold(false, |found, word| found | (u16::from_le_bytes(*word) == wanted));
    (magnitude, occurs(magnitude), occurs(magnitude | 1 << 15))
}

/// [`Word::extremes`] of 16-bit words, as bits.
#[inline(always)]
fn extremes16<const N: usize>(words: &[[u8; 2]; N]) -> (u16, u16) {
    let ordered = |bits: i16| bits ^ ((bits >> 15) as u16 >> 1) as i16;
    let min = words.iter().fold(i16::MAX, |min, word| min.min(ordered(i16::from_le_bytes(*word))));
    let max = words.iter().fold(i16::MIN, |max, word| max.max(ordered(i16::from_le_bytes(*word))));
    (ordered(min) as u16, ordered(max) as u16)
}

impl Word for F16 {
    type Bytes = [u8; 2];

    #[inline(always)]
    fn split(bytes: &[u8]) -> &[[u8; 2]] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen(bytes: [u8; 2]) -> f32 {
        float::f16_to_f32(u16::from_le_bytes(bytes))
    }

    #[inline(always)]
    fn magnitude<const N: usize>(words: &[[u8; 2]; N]) -> f32 {
        float::f16_to_f32(magnitude16(words))
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(words: &[[u8; 2]; N]) -> (f32, bool, bool) {
        F32::signed_magnitude(&map(words, |word| Self::widen(word).to_le_bytes()))
    }

    #[inline(always)]
    fn extremes<const N: usize>(words: &[[u8; 2]; N]) -> (f32, f32) {
        let (min, max) = extremes16(words);
        (float::f16_to_f32(min), float::f16_to_f32(max))
    }
}

impl Word for BF16 {
    type Bytes = [u8; 2];

    #[inline(always)]
    fn split(bytes: &[u8]) -> &[[u8; 2]] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen(bytes: [u8; 2]) -> f32 {
        float::bf16_to_f32(u16::from_le_bytes(bytes))
    }

    #[inline(always)]
    fn magnitude<const N: usize>(words: &[[u8; 2]; N]) -> f32 {
        float::bf16_to_f32(magnitude16(words))
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(words: &[[u8; 2]; N]) -> (f32, bool, bool) {
        let (magnitude, plus, minus) = signed_magnitude16(words);
        (float::bf16_to_f32(magnitude), plus, minus)
    }

    #[inline(always)]
    fn extremes<const N: usize>(words: &[[u8; 2]; N]) -> (f32, f32) {
        let (min, max) = extremes16(words);
        (float::bf16_to_f32(min), float::bf16_to_f32(max))
    }
}

/// The first of the values of largest magnitude; NaN or infinite where any value is.
#[inline(always)]
pub(crate) fn first_largest<W: Word, const N: usize>(words: &[W::Bytes; N]) -> f32 {
    let (magnitude, plus, minus) = W::signed_magnitude(words);
    // At least one of them is true. `plus & minus` would become two branches, the first on the sign, which nothing predicts.
    if plus == minus {
        return first_of::<W, N>(words, magnitude);
    }

    f32::from_bits(magnitude.to_bits() | u32::from(minus) << 31)
}

/// Both signs reach the magnitude: look which comes first.
#[cold]
#[inline(never)]
fn first_of<W: Word, const N: usize>(words: &[W::Bytes; N], magnitude: f32) -> f32 {
    words.iter().map(|word| W::widen(*word)).find(|value| value.abs() == magnitude).unwrap_or(0.0)
}
