//! Source words as types, so that a loop is compiled once for each of them.

use crate::float;

/// A little-endian word that widens to F32 exactly.
///
/// The searches get the words and their values and use whichever is cheaper. They compare bits, which order magnitudes as integers
/// do; where any value is NaN or infinite, so is what they find.
pub(crate) trait Word: 'static {
    /// Its bytes.
    type Bytes: Copy + 'static;

    /// The words of a byte slice. Lengths have been checked: there is no remainder.
    fn split(bytes: &[u8]) -> &[Self::Bytes];

    /// Its value.
    fn widen(bytes: Self::Bytes) -> f32;

    /// The largest magnitude.
    fn magnitude<const N: usize>(words: &[Self::Bytes; N], values: &[f32; N]) -> f32;

    /// The largest magnitude, and whether it occurs with a plus and with a minus.
    fn signed_magnitude<const N: usize>(words: &[Self::Bytes; N], values: &[f32; N]) -> (f32, bool, bool);

    /// The smallest and the largest value. Among zeros the negative one is smaller.
    fn extremes<const N: usize>(words: &[Self::Bytes; N], values: &[f32; N]) -> (f32, f32);
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

/// The first of the values of largest magnitude.
#[inline(always)]
pub(crate) fn first_largest<W: Word, const N: usize>(words: &[W::Bytes; N], values: &[f32; N]) -> f32 {
    let (magnitude, plus, minus) = W::signed_magnitude(words, values);
    // At least one of them is true. `plus & minus` would become two branches, the first on the sign, which nothing predicts.
    if plus == minus {
        return first_of(*values, magnitude);
    }
    f32::from_bits(magnitude.to_bits() | u32::from(minus) << 31)
}

/// Both signs reach the magnitude: look which comes first.
#[cold]
#[inline(never)]
fn first_of<const N: usize>(values: [f32; N], magnitude: f32) -> f32 {
    values.into_iter().find(|value| value.abs() == magnitude).unwrap_or(f32::NAN)
}

/// IEEE binary32.
pub(crate) struct F32;
/// IEEE binary16.
pub(crate) struct F16;
/// The upper half of a binary32.
pub(crate) struct BF16;

/// The searches over values.
mod of_values {
    #[inline(always)]
    pub(super) fn magnitude<const N: usize>(values: &[f32; N]) -> f32 {
        f32::from_bits(values.iter().fold(0, |max, value| max.max(value.to_bits() & 0x7fff_ffff)))
    }

    #[inline(always)]
    pub(super) fn signed_magnitude<const N: usize>(values: &[f32; N]) -> (f32, bool, bool) {
        let bits = magnitude(values).to_bits();
        let occurs = |wanted| values.iter().fold(false, |found, value| found | (value.to_bits() == wanted));
        (f32::from_bits(bits), occurs(bits), occurs(bits | 1 << 31))
    }

    #[inline(always)]
    pub(super) fn extremes<const N: usize>(values: &[f32; N]) -> (f32, f32) {
        // Integers that order as the floats do: of negative ones all bits but the sign are inverted. The mapping is its own inverse.
        let ordered = |bits: i32| bits ^ ((bits >> 31) as u32 >> 1) as i32;
        let min = values.iter().fold(i32::MAX, |min, value| min.min(ordered(value.to_bits() as i32)));
        let max = values.iter().fold(i32::MIN, |max, value| max.max(ordered(value.to_bits() as i32)));
        (f32::from_bits(ordered(min) as u32), f32::from_bits(ordered(max) as u32))
    }
}

/// The same over words of 16 bits, as bits.
mod of_halves {
    #[inline(always)]
    pub(super) fn magnitude<const N: usize>(words: &[[u8; 2]; N]) -> u16 {
        words.iter().fold(0, |max, word| max.max(u16::from_le_bytes(*word) & 0x7fff))
    }

    #[inline(always)]
    pub(super) fn signed_magnitude<const N: usize>(words: &[[u8; 2]; N]) -> (u16, bool, bool) {
        let bits = magnitude(words);
        let occurs = |wanted| words.iter().fold(false, |found, word| found | (u16::from_le_bytes(*word) == wanted));
        (bits, occurs(bits), occurs(bits | 1 << 15))
    }

    #[inline(always)]
    pub(super) fn extremes<const N: usize>(words: &[[u8; 2]; N]) -> (u16, u16) {
        let ordered = |bits: i16| bits ^ ((bits >> 15) as u16 >> 1) as i16;
        let min = words.iter().fold(i16::MAX, |min, word| min.min(ordered(i16::from_le_bytes(*word))));
        let max = words.iter().fold(i16::MIN, |max, word| max.max(ordered(i16::from_le_bytes(*word))));
        (ordered(min) as u16, ordered(max) as u16)
    }
}

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
    fn magnitude<const N: usize>(_words: &[[u8; 4]; N], values: &[f32; N]) -> f32 {
        of_values::magnitude(values)
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(_words: &[[u8; 4]; N], values: &[f32; N]) -> (f32, bool, bool) {
        of_values::signed_magnitude(values)
    }

    #[inline(always)]
    fn extremes<const N: usize>(_words: &[[u8; 4]; N], values: &[f32; N]) -> (f32, f32) {
        of_values::extremes(values)
    }
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
    fn magnitude<const N: usize>(words: &[[u8; 2]; N], _values: &[f32; N]) -> f32 {
        float::f16_to_f32(of_halves::magnitude(words))
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(_words: &[[u8; 2]; N], values: &[f32; N]) -> (f32, bool, bool) {
        of_values::signed_magnitude(values)
    }

    #[inline(always)]
    fn extremes<const N: usize>(_words: &[[u8; 2]; N], values: &[f32; N]) -> (f32, f32) {
        of_values::extremes(values)
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
    fn magnitude<const N: usize>(words: &[[u8; 2]; N], _values: &[f32; N]) -> f32 {
        float::bf16_to_f32(of_halves::magnitude(words))
    }

    #[inline(always)]
    fn signed_magnitude<const N: usize>(words: &[[u8; 2]; N], _values: &[f32; N]) -> (f32, bool, bool) {
        let (bits, plus, minus) = of_halves::signed_magnitude(words);
        (float::bf16_to_f32(bits), plus, minus)
    }

    #[inline(always)]
    fn extremes<const N: usize>(words: &[[u8; 2]; N], _values: &[f32; N]) -> (f32, f32) {
        let (min, max) = of_halves::extremes(words);
        (float::bf16_to_f32(min), float::bf16_to_f32(max))
    }
}
