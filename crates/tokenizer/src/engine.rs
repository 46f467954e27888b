//! The `tokenizers` library, as far as it is used: built from parts, and never trusted not to panic.

use super::TokenizerError;
use super::json::{Merges, Model, TokenizerJson};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab as EngineVocab};

/// A tokenizer without added tokens.
pub(super) fn engine(
    json: &TokenizerJson,
    vocab: &[(String, u32)],
    merges: bool,
    pre_tokenizer: Value,
) -> Result<Tokenizer, TokenizerError> {
    let merges = if merges { pairs(&json.model.merges)? } else { Vec::new() };
    let tokens: EngineVocab = vocab.iter().cloned().collect();
    let mut engine = guarded("model", || bpe(&json.model, tokens, merges).map(Tokenizer::new))?;
    engine.with_normalizer(part::<tokenizers::NormalizerWrapper>("normalizer", json.normalizer.clone())?);
    engine.with_pre_tokenizer(part::<tokenizers::PreTokenizerWrapper>("pre_tokenizer", pre_tokenizer)?);
    engine.with_post_processor(part::<tokenizers::PostProcessorWrapper>("post_processor", json.post_processor.clone())?);
    engine.with_decoder(part::<tokenizers::DecoderWrapper>("decoder", json.decoder.clone())?);
    Ok(engine)
}

fn bpe(model: &Model, tokens: EngineVocab, merges: Vec<(String, String)>) -> Result<BPE, String> {
    let text = |key: &str| model.options.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut builder = BPE::builder()
        .vocab_and_merges(tokens, merges)
        // Few words are encoded; dropout is left out, it is for training.
        .cache_capacity(0)
        .fuse_unk(model.flag("fuse_unk", false))
        .byte_fallback(model.flag("byte_fallback", false))
        .ignore_merges(model.flag("ignore_merges", false));
    if let Some(unk) = text("unk_token") {
        builder = builder.unk_token(unk);
    }
    if let Some(prefix) = text("continuing_subword_prefix") {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = text("end_of_word_suffix") {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder.build().map_err(|e| e.to_string())
}

/// The merges as pairs of tokens.
pub(super) fn pairs(merges: &Merges) -> Result<Vec<(String, String)>, TokenizerError> {
    match merges {
        Merges::Missing => Ok(Vec::new()),
        Merges::Pairs(list) => Ok(list.clone()),
        Merges::Joined(list) => list
            .iter()
            .filter(|line| !line.starts_with("#version"))
            .map(|line| match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
                _ => Err(TokenizerError::Library { stage: "merges", message: format!("{line:?} is no pair of tokens") }),
            })
            .collect(),
    }
}

fn part<T: DeserializeOwned>(stage: &'static str, mut value: Value) -> Result<Option<T>, TokenizerError> {
    line_anchors(&mut value);
    guarded(stage, || serde_json::from_value(value).map_err(|e| e.to_string()))
}

/// Python's `tokenizers` runs regular expressions with Oniguruma, where `^` and `$` hold at every line; here it is `fancy-regex`,
/// where that has to be said. (They differ in POSIX brackets, too: `[[:punct:]]` is ASCII here. No known tokenizer has one.)
fn line_anchors(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(regex) if key == "Regex" && regex.contains(['^', '$']) => *regex = format!("(?m:{regex})"),
                    _ => line_anchors(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(line_anchors),
        _ => {}
    }
}

/// Run a part of the `tokenizers` library. It unwraps in places on what a file says (an id without a token, a prefix that is no
/// prefix), so a panic is caught and becomes an error: nothing of it is used afterwards.
pub(super) fn guarded<T>(stage: &'static str, run: impl FnOnce() -> Result<T, String>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(TokenizerError::Library { stage, message }),
        Err(_) => Err(TokenizerError::Panicked { stage }),
    }
}
