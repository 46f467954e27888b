//! Which of llama.cpp's pre-tokenizers a byte-level BPE tokenizer has.
//!
//! First by the reference converter's way: encode a fixed text, hash the ids, look the hash up. Where the hash is new, by structure:
//! the regular expressions of tokenizer.json against those of the engine. The hash says more (it tells apart names that share their
//! expressions), so a name found by structure comes with a warning.

use super::TokenizerError;
use super::auto::AutoTokenizer;
use super::json::{TokenizerJson, truthy};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// How the pre-tokenizer's name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreSource {
    /// The hash of the ids of the reference text is known.
    Hash,
    /// Its regular expressions equal those of the engine.
    Structure,
    /// The user named it.
    Given,
    /// A SentencePiece vocabulary has none: `default`.
    Fixed,
}

impl std::fmt::Display for PreSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PreSource::Hash => "known hash",
            PreSource::Structure => "same rules",
            PreSource::Given => "given by --pre",
            PreSource::Fixed => "SentencePiece has no other",
        })
    }
}

/// The name of a pre-tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pre {
    pub(super) name: &'static str,
    pub(super) source: PreSource,
    /// Of the ids of the reference text, where it could be encoded.
    pub(super) hash: Option<String>,
}

/// `pretok.json`.
#[derive(Debug, Deserialize)]
struct Table<'a> {
    text: String,
    /// Hash and name; of equal hashes the last counts.
    #[serde(borrow)]
    hashes: Vec<(&'a str, &'a str)>,
    names: Vec<&'a str>,
    groups: Vec<Group<'a>>,
}

/// A list of regular expressions of the engine.
#[derive(Debug, Deserialize)]
struct Group<'a> {
    pre: &'a str,
    /// The name for models that take a word of the vocabulary as it is, without merging.
    ignoring_merges: Option<&'a str>,
    regexes: Vec<String>,
}

static TABLE: LazyLock<Table<'static>> = LazyLock::new(|| {
    // The file is part of the program; a test parses it.
    serde_json::from_str(include_str!("pretok.json")).expect("pretok.json is well-formed")
});

/// The names that llama.cpp knows, sorted.
pub fn names() -> &'static [&'static str] {
    &TABLE.names
}

/// The regular expressions of a group of the table, by the name that stands for it.
pub(super) fn group(name: &str) -> Option<(&'static str, &'static [String])> {
    TABLE.groups.iter().find(|group| group.pre == name).map(|group| (group.pre, group.regexes.as_slice()))
}

/// The name that the user gave, if there is such a one.
pub(super) fn given(name: &str) -> Result<&'static str, TokenizerError> {
    if let Some(known) = names().iter().find(|known| **known == name) {
        return Ok(known);
    }
    let lower = name.to_lowercase();
    let mut nearest: Vec<_> = names().iter().map(|known| (distance(&lower, known), *known)).collect();
    nearest.sort();
    nearest.retain(|(distance, known)| *distance <= 1 + name.len() / 4 || (lower.len() > 2 && known.contains(&lower)));
    let nearest = nearest.into_iter().take(3).map(|(_, known)| known).collect();
    Err(TokenizerError::NoSuchPre { given: name.to_owned(), nearest, known: names().to_vec() })
}

/// The name for this tokenizer: the user's, else by hash, else by structure.
pub(super) fn find(
    auto: &AutoTokenizer,
    json: &TokenizerJson,
    given: Option<&'static str>,
    warnings: &mut Vec<String>,
) -> Result<Pre, TokenizerError> {
    if let Some(name) = given {
        // What keeps the text from being encoded does not matter then.
        let hash = hash(auto).ok();
        if let Some(known) = hash.as_deref().and_then(by_hash).filter(|known| *known != name) {
            warnings.push(format!("--pre {name} is written; llama.cpp's converter takes this tokenizer for {known}"));
        }
        return Ok(Pre { name, source: PreSource::Given, hash });
    }
    let hash = hash(auto)?;
    if let Some(name) = by_hash(&hash) {
        return Ok(Pre { name, source: PreSource::Hash, hash: Some(hash) });
    }
    let regexes = regexes(&json.normalizer, &auto.pre_tokenizer);
    match regexes.as_deref().and_then(|list| by_structure(list, json.model.flag("ignore_merges", false))) {
        Some(name) => {
            warnings.push(format!(
                "llama.cpp's converter does not know this pre-tokenizer (hash {}); {name:?} has the same regular expressions and is written; --pre NAME overrides it",
                &hash[..8]
            ));
            Ok(Pre { name, source: PreSource::Structure, hash: Some(hash) })
        }
        None => Err(TokenizerError::UnknownPre { hash, regexes, known: names().to_vec() }),
    }
}

