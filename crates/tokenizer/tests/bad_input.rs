//! Tokenizer files that are missing, damaged or made to do harm: a typed error each, never a panic.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::{CheckpointError, ModelDir};
use ggufsmith_tokenizer::{Request, SentencePieceDefect, Tokenizer, TokenizerError as E, Unsupported, build};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

fn fixture(case: &str, file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer").join(case).join(file)).unwrap()
}

fn fixture_json(case: &str, file: &str) -> Json {
    serde_json::from_slice(&fixture(case, file)).unwrap()
}

/// A model directory of these files; config.json has `vocab_size` 320 where none is given.
struct Model(tempfile::TempDir);

impl Model {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"vocab_size": 320, "model_type": "llama"}"#).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        Model(dir)
    }

    fn build_with(&self, pre: Option<&str>, vocab_size: Option<u64>) -> Result<Tokenizer, E> {
        let dir = ModelDir::open(self.0.path())?;
        let vocab_size = vocab_size.or(dir.config()["vocab_size"].as_u64()).unwrap_or(0);
        build(&dir, &Request { route: VocabRoute::Llama, vocab_size, config: dir.config(), pre })
    }

    fn error(&self) -> E {
        self.build_with(None, None).map(|t| t.pre).unwrap_err()
    }
}

fn bytes(value: &Json) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The plain byte-level tokenizer with one thing changed.
fn bpe(change: impl FnOnce(&mut Json)) -> Model {
    let mut json = fixture_json("bpe-plain", "tokenizer.json");
    change(&mut json);
    Model::new(&[("tokenizer.json", bytes(&json)), ("tokenizer_config.json", fixture("bpe-plain", "tokenizer_config.json"))])
}

fn spm(files: &[(&str, Json)]) -> Model {
    let mut all =
        vec![("tokenizer.model", fixture("spm-plain", "tokenizer.model")), ("config.json", br#"{"vocab_size": 110}"#.to_vec())];
    all.extend(files.iter().map(|(name, value)| (*name, bytes(value))));
    Model::new(&all)
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $result;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        assert!(!error.to_string().is_empty());
    }};
}

#[test]
fn the_unchanged_models_are_good() {
    assert_eq!(bpe(|_| ()).build_with(None, None).unwrap().pre, "gpt-2");
    assert_eq!(spm(&[]).build_with(None, None).unwrap().pre, "default");
}

#[test]
fn missing_and_unsupported() {
    assert_error!(Model::new(&[]).error(), E::Missing { .. });
    assert_error!(Model::new(&[("tekken.json", b"{}".to_vec())]).error(), E::Unsupported { what: Unsupported::Tekken, .. });
    let slow = Model::new(&[("vocab.json", b"{}".to_vec()), ("merges.txt", Vec::new())]);
    assert_error!(slow.error(), E::Unsupported { what: Unsupported::Slow, .. });
    for kind in ["WordPiece", "WordLevel", "Unigram"] {
        let model = bpe(|j| j["model"]["type"] = kind.into());
        assert_error!(model.error(), E::Unsupported { what: Unsupported::Model(name), .. } if name == kind);
    }
    let pairs = bpe(|j| j["model"]["vocab"] = json!([["a", -1.0]]));
    assert_error!(pairs.error(), E::Unsupported { what: Unsupported::Model(_), .. });
    let class = spm(&[("tokenizer_config.json", json!({"tokenizer_class": "HybridDNATokenizer"}))]);
    assert_error!(class.error(), E::Unsupported { what: Unsupported::Class(_), .. });
}

