//! Two lists of `tokenizer.*` keys, entry by entry.

use ggufsmith_gguf::{Array, Metadata, Value};
use ggufsmith_tokenizer::GgufTokenizer;

/// Differences that are described of one key; the others are counted.
const FEW: usize = 3;
/// Characters of a text that a sentence shows.
const WIDTH: usize = 60;
const TOKENS: &str = "tokenizer.ggml.tokens";

/// What the file's keys say otherwise than the source's, one sentence each. `source`: the keys that the source gives, and the
/// tokenizer that they make, if they make one.
pub(super) fn differences(source: &[(String, Value)], tokenizer: Option<&GgufTokenizer>, file: &Metadata) -> Vec<String> {
    let mut out = Vec::new();
    for (key, expected) in source {
        match file.get(key) {
            None => out.push(missing(key, expected)),
            Some(found) => value(key, expected, found, &mut out),
        }
    }
    let model = source.iter().find(|(key, _)| key == "tokenizer.ggml.model").and_then(|(_, value)| text(value));
    for (key, value) in file.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        if !source.iter().any(|(known, _)| known == key) && !harmless(key, value, model, tokenizer) {
            out.push(format!("{key} is {} in the file, the source has none", value.short(WIDTH)));
        }
    }
    out
}

fn text(value: &Value) -> Option<&str> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn missing(key: &str, expected: &Value) -> String {
    match expected {
        Value::String(text) if text.chars().count() > WIDTH => {
            format!("the file has no {key}, the source has one ({} characters)", grouped(text.chars().count()))
        }
        Value::Array(array) => format!("the file has no {key}, the source has {} entries", grouped(array.len())),
        other => format!("the file has no {key}, the source has {}", other.short(WIDTH)),
    }
}

/// Whether a key that the source does not have changes nothing: llama.cpp assumes the same without it, or does not read it.
fn harmless(key: &str, value: &Value, model: Option<&str>, tokenizer: Option<&GgufTokenizer>) -> bool {
    let flag = |default: Option<bool>| matches!(value, Value::Bool(flag) if Some(*flag) == default);
    let id = |default: Option<u32>| matches!(value, Value::U32(id) if Some(*id) == default);
    match key {
        "tokenizer.ggml.add_bos_token" => flag(tokenizer.map(GgufTokenizer::add_bos)),
        "tokenizer.ggml.add_eos_token" => flag(tokenizer.map(GgufTokenizer::add_eos)),
        "tokenizer.ggml.bos_token_id" => id(tokenizer.and_then(GgufTokenizer::bos)),
        "tokenizer.ggml.eos_token_id" => id(tokenizer.and_then(GgufTokenizer::eos)),
        "tokenizer.ggml.unknown_token_id" => id((model == Some("llama")).then_some(0)),
        "tokenizer.ggml.add_space_prefix" => flag(Some(model == Some("llama"))),
        // Byte-level BPE has no scores; older converters wrote zeros.
        "tokenizer.ggml.scores" => model == Some("gpt2"),
        "tokenizer.ggml.token_type_count"
        | "tokenizer.ggml.precompiled_charsmap"
        | "tokenizer.ggml.remove_extra_whitespaces"
        | "tokenizer.huggingface.json" => true,
        _ => false,
    }
}

fn value(key: &str, expected: &Value, found: &Value, out: &mut Vec<String>) {
    match (expected, found) {
        (Value::String(source), Value::String(file)) if source != file => out.push(texts(key, source, file)),
        (Value::String(_), Value::String(_)) => {}
        (Value::Array(Array::String(source)), Value::Array(Array::String(file))) => {
            list(key, source, file, |a, b| a == b, |text| Value::String(text.clone()).short(WIDTH), out);
        }
        (Value::Array(Array::I32(source)), Value::Array(Array::I32(file))) => {
            list(key, source, file, |a, b| a == b, |number| type_name(key, *number), out);
        }
        (Value::Array(Array::F32(source)), Value::Array(Array::F32(file))) => {
            list(key, source, file, |a, b| a.to_bits() == b.to_bits(), f32::to_string, out);
        }
        (source, file) if source == file => {}
        (source, file) if source.type_name() == file.type_name() => {
            out.push(format!("{key}: the source has {}, the file {}", source.short(WIDTH), file.short(WIDTH)));
        }
        (source, file) => out.push(format!("{key} is of type {}, it must be {}", file.type_name(), source.type_name())),
    }
}

fn type_name(key: &str, number: i32) -> String {
    let name = match number {
        1 => "normal",
        2 => "unknown",
        3 => "control",
        4 => "user-defined",
        5 => "unused",
        6 => "byte",
        _ => return number.to_string(),
    };
    if key == "tokenizer.ggml.token_type" { format!("{number} ({name})") } else { number.to_string() }
}

