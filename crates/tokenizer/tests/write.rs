//! Tokenizer files from metadata: what is read from them again is the same metadata, and the same text gives the same ids.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Metadata, Value};
use ggufsmith_tokenizer::write::{WriteError, Written, write};
use ggufsmith_tokenizer::{Request, build};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// What a model directory's tokenizer is in GGUF.
fn read(dir: &Path, route: VocabRoute, vocab_size: u64, pre: Option<&str>) -> Vec<(String, Value)> {
    let dir = ModelDir::open(dir).unwrap();
    build(&dir, &Request { route, vocab_size, config: dir.config(), pre }).unwrap().metadata
}

fn metadata(keys: &[(String, Value)]) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.extend(keys.iter().cloned());
    metadata
}

/// The files in a directory, beside a config.json as an export writes it.
fn directory(written: &Written, vocab_size: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama"});
    if vocab_size > 0 {
        config["vocab_size"] = vocab_size.into();
    }
    for (name, id) in written.ids.iter().filter(|(name, _)| ["bos_token_id", "eos_token_id", "pad_token_id"].contains(name)) {
        config[*name] = (*id).into();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    for (name, bytes) in &written.files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// The first key that differs.
fn difference(found: &[(String, Value)], expected: &[(String, Value)]) -> Option<String> {
    let at = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at))?;
    let shown =
        |pair: Option<&(String, Value)>| pair.map_or("nothing".into(), |(key, value)| format!("{key} = {}", value.short(60)));
    Some(format!("key {at}: {}, expected {}", shown(found.get(at)), shown(expected.get(at))))
}

/// Cases whose metadata cannot be reached again, and why.
const LOST: &[(&str, &str)] = &[
    ("bpe-frame-object-tokens", "the converter compares a token object with a text and takes EOS for another token"),
    ("bpe-frame-bos-eos", "the template ends a text with another token than the tokenizer's EOS; the file calls that one EOT"),
    ("bpe-frame-no-config", "BOS and EOS are one token, so that it counts as a separator between two texts"),
    ("bpe-ids", "special tokens by their ids alone: as special tokens of the tokenizer they become control tokens"),
    ("bpe-llama-class-no-bos", "EOS was added by a class, and is by the template now"),
    ("bpe-merges-txt", "merges of what is no token are left out, the library refuses them"),
    ("bpe-merges-with-spaces", "merges of what is no token are left out, the library refuses them"),
    ("bpe-unreachable-word", "the engine adds BOS for this pre-tokenizer unless told not to, so it is written"),
    ("fallback-ids-beyond", "an EOS that is no special token becomes one"),
    ("fallback-new-special-tokens", "an EOS that is no special token becomes one"),
    ("spm-no-tokenizer-config", "the engine adds BOS unless told not to, so it is written"),
];

#[test]
fn every_case_is_read_again_as_it_was() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures().join("tokenizer")).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let expected: Json = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let request = &expected["request"];
        let route = if request["route"] == "bpe" { VocabRoute::Bpe } else { VocabRoute::Llama };
        let (vocab_size, pre) = (request["vocab_size"].as_u64().unwrap(), request["pre"].as_str());
        if expected["keys"].is_null() {
            continue;
        }
        let keys = read(&folder, route, vocab_size, pre);
        let result = match write(&metadata(&keys)) {
            Ok(Some(written)) => {
                let dir = directory(&written, vocab_size);
                let dir = ModelDir::open(dir.path()).unwrap();
                match build(&dir, &Request { route, vocab_size, config: dir.config(), pre }) {
                    Ok(again) => difference(&again.metadata, &keys),
                    Err(error) => Some(error.to_string()),
                }
            }
            Ok(None) => Some("nothing written".into()),
            Err(error) => Some(error.to_string()),
        };
        compared += 1;
        match (result, LOST.iter().find(|(case, _)| *case == name)) {
            (None, None) | (Some(_), Some(_)) => {}
            (Some(what), None) => wrong.push(format!("{name}: {what}")),
            (None, Some(_)) => wrong.push(format!("{name}: nothing is lost, take it off the list")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 50, "{compared}");
}

