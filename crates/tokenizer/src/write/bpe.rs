//! Byte-level BPE: `tokenizer.ggml.model` = `gpt2`.

use super::files::{self, Frame};
use super::{Source, WriteError, Written, rules};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// tokenizer.json, tokenizer_config.json and special_tokens_map.json.
pub(super) fn write(source: &Source<'_>) -> Result<Written, WriteError> {
    let mut warnings = source.warnings.clone();
    let pre = source.metadata.lookup::<&str>("tokenizer.ggml.pre")?.unwrap_or_else(|| {
        warnings.push("the file names no pre-tokenizer (tokenizer.ggml.pre): the engine's default rules are written".to_owned());
        "default"
    });
    let rules = rules::of(pre).ok_or_else(|| WriteError::Pre { pre: pre.to_owned() })?;
    let prefix_space = source.flag("add_space_prefix")?;
    let frame = Frame::read(source, rules.add_bos, &mut warnings)?;

    let added = source.added();
    // Added tokens behind all others are known by their place; the rest need their ids in the vocabulary.
    let base = source.tokens.len() - trailing(source, &added);
    let vocab_end = if (0..base).any(|id| source.is_padding(id)) { source.tokens.len() } else { base };
    let ids = || (0..vocab_end).filter(|&id| !source.is_padding(id));
    source.check_unique(ids().chain(added.iter().map(|token| token.id).filter(|&id| id >= vocab_end)))?;
    let vocab: Map<String, Value> = ids().map(|id| (source.tokens[id].clone(), id.into())).collect();
    let normalizers = files::normalizers(source)?;
    let normalizer = if normalizers.is_empty() { Value::Null } else { json!({"type": "Sequence", "normalizers": normalizers}) };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": files::added_tokens(&added),
        "normalizer": normalizer,
        "pre_tokenizer": rules.pre_tokenizer(prefix_space.unwrap_or(false)),
        "post_processor": frame.post_processor(true),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": rules.ignore_merges,
            "vocab": vocab,
            "merges": merges(source, &mut warnings)?,
        },
    });
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), files::PLAIN_CLASS.into());
    files::finish(source, &frame, &added, config, vec![("tokenizer.json", files::pretty(&tokenizer))], warnings)
}

/// How many tokens at the end are added ones, after padding.
fn trailing(source: &Source<'_>, added: &[super::Added<'_>]) -> usize {
    let mut end = source.tokens.len();
    while end > 0 && source.is_padding(end - 1) {
        end -= 1;
    }
    let run = added.iter().rev().zip((0..end).rev()).take_while(|(token, id)| token.id == *id).count();
    source.tokens.len() - (end - run)
}

/// Pairs joined by a space: byte-level text has none of its own, and every version of the library reads it. One that makes no
/// token of the vocabulary of two others has no effect, and the library would refuse it.
fn merges(source: &Source<'_>, warnings: &mut Vec<String>) -> Result<Value, WriteError> {
    let merges = source.metadata.require::<&[String]>("tokenizer.ggml.merges")?;
    let tokens: HashSet<&str> = source.tokens.iter().map(String::as_str).collect();
    let mut kept = Vec::with_capacity(merges.len());
    let mut whole = String::new();
    for (index, text) in merges.iter().enumerate() {
        let pair = text.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let (left, right) = pair.ok_or_else(|| WriteError::Merge { index, text: text.clone() })?;
        whole.clear();
        whole.extend([left, right]);
        if [left, right, &whole].iter().all(|text| tokens.contains(text)) {
            kept.push(Value::from(text.as_str()));
        }
    }
    let left_out = merges.len() - kept.len();
    if left_out > 0 {
        warnings.push(format!("{left_out} merges of texts that are no tokens are left out: they have no effect"));
    }
    Ok(kept.into())
}
