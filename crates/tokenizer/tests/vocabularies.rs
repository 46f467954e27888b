//! llama.cpp's own vocabularies, with the texts and ids by which it tests its tokenizers: what is made of a file's metadata encodes
//! each text equally, and the names of pre-tokenizers are found by hash and by structure.
//!
//! `scripts/test` fetches the files (`fixtures/vocabularies/fetch.py`). Without them the tests are reported as ignored, on CI as failed.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Gguf, Limits, Metadata, Value};
use ggufsmith_tokenizer::write::write;
use ggufsmith_tokenizer::{GgufTokenizer, PreSource, Request, Tokenizer, build};
use libtest_mimic::{Arguments, Completion, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Every vocabulary that llama.cpp has texts for.
const NAMES: [&str; 15] = [
    "bert-bge",
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];

/// Byte-level vocabularies that hold all that the model's own tokenizer.json says: the name that the converter knows by their hash,
/// and the one of the engine's names with the same rules that is preferred where the hash is not known.
const REBUILT: [(&str, &str, &str); 9] = [
    ("command-r", "command-r", "smollm"),
    ("deepseek-coder", "deepseek-coder", "deepseek-coder"),
    ("deepseek-llm", "deepseek-llm", "deepseek-llm"),
    ("falcon", "falcon", "falcon"),
    ("gpt-2", "gpt-2", "gpt-2"),
    ("llama-bpe", "llama-bpe", "llama-bpe"),
    ("qwen2", "qwen2", "qwen2"),
    ("refact", "refact", "smollm"),
    ("starcoder", "starcoder", "smollm"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reference/vocabularies")
}

fn metadata(name: &str) -> Metadata {
    let path = folder().join(format!("ggml-vocab-{name}.gguf"));
    Gguf::open(&path, &Limits::default()).unwrap_or_else(|e| panic!("{e}")).metadata().clone()
}

/// Texts and their ids.
fn cases(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |end: &str| std::fs::read_to_string(folder().join(format!("ggml-vocab-{name}.gguf.{end}"))).unwrap();
    let (texts, ids) = (read("inp"), read("out"));
    let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    // Most files end with the separator.
    if texts.last() == Some(&"") {
        texts.pop();
    }
    assert_eq!(texts.len(), ids.lines().count(), "{name}");
    let ids = ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    texts.into_iter().map(str::to_owned).zip(ids).collect()
}

/// The texts that are not encoded as llama.cpp does.
fn different(tokenizer: &GgufTokenizer, cases: &[(String, Vec<u32>)]) -> Vec<String> {
    let found = |text: &str| tokenizer.encode(text, false).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    let compare = |(text, ids): &(String, Vec<u32>)| {
        let found = found(text);
        (found != *ids).then(|| format!("{text:?}: {found:?}, llama.cpp has {ids:?}"))
    };
    cases.iter().filter_map(compare).collect()
}

fn encodes_equally(name: &str) {
    let tokenizer = GgufTokenizer::new(&metadata(name)).unwrap_or_else(|e| panic!("{e}"));
    let mut cases = cases(name);
    assert!(cases.len() >= 40, "only {} texts", cases.len());
    assert_eq!(different(&tokenizer, &cases), Vec::<String>::new());
    for at in 0..cases.len() {
        if let Some(id) = cases[at].1.first_mut() {
            *id ^= 1;
            assert_eq!(different(&tokenizer, &cases).len(), 1, "another id for {:?} is not seen", cases[at].0);
            cases[at].1[0] ^= 1;
        }
    }
}

/// A model directory with tokenizer.json made of a vocabulary, and what its tokenizer is in GGUF.
fn rebuilt(metadata: &Metadata) -> Tokenizer {
    let written = write(metadata).unwrap().unwrap_or_else(|| panic!("no tokenizer can be written"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}"#).unwrap();
    for (name, bytes) in &written.files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let dir = ModelDir::open(dir.path()).unwrap();
    let request = Request { route: VocabRoute::Bpe, vocab_size: 0, config: dir.config(), pre: None };
    build(&dir, &request).unwrap_or_else(|e| panic!("{e}"))
}

fn found_by_hash(name: &str, pre: &str) {
    let found = rebuilt(&metadata(name));
    assert_eq!((found.pre.as_str(), found.pre_source), (pre, PreSource::Hash), "{:?}", found.pre_hash);
}

/// With other ids for the same tokens the hash is not known.
fn found_by_structure(name: &str, pre: &str) {
    let mut metadata = metadata(name);
    let types: Vec<i32> = metadata.require::<&[i32]>("tokenizer.ggml.token_type").unwrap().to_vec();
    let mut tokens = metadata.require::<&[String]>("tokenizer.ggml.tokens").unwrap().to_vec();
    for at in (0..tokens.len() - 1).step_by(2) {
        if types[at] == 1 && types[at + 1] == 1 {
            tokens.swap(at, at + 1);
        }
    }
    metadata.set("tokenizer.ggml.tokens", tokens);
    let found = rebuilt(&metadata);
    assert_eq!((found.pre.as_str(), found.pre_source), (pre, PreSource::Structure), "{:?}", found.pre_hash);
    assert!(found.warnings.iter().any(|warning| warning.contains(pre)), "{:?}", found.warnings);
    // The engine cuts by that name as by the vocabulary's own.
    let own = GgufTokenizer::new(&metadata).unwrap();
    metadata.set("tokenizer.ggml.pre", Value::String(pre.to_owned()));
    let named = GgufTokenizer::new(&metadata).unwrap();
    for (text, _) in cases(name) {
        assert_eq!(named.encode(&text, false), own.encode(&text, false), "{text:?}");
    }
}

fn trial(name: String, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        const REASON: &str = "run scripts/test";
        if folder().join("ggml-vocab-starcoder.gguf.out").exists() {
            test();
            Ok(Completion::Completed)
        } else if std::env::var_os("CI").is_some_and(|value| value == "true") {
            Err(format!("reference data is missing: {REASON}").into())
        } else {
            Ok(Completion::ignored_with(REASON))
        }
    })
}

fn main() -> ExitCode {
    let encode = NAMES.into_iter().map(|name| trial(format!("{name}_is_encoded_equally"), move || encodes_equally(name)));
    let hash = |(name, pre, _)| trial(format!("{name}_is_found_by_hash"), move || found_by_hash(name, pre));
    let structure = |(name, _, pre)| trial(format!("{name}_is_found_by_structure"), move || found_by_structure(name, pre));
    let trials = encode.chain(REBUILT.into_iter().map(hash)).chain(REBUILT.into_iter().map(structure)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
