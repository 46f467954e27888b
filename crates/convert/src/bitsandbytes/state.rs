//! Text as Python's `json.dumps` writes it: a quant_state is compared byte by byte.

use ggufsmith_core::DType;

/// What a quant_state says beside its type.
pub(super) struct State<'a> {
    /// `nf4` or `fp4`.
    pub quant_type: &'a str,
    pub block_len: u64,
    pub dtype: DType,
    /// Outermost dimension first.
    pub shape: &'a [u64],
    /// The offset of double quantization.
    pub offset: Option<f32>,
}

impl State<'_> {
    pub fn text(&self) -> String {
        let State { quant_type, block_len, .. } = self;
        let shape = self.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let dtype = super::torch_name(self.dtype);
        let nested = self.offset.map_or_else(String::new, |offset| {
            let offset = repr(f64::from(offset));
            format!(r#", "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {offset}"#, super::NESTED_BLOCK_LEN)
        });
        format!(r#"{{"quant_type": "{quant_type}", "blocksize": {block_len}, "dtype": "{dtype}", "shape": [{shape}]{nested}}}"#)
    }
}

/// A finite number as Python's `repr` writes it: the shortest digits, an exponent of at least two digits below 1e-4 and from 1e16.
///
/// Of two shortest numbers that are equally near, which F32 numbers often have between them, Python takes the one with the even last
/// digit, as formatting with a precision does; formatting without takes the upper one.
fn repr(value: f64) -> String {
    let shortest = format!("{value:e}");
    let decimals =
        shortest.split('e').next().and_then(|mantissa| mantissa.split_once('.')).map_or(0, |(_, decimals)| decimals.len());
    let nearest = format!("{value:.decimals$e}");
    let text = if nearest.parse() == Ok(value) { nearest } else { shortest };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let decimals = (decimals as i32 - exponent).max(1) as usize;
        return format!("{value:.decimals$}");
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (5.1e-5, "5.1e-05"),
            (1e-4, "0.0001"),
            (0.34041595458984375, "0.34041595458984375"),
            // Half way between two numbers of 17 digits.
            (f64::from(0.227_512_36f32), "0.22751235961914062"),
            (f64::from(0.240_009_31f32), "0.24000930786132812"),
            (0.240_009_307_861_328_37, "0.24000930786132837"),
            (f64::from(4.172_325e-7f32), "4.172325134277344e-07"),
            (5e-324, "5e-324"),
            (9007199254740994.0, "9007199254740994.0"),
            (9.5e15, "9500000000000000.0"),
            (2f64.powi(-44), "5.684341886080802e-14"),
            (1e-20, "1e-20"),
            (1.5e300, "1.5e+300"),
            (1e16, "1e+16"),
            (123456789012345.0, "123456789012345.0"),
            (f64::from(1e-45f32), "1.401298464324817e-45"),
        ] {
            assert_eq!(repr(value), text);
        }
    }
}