#[test]
fn vocabularies_that_do_not_fit() {
    let tail = |id: Json| bpe(move |j| j["model"]["vocab"]["new"] = id);
    assert_error!(tail(json!(320)).error(), E::IdOutOfRange { token, id: 320, vocab_size: 320, .. } if token == "new");
    assert_error!(tail(json!(5)).error(), E::DuplicateId { id: 5, second, .. } if second == "new");
    for bad in [json!(-1), json!(1.5), json!(1u64 << 32), json!("7"), json!(null)] {
        assert_error!(tail(bad).error(), E::Checkpoint(CheckpointError::Json { .. }));
    }
    let no_size = tail(json!(u32::MAX));
    std::fs::write(no_size.0.path().join("config.json"), "{}").unwrap();
    assert_error!(no_size.error(), E::Limit { count, .. } if *count == u64::from(u32::MAX));
    let good = bpe(|_| ());
    assert_error!(good.build_with(None, Some(10_000_000)).map(|t| t.pre).unwrap_err(), E::Limit { count: 10_000_000, .. });
    assert_error!(good.build_with(None, Some(u64::MAX)).map(|t| t.pre).unwrap_err(), E::Limit { .. });
    let added = bpe(|j| {
        j["added_tokens"][0] = json!({"id": 0, "content": "<far>", "special": true, "normalized": false, "lstrip": false, "rstrip": false, "single_word": false});
        let vocab = j["model"]["vocab"].as_object_mut().unwrap();
        for i in 0..20 {
            vocab.insert(format!("more{i}"), (300 + i).into());
        }
    });
    assert_error!(added.error(), E::IdOutOfRange { token, .. } if token == "<far>" || token == "<|endoftext|>");
    let pieces = spm(&[]);
    assert_eq!(pieces.build_with(None, Some(110)).unwrap().model, "llama");
    let cut = pieces.build_with(None, Some(109)).unwrap_err();
    assert_error!(cut, E::IdOutOfRange { file: "tokenizer.model", id: 109, vocab_size: 109, .. });
    assert_error!(bpe(|j| drop(j["model"].as_object_mut().unwrap().remove("vocab"))).error(), E::NoKey { .. });
    assert_error!(bpe(|j| drop(j.as_object_mut().unwrap().remove("model"))).error(), E::NoKey { .. });
}

#[test]
fn a_hole_in_a_byte_fallback_vocabulary() {
    let mut json = fixture_json("fallback-plain", "tokenizer.json");
    json["model"]["vocab"].as_object_mut().unwrap().remove("<0x41>");
    assert_error!(Model::new(&[("tokenizer.json", bytes(&json))]).error(), E::Hole { tokens: 369, .. });
}

#[test]
fn what_the_library_refuses() {
    let merge = bpe(|j| j["model"]["merges"][0] = json!(["no", "such"]));
    assert_error!(merge.error(), E::Library { stage: "model", .. });
    let regex = json!({"type": "Split", "pattern": {"Regex": "(unclosed"}, "behavior": "Isolated", "invert": false});
    assert_error!(bpe(|j| j["pre_tokenizer"] = regex).error(), E::Library { stage: "pre_tokenizer", .. });
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_error!(bpe(|j| j[part] = json!({"type": "Sabotage"})).error(), E::Library { stage, .. } if *stage == part);
    }
    assert_error!(bpe(|j| j["model"]["merges"] = json!(["a b c"])).error(), E::Library { stage: "merges", .. });
    let both = bpe(|j| j["model"]["merges"] = json!(["a b", ["a", "b"]]));
    assert_error!(both.error(), E::Checkpoint(CheckpointError::Json { .. }));
    // The library cuts the prefix off a token that is shorter, and panics.
    assert_error!(bpe(|j| j["model"]["continuing_subword_prefix"] = "longer than any token".into()).error(), E::Panicked { .. });
}

#[test]
fn sentencepiece_files() {
    let model = |bytes: &[u8]| Model::new(&[("tokenizer.model", bytes.to_vec())]).error();
    assert_error!(model(b""), E::SentencePiece { offset: 0, defect: SentencePieceDefect::NoPieces });
    assert_error!(model(b"IQ== 0\n"), E::SentencePiece { .. });
    let good = fixture("spm-plain", "tokenizer.model");
    assert_error!(model(&good[..good.len() - 1]), E::SentencePiece { .. });
    assert_error!(model(&good[..200]), E::SentencePiece { offset, defect: SentencePieceDefect::BeyondEnd { .. } } if *offset < 200);
}

