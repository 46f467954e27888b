//! config.json with the defaults of its class filled in.

use crate::{ArchError, Class, Defaults};
use serde_json::{Map, Value};

/// A model's config.json (or an object inside it), laid over the defaults that transformers 4.57.6 has for its `model_type`.
///
/// A key that is null counts as absent, but hides a default: so does transformers.
#[derive(Debug, Clone)]
pub struct Config {
    class: &'static Class,
    filled: Option<&'static Defaults>,
    /// Names of the enclosing objects, each with a dot behind it.
    prefix: String,
    map: Map<String, Value>,
}

impl Config {
    /// Lay `config`, whose class is `class`, over the defaults of its `model_type`, which `defaults_of` finds; one that it does not
    /// know gets none.
    ///
    /// A class that wraps a text model has that model's settings under `text_config`: they, and the defaults of their `model_type`,
    /// go over those of the whole.
    ///
    /// # Errors
    /// [`ArchError::NotAnObject`] where `config` is no JSON object, [`ArchError::KeyValue`] where `text_config` is none.
    pub(crate) fn new(
        config: &Value,
        class: &'static Class,
        defaults_of: impl Fn(&str) -> Option<&'static Defaults>,
    ) -> Result<Self, ArchError> {
        let whole = config.as_object().ok_or(ArchError::NotAnObject)?;
        let copy = |map: &Map<String, Value>| map.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>();
        let mut read = Config { class, filled: None, prefix: String::new(), map: Map::new() };
        let text = class.text.filter(|_| whole.contains_key(TEXT));
        let (outer, inner) = match text {
            None => (None, whole),
            Some(_) => match &whole[TEXT] {
                Value::Object(inner) => (Some(whole), inner),
                other => return Err(read.wrong(TEXT, "an object", other)),
            },
        };
        let model_type = inner.get("model_type").and_then(Value::as_str).or(text);
        read.filled = model_type.and_then(defaults_of);
        read.map.extend(outer.map(copy).unwrap_or_default());
        read.map.extend(read.filled.map(Defaults::keys).unwrap_or_default());
        read.map.extend(copy(inner));
        Ok(read)
    }

    /// The model's class.
    pub fn class(&self) -> &'static Class {
        self.class
    }

    /// Whose defaults were filled in: decided by `model_type`, as transformers does.
    pub fn filled(&self) -> Option<&'static Defaults> {
        self.filled
    }

    /// Whether the defaults of this `model_type` were filled in.
    pub(crate) fn is_filled_as(&self, model_type: &str) -> bool {
        self.filled.is_some_and(|defaults| defaults.model_type == model_type)
    }

    /// A key that is present and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The same with one key set.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.map.insert(key.to_owned(), value);
        self
    }

    /// Keys and values, null ones included.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether the key is there, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The object under a key.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn section(&self, key: &str) -> Result<Option<Config>, ArchError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Object(map) = value else { return Err(self.wrong(key, "an object", value)) };
        Ok(Some(Config { prefix: format!("{}{key}.", self.prefix), map: map.clone(), ..*self }))
    }

    /// An integer of 32 bits, where the key is present.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, ArchError> {
        self.opt(key, "an integer from 0 to 4294967295", |value| value.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    /// An integer of 32 bits.
    ///
    /// # Errors
    /// [`ArchError::MissingKey`], or as [`Config::opt_u32`].
    pub fn u32(&self, key: &str) -> Result<u32, ArchError> {
        self.need(key, self.opt_u32(key)?)
    }

    /// An integer of 32 bits that is not 0.
    ///
    /// # Errors
    /// As [`Config::u32`].
    pub fn positive_u32(&self, key: &str) -> Result<u32, ArchError> {
        match self.u32(key)? {
            0 => Err(self.wrong(key, "an integer above 0", &Value::from(0))),
            n => Ok(n),
        }
    }

    /// A number, where the key is present.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else, too large for F32 (GGUF stores it as such), or a sign is wrong that only one
    /// sign makes sense of.
    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>, ArchError> {
        let number = |value: &Value| value.as_f64().filter(|&n| (n as f32).is_finite());
        match key {
            // Added below a root.
            "rms_norm_eps" | "layer_norm_eps" | "layer_norm_epsilon" => {
                self.opt(key, "a number from 0 on", |value| number(value).filter(|&n| n >= 0.0))
            }
            // A base of powers, or divided by.
            "rope_theta" | "rope_local_base_freq" | "rotary_emb_base" | "factor" | "query_pre_attn_scalar" => {
                self.opt(key, "a number above 0", |value| number(value).filter(|&n| n > 0.0))
            }
            _ => self.opt(key, "a number in the range of F32", number),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`ArchError::MissingKey`], or as [`Config::opt_f64`].
    pub fn f64(&self, key: &str) -> Result<f64, ArchError> {
        self.need(key, self.opt_f64(key)?)
    }

    /// True or false, where the key is present; null is false, as in transformers' conditions, whatever the default.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, ArchError> {
        Ok(self.opt(key, "true or false", Value::as_bool)?.or(self.has(key).then_some(false)))
    }

    /// A text, where the key is present.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, ArchError> {
        self.opt(key, "a string", Value::as_str)
    }

    /// A list of texts, where the key is present.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>, ArchError> {
        self.opt(key, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A list of numbers, where the key is present.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`] where it is something else.
    pub fn opt_numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ArchError> {
        self.opt(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    /// The error that `key` has the wrong value.
    pub fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> ArchError {
        ArchError::KeyValue { key: self.path(key), expected, found: shown(found) }
    }

    /// The key with the names of the objects around it.
    pub fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn opt<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ArchError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected, value)),
        }
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, ArchError> {
        value.ok_or_else(|| ArchError::MissingKey { key: self.path(key), class: self.class.name })
    }
}

/// Where a class that wraps a text model has that model's settings.
pub(crate) const TEXT: &str = "text_config";

/// A value for a message, cut where it is long.
pub(crate) fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
