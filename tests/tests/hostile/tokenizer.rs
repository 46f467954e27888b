//! Tokenizer files that are huge, contradict themselves or the model.

use crate::source::{check, fifo, link, nested, plain, repeated, replace, spaced, write};
use crate::trial;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::Path;

/// Name, how the model is made, and the words of the refusal; none where it is accepted.
struct Case(&'static str, fn(&Path), &'static [&'static str]);

const FILE: &str = "tokenizer.json";
const ACCEPTED: &[&str] = &[];

const CASES: &[Case] = &[
    Case("ten_million_added_tokens", |dir| added(dir, 10_000_000), &["tokenizer.json", "at most 268435456 are read"]),
    Case(
        "two_million_added_tokens",
        |dir| added(dir, 2_000_000),
        &["added tokens in tokenizer.json", "2000000", "at most 262144"],
    ),
    Case("ten_million_tokens", |dir| tokens(dir, 10_000_000), &["tokens in tokenizer.json", "10000000", "at most 1048576"]),
    Case("a_million_tokens", |dir| tokens(dir, 1_000_000), &["the id 999999", "vocab_size is 512"]),
    Case("twenty_million_merges", |dir| merges(dir, 20_000_000), &["merges in tokenizer.json", "20000000", "at most 2097152"]),
    Case("two_million_merges", |dir| merges(dir, 2_000_000), ACCEPTED),
    Case(
        "sixty_million_numbers",
        |dir| plain(dir, |dir| write(dir, FILE, &repeated("{\"a\":[", "0,", 60_000_000, "0]}"))),
        &[FILE, "model.vocab is missing"],
    ),
    Case(
        "a_normalizer_of_sixty_million_numbers",
        |dir| part(dir, "normalizer", &repeated("[", "0,", 60_000_000, "0]")),
        &[FILE, "more than 4000000 values"],
    ),
    Case(
        "model_options_of_sixty_million_numbers",
        |dir| option(dir, &repeated("[", "0,", 60_000_000, "0]")),
        &[FILE, "more than 4000000 values"],
    ),
    Case(
        "larger_than_256_mib",
        |dir| plain(dir, |dir| write(dir, FILE, &spaced(b"{}", (256 << 20) + 1))),
        &[FILE, "at most 268435456"],
    ),
    Case("nested_100000_deep", |dir| plain(dir, |dir| nested(dir, FILE)), &[FILE, "JSON"]),
    Case(
        "normalizer_nested_100000_deep",
        |dir| part(dir, "normalizer", "[".repeat(100_000).as_bytes()),
        &[FILE, "recursion limit"],
    ),
    Case("not_utf8", |dir| plain(dir, |dir| write(dir, FILE, b"{\"\xff\":1}")), &[FILE, "UTF-8"]),
    Case("a_fifo", |dir| plain(dir, |dir| replace(dir, FILE, fifo)), &[FILE, "a FIFO"]),
    Case("dev_zero", |dir| plain(dir, |dir| replace(dir, FILE, |path| link("/dev/zero", path))), &[FILE, "a device"]),
    Case("a_key_twice", |dir| text(dir, |text| text.replacen('{', "{\"model\":{},", 1)), &[FILE, "\"model\" is there twice"]),
    Case(
        "a_key_of_the_model_twice",
        |dir| text(dir, |text| text.replacen("\"model\":{", "\"model\":{\"vocab\":{},", 1)),
        &[FILE, "\"vocab\" is there twice"],
    ),
    Case(
        "a_key_of_a_part_twice",
        |dir| text(dir, |text| text.replacen("\"decoder\":{", "\"decoder\":{\"type\":1,", 1)),
        &[FILE, "\"type\" is there twice"],
    ),
    Case(
        "a_token_twice",
        |dir| text(dir, |text| text.replacen("\"vocab\":{", "\"vocab\":{\"!\":7,", 1)),
        &[FILE, "\"!\" is there twice"],
    ),
    Case("config_with_a_key_twice", |dir| twice(dir, "tokenizer_config.json"), &["tokenizer_config.json", "is there twice"]),
    Case("id_hole", |dir| edit(dir, |json| vocab(json, |vocab| drop(vocab.remove("om")))), ACCEPTED),
    Case("id_beyond_the_vocabulary", |dir| token(dir, json!(512)), &["\"new\" has the id 512", "vocab_size is 512"]),
    Case("id_2^32-1", |dir| token(dir, json!(u32::MAX)), &["\"new\" has the id 4294967295", "vocab_size is 512"]),
    Case("id_beyond_32_bits", |dir| token(dir, json!(1u64 << 32)), &[FILE, "4294967296"]),
    Case("id_of_minus_one", |dir| token(dir, json!(-1)), &[FILE, "-1"]),
    Case("id_that_is_a_string", |dir| token(dir, json!("5")), &[FILE, "\"5\""]),
    Case("id_of_another_token", |dir| token(dir, json!(5)), &["the id 5 is given to", "\"new\""]),
    Case("merge_of_unknown_tokens", |dir| edit(dir, |json| json["model"]["merges"] = json!([["no", "such"]])), &[FILE, "`no`"]),
    Case(
        "template_of_50_mb",
        |dir| plain(dir, |dir| write(dir, "chat_template.jinja", &spaced(b"{{ x }}", 50_000_000))),
        ACCEPTED,
    ),
    Case(
        "template_above_256_mib",
        |dir| plain(dir, |dir| write(dir, "chat_template.jinja", &spaced(b"", (256 << 20) + 1))),
        &["chat_template.jinja", "at most 268435456"],
    ),
    Case(
        "template_that_is_a_fifo",
        |dir| plain(dir, |dir| fifo(&dir.join("chat_template.jinja"))),
        &["chat_template.jinja", "a FIFO"],
    ),
];

pub fn trials() -> Vec<Trial> {
    CASES.iter().map(|case| trial(format!("tokenizer::{}", case.0), || check(case.1, case.2))).collect()
}

/// Change tokenizer.json.
fn edit(dir: &Path, change: impl FnOnce(&mut Value)) {
    plain(dir, |dir| {
        let mut json = ggufsmith_tests::json(&dir.join(FILE));
        change(&mut json);
        write(dir, FILE, json.to_string().as_bytes());
    });
}

/// Change its text, which has no spaces then.
fn text(dir: &Path, change: impl FnOnce(String) -> String) {
    plain(dir, |dir| {
        let before = ggufsmith_tests::json(&dir.join(FILE)).to_string();
        let after = change(before.clone());
        assert_ne!(before, after);
        write(dir, FILE, after.as_bytes());
    });
}

/// Put `bytes` where `place` has a value; for what is too large or not right as a JSON value.
fn put(dir: &Path, place: impl FnOnce(&mut Value) -> &mut Value, bytes: &[u8]) {
    const MARK: &str = "\"@ here @\"";
    plain(dir, |dir| {
        let mut json = ggufsmith_tests::json(&dir.join(FILE));
        *place(&mut json) = "@ here @".into();
        let text = json.to_string();
        let (before, after) = text.split_once(MARK).expect("the mark was put there");
        write(dir, FILE, &[before.as_bytes(), bytes, after.as_bytes()].concat());
    });
}

fn part(dir: &Path, key: &str, bytes: &[u8]) {
    put(dir, |json| &mut json[key], bytes);
}

fn option(dir: &Path, bytes: &[u8]) {
    put(dir, |json| &mut json["model"]["new_option"], bytes);
}

fn joined(open: char, entries: impl Iterator<Item = String>, close: char) -> Vec<u8> {
    let mut out = String::from(open);
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&entry);
    }
    out.push(close);
    out.into_bytes()
}

