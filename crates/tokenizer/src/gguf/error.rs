//! What can be wrong with the `tokenizer.*` keys of a GGUF file, or keep a text from being encoded by them.

use ggufsmith_gguf::LookupError;

/// The `tokenizer.*` metadata of a file is no tokenizer, or not one that is supported.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GgufTokenizerError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("{key} is {found:?}, which cannot be encoded with; supported are {supported}")]
    Unsupported { key: &'static str, found: String, supported: String },
    #[error("{key} has no entries")]
    Empty { key: &'static str },
    #[error("{key} has {count} entries, at most {limit} are read")]
    Limit { key: &'static str, count: usize, limit: usize },
    #[error("{key} has {found} entries, tokenizer.ggml.tokens has {expected}: one each is needed")]
    Length { key: &'static str, found: usize, expected: usize },
    #[error("tokenizer.ggml.tokens[{first}] and [{second}] are both {token:?}")]
    Duplicate { token: String, first: usize, second: usize },
    #[error("tokenizer.ggml.token_type[{id}] is {found}; types are 1 (normal) to 6 (byte)")]
    TokenType { id: usize, found: i32 },
    #[error("tokenizer.ggml.tokens[{id}] is {found:?}; a byte token is spelled like <0x0A>")]
    Byte { id: usize, found: String },
    #[error("tokenizer.ggml.scores[{id}] is no number (NaN)")]
    Score { id: usize },
    #[error("tokenizer.ggml.merges[{at}] is {found:?}; expected are two tokens with a space between them")]
    Merge { at: usize, found: String },
    #[error("{key} is no table of replacements, or one that leads out of itself")]
    Charsmap { key: &'static str },
    #[error("{key} is {id}, the vocabulary has {tokens} tokens")]
    Id { key: &'static str, id: u32, tokens: usize },
    #[error("the vocabulary has no token for the byte 0x{byte:02X} (<0x{byte:02X}>), which the text needs")]
    NoByte { byte: u8 },
    #[error("the pre-tokenizer {pre:?} cannot cut the text at byte {at}: {message}")]
    Cut { pre: String, at: usize, message: String },
    #[error("the text has {bytes} bytes, at most {limit} are encoded at once")]
    Text { bytes: usize, limit: usize },
}