#[test]
fn added_tokens_of_wrong_types() {
    assert_error!(spm(&[("added_tokens.json", json!({"a": -1}))]).error(), E::Type { file: "added_tokens.json", .. });
    assert_error!(spm(&[("added_tokens.json", json!([1]))]).error(), E::Type { file: "added_tokens.json", .. });
    let decoder = |entries: Json| spm(&[("tokenizer_config.json", json!({"added_tokens_decoder": entries}))]).error();
    assert_error!(decoder(json!({"x": {"content": "a"}})), E::Number { .. });
    assert_error!(decoder(json!({"-1": {"content": "a"}})), E::Number { .. });
    assert_error!(decoder(json!({"1": {}})), E::NoKey { .. });
    assert_error!(decoder(json!({"1": {"content": 5}})), E::Type { .. });
    assert_error!(decoder(json!([1])), E::Type { .. });
    assert_error!(bpe(|j| j["added_tokens"] = json!([5])).error(), E::Type { .. });
    let listed = Model::new(&[
        ("tokenizer.json", fixture("bpe-plain", "tokenizer.json")),
        ("tokenizer_config.json", br#"{"added_tokens_decoder": {"0": 5}}"#.to_vec()),
    ]);
    assert_error!(listed.error(), E::Type { file: "tokenizer_config.json", .. });
}

#[test]
fn configuration_of_wrong_types() {
    let config = |value: Json| spm(&[("tokenizer_config.json", value)]).error();
    assert_error!(config(json!([])), E::Type { .. });
    assert_error!(config(json!({"add_prefix_space": "false"})), E::Type { key, .. } if key == "add_prefix_space");
    assert_error!(config(json!({"chat_template": [5]})), E::Type { key, .. } if key == "chat_template[0]");
    assert_error!(config(json!({"chat_template": [{"name": "x", "template": 5}]})), E::Type { .. });
    let ids = |value: Json| spm(&[("config.json", json!({"vocab_size": 110, "bos_token_id": value}))]).error();
    assert_error!(ids(json!(-1)), E::Number { file: "config.json", .. });
    assert_error!(bpe(|j| j["added_tokens"][0]["id"] = json!(-3)).error(), E::Number { file: "tokenizer.json", .. });
    assert_error!(bpe(|j| j["post_processor"] = json!({"processors": 5})).error(), E::Library { .. });
    let frame = spm(&[("tokenizer.json", json!({"model": {}, "post_processor": {"type": "TemplateProcessing", "single": 5}}))]);
    assert_error!(frame.error(), E::Type { file: "tokenizer.json", .. });
}

#[test]
fn pre_tokenizers() {
    let odd = json!({"type": "Split", "pattern": {"Regex": "[aeiou]+"}, "behavior": "Isolated", "invert": false});
    let unknown = bpe(
        |j| j["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [odd, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}),
    );
    assert_error!(unknown.error(), E::UnknownPre { regexes: Some(list), known, .. } if list == &["[aeiou]+"] && known.len() == 91);
    assert!(unknown.error().to_string().contains("--pre NAME"));
    assert_eq!(unknown.build_with(Some("qwen2"), None).unwrap().pre, "qwen2");
    let message = unknown.build_with(Some("qwen"), None).map(|t| t.pre).unwrap_err();
    assert_error!(message, E::NoSuchPre { nearest, .. } if nearest[0] == "qwen2");
    // A wrong name is told before any file is read.
    assert_error!(Model::new(&[]).build_with(Some("nonsense"), None).map(|t| t.pre).unwrap_err(), E::NoSuchPre { .. });
}

/// Bytes changed at random places, from a fixed seed.
#[test]
fn no_damage_makes_it_panic() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
    let inputs = ["bpe-llama3", "bpe-added-in-config", "fallback-added", "spm-padded", "bpe-added-legacy"];
    let mut failed = 0;
    for round in 0..400 {
        let case = folder.join(inputs[round % inputs.len()]);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&case).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap() != "expected.json");
        files.sort();
        let damaged = random(files.len());
        let mut model = Vec::new();
        for (i, path) in files.iter().enumerate() {
            let mut bytes = std::fs::read(path).unwrap();
            if i == damaged {
                for _ in 0..=random(3) {
                    let at = random(bytes.len());
                    match random(4) {
                        0 => bytes[at] ^= 1 << random(8),
                        1 => bytes.truncate(at.max(1)),
                        2 => bytes[at] = b"0\"{}[],:-9"[random(10)],
                        _ => drop(bytes.remove(at)),
                    }
                    if bytes.is_empty() {
                        break;
                    }
                }
            }
            model.push((path.file_name().unwrap().to_str().unwrap().to_owned(), bytes));
        }
        let model: Vec<(&str, Vec<u8>)> = model.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        failed += usize::from(Model::new(&model).build_with(Some("gpt-2"), None).is_err());
    }
    assert!((100..400).contains(&failed), "{failed} of 400 failed: the damage is too small or too large to test anything");
}
