//! JSON without duplicate keys: which of two values counts differs between readers, so neither does here. And no more of it than fits
//! in memory: a byte or two of text become a value of 32 and more.

use crate::CheckpointError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::Path;

/// Parse `text`, the contents of `path`, into at most `values` values; key order is kept.
///
/// # Errors
/// As [`JsonRules::read`].
pub(crate) fn parse(path: &Path, text: &str, values: usize) -> Result<Value, CheckpointError> {
    let rules = JsonRules::new(values);
    rules.read(path, text, rules.value())
}

/// What holds for one JSON text, whatever reads its parts.
#[derive(Debug)]
pub struct JsonRules {
    /// The first key that was there twice: an error of serde carries only text.
    duplicate: RefCell<Option<String>>,
    /// Values that may be kept, and those that were.
    values: usize,
    kept: Cell<usize>,
}

impl JsonRules {
    /// Rules for a text of which at most `values` values are kept.
    pub fn new(values: usize) -> Self {
        JsonRules { duplicate: RefCell::new(None), values, kept: Cell::new(0) }
    }

    /// Parse `text`, the contents of `path`, by a seed that goes by these rules.
    ///
    /// # Errors
    /// [`CheckpointError::DuplicateKey`]; [`CheckpointError::TooMany`] values; [`CheckpointError::Json`] where it is not JSON, is nested
    /// deeper than 128 levels, or is not what the seed takes.
    pub fn read<'de, S: DeserializeSeed<'de>>(&self, path: &Path, text: &'de str, seed: S) -> Result<S::Value, CheckpointError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        parsed.map_err(|source| match self.duplicate.take() {
            Some(key) => CheckpointError::DuplicateKey { path: path.into(), key, line: source.line(), column: source.column() },
            None if self.kept.get() > self.values => {
                CheckpointError::TooMany { path: path.into(), what: "values", limit: self.values }
            }
            None => CheckpointError::Json { path: path.into(), source },
        })
    }

    /// A seed for one value, with all that is in it.
    pub fn value(&self) -> JsonValue<'_> {
        JsonValue(self)
    }

    /// Refuse an object that has `key` twice.
    pub fn twice<E: Error>(&self, key: String) -> E {
        self.duplicate.borrow_mut().get_or_insert(key);
        E::custom("duplicate key")
    }

    /// One value more.
    fn count<E: Error>(&self) -> Result<(), E> {
        self.kept.set(self.kept.get() + 1);
        if self.kept.get() > self.values { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

/// Builds a [`Value`] by the rules of its text.
#[derive(Debug, Clone, Copy)]
pub struct JsonValue<'a>(&'a JsonRules);

impl<'de> DeserializeSeed<'de> for JsonValue<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(self.0.twice(key));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Value, CheckpointError> {
        super::parse(Path::new("config.json"), text, 1000)
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let text = r#"{"b":[1,-2,3.5,1e300,null,true,"x\u0041"],"a":{"b":{}}, "big":123456789012345678901234567890}"#;
        let value = parse(text).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a", "big"]);
    }

    #[test]
    fn a_duplicate_key_is_an_error_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#, "{\"a\":1,\"\\u0061\":2}"] {
            assert!(matches!(parse(text), Err(CheckpointError::DuplicateKey { key, .. }) if key == "a"), "{text}");
        }
        assert!(parse(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "{}x", "{'a':1}", "nan", "1e999", deep.as_str()] {
            assert!(matches!(parse(text), Err(CheckpointError::Json { .. })), "{:.10}", text);
        }
    }

    #[test]
    fn no_more_values_than_allowed() {
        let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert_eq!(parse(&list(1000)).unwrap().as_array().map(Vec::len), Some(999));
        for text in [list(1001), list(1_000_000), format!("[{}", "0,".repeat(2000)), format!("{{\"a\":{}}}", list(1000))] {
            assert!(matches!(parse(&text), Err(CheckpointError::TooMany { limit: 1000, .. })), "{:.10}", text);
        }
    }
}
