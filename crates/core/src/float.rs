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

/// F16 bits to F32. Integer operations and one exact subtraction, so that loops over it vectorize.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13; // the fraction is in place, the exponent still counts from 15
    let widened = match bits & 0x7c00 {
        // Give the fraction the leading bit of 2^-14 and take it away again.
        0 => (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits(),
        0x7c00 => magnitude | 0x7f80_0000,
        _ => magnitude + ((127 - 15) << 23),
    };
    f32::from_bits(sign | widened)
}

/// F32 to F16 bits, ties to even, overflow to infinity; NaN keeps its sign and upper payload and becomes quiet.
/// Integer operations and one addition, so that loops over it vectorize.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let narrowed = if magnitude < 113 << 23 {
        // Below 2^-14: the last bit of one half is 2^-24, the unit of F16 there, so the addition rounds to it.
        (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits())
    } else if magnitude < 0x477f_f000 {
        (magnitude - ((127 - 15) << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13
    } else if magnitude <= 0x7f80_0000 {
        0x7c00
    } else {
        0x7e00 | (magnitude >> 13) & 0x3ff
    };
    sign | narrowed as u16
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
    fn f16_is_as_half_converts_it() {
        for bits in 0..=u16::MAX {
            let value = half::f16::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(f16_to_f32(bits).to_bits(), value.to_f32().to_bits(), "{bits:04x}");
            }
        }
        // Every sign and exponent with every fraction that rounding can tell apart.
        let rest = [0, 1, 0xffe, 0xfff, 0x1000, 0x1001, 0x1ffe, 0x1fff];
        for bits in (0..1 << 19).flat_map(|upper: u32| rest.map(|lower| upper << 13 | lower)) {
            let value = f32::from_bits(bits);
            assert_eq!(f32_to_f16(value), half::f16::from_f32(value).to_bits(), "{bits:08x}");
        }
        // Subnormal results round at other places.
        for bits in (0x3280_0000..0x3880_0000).step_by(61) {
            assert_eq!(f32_to_f16(f32::from_bits(bits)), half::f16::from_f32(f32::from_bits(bits)).to_bits(), "{bits:08x}");
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
