//! The quant_state of a 4-bit tensor: JSON in the bytes of a U8 tensor.

use super::BitsandbytesDefect as Defect;
use ggufsmith_core::{DType, FourBit, SCHEMES};
use serde_json::Value;
use std::path::Path;

/// Bytes of a quant_state that are read at most; bitsandbytes writes less than 300.
pub(super) const MAX_BYTES: u64 = 4096;

/// The block lengths that bitsandbytes accepts.
const BLOCK_LENS: [u64; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Values of its JSON; bitsandbytes writes a dozen.
const MAX_VALUES: usize = 10_000;

/// What a quant_state says.
#[derive(Debug)]
pub(super) struct QuantState {
    pub scheme: &'static FourBit,
    pub block_len: u64,
    /// F32, F16 or BF16: what `dequantize_4bit` returns.
    pub dtype: DType,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Product of `shape`.
    pub elems: u64,
    /// Block length and offset of double quantization.
    pub nested: Option<(u64, f32)>,
}

impl QuantState {
    /// `suffix` is what the tensor's name ends with, such as `nf4`.
    pub fn parse(text: &[u8], suffix: &str, max_dims: usize) -> Result<Self, Defect> {
        let text = std::str::from_utf8(text).map_err(|e| Defect::StateNotUtf8 { offset: e.valid_up_to() })?;
        // The path is not shown: the error that is made of this one names the tensor.
        let json = crate::json::parse(Path::new(""), text, MAX_VALUES).map_err(|error| {
            Defect::StateJson(match error {
                crate::CheckpointError::Json { source, .. } => source.to_string(),
                crate::CheckpointError::DuplicateKey { key, .. } => format!("the key {key:?} is there twice"),
                other => other.to_string(),
            })
        })?;
        let value = |key: &'static str, expected: &'static str| Reader { value: json.get(key), key, expected };

        let quant_type = value("quant_type", "the one in its tensor's name").string()?;
        let known = |scheme: &&&FourBit| scheme.name.to_lowercase() == quant_type;
        let Some(scheme) = SCHEMES.iter().find(known) else {
            return Err(Defect::QuantType { found: quant_type.to_owned(), known: known_types() });
        };
        if quant_type != suffix {
            return value("quant_type", "the one in its tensor's name").refuse();
        }
        let block_len = block_len(value("blocksize", "a power of 2 from 32 to 4096"))?;
        let dtype = value("dtype", "float32, float16 or bfloat16");
        let dtype = match dtype.string()? {
            "float32" => DType::F32,
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            _ => return dtype.refuse(),
        };
        let shape_value = value("shape", "a list of dimensions, larger than 0, whose product is no larger than any file");
        let dims = shape_value.value.and_then(Value::as_array).filter(|dims| !dims.is_empty() && dims.len() <= max_dims);
        let Some(shape) = dims.and_then(|dims| dims.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()) else {
            return shape_value.refuse();
        };
        let elems = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        // In F32 the tensor must have a length, too.
        let Some(elems) = elems.filter(|&elems| elems > 0 && elems.checked_mul(4).is_some()) else {
            return shape_value.refuse();
        };
        let nested_keys = ["nested_blocksize", "nested_dtype", "nested_offset"];
        let nested = if nested_keys.iter().any(|key| json.get(key).is_some()) {
            let block_len = self::block_len(value("nested_blocksize", "a power of 2 from 32 to 4096"))?;
            let dtype = value("nested_dtype", "float32");
            if dtype.string()? != "float32" {
                return dtype.refuse();
            }
            let offset = value("nested_offset", "a number");
            let Some(number) = offset.value.and_then(Value::as_f64) else { return offset.refuse() };
            Some((block_len, number as f32))
        } else {
            None
        };
        Ok(QuantState { scheme, block_len, dtype, shape, elems, nested })
    }

    /// Blocks of the tensor: numbers in `absmax`.
    pub fn blocks(&self) -> u64 {
        self.elems.div_ceil(self.block_len)
    }
}

pub(super) fn known_types() -> String {
    SCHEMES.iter().map(|scheme| scheme.name.to_lowercase()).collect::<Vec<_>>().join(", ")
}

fn block_len(value: Reader<'_>) -> Result<u64, Defect> {
    match value.value.and_then(Value::as_u64) {
        Some(len) if BLOCK_LENS.contains(&len) => Ok(len),
        _ => value.refuse(),
    }
}

/// An entry of the object, and what it should be.
#[derive(Clone, Copy)]
struct Reader<'a> {
    value: Option<&'a Value>,
    key: &'static str,
    expected: &'static str,
}

