//! The vocabulary of a tokenizer.json that is SentencePiece's BPE with byte fallback: gguf-py's `LlamaHfVocab`, and what llama.cpp
//! needs where the converter has no such route.

use super::auto::AutoTokenizer;
use super::bpe::{self, Slot};
use super::files::Files;
use super::json::TokenizerJson;
use super::{TokenType, TokenizerError, Vocabulary, engine, looks_special};
use std::collections::{HashMap, HashSet};

/// Score of every token ([`Scores::Equal`]), or of those that no merge makes.
const SCORE: f32 = -1000.0;
/// Score of an id that nothing claims.
const UNUSED_SCORE: f32 = -10000.0;

/// The scores that llama.cpp merges by: tokenizer.json has none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scores {
    /// All the same, as `LlamaHfVocab` writes them; llama.cpp then merges from left to right. No padding.
    Equal,
    /// Minus the rank of the first merge that makes the token: the order in which the tokenizer itself merges. SentencePiece's own
    /// scores of a BPE model are minus its ids, in the same order. Padded to `vocab_size`.
    OfMerges {
        /// Embedding rows; 0: not known.
        vocab_size: u64,
    },
}

/// Whether the file is of this kind: BPE with byte fallback whose decoder is a sequence. What is not is byte-level BPE.
pub(super) fn accepts(json: &TokenizerJson) -> bool {
    bpe::has_byte_fallback(json) && json.decoder.get("type").and_then(serde_json::Value::as_str) == Some("Sequence")
}

/// The model's tokens, then the added ones beyond them.
pub(super) fn vocabulary(files: &mut Files, scores: Scores, warnings: &mut Vec<String>) -> Result<Vocabulary, TokenizerError> {
    let tokens = bpe::take_tokens(files)?;
    let files = &*files;
    let json = files.tokenizer_json.as_ref().ok_or(TokenizerError::Missing { looked_for: &["tokenizer.json"] })?;
    let auto = AutoTokenizer::load(files, json, &tokens, false, warnings)?;
    let base = auto.base;
    bpe::check_repetitions(&tokens, base)?;
    let specials: HashSet<u32> = auto.specials.iter().filter_map(|token| auto.id(token)).collect();
    let slots = |tokens| bpe::slots(tokens, &auto.added);
    match scores {
        Scores::Equal => equal(slots(tokens)?, base, &specials),
        Scores::OfMerges { vocab_size } => {
            bpe::check_range(&tokens, &auto.added, vocab_size)?;
            by_merges(slots(tokens)?, &engine::pairs(&json.model.merges)?, vocab_size)
        }
    }
}

fn equal(slots: Vec<Option<Slot>>, base: usize, specials: &HashSet<u32>) -> Result<Vocabulary, TokenizerError> {
    let mut out = Vocabulary::with_capacity(slots.len());
    for (id, slot) in slots.into_iter().enumerate() {
        let Some(Slot { text, .. }) = slot else { return Err(TokenizerError::Hole { id, tokens: base }) };
        let special = u32::try_from(id).is_ok_and(|id| specials.contains(&id));
        let kind = match (id < base, special) {
            (true, _) if is_byte(&text) => TokenType::Byte,
            (_, true) => TokenType::Control,
            (true, false) => TokenType::Normal,
            (false, false) => TokenType::UserDefined,
        };
        out.push(text, SCORE, kind);
    }
    Ok(out)
}

/// Types as the converter gives them to the tokens of a tokenizer.model.
fn by_merges(mut slots: Vec<Option<Slot>>, merges: &[(String, String)], vocab_size: u64) -> Result<Vocabulary, TokenizerError> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    if vocab_size > 0 {
        // Not larger than MAX_TOKENS: `build` has looked.
        slots.resize_with(vocab_size as usize, || None);
    }
    let mut out = Vocabulary::with_capacity(slots.len());
    for (id, slot) in slots.into_iter().enumerate() {
        match slot {
            None => out.push(format!("[PAD{id}]"), UNUSED_SCORE, TokenType::Unused),
            Some(Slot { text, .. }) if is_byte(&text) => out.push(text, 0.0, TokenType::Byte),
            Some(Slot { text, added: Some(token) }) if token.special || looks_special(&text) => {
                out.push(text, SCORE, TokenType::Control);
            }
            Some(Slot { text, added: Some(_) }) => out.push(text.replace('▁', " "), SCORE, TokenType::UserDefined),
            Some(Slot { text, added: None }) => {
                // What no merge makes comes last.
                let rank = ranks.get(&text).copied().unwrap_or(merges.len());
                out.push(text, 0.0 - rank as f32, TokenType::Normal);
            }
        }
    }
    Ok(out)
}

/// `<0x0A>`
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens() {
        assert!(is_byte("<0x0A>") && is_byte("<0xff>"));
        assert!(!["<0x0>", "<0x0AA>", "<0xG0>", "0x0A", "<0x+1>", "<0x0A>\n"].into_iter().any(is_byte));
    }
}
