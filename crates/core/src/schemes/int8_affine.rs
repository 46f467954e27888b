//! `INT8_AFFINE`: signed bytes with one scale and one zero point per tensor, from its smallest and largest element.
//!
//! `scale = 255 / (max - min)` in F32, `zero_point = -128 - round(scale * min)`, `code = round(scale * x + zero_point)`, at most 127 and
//! at least -128; the value is `(code - zero_point) / scale`. Products and sums are computed in F64 and rounded to the nearest integer,
//! ties to even, so that a zero point far from 0 costs no precision.

/// How a tensor is mapped to signed bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Codes per unit.
    pub scale: f32,
    /// The code of 0, which may lie outside the codes.
    pub zero_point: i64,
}

impl Affine {
    /// The map of finite elements from `min` to `max`. Where they are equal the range is widened to 0, or, around 0, to 1.
    pub fn new(min: f32, max: f32) -> Self {
        let (min, max) = if min < max { (min, max) } else { (min.min(0.0), max.max(0.0)) };
        let range = if min < max { max - min } else { 1.0 };
        // At most F32's largest number, so that values come back finite.
        let scale = (255.0 / range).clamp(f32::MIN_POSITIVE, f32::MAX);
        Affine { scale, zero_point: -128 - (f64::from(scale) * f64::from(min)).round_ties_even() as i64 }
    }

    /// One element.
    pub fn encode(self, value: f32) -> i8 {
        let code = f64::from(self.scale) * f64::from(value) + self.zero_point as f64;
        code.round_ties_even().clamp(-128.0, 127.0) as i8
    }

    /// One code.
    pub fn decode(self, code: i8) -> f32 {
        ((i64::from(code) - self.zero_point) as f64 / f64::from(self.scale)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A published worked example.
    #[test]
    fn a_matrix_of_five_by_five() {
        let matrix = [
            -0.5453, 1.6173, -0.3009, -0.1761, -1.4238, 1.1052, -0.3221, -0.8209, 1.7889, -2.6168, 1.933, -0.2296, 1.4222,
            0.1239, 0.5242, -1.2502, 1.4958, -0.2915, 0.3856, 0.4916, -0.6413, 1.1239, -0.7785, 0.2622, -0.3222,
        ];
        let codes = [-12, 110, 2, 9, -61, 81, 1, -27, 119, -128, 127, 6, 99, 26, 48, -51, 103, 3, 41, 47, -17, 82, -25, 34, 1];
        let affine = Affine::new(-2.6168, 1.933);
        assert_eq!(affine, Affine { scale: 56.046_42, zero_point: 19 });
        assert_eq!(f64::from(affine.scale), 56.046_421_051_025_39);
        assert_eq!(matrix.map(|value| affine.encode(value)), codes);
        let squares = matrix.iter().map(|x| f64::from(affine.decode(affine.encode(*x)) - x).powi(2));
        assert!((squares.sum::<f64>() / 25.0 / 2.137_272_5e-5 - 1.0).abs() < 1e-5);
    }

    #[test]
    fn ranges_of_one_point() {
        for value in [0.0, 1.0, -3.5, 1e-30, f32::MAX, f32::MIN_POSITIVE, -1e-45] {
            let affine = Affine::new(value, value);
            let found = affine.decode(affine.encode(value));
            assert!((found - value).abs() <= value.abs() / 200.0 + 1e-38, "{value} {found}");
        }
    }

    proptest! {
        /// Half a step at most, and what rounding of the zero point adds.
        #[test]
        fn values_come_back(a in -1e6f32..1e6, width in 1e-3f32..1e6, part in 0f32..=1.0) {
            let (min, max) = (a, a + width);
            prop_assume!(min < max);
            let x = (min + part * (max - min)).clamp(min, max);
            let affine = Affine::new(min, max);
            let error = (f64::from(affine.decode(affine.encode(x))) - f64::from(x)).abs();
            prop_assert!(error <= 1.01 / f64::from(affine.scale) + f64::from(x.abs()) * 1e-6, "{error}");
        }
    }
}