impl<'a> Reader<'a> {
    fn string(self) -> Result<&'a str, Defect> {
        match self.value.and_then(Value::as_str) {
            Some(text) => Ok(text),
            None => self.refuse(),
        }
    }

    fn refuse<T>(self) -> Result<T, Defect> {
        let found = match self.value {
            None => "missing".to_owned(),
            Some(value) => value.to_string().chars().take(100).collect(),
        };
        Err(Defect::StateValue { key: self.key, found, expected: self.expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<QuantState, Defect> {
        QuantState::parse(text.as_bytes(), "nf4", 8)
    }

    const PLAIN: &str = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 130]}"#;

    #[test]
    fn what_bitsandbytes_writes() {
        let state = parse(PLAIN).unwrap();
        assert_eq!((state.scheme.name, state.block_len, state.dtype), ("NF4", 64, DType::BF16));
        assert_eq!((state.shape.as_slice(), state.elems, state.blocks(), state.nested), ([64, 130].as_slice(), 8320, 130, None));
        let nested = PLAIN.replace('}', r#", "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 5.1e-05}"#);
        assert_eq!(parse(&nested).unwrap().nested, Some((256, 5.1e-5)));
    }

    #[test]
    fn what_is_refused_and_why() {
        let key = |text: &str| match parse(text) {
            Err(Defect::StateValue { key, .. }) => key,
            other => panic!("{text}: {other:?}"),
        };
        for (from, to, wanted) in [
            ("64,", "63,", "blocksize"),
            ("64,", "0,", "blocksize"),
            ("64,", "-64,", "blocksize"),
            ("64,", "8192,", "blocksize"),
            ("64,", "18446744073709551616,", "blocksize"),
            ("64,", "\"64\",", "blocksize"),
            ("bfloat16", "float64", "dtype"),
            ("\"bfloat16\"", "null", "dtype"),
            ("[64, 130]", "null", "shape"),
            ("[64, 130]", "[]", "shape"),
            ("[64, 130]", "[0, 130]", "shape"),
            ("[64, 130]", "[-1, 130]", "shape"),
            ("[64, 130]", "[1,1,1,1,1,1,1,1,1]", "shape"),
            ("[64, 130]", "[4294967296, 4294967296]", "shape"),
            ("[64, 130]", "[4611686018427387904]", "shape"),
            ("}", r#", "nested_blocksize": 256}"#, "nested_dtype"),
            ("}", r#", "nested_offset": 0.5}"#, "nested_blocksize"),
            ("}", r#", "nested_blocksize": 256, "nested_dtype": "float16", "nested_offset": 0}"#, "nested_dtype"),
            ("}", r#", "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": "0"}"#, "nested_offset"),
            ("\"nf4\"", "7", "quant_type"),
            ("nf4", "fp4", "quant_type"),
        ] {
            let shorter = PLAIN.replacen("64, \"dtype\"", &format!("{}\"dtype\"", to.to_owned() + " "), 1);
            let text = if from == "64," { shorter } else { PLAIN.replacen(from, to, 1) };
            assert_eq!(key(&text), wanted, "{text}");
        }
        assert!(matches!(parse(&PLAIN.replace("nf4", "int4")), Err(Defect::QuantType { found, .. }) if found == "int4"));
        let deep = "[".repeat(4000);
        let nan = PLAIN.replace("[64, 130]", "NaN");
        for text in ["", "{", "null,", deep.as_str(), nan.as_str(), r#"{"a":1,"a":2}"#] {
            assert!(matches!(parse(text), Err(Defect::StateJson(_))), "{text:.40}");
        }
        assert!(matches!(QuantState::parse(b"{\xff", "nf4", 8), Err(Defect::StateNotUtf8 { offset: 1 })));
        assert!(matches!(parse("[]"), Err(Defect::StateValue { key: "quant_type", .. })));
    }

    proptest! {
        /// Any edit of a good text is read or refused, never a panic.
        #[test]
        fn edited_text(at in 0usize..80, with in ".{0,4}", cut in 0usize..4) {
            let mut text = PLAIN.to_owned();
            let end = (at + cut).min(text.len());
            text.replace_range(at.min(end)..end, &with);
            if let Ok(state) = parse(&text) {
                prop_assert_eq!(state.elems, state.shape.iter().product::<u64>());
                prop_assert!(BLOCK_LENS.contains(&state.block_len));
            }
        }
    }
}
