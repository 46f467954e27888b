//! Exact conversions between float types.
//!
//! Widening is exact. Narrowing rounds to nearest, ties to even, as numpy's `astype` and ggml's conversions do.

/// BF16 bits to F32.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// F32 to BF16 bits, ties to even; NaN keeps its sign and upper payload and becomes quiet (gguf-py `BF16`, `ggml_compute_fp32_to_bf16`).
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 64;
    }
    ((u64::from(bits) + 0x7fff + u64::from((bits >> 16) & 1)) >> 16) as u16
}

/// F16 bits to F32.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// F32 to F16 bits, ties to even, overflow to infinity.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

/// `float8_e4m3fn` to F32: bias 7, no infinities, 0x7f and 0xff are NaN.
pub fn f8_e4m3_to_f32(bits: u8) -> f32 {
    let magnitude = match (bits >> 3) & 15 {
        _ if bits & 0x7f == 0x7f => f32::NAN,
        0 => f32::from(bits & 7) * 2f32.powi(-9),
        exponent => (1.0 + f32::from(bits & 7) / 8.0) * 2f32.powi(i32::from(exponent) - 7),
    };
    if bits & 0x80 != 0 { -magnitude } else { magnitude }
}

/// `float8_e5m2` to F32: the upper byte of an F16.
pub fn f8_e5m2_to_f32(bits: u8) -> f32 {
    f16_to_f32(u16::from(bits) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_floats_round_trip() {
        for bits in 0..=u16::MAX {
            let (b, h) = (bf16_to_f32(bits), f16_to_f32(bits));
            if !b.is_nan() {
                assert_eq!(f32_to_bf16(b), bits);
            }
            if !h.is_nan() {
                assert_eq!(f32_to_f16(h), bits);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(f32_to_f16(1.0 + 2f32.powi(-11)), 0x3c00);
        assert_eq!(f32_to_f16(1.0 + 3.0 * 2f32.powi(-11)), 0x3c02);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_bf16(f32::MAX), 0x7f80);
    }

    #[test]
    fn float8_corner_values() {
        assert_eq!(f8_e4m3_to_f32(0x7e), 448.0);
        assert_eq!(f8_e4m3_to_f32(0x01), 2f32.powi(-9));
        assert_eq!(f8_e4m3_to_f32(0x80).to_bits(), (-0f32).to_bits());
        assert!(f8_e4m3_to_f32(0xff).is_nan());
        assert_eq!(f8_e5m2_to_f32(0x7b), 57344.0);
        assert_eq!(f8_e5m2_to_f32(0xfc), f32::NEG_INFINITY);
    }
}