/// Text with everything that tokenizers treat in their own way.
fn texts() -> Vec<String> {
    let book = std::fs::read_to_string(fixtures().join("eb1911-shakespeare.txt")).unwrap();
    let mut texts: Vec<String> = [
        "",
        " ",
        "   x",
        "\n\n \t x\r\n",
        "Hello, world! It's 1234567 o'clock, I'LL say.",
        "naïve café e\u{301}",
        "日本語 中文 한국어",
        "🦙👩\u{200d}👩\u{200d}👧",
        "<s>a</s> <unk>",
        "<|endoftext|>b <|im_start|>",
        "▁under",
        "\u{0}\u{7f}\u{a0}\u{2003}",
        "def f(x):\n    return x ** 2\n",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("a".repeat(300));
    texts.extend(book.split("\n\n").take(400).map(str::to_owned));
    texts
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode(text, special).unwrap().get_ids().to_vec()
}

/// The rebuilt tokenizer.json of a model directory.
fn rebuilt(dir: &Path, vocab_size: u64) -> (Written, Tokenizer) {
    let written = write(&metadata(&read(dir, VocabRoute::Llama, vocab_size, None))).unwrap().unwrap();
    let (_, json) = written.files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap();
    let tokenizer = Tokenizer::from_bytes(json).unwrap();
    (written, tokenizer)
}

/// Real vocabularies: the ids of the model's own tokenizer.json, with what frames a text and without.
#[test]
fn the_ids_are_those_of_the_models_own_tokenizer() {
    for (folder, vocab_size, frame) in [("bard", 1024, true), ("tiny/llama/hf", 512, true), ("tokenizer/bpe-llama3", 320, false)]
    {
        let dir = fixtures().join(folder);
        let own = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
        let pre = frame.then_some(()).map_or(Some("llama-bpe"), |()| None);
        let keys = read(&dir, VocabRoute::Llama, vocab_size, pre);
        let written = write(&metadata(&keys)).unwrap().unwrap();
        let (_, json) = written.files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap();
        let again = Tokenizer::from_bytes(json).unwrap();
        let mut compared = 0;
        for text in texts() {
            for special in [false, true] {
                let (found, expected) = (ids(&again, &text, special), ids(&own, &text, special));
                assert_eq!(found, expected, "{folder}: {text:?}");
                compared += found.len();
            }
        }
        assert!(compared > 10_000, "{compared}");
    }
}

/// Scores give the very list of merges that the model was saved with.
#[test]
fn merges_come_back_from_scores() {
    let merges = |json: &[u8]| {
        let json: Json = serde_json::from_slice(json).unwrap();
        let text = |part: &Json| part.as_str().unwrap().to_owned();
        let pair = |merge: &Json| match merge.as_array() {
            Some(pair) => format!("{} {}", text(&pair[0]), text(&pair[1])),
            None => text(merge),
        };
        json["model"]["merges"].as_array().unwrap().iter().map(pair).collect::<Vec<_>>()
    };
    let dir = fixtures().join("bard");
    let (written, _) = rebuilt(&dir, 1024);
    let (_, json) = written.files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap();
    assert_eq!(merges(json), merges(&std::fs::read(dir.join("tokenizer.json")).unwrap()));
    assert!(written.warnings.is_empty(), "{:?}", written.warnings);
}

/// Without scores the order of ids decides, and the user is told.
#[test]
fn a_vocabulary_without_scores_is_ordered_by_ids() {
    let mut metadata = metadata(&read(&fixtures().join("bard"), VocabRoute::Llama, 1024, None));
    metadata.set("tokenizer.ggml.scores", vec![-1000f32; 1024]);
    let written = write(&metadata).unwrap().unwrap();
    assert!(written.warnings.iter().any(|warning| warning.contains("no scores")), "{:?}", written.warnings);
    assert!(written.files.iter().all(|(name, _)| *name != "tokenizer.model"));
    let (_, json) = written.files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap();
    let own = Tokenizer::from_file(fixtures().join("bard/tokenizer.json")).unwrap();
    let again = Tokenizer::from_bytes(json).unwrap();
    let book = &texts()[20];
    // This vocabulary was numbered in the order of its merges.
    assert_eq!(ids(&again, book, true), ids(&own, book, true));
}

#[test]
fn what_cannot_be_written_says_so() {
    let good = metadata(&read(&fixtures().join("tiny/llama/hf"), VocabRoute::Llama, 512, None));
    let with = |key: &str, value: Value| {
        let mut bad = good.clone();
        bad.set(key, value);
        write(&bad).unwrap_err()
    };
    let without = |key: &str| {
        let mut bad = good.clone();
        bad.remove(key);
        write(&bad)
    };
    assert!(matches!(with("tokenizer.ggml.model", "bert".into()), WriteError::Model { .. }));
    assert!(matches!(with("tokenizer.ggml.pre", "kimi-k2".into()), WriteError::Pre { .. }));
    assert!(matches!(with("tokenizer.ggml.pre", "no such".into()), WriteError::Pre { .. }));
    assert!(matches!(with("tokenizer.ggml.token_type", vec![1i32].into()), WriteError::Length { found: 1, .. }));
    assert!(matches!(with("tokenizer.ggml.token_type", vec![9i32; 512].into()), WriteError::Type { id: 0, found: 9 }));
    assert!(matches!(with("tokenizer.ggml.merges", vec!["a b c".to_owned()].into()), WriteError::Merge { index: 0, .. }));
    assert!(matches!(with("tokenizer.ggml.merges", vec!["ab".to_owned()].into()), WriteError::Merge { .. }));
    assert!(matches!(
        with("tokenizer.ggml.tokens", vec!["a".to_owned(); 512].into()),
        WriteError::Duplicate { first: 0, second: 1, .. }
    ));
    assert!(matches!(with("tokenizer.ggml.bos_token_id", "one".into()), WriteError::Lookup(_)));
    assert!(matches!(without("tokenizer.ggml.merges"), Err(WriteError::Lookup(_))));
    assert!(matches!(without("tokenizer.ggml.tokens"), Err(WriteError::Lookup(_))));
    assert!(matches!(without("tokenizer.ggml.model"), Ok(None)));
    let mut beyond = good.clone();
    beyond.set("tokenizer.ggml.eos_token_id", 512u32);
    let written = write(&beyond).unwrap().unwrap();
    assert!(written.warnings.iter().any(|warning| warning.contains("512")), "{:?}", written.warnings);
    assert!(written.ids.iter().all(|(name, _)| *name != "eos_token_id"));
}
