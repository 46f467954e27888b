//! SentencePiece's BPE with byte fallback: `tokenizer.ggml.model` = `llama`.

use super::files::{self, Frame};
use super::{ADDED_SCORE, Added, Source, WriteError, Written};
use crate::vocabulary::TokenType;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Longer tokens are not taken apart: SentencePiece makes none of more than 16 characters unless told to.
const LONGEST_MERGED_BYTES: usize = 512;

/// tokenizer.json, tokenizer.model, tokenizer_config.json and special_tokens_map.json.
pub(super) fn write(source: &Source<'_>) -> Result<Written, WriteError> {
    let mut warnings = source.warnings.clone();
    let frame = Frame::read(source, true, &mut warnings)?;
    let prefix_space = source.flag("add_space_prefix")?;
    let scores = source.scores.filter(|scores| tell(source, scores));
    if scores.is_none() {
        warnings.push(
            "the file has no scores that order its tokens: merges are rebuilt in the order of ids, and rare words may be cut differently than by the model's own tokenizer".to_owned(),
        );
    }
    let added = source.added();
    let pieces = pieces(source);
    // A token whose id is not the next one needs its id in the vocabulary.
    let behind: Vec<usize> = added.iter().map(|token| token.id).filter(|&id| id >= pieces).collect();
    let in_place = behind.iter().copied().eq(pieces..pieces + behind.len());
    let ids = || (0..pieces).chain(behind.iter().copied());
    source.check_unique(ids())?;
    let vocab_ids: Vec<usize> = if in_place { (0..pieces).collect() } else { ids().collect() };
    let vocab: Map<String, Value> = vocab_ids.iter().map(|&id| (source.tokens[id].clone(), id.into())).collect();

    let prefix = prefix_space.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizers = if prefix { vec![json!({"type": "Prepend", "prepend": "▁"}), replace] } else { vec![replace] };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": files::added_tokens(&added),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": frame.post_processor(false),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown(source).map(|id| source.tokens[id].as_str()),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges(source, scores, pieces),
        },
    });
    let mut out = vec![("tokenizer.json", files::pretty(&tokenizer))];
    let mut config = Map::new();
    // The tokens that the converter took from a list beside the model, and scored so; all of them where there is no model.
    let mut listed: Vec<Added<'_>> = added.clone();
    match (scores, unknown(source)) {
        (Some(scores), Some(unknown)) => {
            listed.retain(|token| scores[token.id] == ADDED_SCORE);
            out.push(("tokenizer.model", model(source, scores, pieces, unknown, prefix)));
            config.insert("tokenizer_class".to_owned(), "LlamaTokenizer".into());
            // A word behind a special token gets its space too; so does the engine.
            config.insert("legacy".to_owned(), true.into());
        }
        // LlamaTokenizer would want a tokenizer.model.
        _ => {
            config.insert("tokenizer_class".to_owned(), files::PLAIN_CLASS.into());
            let role = |token: &&Added<'_>| source.roles.iter().any(|role| role.id as usize == token.id);
            let others: Vec<&str> = added.iter().filter(|token| token.special && !role(token)).map(|token| token.text).collect();
            if !others.is_empty() {
                config.insert("additional_special_tokens".to_owned(), others.into());
            }
        }
    }
    files::finish(source, &frame, &listed, config, out, warnings)
}

/// Whether scores order the tokens: those of a tokenizer.json, which has none, are all the same.
fn tell(source: &Source<'_>, scores: &[f32]) -> bool {
    let mut normal = scores.iter().zip(&source.types).filter(|(_, kind)| **kind == TokenType::Normal).map(|(score, _)| score);
    normal.next().is_some_and(|first| normal.any(|score| score != first))
}

/// How many tokens the SentencePiece model has: all but padding and added tokens at the end.
fn pieces(source: &Source<'_>) -> usize {
    let added = |id: usize| {
        let kind = source.types[id];
        let beside = source.scores.is_none_or(|scores| scores[id] == ADDED_SCORE);
        matches!(kind, TokenType::Control | TokenType::UserDefined) && beside
    };
    let mut end = source.tokens.len();
    while end > 0 && (source.is_padding(end - 1) || added(end - 1)) {
        end -= 1;
    }
    end
}

