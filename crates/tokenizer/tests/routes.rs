//! Every route against the `tokenizer.*` keys of the converter's own files, value by value and in their order.

use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::{Gguf, Limits, Value};
use ggufsmith_tokenizer::{Request, build};
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
    let folders = std::fs::read_dir(tiny()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, MODELS.len(), "a model is not in the list");
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
