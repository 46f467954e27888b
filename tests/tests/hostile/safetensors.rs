//! Safetensors files with one defect each, among them those that the reference library reads without complaint; alone and as a model's
//! weights. (crates/checkpoint/tests/headers.rs has more of them.)

use crate::{Verdict, bad, demand, inspect, judge, limited, text, trial};
use Verdict::Good;
use ggufsmith_tests::bytes::safetensors;
use ggufsmith_tests::checkpoint::Checkpoint;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;

/// Name, bytes, and what is said of them.
type Case = (&'static str, Vec<u8>, Verdict);

pub fn trials() -> Vec<Trial> {
    let both = |(name, bytes, verdict): Case| {
        let file = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        trial(format!("safetensors::{file}"), move || {
            inspect("file.safetensors", &bytes, &verdict)?;
            as_weights(&bytes, &verdict)
        })
    };
    headers().into_iter().chain(entries()).map(both).collect()
}

/// The same file as a model's weights: what is wrong with the file is what is said, and of a good one that it is not this model.
fn as_weights(bytes: &[u8], verdict: &Verdict) -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    Checkpoint::load(&fixture("tiny/llama/hf")).write(&model);
    std::fs::write(model.join("model.safetensors"), bytes).map_err(|e| e.to_string())?;
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    let run = limited(&["convert", text(&model)?, "--out", text(&out)?, "--type", "F16", "--type", "Q8_0"]);
    match verdict {
        Good => judge(&run, &bad(&["tensor"]))?,
        refused => judge(&run, refused)?,
    }
    demand(outputs::names(&out).is_empty(), || format!("{:?} was left", outputs::names(&out)))
}

/// What describes an F32 tensor.
fn entry(shape: &str, start: &str, end: &str) -> String {
    format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// One number.
fn word(start: u32) -> String {
    entry("[1]", &start.to_string(), &(start + 4).to_string())
}

/// Two numbers.
fn pair(start: u32) -> String {
    entry("[2]", &start.to_string(), &(start + 8).to_string())
}

/// A header of one tensor.
fn a(entry: &str) -> String {
    format!(r#"{{"a":{entry}}}"#)
}

/// A header of two tensors.
fn two(first: (&str, &str), second: (&str, &str)) -> String {
    format!(r#"{{"{}":{},"{}":{}}}"#, first.0, first.1, second.0, second.1)
}

fn headers() -> Vec<Case> {
    let plain = |name, header: &str, data, verdict| (name, safetensors(header, None, data), verdict);
    vec![
        plain("ok", &a(&pair(0)), 8, Good),
        plain("trailing spaces", &format!("{}    ", a(&word(0))), 4, Good),
        plain("misaligned header (7 bytes pad)", &format!("{} ", a(&word(0))), 4, Good),
        plain("empty file header {}", "{}", 0, Good),
        plain("zero-length header", "", 0, bad(&["the header does not begin with '{'"])),
        plain("leading space", &format!(" {}", a(&word(0))), 4, bad(&["the header does not begin with '{'"])),
        plain("trailing garbage", &format!("{}xx", a(&word(0))), 4, bad(&["the header is no JSON object"])),
        plain("deep nesting", &"[".repeat(200_000), 0, bad(&["the header does not begin with '{'"])),
        plain("deep nesting in an entry", &format!("{{\"a\":{}", "[".repeat(200_000)), 0, bad(&["the header is no JSON object"])),
        ("not utf8", safetensors(b"{\"\xff\":1}", None, 0), bad(&["the header is not UTF-8"])),
        ("header len 2^63", safetensors("{}", Some(1 << 63), 0), bad(&["9223372036854775808 bytes long", "at most 100000000"])),
        ("header len 100MB+1", safetensors("{}", Some(100_000_001), 0), bad(&["100000001 bytes long", "at most 100000000"])),
        ("header len > file", safetensors("{}", Some(1000), 0), bad(&["1000 bytes long", "cut off or no safetensors file"])),
        ("no room for a length", vec![0; 7], bad(&["at least 8"])),
        plain("metadata non-string", r#"{"__metadata__":{"a":1}}"#, 0, bad(&["__metadata__ is no map from string to string"])),
    ]
}

fn entries() -> Vec<Case> {
    let case = |name, header: &str, data, words: &[&str]| (name, safetensors(header, None, data), bad(words));
    let (w0, w4, w8, p0) = (word(0), word(4), word(8), pair(0));
    let huge = "[4294967296,4294967296,4]";
    vec![
        case("duplicate name, same offsets", &two(("a", &p0), ("a", &p0)), 8, &["tensor \"a\" is there twice"]),
        case("duplicate name, 2nd differs", &two(("a", &p0), ("a", &w0)), 4, &["tensor \"a\" is there twice"]),
        case("duplicate name, other spelling", &two(("a", &w0), ("\\u0061", &w4)), 8, &["tensor \"a\" is there twice"]),
        case("overlap", &two(("a", &p0), ("b", &p0)), 8, &["tensor \"b\" starts at byte 0 of the data, inside \"a\""]),
        case("hole", &two(("a", &w0), ("b", &w8)), 12, &["bytes 4..8 of the data, before \"b\""]),
        case("trailing bytes", &a(&w0), 8, &["4 bytes after the last tensor"]),
        case("truncated data", &a(&p0), 4, &["tensor \"a\" ends at byte 8 of the data, the file holds 4"]),
        case("end<start", &a(&entry("[0]", "8", "0")), 8, &["tensor \"a\" ends (byte 0 of the data) before it starts (byte 8)"]),
        case("bytes against shape", &a(&entry("[3]", "0", "8")), 8, &["tensor \"a\" has 8 bytes", "need 12"]),
        case("shape overflow", &a(&entry(huge, "0", "8")), 8, &["tensor \"a\": the shape", "larger than any file"]),
        case("zip-bomb dims*0", &a(&entry("[0,18446744073709551615]", "0", "0")), 0, &["tensor \"a\": the shape"]),
        case("overflow then zero", &a(&entry("[4294967296,4294967296,0]", "0", "0")), 0, &["tensor \"a\": the shape"]),
        case("unknown dtype", &a(&w0.replace("F32", "Q4_0")), 4, &["tensor \"a\" has the element type \"Q4_0\""]),
        case("extra field", &a(&w0.replace('}', ",\"x\":1}")), 4, &["tensor \"a\"", "unknown field `x`"]),
        case("empty name", &format!(r#"{{"":{w0}}}"#), 4, &["a tensor has an empty name"]),
        case("name with ../ and NUL", &format!(r#"{{"../../x\u0000":{w0}}}"#), 4, &["the tensor name \"../../x\\0\" contains"]),
        case("negative offset", &a(&entry("[1]", "-4", "0")), 4, &["tensor \"a\""]),
        case("float offset", &a(&entry("[1]", "0", "4.0")), 4, &["tensor \"a\""]),
        case("offset above 64 bits", &a(&entry("[1]", "0", "18446744073709551616")), 4, &["tensor \"a\""]),
    ]
}