/// SHA-256, in hex, of the ids as Python prints a list.
fn hash(auto: &AutoTokenizer) -> Result<String, TokenizerError> {
    let ids = auto.encode(&TABLE.text)?;
    let text = format!("[{}]", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "));
    Ok(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn by_hash(hash: &str) -> Option<&'static str> {
    TABLE.hashes.iter().rev().find(|(known, _)| *known == hash).map(|(_, name)| *name)
}

/// By the structure of tokenizer.json's pre-tokenizer alone.
#[cfg(test)]
pub(super) fn by_pre_tokenizer(pre_tokenizer: &Value, ignore_merges: bool) -> Option<&'static str> {
    by_structure(&regexes(&Value::Null, pre_tokenizer)?, ignore_merges)
}

fn by_structure(regexes: &[String], ignore_merges: bool) -> Option<&'static str> {
    let wanted: Vec<String> = regexes.iter().map(|r| canonical(r)).collect();
    let group = TABLE.groups.iter().find(|g| g.regexes.iter().map(|r| canonical(r)).eq(wanted.iter().cloned()))?;
    Some(group.ignoring_merges.filter(|_| ignore_merges).unwrap_or(group.pre))
}

/// The expression of `ByteLevel` with `use_regex`.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The regular expressions by which a tokenizer cuts text, in order; `None` where it does anything that no list of them says.
fn regexes(normalizer: &Value, pre_tokenizer: &Value) -> Option<Vec<String>> {
    plain_normalizer(normalizer).then_some(())?;
    let mut out = Vec::new();
    cuts(pre_tokenizer, &mut out)?;
    (!out.is_empty()).then_some(out)
}

/// The engine's byte-level tokenizers normalize nothing; NFC, which they leave out, changes next to no text.
fn plain_normalizer(normalizer: &Value) -> bool {
    match normalizer.get("type").and_then(Value::as_str) {
        None => normalizer.is_null(),
        Some("NFC") => true,
        Some("Sequence") => {
            normalizer.get("normalizers").and_then(Value::as_array).is_some_and(|l| l.iter().all(plain_normalizer))
        }
        Some(_) => false,
    }
}

fn cuts(pre_tokenizer: &Value, out: &mut Vec<String>) -> Option<()> {
    let flag = |key: &str, default: bool| pre_tokenizer.get(key).map_or(default, truthy);
    match pre_tokenizer.get("type")?.as_str()? {
        "Sequence" => pre_tokenizer.get("pretokenizers")?.as_array()?.iter().try_for_each(|member| cuts(member, out)),
        "ByteLevel" if flag("add_prefix_space", true) => None,
        "ByteLevel" => {
            if flag("use_regex", true) {
                out.push(GPT2.to_owned());
            }
            Some(())
        }
        "Digits" => {
            out.push(if flag("individual_digits", false) { r"\p{N}" } else { r"\p{N}+" }.to_owned());
            Some(())
        }
        "Split" => {
            // Matches stand alone, the text between them too: said directly, or as OpenAI's tables are converted.
            match (pre_tokenizer.get("behavior")?.as_str()?, flag("invert", false)) {
                ("Isolated", false) | ("Removed", true) => {}
                _ => return None,
            }
            out.push(pre_tokenizer.get("pattern")?.get("Regex")?.as_str()?.to_owned());
            Some(())
        }
        _ => None,
    }
}

