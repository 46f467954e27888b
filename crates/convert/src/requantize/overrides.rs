//! `--override-kv`.

use super::RequantizeError;
use crate::plan::append;
use ggufsmith_gguf::{LookupError, Metadata, Value};
use std::path::Path;
use std::str::FromStr;

/// Longest key and string in bytes, as in `llama_model_kv_override`.
const MAX_BYTES: usize = 127;

/// One `KEY=TYPE:VALUE`: what the output has under a key, and what the recipes read there.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyOverride {
    key: String,
    value: Overriding,
}

/// A value of one of the four types that `llama-quantize` knows.
#[derive(Debug, Clone, PartialEq)]
enum Overriding {
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
}

/// Why a `KEY=TYPE:VALUE` means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum OverrideError {
    #[error("{0:?} is not of the form KEY=TYPE:VALUE, as in tokenizer.ggml.add_bos_token=bool:false")]
    Form(String),
    #[error("{0:?} is none of int, float, bool and str")]
    Type(String),
    #[error("{value:?} is no {expected}")]
    Value { value: String, expected: &'static str },
    #[error("the {what} has {len} bytes, llama.cpp takes 127")]
    Long { what: &'static str, len: usize },
}

impl FromStr for KeyOverride {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        let form = || OverrideError::Form(text.to_owned());
        let (key, typed) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(form)?;
        let (kind, value) = typed.split_once(':').ok_or_else(form)?;
        let fault = |expected| OverrideError::Value { value: value.to_owned(), expected };
        if key.len() > MAX_BYTES {
            return Err(OverrideError::Long { what: "key", len: key.len() });
        }
        let value = match kind {
            // Written as u32 of the magnitude: see `KeyOverride::written`.
            "int" => {
                let number: i64 = value.parse().map_err(|_| fault("whole number"))?;
                u32::try_from(number.unsigned_abs()).map_err(|_| fault("whole number of 32 bits"))?;
                Overriding::Int(number)
            }
            "float" => Overriding::Float(value.parse().map_err(|_| fault("number"))?),
            "bool" => Overriding::Bool(value.parse().map_err(|_| fault("true or false"))?),
            "str" if value.len() > MAX_BYTES => return Err(OverrideError::Long { what: "string", len: value.len() }),
            "str" => Overriding::Str(value.to_owned()),
            other => return Err(OverrideError::Type(other.to_owned())),
        };
        Ok(KeyOverride { key: key.to_owned(), value })
    }
}

impl KeyOverride {
    /// Set the key in an output.
    pub(super) fn apply(&self, metadata: &mut Metadata) {
        append(metadata, &self.key, self.written());
    }

    /// `llama-quantize` stores integers as u32, without their sign, and floats as f32.
    fn written(&self) -> Value {
        match &self.value {
            // In range: checked when it was read.
            Overriding::Int(number) => Value::U32(number.unsigned_abs() as u32),
            Overriding::Float(number) => Value::F32(*number as f32),
            Overriding::Bool(flag) => Value::Bool(*flag),
            Overriding::Str(text) => Value::String(text.clone()),
        }
    }

    /// What a user would not expect.
    pub(super) fn warning(&self) -> Option<String> {
        match self.value {
            Overriding::Int(number) if number < 0 => {
                let (key, written) = (&self.key, number.unsigned_abs());
                Some(format!("--override-kv {key}: llama-quantize writes integers without their sign: {written}"))
            }
            _ => None,
        }
    }
}

/// What a loader of llama.cpp finds under a key: the first override of its type, else what the file has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overridden<'a> {
    /// For messages.
    pub file: &'a Path,
    pub metadata: &'a Metadata,
    pub overrides: &'a [KeyOverride],
}

impl Overridden<'_> {
    fn overriding(&self, key: &str) -> Option<&Overriding> {
        Some(&self.overrides.iter().find(|known| known.key == key)?.value)
    }

    pub fn fault(&self, source: LookupError) -> RequantizeError {
        RequantizeError::Key { file: self.file.to_owned(), source }
    }

    /// An integer override of a key.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.overriding(key) {
            Some(Overriding::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// A string override of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.overriding(key) {
            Some(Overriding::Str(text)) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KeyOverride, OverrideError> {
        text.parse()
    }

    #[test]
    fn values_are_stored_as_llama_quantize_stores_them() {
        let written = |text: &str| parse(text).unwrap().written();
        assert_eq!(written("a.b=int:7"), Value::U32(7));
        assert_eq!(written("a.b=int:-7"), Value::U32(7));
        assert_eq!(written("a.b=float:0.1"), Value::F32(0.1));
        assert_eq!(written("a.b=bool:false"), Value::Bool(false));
        assert_eq!(written("a.b=str:c=d:e"), Value::String("c=d:e".into()));
        assert!(parse("a=int:-7").unwrap().warning().is_some() && parse("a=int:7").unwrap().warning().is_none());
    }

    #[test]
    fn a_key_moves_to_the_end() {
        let mut metadata = Metadata::new();
        metadata.extend([("a", 1u32), ("b", 2)]);
        parse("a=bool:true").unwrap().apply(&mut metadata);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("b", &Value::U32(2)), ("a", &Value::Bool(true))]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["", "a", "a=", "a=int", "=int:1"] {
            assert!(matches!(parse(text), Err(OverrideError::Form(_))), "{text:?}");
        }
        assert_eq!(parse("a=u32:1"), Err(OverrideError::Type("u32".into())));
        for text in ["a=int:", "a=int:1x", "a=int:4294967296", "a=int:-4294967296", "a=float:x", "a=bool:1", "a=bool:True"] {
            assert!(matches!(parse(text), Err(OverrideError::Value { .. })), "{text:?}");
        }
        let long = "x".repeat(128);
        assert!(matches!(parse(&format!("a=str:{long}")), Err(OverrideError::Long { what: "string", len: 128 })));
        assert!(matches!(parse(&format!("{long}=int:1")), Err(OverrideError::Long { what: "key", .. })));
        assert!(parse(&format!("{}=str:{}", &long[1..], &long[1..])).is_ok());
    }
}
