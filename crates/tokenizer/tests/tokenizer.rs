//! The cases of `fixtures/tokenizer/`, each against the keys that the reference converter writes for it.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Array, Value};
use ggufsmith_tokenizer::{PreSource, Request, Tokenizer, TokenizerError, build};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer")
}

struct Case {
    name: String,
    dir: ModelDir,
    expected: Json,
}

fn cases() -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures()).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let case = |path: PathBuf| Case {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        dir: ModelDir::open(&path).unwrap(),
        expected: serde_json::from_str(&std::fs::read_to_string(path.join("expected.json")).unwrap()).unwrap(),
    };
    folders.into_iter().map(case).collect()
}

impl Case {
    fn build(&self, pre: Option<&str>) -> Result<Tokenizer, TokenizerError> {
        let request = &self.expected["request"];
        let route = if request["route"] == "bpe" { VocabRoute::Bpe } else { VocabRoute::Llama };
        let vocab_size = request["vocab_size"].as_u64().unwrap();
        build(&self.dir, &Request { route, vocab_size, config: self.dir.config(), pre })
    }

    fn given(&self) -> Option<&str> {
        self.expected["request"]["pre"].as_str()
    }
}

/// A value as expected.json spells it.
fn spell(value: &Value) -> (&'static str, Json) {
    fn list<T: serde::Serialize + ToString>(items: &[T]) -> Json {
        if items.len() <= 1000 {
            return json!(items);
        }
        let text = items.iter().map(T::to_string).collect::<Vec<_>>().join("\n");
        let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"len": items.len(), "sha256": hash})
    }
    match value {
        Value::U32(v) => ("u32", json!(v)),
        Value::Bool(v) => ("bool", json!(v)),
        Value::String(v) => ("string", json!(v)),
        Value::Array(Array::String(v)) => ("[string]", list(v)),
        Value::Array(Array::I32(v)) => ("[i32]", list(v)),
        Value::Array(Array::F32(v)) => ("[f32]", list(&v.iter().map(|f| f.to_bits()).collect::<Vec<_>>())),
        other => panic!("the converter writes no such value: {other:?}"),
    }
}

/// The first difference between what was built and what was expected.
fn difference(built: &[(String, Value)], expected: &Json) -> Option<String> {
    let expected = expected["keys"].as_array().unwrap();
    for (at, (key, value)) in built.iter().enumerate() {
        let (kind, value) = spell(value);
        let built = json!([key, kind, value]);
        match expected.get(at) {
            Some(other) if *other == built => {}
            other => return Some(format!("key {at}: built {built}, expected {}", other.unwrap_or(&Json::Null))),
        }
    }
    expected.get(built.len()).map(|missing| format!("not built: {missing}"))
}

#[test]
fn every_case_has_the_converters_keys() {
    let mut count = 0;
    for case in cases() {
        let built = case.build(case.given()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(difference(&built.metadata, &case.expected), None, "{}", case.name);
        assert_eq!(built.pre_hash.as_deref(), case.expected["hash"].as_str(), "{}", case.name);
        let source = if built.model == "llama" { PreSource::Fixed } else { PreSource::Given };
        assert_eq!(built.pre_source, source, "{}", case.name);
        count += 1;
    }
    assert!(count >= 60, "only {count} cases were found");
}

#[test]
fn the_comparison_sees_one_changed_thing() {
    let case = cases().into_iter().find(|c| c.name == "spm-padded").unwrap();
    let built = case.build(None).unwrap().metadata;
    assert_eq!(difference(&built, &case.expected), None);
    for at in 0..built.len() {
        let mut changed = built.clone();
        match &mut changed[at].1 {
            Value::U32(v) => *v ^= 1,
            Value::Bool(v) => *v = !*v,
            Value::String(v) => v.push(' '),
            Value::Array(Array::String(v)) => v[7].push(' '),
            Value::Array(Array::I32(v)) => v[7] ^= 1,
            Value::Array(Array::F32(v)) => v[7] = f32::from_bits(v[7].to_bits() ^ 1),
            other => panic!("{other:?}"),
        }
        assert!(difference(&changed, &case.expected).is_some(), "{}", built[at].0);
        let mut missing = built.clone();
        missing.remove(at);
        assert!(difference(&missing, &case.expected).is_some(), "without {}", built[at].0);
        let mut swapped = built.clone();
        swapped.swap(at, (at + 1) % built.len());
        assert!(difference(&swapped, &case.expected).is_some(), "{} elsewhere", built[at].0);
    }
    let mut retyped = built.clone();
    let last = retyped.len() - 1;
    retyped[last].1 = Value::String("true".into());
    assert!(difference(&retyped, &case.expected).is_some());
}

/// Without `--pre` a structure is found or the user is asked; never is another name written.
#[test]
fn structures_give_the_same_name_or_none() {
    let (mut found, mut asked) = (Vec::new(), Vec::new());
    for case in cases() {
        let Some(given) = case.given() else { continue };
        match case.build(None) {
            Ok(built) => {
                assert_eq!((built.pre.as_str(), built.pre_source), (given, PreSource::Structure), "{}", case.name);
                assert!(built.warnings.iter().any(|w| w.contains("--pre")), "{}", case.name);
                found.push(case.name);
            }
            Err(TokenizerError::UnknownPre { hash, .. }) => {
                assert_eq!(Some(hash.as_str()), case.expected["hash"].as_str());
                asked.push(case.name);
            }
            Err(other) => panic!("{}: {other}", case.name),
        }
    }
    let no_counterpart = ["bpe-bloom-class", "bpe-gpt2-class-prefix-space", "bpe-line-ends", "bpe-normalizer-flags"];
    assert_eq!(asked, no_counterpart, "a prefix space (twice), a list of its own, a normalizer that drops accents");
    assert!(found.len() > 40);
}

#[test]
fn a_second_run_gives_the_same() {
    for case in cases() {
        let (first, second) = (case.build(case.given()).unwrap(), case.build(case.given()).unwrap());
        assert_eq!(first, second, "{}", case.name);
    }
}
