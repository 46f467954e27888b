//! The tokenizer check on the fixtures, and on files that somebody damaged.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Array, Metadata, Value};
use ggufsmith_tokenizer::{Request, build};
use ggufsmith_verify::report::{Check, Status};
use ggufsmith_verify::tokens::check;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A model, and the keys that are made of it.
struct Model {
    dir: ModelDir,
    route: VocabRoute,
    vocab_size: u64,
    pre: Option<String>,
    keys: Metadata,
}

impl Model {
    fn open(path: &Path) -> Model {
        let dir = ModelDir::open(path).unwrap();
        let vocab_size = dir.config()["vocab_size"].as_u64().unwrap_or(0);
        Model { dir, route: VocabRoute::Llama, vocab_size, pre: None, keys: Metadata::new() }.built()
    }

    fn case(name: &str) -> Model {
        let path = fixtures().join("tokenizer").join(name);
        let text = std::fs::read_to_string(path.join("expected.json")).unwrap();
        let request = &serde_json::from_str::<serde_json::Value>(&text).unwrap()["request"];
        let route = if request["route"] == "bpe" { VocabRoute::Bpe } else { VocabRoute::Llama };
        let (vocab_size, pre) = (request["vocab_size"].as_u64().unwrap(), request["pre"].as_str().map(str::to_owned));
        Model { dir: ModelDir::open(&path).unwrap(), route, vocab_size, pre, keys: Metadata::new() }.built()
    }

    fn request(&self) -> Request<'_> {
        Request { route: self.route, vocab_size: self.vocab_size, config: self.dir.config(), pre: self.pre.as_deref() }
    }

    fn built(mut self) -> Model {
        let keys = build(&self.dir, &self.request()).unwrap().metadata;
        self.keys.extend(keys);
        self
    }

    fn check(&self) -> Check {
        check(&self.dir, &self.request(), &self.keys).unwrap()
    }
}

