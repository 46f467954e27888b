//! The entry of config.json that marks a model of plain 8-bit codes.

use ggufsmith_core::schemes::int8_affine::Codes;
use ggufsmith_core::schemes::{int8_absmax, int8_affine};
use serde_json::{Value, json};

/// `quant_method` of such a model: `transformers` knows none of this name and refuses to load it, instead of taking codes for weights.
pub const QUANT_METHOD: &str = "ggufsmith_int8";
/// The version of the layout.
const VERSION: u64 = 1;

/// How elements are mapped to codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int8Scheme {
    /// [`int8_affine`]: a scale and a zero point.
    Affine(Codes),
    /// [`int8_absmax`]: a scale.
    Absmax,
}

impl Int8Scheme {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Int8Scheme::Affine(_) => int8_affine::NAME,
            Int8Scheme::Absmax => int8_absmax::NAME,
        }
    }

    /// Which integers codes are.
    pub fn codes(self) -> Codes {
        match self {
            Int8Scheme::Affine(codes) => codes,
            Int8Scheme::Absmax => Codes::Signed,
        }
    }
}

/// What `quantization_config` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int8Config {
    /// The scheme.
    pub scheme: Int8Scheme,
    /// Whether each row of a matrix has a scale (and zero point) of its own.
    pub per_row: bool,
}

/// A key of the entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} of quantization_config is {found}; {expected} is needed")]
pub struct Int8ConfigDefect {
    /// Which.
    pub key: &'static str,
    /// Its value as JSON.
    pub found: String,
    /// What would do.
    pub expected: &'static str,
}

impl Int8Config {
    /// The entry; `kept` are modules that were not quantized.
    pub fn entry(&self, kept: &[String]) -> Value {
        json!({
            "quant_method": QUANT_METHOD,
            "version": VERSION,
            "scheme": self.scheme.name(),
            "granularity": if self.per_row { "row" } else { "tensor" },
            "unsigned": self.scheme.codes() == Codes::Unsigned,
            "modules_to_not_convert": kept,
        })
    }

    pub(crate) fn parse(entry: &Value) -> Result<Self, Int8ConfigDefect> {
        let value = |key: &str| entry.get(key).unwrap_or(&Value::Null);
        let fault = |key, expected| Int8ConfigDefect { key, found: short(value(key)), expected };
        if value("version").as_u64() != Some(VERSION) {
            return Err(fault("version", "1"));
        }
        let codes = match value("unsigned").as_bool() {
            Some(true) => Codes::Unsigned,
            Some(false) => Codes::Signed,
            None => return Err(fault("unsigned", "true or false")),
        };
        let scheme = match value("scheme").as_str() {
            Some(int8_affine::NAME) => Int8Scheme::Affine(codes),
            Some(int8_absmax::NAME) => Int8Scheme::Absmax,
            _ => return Err(fault("scheme", "INT8_AFFINE or INT8_ABSMAX")),
        };
        if scheme.codes() != codes {
            return Err(fault("unsigned", "false: INT8_ABSMAX has signed codes"));
        }
        let per_row = match value("granularity").as_str() {
            Some("row") => true,
            Some("tensor") => false,
            _ => return Err(fault("granularity", "\"tensor\" or \"row\"")),
        };
        Ok(Int8Config { scheme, per_row })
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 { text } else { text.chars().take(80).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        for scheme in [Int8Scheme::Affine(Codes::Signed), Int8Scheme::Affine(Codes::Unsigned), Int8Scheme::Absmax] {
            for per_row in [false, true] {
                let config = Int8Config { scheme, per_row };
                assert_eq!(Int8Config::parse(&config.entry(&["lm_head".into()])), Ok(config));
            }
        }
    }

    #[test]
    fn other_entries_are_refused() {
        let good = Int8Config { scheme: Int8Scheme::Absmax, per_row: true }.entry(&[]);
        for (key, value) in [
            ("version", json!(2)),
            ("version", Value::Null),
            ("unsigned", json!(true)),
            ("unsigned", json!("no")),
            ("scheme", json!("INT4_AFFINE")),
            ("scheme", json!(["x".repeat(1000)])),
            ("granularity", json!("channel")),
        ] {
            let mut entry = good.clone();
            entry[key] = value;
            let defect = Int8Config::parse(&entry).unwrap_err();
            assert!(defect.key == key && defect.to_string().len() < 250, "{defect}");
        }
        assert_eq!(Int8Config::parse(&json!({})).unwrap_err().key, "version");
    }
}