fn added(dir: &Path, count: usize) {
    let token = |id| format!("{{\"id\":{id},\"content\":\"<{id}>\",\"special\":false}}");
    put(dir, |json| &mut json["added_tokens"], &joined('[', (0..count).map(token), ']'));
}

fn tokens(dir: &Path, count: usize) {
    put(dir, |json| &mut json["model"]["vocab"], &joined('{', (0..count).map(|id| format!("\"{id:x}\":{id}")), '}'));
}

fn merges(dir: &Path, count: usize) {
    put(dir, |json| &mut json["model"]["merges"], &joined('[', (0..count).map(|_| "[\"a\",\"b\"]".to_owned()), ']'));
}

fn vocab(json: &mut Value, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    change(json["model"]["vocab"].as_object_mut().unwrap());
    let vocab = json["model"]["vocab"].clone();
    let known = |token: &Value| vocab.get(token.as_str().unwrap()).is_some();
    let whole = |merge: &Value| {
        merge.as_array().unwrap().iter().all(known)
            && vocab.get(format!("{}{}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap())).is_some()
    };
    json["model"]["merges"].as_array_mut().unwrap().retain(whole);
}

fn token(dir: &Path, id: Value) {
    edit(dir, |json| json["model"]["vocab"]["new"] = id);
}

fn twice(dir: &Path, name: &str) {
    plain(dir, |dir| {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        write(dir, name, text.replacen('{', "{\"x\":1,\"x\":2,", 1).as_bytes());
    });
}