fn cases() -> Vec<String> {
    let folders = std::fs::read_dir(fixtures().join("tokenizer")).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = folders.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Cases in which llama.cpp really makes other tokens of a text than the source does, and what the problem shows of it.
const DIFFERENT: [(&str, &str); 14] = [
    // The converter writes a space for each U+2581 of an added token; the source looks for U+2581.
    ("bpe-added", "the file 312 (\"  \")"),
    ("bpe-added-clean-up", "the file 312 (\"  \")"),
    // Added tokens that are spelled as bytes.
    ("bpe-added-in-config", "the source has 166 (\"é\")"),
    // The source puts a space in front of the text.
    ("bpe-bloom-class", "the source has 221 (\"Ġ\"), the file 41 (\"I\")"),
    ("bpe-gpt2-class-prefix-space", "the source has 221 (\"Ġ\"), the file 41 (\"I\")"),
    // The case's --pre is not its pre-tokenizer.
    ("bpe-line-ends", "the source has 221 (\"Ġ\"), the file 258 (\"Ġa\")"),
    // The converter takes merges from merges.txt, transformers does not.
    ("bpe-merges-txt", "the source has 221 (\"Ġ\"), the file 258 (\"Ġa\")"),
    // Merges of texts with a space.
    ("bpe-merges-with-spaces", "the source has 221 (\"Ġ\"), the file 12 (\",\")"),
    // The source writes everything in lower case.
    ("bpe-normalizer-flags", "the source has 278 (\"it\"), the file 41 (\"I\")"),
    // All pieces have one score: which of two merges comes first is lost.
    ("fallback-32016", "the source has 298 (\"▁\"), the file 294 (\"▁h\")"),
    ("fallback-added", "the source has 298 (\"▁\"), the file 294 (\"▁h\")"),
    ("fallback-ids-beyond", "the source has 298 (\"▁\"), the file 294 (\"▁h\")"),
    ("fallback-new-special-tokens", "the source has 298 (\"▁\"), the file 294 (\"▁h\")"),
    ("fallback-plain", "the source has 298 (\"▁\"), the file 294 (\"▁h\")"),
];

#[test]
fn every_case_has_its_verdict() {
    let mut counts = [0; 3];
    for name in cases() {
        let check = Model::case(&name).check();
        let different = DIFFERENT.iter().find(|(case, _)| *case == name);
        match (check.status, different) {
            (Status::Passed, None) => assert_eq!(check.problems, Vec::<String>::new(), "{name}"),
            // Vocabularies without byte tokens.
            (Status::Skipped, None) => {
                assert!(name.starts_with("spm-") && check.summary.contains("no token for the byte"), "{name}")
            }
            (Status::Failed, Some((_, part))) => {
                assert!(check.problems.len() == 1 && check.problems[0].contains(part), "{name}: {:?}", check.problems);
            }
            (status, _) => panic!("{name}: {status:?} {} {:?}", check.summary, check.problems),
        }
        counts[check.status as usize] += 1;
    }
    assert!(counts[0] >= 40 && counts[1] == DIFFERENT.len() && counts[2] >= 5, "{counts:?}");
}

#[test]
fn models_pass() {
    for name in ["bard", "tiny/llama/hf", "tiny/llama-256/hf", "tiny/llama-spm/hf", "tiny/llama3-rope/hf", "tiny/mistral/hf"] {
        let check = Model::open(&fixtures().join(name)).check();
        assert_eq!((check.status, &check.problems), (Status::Passed, &Vec::new()), "{name}");
    }
    let check = Model::open(&fixtures().join("bard")).check();
    assert_eq!(check.summary, "11 tokenizer keys are the source's, and both sides encode alike");
}

#[test]
fn what_is_not_compared_is_said() {
    let check = Model::case("bpe-qwen2-class").check();
    assert_eq!(check.status, Status::Passed);
    assert!(check.summary.ends_with("decomposed characters were not compared"), "{}", check.summary);
}

/// The problems after a change of the keys.
#[track_caller]
fn sabotage(model: &str, change: impl FnOnce(&mut Metadata)) -> Vec<String> {
    let mut model = Model::open(&fixtures().join(model));
    change(&mut model.keys);
    let check = model.check();
    assert_eq!(check.status, Status::Failed, "{}", check.summary);
    check.problems
}

fn strings(keys: &Metadata, key: &str) -> Vec<String> {
    let found: &[String] = keys.require(key).unwrap();
    found.to_vec()
}

#[test]
fn a_missing_merge_is_named_whether_a_text_needs_it_or_not() {
    let mut silent = 0;
    for at in (0..243).step_by(15) {
        let mut removed = String::new();
        let problems = sabotage("tiny/llama/hf", |keys| {
            let mut merges = strings(keys, "tokenizer.ggml.merges");
            removed = merges.remove(at);
            keys.set("tokenizer.ggml.merges", merges);
        });
        let counts = "the source has 243 entries, the file 242";
        assert_eq!(problems[0], format!("tokenizer.ggml.merges[{at}] {removed:?} of the source is missing: {counts}"));
        silent += usize::from(problems.len() == 1);
    }
    assert!((1..17).contains(&silent), "the texts need all but {silent} of the 17 merges");
}

#[test]
fn exchanged_tokens_are_named() {
    for model in ["bard", "tiny/llama/hf"] {
        let problems = sabotage(model, |keys| {
            let mut tokens = strings(keys, "tokenizer.ggml.tokens");
            tokens.swap(300, 320);
            keys.set("tokenizer.ggml.tokens", tokens);
        });
        assert!(problems[0].starts_with("tokens 300 (") && problems[0].contains(" and 320 ("), "{problems:?}");
        assert!(problems[0].ends_with("are exchanged in tokenizer.ggml.tokens"), "{problems:?}");
        assert!(problems[1].contains("of the test text) the source has"), "{problems:?}");
    }
}

#[test]
fn one_changed_score_is_named() {
    let problems = sabotage("bard", |keys| {
        let mut scores = keys.require::<&[f32]>("tokenizer.ggml.scores").unwrap().to_vec();
        scores[700] = f32::from_bits(scores[700].to_bits() + 1);
        keys.set("tokenizer.ggml.scores", scores);
    });
    assert!(problems.len() == 1 && problems[0].starts_with("tokenizer.ggml.scores[700]: the source has -"), "{problems:?}");
}

#[test]
fn one_changed_token_type_is_named() {
    let problems = sabotage("bard", |keys| {
        let mut types = keys.require::<&[i32]>("tokenizer.ggml.token_type").unwrap().to_vec();
        types[1] = 1;
        keys.set("tokenizer.ggml.token_type", types);
    });
    assert_eq!(problems[0], "tokenizer.ggml.token_type[1]: the source has 3 (control), the file 1 (normal)");
    assert!(problems[1].contains("of the test text) the source has 1 (\"<s>\")"), "{problems:?}");
}

#[test]
fn special_ids_flags_and_the_pre_tokenizer() {
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.eos_token_id", 1u32));
    assert_eq!(problems, ["tokenizer.ggml.eos_token_id: the source has 2, the file 1"]);
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.add_bos_token", false));
    assert_eq!(problems, ["tokenizer.ggml.add_bos_token: the source has true, the file false"]);
    let problems = sabotage("bard", |keys| drop(keys.remove("tokenizer.ggml.bos_token_id")));
    assert_eq!(problems, ["the file has no tokenizer.ggml.bos_token_id, the source has 1"]);
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.add_space_prefix", false));
    assert_eq!(problems[0], "tokenizer.ggml.add_space_prefix is false in the file, the source has none");
    assert!(problems[1].starts_with("between \"\" and \"It's a text"), "{problems:?}");
    let problems = sabotage("tiny/llama/hf", |keys| keys.set("tokenizer.ggml.pre", "default"));
    assert_eq!(problems[0], "tokenizer.ggml.pre: the source has \"gpt-2\", the file \"default\"");
    let problems = sabotage("tiny/llama/hf", |keys| keys.set("tokenizer.ggml.pre", "kimi-k2"));
    assert_eq!(problems[0], "tokenizer.ggml.pre: the source has \"gpt-2\", the file \"kimi-k2\"");
    assert!(problems[1].starts_with("between "), "{problems:?}");
    // The same expressions by another name: only the keys show it.
    let problems = sabotage("tiny/llama/hf", |keys| keys.set("tokenizer.ggml.pre", "olmo"));
    assert_eq!(problems, ["tokenizer.ggml.pre: the source has \"gpt-2\", the file \"olmo\""]);
}

#[test]
fn chat_templates() {
    let template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}".repeat(40);
    let source = tempfile::tempdir().unwrap();
    let bard = fixtures().join("bard");
    for file in ["config.json", "tokenizer.json", "tokenizer.model", "special_tokens_map.json"] {
        std::fs::copy(bard.join(file), source.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(bard.join("tokenizer_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["chat_template"] = template.clone().into();
    std::fs::write(source.path().join("tokenizer_config.json"), config.to_string()).unwrap();

    let mut model = Model::open(source.path());
    assert_eq!(model.check().status, Status::Passed);
    model.keys.set("tokenizer.chat_template", format!("{template} "));
    let problems = model.check().problems;
    let expected = r#"tokenizer.chat_template: from character 2,800 on the source has "", the file " ""#;
    assert_eq!(problems, [expected]);
    model.keys.remove("tokenizer.chat_template");
    assert_eq!(model.check().problems, ["the file has no tokenizer.chat_template, the source has one (2,800 characters)"]);
    // The other way round.
    let problems = sabotage("bard", |keys| keys.set("tokenizer.chat_template", "x"));
    assert_eq!(problems, [r#"tokenizer.chat_template is "x" in the file, the source has none"#]);
}

#[test]
fn keys_that_say_what_llama_cpp_assumes_anyway() {
    let mut model = Model::open(&fixtures().join("bard"));
    model.keys.set("tokenizer.ggml.add_space_prefix", true);
    model.keys.set("tokenizer.ggml.token_type_count", 1u32);
    assert_eq!(model.check().status, Status::Passed);
    model.keys.set("tokenizer.ggml.padding_token_id", 0u32);
    assert_eq!(model.check().problems, ["tokenizer.ggml.padding_token_id is 0 in the file, the source has none"]);
}

#[test]
fn damaged_keys_are_problems() {
    let problems = sabotage("bard", |keys| drop(keys.remove("tokenizer.ggml.tokens")));
    assert_eq!(
        problems,
        ["the file has no tokenizer.ggml.tokens, the source has 1,024 entries", "the key tokenizer.ggml.tokens is missing"]
    );
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 3]))));
    assert!(problems[1].starts_with("tokenizer.ggml.scores has 3 entries, tokenizer.ggml.tokens has 1024"), "{problems:?}");
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.model", "t5"));
    assert_eq!(problems[0], r#"tokenizer.ggml.model: the source has "llama", the file "t5""#);
    assert!(problems[1].starts_with("between "), "{problems:?}");
    // One that is not read here.
    let problems = sabotage("bard", |keys| keys.set("tokenizer.ggml.model", "rwkv"));
    assert_eq!(problems, [r#"tokenizer.ggml.model: the source has "llama", the file "rwkv""#]);
    let problems = sabotage("bard", |keys| *keys = Metadata::new());
    assert_eq!(problems.len(), 12, "{problems:?}");
}
