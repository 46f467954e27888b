//! `INT8_ABSMAX`: signed bytes with one scale for many elements, from their largest magnitude ("absmax", symmetric quantization).
//!
//! `scale = 127 / absmax` in F32, `code = round(scale * x)` from -127 to 127, ties to even; the value is `code / scale`, rounded to F32.
//! It is [`Affine`] with the zero point 0, and computes as that does.

use super::int8_affine::{Affine, Codes};

/// The scheme's name.
pub const NAME: &str = "INT8_ABSMAX";

/// The map of finite elements up to a magnitude. Where all are 0 the scale is 1.
pub fn map(absmax: f32) -> Affine {
    // At most F32's largest number, so that values come back finite.
    let scale = if absmax > 0.0 { (127.0 / absmax).clamp(f32::MIN_POSITIVE, f32::MAX) } else { 1.0 };
    Affine { scale, zero_point: 0, codes: Codes::Signed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_and_zero() {
        for absmax in [1e-40, 1e-3, 0.1, 1.0, 3.7, 1e30, f32::MAX] {
            let codes = [absmax, -absmax, 0.0].map(|x| map(absmax).encode(x) as i8);
            // Of the smallest numbers the scale is too large for a F32.
            assert!(codes == [127, -127, 0] || absmax < 1e-36 && codes[0] == -codes[1], "{absmax} {codes:?}");
        }
        assert_eq!((map(0.0).encode(0.0), map(0.0).decode(0)), (0, 0.0));
    }

    proptest! {
        #[test]
        fn values_come_back(absmax in 1e-6f32..1e6, part in -1f32..=1.0) {
            let x = part * absmax;
            let error = f64::from(map(absmax).decode(map(absmax).encode(x))) - f64::from(x);
            prop_assert!(error.abs() <= 0.5001 * f64::from(absmax) / 127.0 + 1e-6 * f64::from(absmax));
        }
    }
}
