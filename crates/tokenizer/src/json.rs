//! Reading tokenizer.json once, and what Python thinks of a JSON value.

use super::{MAX_MERGES, MAX_TOKENS, TokenizerError};
use ggufsmith_checkpoint::{JsonRules, ModelDir};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;

/// The `tokenizers` library builds an automaton over added tokens, at about a kilobyte for each; the most in use are 65,541.
pub(super) const MAX_ADDED_TOKENS: usize = 1 << 18;

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

/// tokenizer.json's `model`.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) vocab: Vocab,
    pub(super) merges: Merges,
    /// The other keys: `type`, `unk_token`, `byte_fallback`, ...
    pub(super) options: Map<String, Value>,
}

/// Tokens and ids in file order.
#[derive(Debug, Default)]
pub(super) enum Vocab {
    #[default]
    Missing,
    /// A list of pairs: the vocabulary of a Unigram model, which is not read.
    Pairs,
    Tokens(Vec<(String, u32)>),
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

impl TokenizerJson {
    /// Read it; `None` where there is none.
    pub(super) fn read(dir: &ModelDir) -> Result<Option<Self>, TokenizerError> {
        const FILE: &str = "tokenizer.json";
        let Some(text) = dir.text(FILE)? else { return Ok(None) };
        let context = Context { rules: JsonRules::new(dir.options().limits.json_values), excess: Cell::new(None) };
        let read = context.rules.read(&dir.path().join(FILE), &text, Part(&context, Whole));
        match context.excess.get() {
            Some((what, count, limit)) => Err(TokenizerError::Limit { what, count: count as u64, limit: limit as u64 }),
            None => Ok(Some(read?)),
        }
    }
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

/// What reading goes by.
struct Context {
    rules: JsonRules,
    /// What there was too much of: a list's name, its length, and its limit.
    excess: Cell<Option<(&'static str, usize, usize)>>,
}

/// A list that is kept up to a limit and counted to its end, so that the error can say how long it is. `next` gives an entry, or `None`
/// for one that it was told not to keep.
fn bounded<T, E: Error>(
    context: &Context,
    (what, limit): (&'static str, usize),
    mut next: impl FnMut(bool) -> Result<Option<Option<T>>, E>,
) -> Result<Vec<T>, E> {
    let (mut list, mut count) = (Vec::new(), 0);
    while let Some(entry) = next(count < limit)? {
        count += 1;
        list.extend(entry);
    }
    if count > limit {
        context.excess.set(Some((what, count, limit)));
        return Err(E::custom("too many"));
    }
    Ok(list)
}

/// Reads one part of the file: the visitor that the second field is the name of.
#[derive(Clone, Copy)]
struct Part<'a, K>(&'a Context, K);

/// The file.
#[derive(Clone, Copy)]
struct Whole;
/// `added_tokens`
#[derive(Clone, Copy)]
struct Added;
/// `model`
#[derive(Clone, Copy)]
struct OfModel;
/// `model.vocab`
#[derive(Clone, Copy)]
struct Tokens;
/// `model.merges`
#[derive(Clone, Copy)]
struct AllMerges;
/// One of them.
#[derive(Clone, Copy)]
struct OneMerge;

impl<'de, K> DeserializeSeed<'de> for Part<'_, K>
where
    Self: Visitor<'de>,
{
    type Value = <Self as Visitor<'de>>::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visit the entries of an object, none of whose keys may be there twice.
fn entries<'de, A: MapAccess<'de>>(
    rules: &JsonRules,
    mut map: A,
    mut take: impl FnMut(String, &mut A) -> Result<(), A::Error>,
) -> Result<(), A::Error> {
    let mut seen = std::collections::HashSet::new();
    while let Some(key) = map.next_key::<String>()? {
        if !seen.insert(key.clone()) {
            return Err(rules.twice(key));
        }
        take(key, &mut map)?;
    }
    Ok(())
}

impl<'de> Visitor<'de> for Part<'_, Whole> {
    type Value = TokenizerJson;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a tokenizer.json object")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TokenizerJson, A::Error> {
        let (mut out, rules) = (TokenizerJson::default(), &self.0.rules);
        entries(rules, map, |key, map| {
            match key.as_str() {
                "added_tokens" => out.added_tokens = map.next_value_seed(Part(self.0, Added))?,
                "normalizer" => out.normalizer = map.next_value_seed(rules.value())?,
                "pre_tokenizer" => out.pre_tokenizer = map.next_value_seed(rules.value())?,
                "post_processor" => out.post_processor = map.next_value_seed(rules.value())?,
                "decoder" => out.decoder = map.next_value_seed(rules.value())?,
                "padding" => out.padding = map.next_value_seed(rules.value())?,
                "model" => out.model = map.next_value_seed(Part(self.0, OfModel))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            Ok(())
        })?;
        Ok(out)
    }
}

impl<'de> Visitor<'de> for Part<'_, Added> {
    type Value = Vec<Value>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of added tokens")
    }
    fn visit_unit<E>(self) -> Result<Vec<Value>, E> {
        Ok(Vec::new())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        bounded(self.0, ("added tokens in tokenizer.json", MAX_ADDED_TOKENS), |keep| {
            if keep {
                Ok(seq.next_element_seed(self.0.rules.value())?.map(Some))
            } else {
                Ok(seq.next_element::<IgnoredAny>()?.map(|_| None))
            }
        })
    }
}

impl<'de> Visitor<'de> for Part<'_, OfModel> {
    type Value = Model;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a tokenizer model")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Model, A::Error> {
        let (mut out, rules) = (Model::default(), &self.0.rules);
        entries(rules, map, |key, map| {
            match key.as_str() {
                "vocab" => out.vocab = map.next_value_seed(Part(self.0, Tokens))?,
                "merges" => out.merges = map.next_value_seed(Part(self.0, AllMerges))?,
                _ => drop(out.options.insert(key, map.next_value_seed(rules.value())?)),
            }
            Ok(())
        })?;
        Ok(out)
    }
}

