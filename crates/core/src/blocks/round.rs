//! Conversions from float to integer and to F16 as ggml's C code makes them on x86-64.

use crate::float;

/// Float to integer, rounded toward zero, lowest byte kept: what `(int8_t)` and `(uint8_t)` compile to.
///
/// C leaves a value outside the type undefined. Through a 32-bit conversion (`cvttss2si`) NaN and everything from 2^31 on become
/// 0x8000_0000, whose lowest byte is 0.
pub(crate) fn low_byte(value: f32) -> u8 {
    if value.abs() < 2_147_483_648.0 { value as i32 as u8 } else { 0 }
}

/// Float to `int`, rounded toward zero. NaN and what does not fit become the smallest one (`cvttss2si`).
pub(crate) fn to_int(value: f32) -> i32 {
    if value.abs() < 2_147_483_648.0 { value as i32 } else { i32::MIN }
}

/// What C's `lroundf` leaves in an `int`: to the nearest integer, half away from zero, the lower 32 bits kept. NaN and what does not
/// fit 64 bits become 0.
pub(crate) fn lround(value: f32) -> i32 {
    if value.abs() < 9_223_372_036_854_775_808.0 { value.round() as i64 as i32 } else { 0 }
}

/// A block's scale or minimum as F16 bits (`GGML_FP32_TO_FP16`): ties to even, overflow to infinity, every NaN becomes 0x7e00
/// with its sign.
pub(crate) fn scale_to_f16(value: f32) -> u16 {
    if value.is_nan() { (value.to_bits() >> 16) as u16 & 0x8000 | 0x7e00 } else { float::f32_to_f16(value) }
}

/// A scale or minimum that was searched for: as [`scale_to_f16`], but every NaN becomes 0xfe00. It comes from sums that overflowed,
/// and such a NaN is negative on x86-64 and positive elsewhere.
pub(crate) fn searched_to_f16(value: f32) -> u16 {
    if value.is_nan() { 0xfe00 } else { float::f32_to_f16(value) }
}

/// The largest float below one half. Adding it and rounding toward zero rounds half away from zero, as `roundf` does; adding one
/// half would carry 0.49999997 to 1.
pub(crate) const BELOW_HALF: f32 = 0.499_999_97;

/// Whether a largest magnitude (or a difference of two values) makes an ordinary block: neither zero nor so small that the
/// reciprocal of a scale overflows, and finite.
#[inline(always)]
pub(crate) fn is_ordinary(amax: f32) -> bool {
    const LOW: u32 = (127 - 100) << 23; // 2^-100
    amax.to_bits().wrapping_sub(LOW) < f32::INFINITY.to_bits() - LOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_half_rounds_half_away_from_zero() {
        let near = |x: f32| [x, x.next_up(), x.next_down(), -x, -x.next_up(), -x.next_down()];
        for x in (0..=254).flat_map(|halves| near(halves as f32 / 2.0)) {
            assert_eq!((x + BELOW_HALF.copysign(x)).trunc(), x.round(), "{x:e}");
        }
    }

    #[test]
    fn low_byte_wraps_and_drops_what_is_out_of_range() {
        assert_eq!([low_byte(-0.9), low_byte(255.9), low_byte(256.0), low_byte(-1.0)], [0, 255, 0, 255]);
        assert_eq!([low_byte(f32::NAN), low_byte(f32::INFINITY), low_byte(-3e9), low_byte(2_147_483_648.0)], [0; 4]);
    }

    #[test]
    fn integers_out_of_range() {
        assert_eq!([to_int(-1.9), to_int(f32::NAN), to_int(2_147_483_648.0), to_int(-3e9)], [-1, i32::MIN, i32::MIN, i32::MIN]);
        assert_eq!([lround(-0.5), lround(0.499_999_97), lround(f32::NAN), lround(f32::INFINITY)], [-1, 0, 0, 0]);
        assert_eq!([lround(4_294_967_296.0 + 512.0), lround(-9.3e18)], [512, 0]);
    }

    #[test]
    fn nan_scales_are_quiet() {
        assert_eq!(scale_to_f16(f32::from_bits(0xffc0_1234)), 0xfe00);
        assert_eq!(scale_to_f16(f32::from_bits(0x7f80_0001)), 0x7e00);
        assert_eq!(scale_to_f16(65520.0), 0x7c00);
    }

    #[test]
    fn ordinary_magnitudes() {
        assert!([1e-30, 1.0, f32::MAX].into_iter().all(is_ordinary));
        assert!(![0.0, 1e-31, -1.0, f32::INFINITY, f32::NAN, -f32::NAN].into_iter().any(is_ordinary));
    }
}
