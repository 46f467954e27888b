//! The vocabulary, as `llama_vocab::impl::load` reads it.

use super::report_alike;
use ggufsmith_gguf::{Array, Metadata, Value};
use std::collections::HashMap;

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// `LLAMA_TOKEN_TYPE_BYTE`.
const BYTE: i32 = 6;
/// Types of tokens run from 1 (normal) to 6 (byte).
const TYPE_RANGE: std::ops::RangeInclusive<i32> = 1..=BYTE;

/// `tokenizer.ggml.model`, and what the tokenizer needs.
const MODELS: [&str; 9] = ["llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "gemma4", "hybriddna", "whitespace"];
/// Models without tokens.
const NO_VOCABULARY: [&str; 2] = ["none", "no_vocab"];
/// Models that merge pairs.
const MERGING: [&str; 4] = ["gpt2", "gemma4", "hybriddna", "whitespace"];

/// Keys that hold a token's number.
const SPECIAL: [&str; 18] = [
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "cls",
    "mask",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
    "prefix",
    "suffix",
    "middle",
];
/// Keys that are true or false.
const FLAGS: [&str; 5] = ["add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces"];

/// Check the keys `tokenizer.*`. Returns the number of tokens.
pub(super) fn check(metadata: &Metadata, problems: &mut Vec<String>) -> Option<u32> {
    let model = metadata.require::<&str>("tokenizer.ggml.model").map_err(|error| problems.push(error.to_string())).ok()?;
    if NO_VOCABULARY.contains(&model) {
        return None;
    }
    if !MODELS.contains(&model) {
        problems.push(format!("tokenizer.ggml.model is {model:?}, llama.cpp knows {}", MODELS.join(", ")));
    }
    for flag in FLAGS {
        typed::<bool>(metadata, &format!("tokenizer.ggml.{flag}"), problems);
    }
    for text in ["tokenizer.ggml.pre", "tokenizer.chat_template"] {
        typed::<&str>(metadata, text, problems);
    }
    if model == "gpt2" && metadata.get("tokenizer.ggml.pre").is_none() {
        problems
            .push("the key tokenizer.ggml.pre is missing: llama.cpp then splits texts in a way that fits no model".to_owned());
    }
    charsmap(metadata, problems);
    merges(metadata, model, problems);
    let tokens = metadata.require::<&[String]>(TOKENS).map_err(|error| problems.push(error.to_string())).ok()?;
    special(metadata, tokens.len(), problems);
    twice(tokens, problems);
    scores(metadata, tokens.len(), problems);
    types(metadata, model, tokens, problems);
    u32::try_from(tokens.len()).ok()
}

/// A value of the right type, or a finding.
fn typed<'a, T: ggufsmith_gguf::FromValue<'a>>(metadata: &'a Metadata, key: &str, problems: &mut Vec<String>) -> Option<T> {
    metadata.lookup(key).map_err(|error| problems.push(error.to_string())).ok().flatten()
}

fn length(key: &str, found: usize, tokens: usize, problems: &mut Vec<String>) {
    if found != tokens {
        problems.push(format!("{key} has {found} entries, {TOKENS} has {tokens}"));
    }
}

fn scores(metadata: &Metadata, tokens: usize, problems: &mut Vec<String>) {
    match metadata.get(SCORES) {
        None => {}
        Some(Value::Array(Array::F32(values))) => {
            length(SCORES, values.len(), tokens, problems);
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                problems.push(format!("{SCORES} holds {} at token {at}", values[at]));
            }
        }
        Some(Value::Array(Array::I32(values))) => length(SCORES, values.len(), tokens, problems),
        Some(other) => problems.push(format!("the key {SCORES} is of type {}, it must be [f32]", other.type_name())),
    }
}

fn types(metadata: &Metadata, model: &str, tokens: &[String], problems: &mut Vec<String>) {
    let Some(types) = typed::<&[i32]>(metadata, TYPES, problems) else {
        if model == "llama" && metadata.get(TYPES).is_none() {
            problems.push(format!("the key {TYPES} is missing: llama.cpp then finds no byte tokens and no special ones"));
        }
        return;
    };
    length(TYPES, types.len(), tokens.len(), problems);
    let strange = types.iter().enumerate().filter(|(_, value)| !TYPE_RANGE.contains(value));
    let strange = strange.map(|(at, value)| format!("{TYPES} holds {value} at token {at}, types run from 1 to 6")).collect();
    report_alike(strange, "tokens of a type that does not exist", problems);

    let bytes = tokens.iter().zip(types).enumerate().filter(|(_, (_, kind))| **kind == BYTE);
    let (mut malformed, mut there) = (Vec::new(), [false; 256]);
    for (at, (token, _)) in bytes {
        match byte_of(token) {
            Some(byte) => there[usize::from(byte)] = true,
            None => malformed.push(format!("token {at} is a byte token, its text {} is not <0x00> to <0xFF>", quoted(token))),
        }
    }
    report_alike(malformed, "malformed byte tokens", problems);
    let missing: Vec<usize> = (0..there.len()).filter(|&byte| !there[byte]).collect();
    if model == "llama"
        && let Some(first) = missing.first()
    {
        let missing = missing.len();
        problems.push(format!(
            "{missing} of the 256 byte tokens are missing, the first is <0x{first:02X}>: llama.cpp cannot tokenize every text"
        ));
    }
}