impl<'de> Visitor<'de> for Part<'_, Tokens> {
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
        let tokens = bounded(self.0, ("tokens in tokenizer.json", MAX_TOKENS), |keep| {
            if keep {
                Ok(map.next_entry::<String, u32>()?.map(Some))
            } else {
                Ok(map.next_entry::<IgnoredAny, IgnoredAny>()?.map(|_| None))
            }
        });
        Ok(Vocab::Tokens(tokens?))
    }
}

impl<'de> Visitor<'de> for Part<'_, AllMerges> {
    type Value = Merges;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of merges")
    }
    fn visit_unit<E>(self) -> Result<Merges, E> {
        Ok(Merges::Missing)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
        let mut out = Merges::Missing;
        bounded(self.0, ("merges in tokenizer.json", MAX_MERGES), |keep| {
            if !keep {
                return Ok(seq.next_element::<IgnoredAny>()?.map(|_| None));
            }
            let Some(merge) = seq.next_element_seed(Part(self.0, OneMerge))? else { return Ok(None) };
            match (&mut out, merge) {
                (Merges::Missing, Merge::Joined(text)) => out = Merges::Joined(vec![text]),
                (Merges::Missing, Merge::Pair(left, right)) => out = Merges::Pairs(vec![(left, right)]),
                (Merges::Joined(list), Merge::Joined(text)) => list.push(text),
                (Merges::Pairs(list), Merge::Pair(left, right)) => list.push((left, right)),
                _ => return Err(Error::custom("merges in both spellings")),
            }
            Ok(Some(Some(())))
        })?;
        Ok(out)
    }
}

enum Merge {
    Joined(String),
    Pair(String, String),
}

impl<'de> Visitor<'de> for Part<'_, OneMerge> {
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
        let wrong = |n| A::Error::invalid_length(n, &"a pair of tokens");
        let left = seq.next_element()?.ok_or_else(|| wrong(0))?;
        let right = seq.next_element()?.ok_or_else(|| wrong(1))?;
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(Merge::Pair(left, right)),
            Some(_) => Err(wrong(3)),
        }
    }
}