/// Spellings that match the same text, and the one they become. Contractions: their alternatives exclude each other, so neither
/// their order nor how case is ignored matters. Upper and lower case: how the engine spells what it has no classes for.
const SPELLINGS: [(&str, &str); 10] = [
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", "<contraction>"),
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "<contraction>"),
    (r"'(?i:[sdmt]|ll|ve|re)", "<contraction>"),
    (r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", "<contraction>"),
    (r"'s|'t|'re|'ve|'m|'ll|'d", "<lower-case contraction>"),
    (r"'(?:[sdmt]|ll|ve|re)", "<lower-case contraction>"),
    (r"((?=[\p{L}])([^a-z]))", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
    (r"((?=[\p{L}])([^A-Z]))", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
    (r"\p{N}{1}", r"\p{N}"),
    // Inside a class a bracket need not be closed before the class is.
    ("[^(\\s|[.,!?…。，、।۔،])]+", "[^(\\s|.,!?…。，、।۔،)]+"),
];

/// One spelling of a regular expression.
fn canonical(regex: &str) -> String {
    let mut out = regex.replace('\r', r"\r").replace('\n', r"\n").replace('\t', r"\t");
    for (from, to) in SPELLINGS {
        out = out.replace(from, to);
    }
    // What the last alternative would match stands alone without it, too.
    match out.strip_suffix(r"|\s+") {
        Some(rest) if rest.ends_with(r"|\s+(?!\S)") => rest.to_owned(),
        _ => out,
    }
}

/// Levenshtein distance in bytes; the names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(pre_tokenizer: Value, ignore_merges: bool) -> Option<&'static str> {
        by_structure(&regexes(&Value::Null, &pre_tokenizer)?, ignore_merges)
    }

    fn split(regex: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    }

    fn bytes(use_regex: bool) -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
    }

    fn sequence(members: &[Value]) -> Value {
        json!({"type": "Sequence", "pretokenizers": members})
    }

    #[test]
    fn the_table_is_whole() {
        assert_eq!(TABLE.text.chars().count(), 350);
        assert_eq!((TABLE.hashes.len(), names().len()), (97, 91));
        assert!(names().is_sorted());
        for group in &TABLE.groups {
            assert!(names().contains(&group.pre));
            assert!(group.ignoring_merges.is_none_or(|name| names().contains(&name)));
            assert_eq!(by_structure(&group.regexes, false), Some(group.pre), "two groups have the same expressions");
        }
    }

    #[test]
    fn the_last_of_equal_hashes_counts() {
        assert_eq!(by_hash("b6dc8df998e1cfbdc4eac8243701a65afe638679230920b50d6f17d81c098166"), Some("olmo"));
        assert_eq!(by_hash("85505942ac07c3ea54b9e9b4bd0bc8bb6b3ab7dd6b5e87d3f9a5c7c9d2e8ffff"), None);
    }

    #[test]
    fn common_structures() {
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert_eq!(name(sequence(&[split(llama), bytes(false)]), true), Some("llama-bpe"));
        assert_eq!(name(sequence(&[split(llama), bytes(false)]), false), Some("smaug-bpe"));
        let qwen = llama.replace("{1,3}", "");
        assert_eq!(name(sequence(&[split(&qwen), bytes(false)]), false), Some("qwen2"));
        assert_eq!(name(bytes(true), false), Some("gpt-2"));
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(name(sequence(&[digits, bytes(true)]), false), Some("smollm"));
        let tekken = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert_eq!(name(sequence(&[split(tekken), bytes(false)]), true), Some("tekken"));
        let mut inverted = split(llama);
        inverted["behavior"] = "Removed".into();
        assert_eq!(name(inverted.clone(), true), None, "removes the text itself");
        inverted["invert"] = true.into();
        assert_eq!(name(sequence(&[inverted, bytes(false)]), true), Some("llama-bpe"));
    }

    #[test]
    fn a_changed_expression_is_not_taken_for_a_known_one() {
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,4}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert_eq!(name(sequence(&[split(llama), bytes(false)]), true), None);
        assert_eq!(name(sequence(&[bytes(true), split(r"\p{N}")]), true), None, "another order");
        assert_eq!(name(json!({"type": "ByteLevel", "add_prefix_space": true}), false), None);
        assert_eq!(name(Value::Null, false), None);
        assert_eq!(regexes(&json!({"type": "Lowercase"}), &bytes(true)), None);
    }

    #[test]
    fn names_that_the_user_gives() {
        assert_eq!(given("llama-bpe").unwrap(), "llama-bpe");
        match given("gpt2") {
            Err(TokenizerError::NoSuchPre { nearest, .. }) => assert_eq!(nearest[0], "gpt-2"),
            other => panic!("{other:?}"),
        }
        match given("xxxxxxxxxxxx") {
            Err(TokenizerError::NoSuchPre { nearest, .. }) => assert_eq!(nearest, Vec::<&str>::new()),
            other => panic!("{other:?}"),
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
