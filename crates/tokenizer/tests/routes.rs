//! Every route against the `tokenizer.*` keys of the converter's own files, value by value and in their order.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Gguf, Limits, Metadata, Value};
use ggufsmith_tokenizer::{GgufTokenizer, Request, SourceTokenizer, build};
use std::path::{Path, PathBuf};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny")
}

/// The route of each model's family.
const MODELS: [(&str, VocabRoute); 20] = [
    ("falcon", VocabRoute::Bpe),
    ("gemma", VocabRoute::Gemma),
    ("gemma2", VocabRoute::Gemma2),
    ("gemma3", VocabRoute::Gemma3),
    ("gpt2", VocabRoute::Bpe),
    ("gptneox", VocabRoute::Bpe),
    ("llama", VocabRoute::Llama),
    ("llama-256", VocabRoute::Llama),
    ("llama-spm", VocabRoute::Llama),
    ("llama3-rope", VocabRoute::Llama),
    ("mistral", VocabRoute::Llama),
    ("mixtral", VocabRoute::Llama),
    ("olmo", VocabRoute::Bpe),
    ("olmo2", VocabRoute::Bpe),
    ("phi3", VocabRoute::Phi3),
    ("qwen2", VocabRoute::SentencePieceOrBpe),
    ("qwen2moe", VocabRoute::Bpe),
    ("qwen3", VocabRoute::SentencePieceOrBpe),
    ("qwen3moe", VocabRoute::Bpe),
    ("stablelm", VocabRoute::Bpe),
];

fn built(model: &str, route: VocabRoute) -> Vec<(String, Value)> {
    let dir = ModelDir::open(&tiny().join(model).join("hf")).unwrap();
    let vocab_size = dir.config()["vocab_size"].as_u64().unwrap();
    let request = Request { route, vocab_size, config: dir.config(), pre: None };
    build(&dir, &request).unwrap_or_else(|e| panic!("{model}: {e}")).metadata
}

fn written(model: &str) -> Vec<(String, Value)> {
    let file = Gguf::open(&tiny().join(model).join("f32.gguf"), &Limits::default()).unwrap();
    file.metadata()
        .iter()
        .filter(|(key, _)| key.starts_with("tokenizer."))
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

#[test]
fn every_tiny_model_has_the_converters_keys() {
    for (model, route) in MODELS {
        let (built, written) = (built(model, route), written(model));
        let keys = |list: &[(String, Value)]| list.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&built), keys(&written), "{model}");
        for ((key, ours), (_, theirs)) in built.iter().zip(&written) {
            assert!(ours == theirs, "{model}: {key}: {ours:?}, expected {theirs:?}");
        }
    }
}

#[test]
fn another_route_gives_other_keys() {
    for (model, route) in [("gemma", VocabRoute::Gemma2), ("gemma2", VocabRoute::Llama), ("phi3", VocabRoute::SentencePieceOrBpe)]
    {
        let differs = built(model, route) != written(model);
        // Phi-3's added tokens are all in added_tokens.json here; its route differs in what it makes of other files.
        assert_eq!(differs, model != "phi3", "{model}");
    }
}

/// What is changed in a tokenizer_config.json.
type Change<'a> = &'a dyn Fn(&mut serde_json::Value);

/// A copy of a tiny model with another tokenizer_config.json.
fn changed(model: &str, change: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let hf = tiny().join(model).join("hf");
    for file in ["config.json", "tokenizer.model"] {
        std::fs::copy(hf.join(file), dir.path().join(file)).unwrap();
    }
    let mut config = serde_json::from_slice(&std::fs::read(hf.join("tokenizer_config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

/// As published models say it: Gemma's own class puts no space in front of a text, Phi-3's special tokens take the spaces behind them.
/// (The fixtures name Llama's class, whose texts begin with a space; there the two sides do differ.)
#[test]
fn both_sides_encode_equally_where_the_source_says_what_the_engine_assumes() {
    let article = std::fs::read_to_string(tiny().join("../eb1911-shakespeare.txt")).unwrap();
    let gemma = |config: &mut serde_json::Value| config["tokenizer_class"] = "GemmaTokenizer".into();
    let phi = |config: &mut serde_json::Value| {
        let token = |text: &str| serde_json::json!({"content": text, "special": true, "normalized": false, "lstrip": false, "rstrip": true, "single_word": false});
        config["added_tokens_decoder"] =
            serde_json::json!({"500": token("<|endoftext|>"), "501": token("<|assistant|>"), "502": token("<|end|>")});
    };
    let models: [(&str, VocabRoute, Change); 4] = [
        ("gemma", VocabRoute::Gemma, &gemma),
        ("gemma2", VocabRoute::Gemma2, &gemma),
        ("gemma3", VocabRoute::Gemma3, &gemma),
        ("phi3", VocabRoute::Phi3, &phi),
    ];
    for (model, route, change) in models {
        let folder = changed(model, change);
        let dir = ModelDir::open(folder.path()).unwrap();
        let request = Request { route, vocab_size: 512, config: dir.config(), pre: None };
        let mut metadata = Metadata::new();
        metadata.set("general.name", model);
        metadata.extend(build(&dir, &request).unwrap().metadata);
        let file = GgufTokenizer::new(&metadata).unwrap();
        let source = SourceTokenizer::new(&dir, &request).unwrap();
        for text in [article.as_str(), "Hello  world\n\n<|assistant|>\nTo be<|end|> \n<|assistant|>or"] {
            assert!(file.encode(text, true).unwrap() == source.encode(text, false).unwrap(), "{model}");
        }
        let plain = changed(model, |_| ());
        let dir = ModelDir::open(plain.path()).unwrap();
        let source = SourceTokenizer::new(&dir, &Request { config: dir.config(), ..request }).unwrap();
        let same = file.encode("<|end|> Hello", true).unwrap() == source.encode("<|end|> Hello", false).unwrap();
        assert!(!same, "{model}: a difference is not seen");
    }
}