/// The token for what has no token.
fn unknown(source: &Source<'_>) -> Option<usize> {
    let role = source.role("unk_token").map(|role| role.id as usize);
    let typed = || source.types.iter().position(|kind| *kind == TokenType::Unknown);
    // As the engine, and every SentencePiece model of this kind.
    role.or_else(typed).or((!source.tokens.is_empty()).then_some(0))
}

/// Every way to put a token together from two others, the best first: as transformers derives them from scores (the token with the
/// higher score, then the longer left part), or without scores from ids.
fn merges(source: &Source<'_>, scores: Option<&[f32]>, pieces: usize) -> Vec<Value> {
    let tokens = &source.tokens[..pieces];
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    // Score, characters of both parts, ids of both parts.
    let mut found: Vec<(f32, usize, usize, usize, usize)> = Vec::new();
    for (id, text) in tokens.iter().enumerate() {
        if source.types[id] != TokenType::Normal || text.len() > LONGEST_MERGED_BYTES {
            continue;
        }
        let start = found.len();
        let characters = text.chars().count();
        for (count, (at, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                // Zero has one sign, so that equal scores are equal.
                let score = scores.map_or(-(id as f32), |scores| scores[id] + 0.0);
                found.push((score, count, characters - count, left, right));
            }
        }
        found[start..].sort_by_key(|&(.., left, right)| (left, right));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    let spaced = tokens.iter().any(|text| text.contains(' '));
    let text = |id: usize| source.tokens[id].as_str();
    let merge = |left, right| if spaced { json!([text(left), text(right)]) } else { [text(left), text(right)].join(" ").into() };
    found.into_iter().map(|(.., left, right)| merge(left, right)).collect()
}

/// tokenizer.model: a `ModelProto` of sentencepiece_model.proto with the pieces, what decodes them, and no training data.
fn model(source: &Source<'_>, scores: &[f32], pieces: usize, unknown: usize, prefix_space: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for (id, score) in scores.iter().enumerate().take(pieces) {
        let kind = match source.types[id] {
            _ if id == unknown => TokenType::Unknown,
            // There is exactly one unknown.
            TokenType::Unknown => TokenType::Control,
            kind => kind,
        };
        bytes += usize::from(kind == TokenType::Byte);
        let mut piece = Vec::new();
        put_bytes(&mut piece, 1, source.tokens[id].replace(' ', "▁").as_bytes());
        put_key(&mut piece, 2, 5);
        piece.extend_from_slice(&score.to_le_bytes());
        put_number(&mut piece, 3, kind as u64);
        put_bytes(&mut out, 1, &piece);
    }
    let mut trainer = Vec::new();
    put_number(&mut trainer, 3, 2); // model_type = BPE
    put_number(&mut trainer, 4, pieces as u64);
    put_number(&mut trainer, 35, u64::from(bytes == 256)); // byte_fallback
    let roles =
        [(40, Some(unknown)), (41, role(source, "bos_token")), (42, role(source, "eos_token")), (43, role(source, "pad_token"))];
    for (field, id) in roles {
        // -1 says that there is none: ten bytes, as every negative number.
        put_number(&mut trainer, field, id.filter(|&id| id < pieces).map_or(u64::MAX, |id| id as u64));
        if let Some(id) = id.filter(|&id| id < pieces) {
            put_bytes(&mut trainer, field + 5, source.tokens[id].as_bytes());
        }
    }
    let mut normalizer = Vec::new();
    put_bytes(&mut normalizer, 1, b"identity");
    put_number(&mut normalizer, 3, u64::from(prefix_space)); // add_dummy_prefix
    put_number(&mut normalizer, 4, 0); // remove_extra_whitespaces
    put_number(&mut normalizer, 5, 1); // escape_whitespaces
    put_bytes(&mut out, 2, &trainer);
    put_bytes(&mut out, 3, &normalizer);
    out
}

fn role(source: &Source<'_>, name: &str) -> Option<usize> {
    source.role(name).map(|role| role.id as usize)
}

/// A field's number and wire type.
fn put_key(out: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(out, field << 3 | wire);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_key(out, field, 0);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The mask leaves seven bits.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
