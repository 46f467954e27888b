//! Tokenizer files to metadata, and the tokenizer that llama.cpp would make of it.

use crate::model_dir::with_files;
use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::Metadata;
use ggufsmith_tokenizer::{GgufTokenizer, Request, SourceTokenizer, build};
use std::path::Path;
use std::sync::Once;

const CONFIG: &[u8] = br#"{"vocab_size": 320, "model_type": "llama"}"#;
const TEXT: &str = "A sentence, 12 of them: <s> \u{e9}\n";

/// The input is a tokenizer_config.json (see `split`; none where it is empty) and a tokenizer.json.
pub fn tokenizer_json(data: &[u8]) {
    let_libraries_panic();
    let (config, tokenizer) = crate::split(data);
    let files =
        [("config.json", CONFIG), ("tokenizer_config.json", config), ("tokenizer.json", tokenizer), ("tokenizer.model", &[])];
    with_files(&files, |folder| {
        [VocabRoute::Bpe, VocabRoute::Llama, VocabRoute::Gemma3].into_iter().for_each(|route| read(folder, route));
    });
}

/// The input is a tokenizer_config.json (see `split`; none where it is empty) and a tokenizer.model.
pub fn sentencepiece(data: &[u8]) {
    let_libraries_panic();
    let (config, model) = crate::split(data);
    let files = [("config.json", CONFIG), ("tokenizer_config.json", config), ("tokenizer.json", &[]), ("tokenizer.model", model)];
    with_files(&files, |folder| {
        [VocabRoute::Llama, VocabRoute::Phi3, VocabRoute::Gemma].into_iter().for_each(|route| read(folder, route));
    });
}

/// The `tokenizers` library panics on what some files say, and the tokenizer crate makes errors of that. libFuzzer's hook would end the
/// process before: it must not see panics of libraries. One that nobody catches ends the process all the same.
fn let_libraries_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().contains("/registry/src/")) {
                hook(panic);
            }
        }));
    });
}

fn read(folder: &Path, route: VocabRoute) {
    let dir = ModelDir::open(folder).expect("config.json is good");
    let request = Request { route, vocab_size: 320, config: dir.config(), pre: None };
    let Ok(tokenizer) = build(&dir, &request) else { return };
    let mut metadata = Metadata::new();
    metadata.extend(tokenizer.metadata.iter().cloned());
    if let Ok(tokenizer) = GgufTokenizer::new(&metadata)
        && let Ok(ids) = tokenizer.encode(TEXT, true)
    {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        tokenizer.decode(&ids, true);
    }
    if let Ok(tokenizer) = SourceTokenizer::new(&dir, &request) {
        let _ = tokenizer.encode(TEXT, true);
    }
}