/// The byte of `<0x41>`.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if two { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A token's text for a message.
fn quoted(token: &str) -> String {
    Value::from(token).short(40)
}

/// llama.cpp stops where two tokens have one text.
fn twice(tokens: &[String], problems: &mut Vec<String>) {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
        match first.get(token.as_str()) {
            Some(first) => found.push(format!("tokens {first} and {at} are both {}", quoted(token))),
            None => _ = first.insert(token, at),
        }
    }
    report_alike(found, "tokens that occur twice", problems);
}

fn special(metadata: &Metadata, tokens: usize, problems: &mut Vec<String>) {
    for name in SPECIAL {
        let key = format!("tokenizer.ggml.{name}_token_id");
        if let Some(id) = typed::<u32>(metadata, &key, problems).filter(|&id| id as usize >= tokens) {
            problems.push(format!("{key} is {id}, the vocabulary has {tokens} tokens"));
        }
    }
    let key = "tokenizer.ggml.suppress_tokens";
    let outside = |id: &&i32| usize::try_from(**id).map_or(true, |id| id >= tokens);
    if let Some(id) = typed::<&[i32]>(metadata, key, problems).and_then(|ids| ids.iter().find(outside)) {
        problems.push(format!("{key} holds {id}, the vocabulary has {tokens} tokens"));
    }
}

fn merges(metadata: &Metadata, model: &str, problems: &mut Vec<String>) {
    let Some(merges) = typed::<&[String]>(metadata, MERGES, problems) else {
        if MERGING.contains(&model) && metadata.get(MERGES).is_none() {
            problems.push(format!("the key {MERGES} is missing: a {model} vocabulary needs it"));
        }
        return;
    };
    // A pair is split at the first space behind its first byte.
    let whole = |merge: &str| merge.bytes().skip(1).any(|byte| byte == b' ');
    let broken = merges.iter().enumerate().filter(|(_, merge)| !whole(merge));
    let broken = broken.map(|(at, merge)| format!("{MERGES} holds {} at {at}, which is no pair", quoted(merge))).collect();
    report_alike(broken, "merges that are no pairs", problems);
}

/// 4 bytes of length, and more bytes than that.
fn charsmap(metadata: &Metadata, problems: &mut Vec<String>) {
    let bytes: Vec<u8> = match metadata.get(CHARSMAP) {
        None => return,
        Some(Value::Array(Array::U8(values))) => values.clone(),
        Some(Value::Array(Array::I8(values))) => values.iter().map(|&value| value as u8).collect(),
        Some(other) => return problems.push(format!("the key {CHARSMAP} is of type {}, it must be [u8]", other.type_name())),
    };
    let Some(head) = bytes.first_chunk() else {
        return problems.push(format!("{CHARSMAP} has {} bytes, it begins with a length of 4", bytes.len()));
    };
    let blob = u64::from(u32::from_le_bytes(*head));
    if blob + 4 >= bytes.len() as u64 {
        problems.push(format!("{CHARSMAP} has {} bytes, its first table alone is said to have {blob}", bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens() {
        assert_eq!((byte_of("<0x0A>"), byte_of("<0xff>"), byte_of("<0x00>")), (Some(10), Some(255), Some(0)));
        for wrong in ["<0x-1>", "<0x1>", "<0x100>", "0x10", "<0x+1>", "<0xG0>", ""] {
            assert_eq!(byte_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_charsmap_is_longer_than_its_table() {
        let found = |bytes: Vec<u8>| {
            let (mut metadata, mut problems) = (Metadata::new(), Vec::new());
            metadata.set(CHARSMAP, bytes);
            charsmap(&metadata, &mut problems);
            problems.len()
        };
        assert_eq!((found(vec![1, 0, 0]), found(vec![1, 0, 0, 0, 7]), found(vec![1, 0, 0, 0, 7, 0])), (1, 1, 0));
    }
}
