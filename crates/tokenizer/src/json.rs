//! Reading tokenizer.json once, and what Python thinks of a JSON value.

use super::TokenizerError;
use ggufsmith_checkpoint::{CheckpointError, ModelDir};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The kind of a JSON value, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Kind {
    #[error("null")]
    Null,
    #[error("a boolean")]
    Bool,
    #[error("a number")]
    Number,
    #[error("a string")]
    String,
    #[error("an array")]
    Array,
    #[error("an object")]
    Object,
}

impl Kind {
    /// The kind of `value`.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Bool,
            Value::Number(_) => Kind::Number,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
        }
    }
}

/// `bool(value)` of Python.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// A file that has to hold a JSON object; `None` where there is no such file.
pub(super) fn object(dir: &ModelDir, file: &'static str) -> Result<Option<Map<String, Value>>, TokenizerError> {
    match dir.json(file)? {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(TokenizerError::Type { file, key: "the file".into(), expected: "an object", found: Kind::of(&other) }),
    }
}

/// tokenizer.json. The two large parts, vocabulary and merges, are read into plain lists; the rest is kept as JSON.
#[derive(Debug, Default)]
pub(super) struct TokenizerJson {
    pub(super) added_tokens: Vec<Value>,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post_processor: Value,
    pub(super) decoder: Value,
    pub(super) padding: Value,
    pub(super) model: Model,
}

impl TokenizerJson {
    /// Read it; `None` where there is none.
    pub(super) fn read(dir: &ModelDir) -> Result<Option<Self>, TokenizerError> {
        const FILE: &str = "tokenizer.json";
        let Some(text) = dir.text(FILE)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| CheckpointError::Json { path: dir.path().join(FILE), source }.into())
    }
}

impl<'de> Deserialize<'de> for TokenizerJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = TokenizerJson;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a tokenizer.json object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenizerJson, A::Error> {
                let mut out = TokenizerJson::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "added_tokens" => out.added_tokens = map.next_value::<Option<Vec<Value>>>()?.unwrap_or_default(),
                        "normalizer" => out.normalizer = map.next_value()?,
                        "pre_tokenizer" => out.pre_tokenizer = map.next_value()?,
                        "post_processor" => out.post_processor = map.next_value()?,
                        "decoder" => out.decoder = map.next_value()?,
                        "padding" => out.padding = map.next_value()?,
                        "model" => out.model = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// tokenizer.json's `model`.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) vocab: Vocab,
    pub(super) merges: Merges,
    /// The other keys: `type`, `unk_token`, `byte_fallback`, ...
    pub(super) options: Map<String, Value>,
}

impl Model {
    /// `type`, or an empty text.
    pub(super) fn kind(&self) -> &str {
        self.options.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// `bool(model.get(key, default))`.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.options.get(key).map_or(default, truthy)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Model;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a tokenizer model")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
                let mut out = Model::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "vocab" => out.vocab = map.next_value()?,
                        "merges" => out.merges = map.next_value()?,
                        _ => drop(out.options.insert(key, map.next_value()?)),
                    }
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Tokens and ids in file order. A token that is there twice has its last id, as in Python and in `tokenizers`.
#[derive(Debug, Default)]
pub(super) enum Vocab {
    #[default]
    Missing,
    /// A list of pairs: the vocabulary of a Unigram model, which is not read.
    Pairs,
    Tokens(Vec<(String, u32)>),
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }
            fn visit_unit<E>(self) -> Result<Vocab, E> {
                Ok(Vocab::Missing)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::Pairs)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry::<String, u32>()? {
                    tokens.push(entry);
                }
                Ok(Vocab::Tokens(tokens))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// The merges of a BPE model in either spelling.
#[derive(Debug, Default)]
pub(super) enum Merges {
    #[default]
    Missing,
    /// `"a b"`
    Joined(Vec<String>),
    /// `["a", "b"]`
    Pairs(Vec<(String, String)>),
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        enum Merge {
            Joined(String),
            Pair(String, String),
        }
        struct OneMerge;
        impl<'de> Visitor<'de> for OneMerge {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge: \"a b\" or [\"a\", \"b\"]")
            }
            fn visit_str<E>(self, text: &str) -> Result<Merge, E> {
                Ok(Merge::Joined(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Merge, E> {
                Ok(Merge::Joined(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let wrong = |n| serde::de::Error::invalid_length(n, &"a pair of tokens");
                let left = seq.next_element()?.ok_or_else(|| wrong(0))?;
                let right = seq.next_element()?.ok_or_else(|| wrong(1))?;
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Merge::Pair(left, right)),
                    Some(_) => Err(wrong(3)),
                }
            }
        }
        impl<'de> Deserialize<'de> for Merge {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(OneMerge)
            }
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_unit<E>(self) -> Result<Merges, E> {
                Ok(Merges::Missing)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut out = Merges::Missing;
                while let Some(merge) = seq.next_element()? {
                    match (&mut out, merge) {
                        (Merges::Missing, Merge::Joined(text)) => out = Merges::Joined(vec![text]),
                        (Merges::Missing, Merge::Pair(left, right)) => out = Merges::Pairs(vec![(left, right)]),
                        (Merges::Joined(list), Merge::Joined(text)) => list.push(text),
                        (Merges::Pairs(list), Merge::Pair(left, right)) => list.push((left, right)),
                        _ => return Err(serde::de::Error::custom("merges in both spellings")),
                    }
                }
                Ok(out)
            }
        }
        deserializer.deserialize_any(List)
    }
}
