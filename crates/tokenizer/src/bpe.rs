//! The vocabulary of a byte-level BPE tokenizer.json: the converter's `get_vocab_base`.

use super::auto::AutoTokenizer;
use super::files::Files;
use super::json::{TokenizerJson, Vocab};
use super::pre::{self, Pre};
use super::{MAX_TOKENS, TokenType, TokenizerError, Unsupported, Vocabulary, looks_special};
use tokenizers::AddedToken;

const FILE: &str = "tokenizer.json";

/// A vocabulary and the name of its pre-tokenizer.
pub(super) struct Found {
    pub(super) vocabulary: Vocabulary,
    pub(super) pre: Pre,
}

/// `vocab_size` ids (0: as many as there are tokens); ids without a token are padded.
pub(super) fn vocabulary(
    files: &mut Files,
    vocab_size: u64,
    given: Option<&'static str>,
    warnings: &mut Vec<String>,
) -> Result<Found, TokenizerError> {
    let tokens = take_tokens(files)?;
    // Asked once more with the added tokens; here before much is built of a vocabulary that is far too large.
    check_range(&tokens, &[], vocab_size)?;
    let files = &*files;
    let json = files.tokenizer_json.as_ref().ok_or_else(missing)?;
    let auto = AutoTokenizer::load(files, json, &tokens, true, warnings)?;
    check_repetitions(&tokens, auto.base)?;
    let pre = pre::find(&auto, json, given, warnings)?;

    check_range(&tokens, &auto.added, vocab_size)?;
    let mut slots = slots(tokens, &auto.added)?;
    if vocab_size > 0 {
        // Not larger than MAX_TOKENS: `build` has looked.
        slots.resize_with(vocab_size as usize, || None);
    }
    let mut out = Vocabulary::with_capacity(slots.len());
    for (id, slot) in slots.into_iter().enumerate() {
        match slot {
            None => out.push(format!("[PAD{id}]"), 0.0, TokenType::Unused),
            Some(Slot { text, added: None }) => out.push(text, 0.0, TokenType::Normal),
            Some(Slot { text, added: Some(flags) }) => {
                // llama.cpp matches these in text that nothing normalizes.
                let text = if flags.normalized { text } else { auto.normalize(&text)? };
                if flags.special || looks_special(&text) {
                    out.push(text, 0.0, TokenType::Control);
                } else {
                    out.push(text.replace('▁', " "), 0.0, TokenType::UserDefined);
                }
            }
        }
    }
    Ok(Found { vocabulary: out, pre })
}

/// Every id has to have a row in the embedding; `vocab_size` 0: not known.
pub(super) fn check_range(tokens: &[(String, u32)], added: &[(u32, AddedToken)], vocab_size: u64) -> Result<(), TokenizerError> {
    let added = added.iter().map(|(id, token)| (&token.content, id));
    let highest = tokens.iter().map(|(token, id)| (token, id)).chain(added).max_by_key(|(_, id)| **id);
    match highest.filter(|(_, id)| vocab_size > 0 && u64::from(**id) >= vocab_size) {
        Some((token, &id)) => Err(TokenizerError::IdOutOfRange { file: FILE, token: token.clone(), id: id.into(), vocab_size }),
        None => Ok(()),
    }
}

fn missing() -> TokenizerError {
    TokenizerError::Missing { looked_for: &["tokenizer.model", FILE] }
}

/// The tokens of tokenizer.json's BPE model, moved out of `files`.
pub(super) fn take_tokens(files: &mut Files) -> Result<Vec<(String, u32)>, TokenizerError> {
    let Some(json) = &mut files.tokenizer_json else {
        return Err(match files.dir.bytes("vocab.json")? {
            Some(_) => TokenizerError::Unsupported { what: Unsupported::Slow, supported: "tokenizer.json and tokenizer.model" },
            None => missing(),
        });
    };
    let kind = json.model.kind().to_owned();
    let tokens = match std::mem::take(&mut json.model.vocab) {
        Vocab::Tokens(tokens) if kind == "BPE" || kind.is_empty() => tokens,
        Vocab::Missing if kind == "BPE" || kind.is_empty() => {
            return Err(TokenizerError::NoKey { file: FILE, key: "model.vocab".into() });
        }
        _ => {
            let what = Unsupported::Model(if kind.is_empty() { "Unigram".into() } else { kind });
            return Err(TokenizerError::Unsupported { what, supported: "BPE, and SentencePiece models in tokenizer.model" });
        }
    };
    Ok(tokens)
}

/// No token may be there twice: which of its ids counts differs between readers of JSON. `different`: how many different ones there are.
pub(super) fn check_repetitions(tokens: &[(String, u32)], different: usize) -> Result<(), TokenizerError> {
    if tokens.len() == different {
        return Ok(());
    }
    let mut seen = std::collections::HashMap::with_capacity(different);
    for (token, id) in tokens {
        if let Some(first) = seen.insert(token.as_str(), *id) {
            let (token, second) = (token.clone(), *id);
            return Err(TokenizerError::RepeatedToken { file: FILE, token, first, second });
        }
    }
    Ok(())
}

/// A token and, for an added one, its flags.
pub(super) struct Slot {
    pub(super) text: String,
    pub(super) added: Option<AddedToken>,
}

/// The tokens by id.
pub(super) fn slots(tokens: Vec<(String, u32)>, added: &[(u32, AddedToken)]) -> Result<Vec<Option<Slot>>, TokenizerError> {
    let highest = tokens.iter().map(|(_, id)| *id).chain(added.iter().map(|(id, _)| *id)).max();
    let size = highest.map_or(0, |id| id as usize + 1);
    if size > MAX_TOKENS {
        return Err(TokenizerError::Limit {
            what: "the highest id in tokenizer.json",
            count: size as u64 - 1,
            limit: MAX_TOKENS as u64,
        });
    }
    let mut slots: Vec<Option<Slot>> = Vec::new();
    slots.resize_with(size, || None);
    let twice = |id: u32, first: &str, second: &str| TokenizerError::DuplicateId {
        file: FILE,
        id: id.into(),
        first: first.to_owned(),
        second: second.to_owned(),
    };
    for (text, id) in tokens {
        match &mut slots[id as usize] {
            Some(other) => return Err(twice(id, &other.text, &text)),
            empty => *empty = Some(Slot { text, added: None }),
        }
    }
    for (id, token) in added {
        match &mut slots[*id as usize] {
            Some(slot) if slot.text == token.content => slot.added = Some(token.clone()),
            Some(other) => return Err(twice(*id, &other.text, &token.content)),
            empty => *empty = Some(Slot { text: token.content.clone(), added: Some(token.clone()) }),
        }
    }
    Ok(slots)
}

/// Whether tokenizer.json's model is BPE of the kind that [`super::byte_fallback`] takes; asked before its tokens are moved.
pub(super) fn has_byte_fallback(json: &TokenizerJson) -> bool {
    json.model.kind() == "BPE" && json.model.flag("byte_fallback", false)
}
