//! The vocabulary of a `tokenizer.model`: the converter's `_create_vocab_sentencepiece`, and Phi-3's variant of it.

use super::files::Files;
use super::json::{self, Kind, truthy};
use super::sentencepiece::{self, PieceType};
use super::{MAX_TOKENS, TokenType, TokenizerError, Vocabulary, looks_special};
use serde_json::Value;

/// Score of a token that the model does not know.
const ADDED_SCORE: f32 = -1000.0;
/// Score of an id that nothing claims.
const UNUSED_SCORE: f32 = -10000.0;

/// What is made of the tokens that files beside the model add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A token may look special although its file does not say so; spaces are spelled as such.
    Common,
    /// Tokens are as their files say; tokenizer.json's count, too.
    Phi3,
}

/// Pieces, then added_tokens.json, then tokenizer_config.json's `added_tokens_decoder` (then tokenizer.json's `added_tokens`), each
/// over the one before; `vocab_size` ids in all (0: as many as there are pieces).
pub(super) fn vocabulary(
    files: &Files,
    model: &[u8],
    vocab_size: u64,
    dialect: Dialect,
    warnings: &mut Vec<String>,
) -> Result<Vocabulary, TokenizerError> {
    let pieces = sentencepiece::pieces(model)?;
    let size = if vocab_size == 0 { pieces.len() as u64 } else { vocab_size };
    let size = usize::try_from(size).ok().filter(|&n| n <= MAX_TOKENS);
    let size =
        size.ok_or(TokenizerError::Limit { what: "vocab_size of config.json", count: vocab_size, limit: MAX_TOKENS as u64 })?;

    let mut out = Vocabulary::with_capacity(size);
    // The converter leaves them out; a text that needs them would be encoded otherwise. Added tokens behind the end are another matter: the
    // smallest Gemma 3 has one that its texts never hold.
    if let Some(beyond) = pieces.get(size) {
        let (token, vocab_size) = (beyond.text.clone(), size as u64);
        return Err(TokenizerError::IdOutOfRange { file: "tokenizer.model", token, id: vocab_size, vocab_size });
    }
    for piece in pieces {
        let kind = match piece.kind {
            PieceType::Normal | PieceType::UserDefined => TokenType::Normal,
            PieceType::Unknown => TokenType::Unknown,
            PieceType::Control => TokenType::Control,
            PieceType::Unused => TokenType::Unused,
            PieceType::Byte => TokenType::Byte,
        };
        out.push(piece.text, piece.score, kind);
    }
    for id in out.len()..size {
        out.push(format!("[PAD{id}]"), UNUSED_SCORE, TokenType::Unused);
    }
    added_tokens_json(files, &mut out, warnings)?;
    added_tokens_decoder(files, dialect, &mut out, warnings)?;
    if dialect == Dialect::Phi3 {
        added_tokens_of_json(files, &mut out)?;
    }
    Ok(out)
}

fn added_tokens_json(files: &Files, out: &mut Vocabulary, warnings: &mut Vec<String>) -> Result<(), TokenizerError> {
    const FILE: &str = "added_tokens.json";
    for (token, id) in json::object(files.dir, FILE)?.unwrap_or_default() {
        let number = id.as_u64().ok_or_else(|| TokenizerError::Type {
            file: FILE,
            key: format!("{token:?}"),
            expected: "an id (an integer, 0 or more)",
            found: Kind::of(&id),
        })?;
        if let Some(id) = in_range(number, &token, FILE, out, warnings) {
            out.replace(id, token, ADDED_SCORE, TokenType::UserDefined);
        }
    }
    Ok(())
}

fn added_tokens_decoder(
    files: &Files,
    dialect: Dialect,
    out: &mut Vocabulary,
    warnings: &mut Vec<String>,
) -> Result<(), TokenizerError> {
    const FILE: &str = "tokenizer_config.json";
    let wrong = |key: String, expected, found: &Value| TokenizerError::Type { file: FILE, key, expected, found: Kind::of(found) };
    let entries = match files.tokenizer_config.as_ref().and_then(|config| config.get("added_tokens_decoder")) {
        None => return Ok(()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(wrong("added_tokens_decoder".into(), "an object", other)),
    };
    for (id, entry) in entries {
        let key = || format!("added_tokens_decoder.{id}");
        let number = id.trim().parse::<u64>().map_err(|_| TokenizerError::Number {
            file: FILE,
            key: key(),
            value: id.clone(),
            why: "no id (an integer, 0 or more)",
        })?;
        let content = match entry.get("content") {
            Some(Value::String(content)) => content,
            Some(other) => return Err(wrong(format!("{}.content", key()), "a string", other)),
            None => return Err(TokenizerError::NoKey { file: FILE, key: format!("{}.content", key()) }),
        };
        let Some(id) = in_range(number, content, FILE, out, warnings) else { continue };
        let common = dialect == Dialect::Common;
        if entry.get("special").is_some_and(truthy) || (common && looks_special(content)) {
            out.replace(id, content.clone(), ADDED_SCORE, TokenType::Control);
        } else if !common {
            out.replace(id, content.clone(), ADDED_SCORE, TokenType::UserDefined);
        } else {
            // Tokens of this type are matched in text before spaces become "▁".
            out.replace(id, content.replace('▁', " "), ADDED_SCORE, TokenType::UserDefined);
        }
    }
    Ok(())
}

/// The converter ends with an error where an id of this list is out of range.
fn added_tokens_of_json(files: &Files, out: &mut Vocabulary) -> Result<(), TokenizerError> {
    const FILE: &str = "tokenizer.json";
    for (at, entry) in files.tokenizer_json.iter().flat_map(|json| &json.added_tokens).enumerate() {
        let key = || format!("added_tokens[{at}]");
        let (Some(content), Some(number)) =
            (entry.get("content").and_then(Value::as_str), entry.get("id").and_then(Value::as_u64))
        else {
            let expected = "an object with `id` (an integer, 0 or more) and `content`";
            return Err(TokenizerError::Type { file: FILE, key: key(), expected, found: Kind::of(entry) });
        };
        let Some(id) = usize::try_from(number).ok().filter(|&id| id < out.len()) else {
            let (token, vocab_size) = (content.to_owned(), out.len() as u64);
            return Err(TokenizerError::IdOutOfRange { file: FILE, token, id: number, vocab_size });
        };
        let special = entry.get("special").is_some_and(truthy);
        out.replace(id, content.to_owned(), ADDED_SCORE, if special { TokenType::Control } else { TokenType::UserDefined });
    }
    Ok(())
}

fn in_range(id: u64, token: &str, file: &str, out: &Vocabulary, warnings: &mut Vec<String>) -> Option<usize> {
    let found = usize::try_from(id).ok().filter(|&id| id < out.len());
    if found.is_none() {
        warnings
            .push(format!("{file}: the token {token:?} has the id {id}, config.json's vocab_size is {}: left out", out.len()));
    }
    found
}
