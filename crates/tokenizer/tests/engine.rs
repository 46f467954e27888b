//! `GgufTokenizer` against ids from llama.cpp itself (`fixtures/tokenizer-engine`).

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Array, Gguf, Limits, Metadata, Value};
use ggufsmith_tokenizer::{GgufTokenizer, Request, build};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The texts of crates/verify, in the order of their names.
fn stress() -> String {
    ["decomposed", "marks", "stress"].map(|name| read(&format!("crates/verify/src/tokens/{name}.txt"))).concat()
}

fn digest(ids: &[u32]) -> String {
    let text = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The difference to a list of ids or its hash.
#[track_caller]
fn assert_ids(tokenizer: &GgufTokenizer, found: &[u32], expected: &Json, what: &str) {
    let Some(expected) = expected.as_array() else {
        return assert_eq!(digest(found), expected.as_str().unwrap(), "{what}: {} ids", found.len());
    };
    let expected: Vec<u32> = expected.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    if let Some(at) = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at)) {
        let before = tokenizer.decode(&found[..at], true);
        let token = |ids: &[u32]| ids.get(at).map(|&id| (id, tokenizer.token(id).unwrap().to_owned()));
        panic!("{what}: behind {before:?} {:?}, llama.cpp has {:?}", token(found), token(&expected));
    }
}

fn metadata(model: &str) -> Metadata {
    if model == "bard" {
        let dir = ModelDir::open(&root().join("fixtures/bard")).unwrap();
        let vocab_size = dir.config()["vocab_size"].as_u64().unwrap();
        let request = Request { route: VocabRoute::Llama, vocab_size, config: dir.config(), pre: None };
        let mut metadata = Metadata::new();
        metadata.extend(build(&dir, &request).unwrap().metadata);
        return metadata;
    }
    if let Some(case) = model.strip_prefix("tokenizer/") {
        return case_metadata(case);
    }
    Gguf::open(&root().join(format!("fixtures/{model}/f32.gguf")), &Limits::default()).unwrap().metadata().clone()
}

/// The reference converter's keys.
fn case_metadata(case: &str) -> Metadata {
    let expected: Json = serde_json::from_str(&read(&format!("fixtures/tokenizer/{case}/expected.json"))).unwrap();
    let mut metadata = Metadata::new();
    for key in expected["keys"].as_array().unwrap() {
        let list = || key[2].as_array().unwrap().iter();
        let value = match key[1].as_str().unwrap() {
            "u32" => Value::U32(key[2].as_u64().unwrap() as u32),
            "bool" => Value::Bool(key[2].as_bool().unwrap()),
            "string" => Value::String(key[2].as_str().unwrap().to_owned()),
            "[string]" => Value::Array(Array::String(list().map(|v| v.as_str().unwrap().to_owned()).collect())),
            "[i32]" => Value::Array(Array::I32(list().map(|v| v.as_i64().unwrap() as i32).collect())),
            "[f32]" => Value::Array(Array::F32(list().map(|v| f32::from_bits(v.as_u64().unwrap() as u32)).collect())),
            other => panic!("{other}"),
        };
        metadata.set(key[0].as_str().unwrap(), value);
    }
    metadata
}

#[test]
fn ids_are_llama_cpps() {
    let expected: Json = serde_json::from_str(&read("fixtures/tokenizer-engine/ids.json")).unwrap();
    let (stress, article) = (stress(), read("fixtures/eb1911-shakespeare.txt"));
    let mut cases = 0;
    for (model, texts) in expected.as_object().unwrap() {
        let tokenizer = GgufTokenizer::new(&metadata(model)).unwrap_or_else(|e| panic!("{model}: {e}"));
        let case = model.starts_with("tokenizer/");
        for (text, ids) in texts.as_object().unwrap() {
            let found = match text.as_str() {
                "stress" => tokenizer.encode(&stress, case),
                "article" => tokenizer.encode(&article[..20000], false),
                "special" => {
                    let token = |id: Option<u32>| tokenizer.token(id.unwrap()).unwrap().to_owned();
                    let text = [token(tokenizer.bos()), stress.clone(), token(tokenizer.eos())].concat();
                    tokenizer.encode(&text, true)
                }
                other => panic!("{other}"),
            };
            assert_ids(&tokenizer, &found.unwrap(), ids, &format!("{model}, {text}"));
        }
        cases += usize::from(case);
    }
    assert!(cases >= 45, "only {cases} cases");
}

/// A byte-level vocabulary of all bytes and all pairs of bytes: `fixtures/tokenizer-engine/make.py` describes it.
fn pairs(pre: &str) -> Metadata {
    let mut extra = 0x100u32;
    let chars: Vec<char> = (0..=255u8)
        .map(|byte| match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte),
            _ => {
                extra += 1;
                char::from_u32(extra - 1).unwrap()
            }
        })
        .collect();
    let both: Vec<(usize, usize)> = (0..65536).map(|at| (at / 256, at % 256)).collect();
    let mut order = both.clone();
    order.sort_by_key(|&(b, c)| ((b * 167 + c * 59 + 13) % 65536, b, c));
    let singles = chars.iter().map(char::to_string);
    let tokens: Vec<String> = singles.chain(both.iter().map(|&(b, c)| format!("{}{}", chars[b], chars[c]))).collect();
    let merges: Vec<String> = order.iter().map(|&(b, c)| format!("{} {}", chars[b], chars[c])).collect();
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", pre);
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.merges", merges);
    metadata
}

#[test]
fn every_pre_tokenizer_cuts_as_llama_cpp_does() {
    let stress = stress();
    let mut different = Vec::new();
    // By hash: what the first name of it makes of the text in a smaller vocabulary, which shows less and is faster.
    let mut known = std::collections::BTreeMap::new();
    let mut small = metadata("tiny/llama");
    let table = read("fixtures/tokenizer-engine/pre.tsv");
    for line in table.lines() {
        let [name, count, hash] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        small.set("tokenizer.ggml.pre", name);
        let ids = GgufTokenizer::new(&small).unwrap().encode(&stress, false).unwrap();
        match known.get(hash) {
            Some(other) => assert!(ids == *other, "{name}"),
            None => {
                known.insert(hash, ids);
                let tokenizer = GgufTokenizer::new(&pairs(name)).unwrap();
                let ids = tokenizer.encode(&stress, false).unwrap();
                assert_eq!(tokenizer.decode(&ids, true), stress, "{name}");
                if digest(&ids) != hash {
                    different.push(format!("{name}: {} ids, llama.cpp has {count}", ids.len()));
                }
            }
        }
    }
    assert_eq!(different, Vec::<String>::new());
    assert_eq!(table.lines().count(), 87);
    assert!(known.len() >= 23, "the text tells only {} apart", known.len());
}
