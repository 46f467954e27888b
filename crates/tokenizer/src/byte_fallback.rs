//! The vocabulary of a tokenizer.json that is SentencePiece's BPE with byte fallback: gguf-py's `LlamaHfVocab`.

use super::auto::AutoTokenizer;
use super::bpe::{self, Slot};
use super::files::Files;
use super::json::TokenizerJson;
use super::{TokenType, TokenizerError, Vocabulary};
use std::collections::HashSet;

/// All tokens have it: tokenizer.json has no scores, llama.cpp needs some.
const SCORE: f32 = -1000.0;

/// Whether the file is of this kind: BPE with byte fallback whose decoder is a sequence. What is not is byte-level BPE.
pub(super) fn accepts(json: &TokenizerJson) -> bool {
    bpe::has_byte_fallback(json) && json.decoder.get("type").and_then(serde_json::Value::as_str) == Some("Sequence")
}

/// The model's tokens, then the added ones beyond them; no padding.
pub(super) fn vocabulary(files: &mut Files, warnings: &mut Vec<String>) -> Result<Vocabulary, TokenizerError> {
    let tokens = bpe::take_tokens(files)?;
    let files = &*files;
    let json = files.tokenizer_json.as_ref().ok_or(TokenizerError::Missing { looked_for: &["tokenizer.json"] })?;
    let auto = AutoTokenizer::load(files, json, &tokens, false, warnings)?;
    let base = auto.base;
    let tokens = bpe::without_repetitions(tokens, base);
    let specials: HashSet<u32> = auto.specials.iter().filter_map(|token| auto.id(token)).collect();

    let slots = bpe::slots(tokens, &auto.added)?;
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
