//! `INT8_AFFINE`: bytes with one scale and one zero point for many elements, from their smallest and largest ("min-max", "zero-point"
//! quantization).
//!
//! With signed codes, -128 to 127: `scale = 255 / (max - min)` in F32, `zero_point = -128 - round(scale * min)`,
//! `code = round(scale * x + zero_point)`, at most 127 and at least -128; the value is `(code - zero_point) / scale`. Unsigned codes
//! are 0 to 255: `zero_point = -round(scale * min)`. The scale is codes per unit. Products and sums are computed in F64 and rounded to
//! the nearest integer, ties to even, so that a zero point far from 0 costs no precision; the value is rounded to F32 once.

/// The scheme's name.
pub const NAME: &str = "INT8_AFFINE";

/// A zero point is at most so far from 0: that of two neighbouring F32 numbers is 2^32.
pub const MAX_ZERO_POINT: i64 = 1 << 40;

/// Which integers codes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codes {
    /// -128 to 127, an I8.
    #[default]
    Signed,
    /// 0 to 255, an U8.
    Unsigned,
}

impl Codes {
    fn lowest(self) -> i64 {
        match self {
            Codes::Signed => -128,
            Codes::Unsigned => 0,
        }
    }
}

/// How elements are mapped to bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Codes per unit.
    pub scale: f32,
    /// The code of 0, which may lie outside the codes.
    pub zero_point: i64,
    /// Which integers they are.
    pub codes: Codes,
}

impl Affine {
    /// The map of finite elements from `min` to `max`. Where they are equal the range is widened to 0, or, around 0, to 1.
    pub fn new(min: f32, max: f32, codes: Codes) -> Self {
        let (min, max) = if min < max { (min, max) } else { (min.min(0.0), max.max(0.0)) };
        let range = if min < max { max - min } else { 1.0 };
        // At most F32's largest number, so that values come back finite.
        let scale = (255.0 / range).clamp(f32::MIN_POSITIVE, f32::MAX);
        let zero_point = codes.lowest() - (f64::from(scale) * f64::from(min)).round_ties_even() as i64;
        Affine { scale, zero_point, codes }
    }

    /// The byte of one element.
    #[inline]
    pub fn encode(self, value: f32) -> u8 {
        let lowest = self.codes.lowest() as f64;
        let code = f64::from(self.scale) * f64::from(value) + self.zero_point as f64;
        // Bounds are integers: what is beyond them is there after rounding, too.
        let code = round(code.clamp(lowest, lowest + 255.0)) as i64;
        code as u8
    }

    /// One byte's value.
    #[inline]
    pub fn decode(self, byte: u8) -> f32 {
        let code = match self.codes {
            Codes::Signed => i64::from(byte as i8),
            Codes::Unsigned => i64::from(byte),
        };
        ((code - self.zero_point) as f64 / f64::from(self.scale)) as f32
    }

    /// The values of all bytes: a table for decoding many.
    pub fn values(self) -> [f32; 256] {
        std::array::from_fn(|byte| self.decode(byte as u8))
    }
}

/// Small numbers to the nearest integer, ties to even, in two additions: F64's numbers from 2^52 on are integers.
#[inline]
fn round(value: f64) -> f64 {
    const INTEGERS: f64 = (3u64 << 51) as f64;
    (value + INTEGERS) - INTEGERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_one_point() {
        for codes in [Codes::Signed, Codes::Unsigned] {
            for value in [0.0, 1.0, -3.5, 1e-30, f32::MAX, f32::MIN_POSITIVE, -1e-45] {
                let affine = Affine::new(value, value, codes);
                let found = affine.decode(affine.encode(value));
                assert!((found - value).abs() <= value.abs() / 200.0 + 1e-38, "{value} {found}");
            }
        }
    }

    #[test]
    fn the_whole_range_is_used() {
        let ends = |min: f32, max: f32, codes| {
            let affine = Affine::new(min, max, codes);
            (affine.encode(min), affine.encode(max))
        };
        assert_eq!(ends(-1.0, 3.0, Codes::Signed), (0x80, 0x7f));
        assert_eq!(ends(-1.0, 3.0, Codes::Unsigned), (0, 255));
        assert_eq!(ends(5.0, 6.0, Codes::Unsigned), (0, 255));
        // Around 0 the zero point is a tie, and rounding it may cost the last code.
        assert_eq!(ends(-1e30, 1e30, Codes::Signed), (0x80, 0x7e));
    }

    proptest! {
        /// Half a step at most, and what rounding of the zero point adds.
        #[test]
        fn values_come_back(a in -1e6f32..1e6, width in 1e-3f32..1e6, part in 0f32..=1.0, signed: bool) {
            let (min, max) = (a, a + width);
            prop_assume!(min < max);
            let x = (min + part * (max - min)).clamp(min, max);
            let affine = Affine::new(min, max, if signed { Codes::Signed } else { Codes::Unsigned });
            let error = (f64::from(affine.decode(affine.encode(x))) - f64::from(x)).abs();
            prop_assert!(error <= 1.01 / f64::from(affine.scale) + f64::from(x.abs()) * 1e-6, "{error}");
            prop_assert!(affine.zero_point.abs() <= MAX_ZERO_POINT);
        }

        #[test]
        fn rounding_is_the_machines(value in -300f64..300.0, half in -300i32..300) {
            prop_assert_eq!(round(value), value.round_ties_even());
            let half = f64::from(half) / 2.0;
            prop_assert_eq!(round(half), half.round_ties_even());
        }
    }
}