/// Long texts are shown from where they differ.
fn texts(key: &str, source: &str, file: &str) -> String {
    let short = |text: &str| Value::String(text.to_owned()).short(WIDTH);
    if source.chars().count().max(file.chars().count()) <= WIDTH {
        return format!("{key}: the source has {}, the file {}", short(source), short(file));
    }
    let same = source.chars().zip(file.chars()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str| short(&text.chars().skip(same).collect::<String>());
    format!("{key}: from character {} on the source has {}, the file {}", grouped(same), rest(source), rest(file))
}

fn list<T>(
    key: &str,
    source: &[T],
    file: &[T],
    same: impl Fn(&T, &T) -> bool,
    show: impl Fn(&T) -> String,
    out: &mut Vec<String>,
) {
    if source.len() != file.len() {
        return out.push(lengths(key, source, file, same, show));
    }
    let mut different: Vec<usize> = (0..source.len()).filter(|&at| !same(&source[at], &file[at])).collect();
    let exchanged = |a: usize, b: usize| same(&source[a], &file[b]) && same(&source[b], &file[a]);
    let mut described = Vec::new();
    // Two entries that changed places are one difference, wherever both are among the first few.
    while let Some(&first) = different.first().filter(|_| described.len() < FEW) {
        let partner = different.iter().skip(1).copied().find(|&other| exchanged(first, other));
        different.retain(|&at| at != first && Some(at) != partner);
        described.push(match partner {
            Some(second) if key == TOKENS => {
                format!(
                    "tokens {first} ({}) and {second} ({}) are exchanged in {key}",
                    show(&source[first]),
                    show(&source[second])
                )
            }
            Some(second) => {
                let (a, b) = (show(&source[first]), show(&source[second]));
                format!("{key}[{first}] ({a}) and [{second}] ({b}) are exchanged")
            }
            None => format!("{key}[{first}]: the source has {}, the file {}", show(&source[first]), show(&file[first])),
        });
    }
    if let Some(last) = described.last_mut().filter(|_| !different.is_empty()) {
        last.push_str(&format!(" ({} more differ)", grouped(different.len())));
    }
    out.append(&mut described);
}

/// Lists of different lengths: what is missing or too many where that explains it, else where they part.
fn lengths<T>(key: &str, source: &[T], file: &[T], same: impl Fn(&T, &T) -> bool, show: impl Fn(&T) -> String) -> String {
    let front = source.iter().zip(file).take_while(|(a, b)| same(a, b)).count();
    let back = source[front..].iter().rev().zip(file[front..].iter().rev()).take_while(|(a, b)| same(a, b)).count();
    let (more, less) = (source.len() - front - back, file.len() - front - back);
    let counts = format!("the source has {} entries, the file {}", grouped(source.len()), grouped(file.len()));
    let others = |n: usize| if n > 1 { format!(" and the {} behind it", grouped(n - 1)) } else { String::new() };
    match (more, less) {
        (_, 0) => format!("{key}[{front}] {}{} of the source is missing: {counts}", show(&source[front]), others(more)),
        (0, _) => format!("{key}[{front}] {}{} of the file is not in the source: {counts}", show(&file[front]), others(less)),
        _ => {
            let (a, b) = (show(&source[front]), show(&file[front]));
            format!("{key}: {counts}; they part at [{front}], where the source has {a}, the file {b}")
        }
    }
}

/// `1,234,567`
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(source: Value, file: Value) -> Vec<String> {
        let mut metadata = Metadata::new();
        metadata.set(TOKENS, file);
        differences(&[(TOKENS.to_owned(), source)], None, &metadata)
    }

    fn words(text: &str) -> Value {
        text.split(' ').map(str::to_owned).collect::<Vec<String>>().into()
    }

    #[test]
    fn sentences() {
        assert_eq!(compare(words("a b c"), words("a b c")), Vec::<String>::new());
        assert_eq!(
            compare(words("a b c"), words("a c b")),
            [r#"tokens 1 ("b") and 2 ("c") are exchanged in tokenizer.ggml.tokens"#]
        );
        assert_eq!(
            compare(words("a b c d e"), words("v w x y z")),
            [
                r#"tokenizer.ggml.tokens[0]: the source has "a", the file "v""#,
                r#"tokenizer.ggml.tokens[1]: the source has "b", the file "w""#,
                r#"tokenizer.ggml.tokens[2]: the source has "c", the file "x" (2 more differ)"#,
            ]
        );
        assert_eq!(
            compare(words("a b c d"), words("a d")),
            [
                r#"tokenizer.ggml.tokens[1] "b" and the 1 behind it of the source is missing: the source has 4 entries, the file 2"#
            ]
        );
        assert_eq!(
            compare(words("a d"), words("a b d")),
            [r#"tokenizer.ggml.tokens[1] "b" of the file is not in the source: the source has 2 entries, the file 3"#]
        );
        assert_eq!(
            compare(words("a b c d"), words("a x d")),
            [
                r#"tokenizer.ggml.tokens: the source has 4 entries, the file 3; they part at [1], where the source has "b", the file "x""#
            ]
        );
        assert_eq!(
            compare(vec![1.0f32, 0.0].into(), vec![1.0f32, -0.0].into()),
            ["tokenizer.ggml.tokens[1]: the source has 0, the file -0"]
        );
        assert_eq!(compare(true.into(), 1u32.into()), ["tokenizer.ggml.tokens is of type u32, it must be bool"]);
        let long = "x".repeat(100);
        assert_eq!(
            compare(long.clone().into(), format!("{long}y").into()),
            [r#"tokenizer.ggml.tokens: from character 100 on the source has "", the file "y""#]
        );
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000), grouped(1234567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
    }
}
