//! What can be wrong with a tokenizer.

use super::json::Kind;
use ggufsmith_checkpoint::CheckpointError;

/// The tokenizer files of a model cannot be turned into GGUF metadata.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenizerError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("no tokenizer: neither {}; put the files of the original model beside config.json", looked_for.join(" nor "))]
    Missing { looked_for: &'static [&'static str] },
    #[error("{file}: {key} is {found}, expected {expected}")]
    Type { file: &'static str, key: String, expected: &'static str, found: Kind },
    #[error("{file}: {key} is missing")]
    NoKey { file: &'static str, key: String },
    #[error("{file}: {key} is {value}, which is {why}")]
    Number { file: &'static str, key: String, value: String, why: &'static str },
    #[error("tokenizer.model, byte {offset}: {defect}; a SentencePiece model is expected under this name")]
    SentencePiece { offset: usize, defect: SentencePieceDefect },
    #[error(
        "{file}: the id {id} is given to {first:?} and to {second:?}; llama.cpp's converter would write one of them by chance: repair the file"
    )]
    DuplicateId { file: &'static str, id: u64, first: String, second: String },
    #[error(
        "{file}: the token {token:?} is there twice, with the ids {first} and {second}; which one counts is not defined: remove one"
    )]
    RepeatedToken { file: &'static str, token: String, first: u32, second: u32 },
    #[error(
        "{file}: the token {token:?} has the id {id}, config.json's vocab_size is {vocab_size}: the embedding has no row for it"
    )]
    IdOutOfRange { file: &'static str, token: String, id: u64, vocab_size: u64 },
    #[error("tokenizer.json: no token has the id {id}, although the vocabulary has {tokens} tokens")]
    Hole { id: usize, tokens: usize },
    #[error("tokenizer.json: the `tokenizers` library refuses it ({stage}): {message}")]
    Library { stage: &'static str, message: String },
    #[error("tokenizer.json: the `tokenizers` library panicked ({stage}); the file is damaged or made to do that")]
    Panicked { stage: &'static str },
    #[error("{what} is not supported; supported are {supported}")]
    Unsupported { what: Unsupported, supported: &'static str },
    #[error("{what}: {count}, at most {limit} are read")]
    Limit { what: &'static str, count: u64, limit: u64 },
    #[error(
        "the pre-tokenizer is not known (hash {hash}, regular expressions {}): name the one it equals with --pre NAME; a wrong name makes a model that answers badly; known are {}",
        describe(regexes), known.join(", ")
    )]
    UnknownPre { hash: String, regexes: Option<Vec<String>>, known: Vec<&'static str> },
    #[error("--pre {given}: no such pre-tokenizer{}; known are {}", suggestion(nearest), known.join(", "))]
    NoSuchPre { given: String, nearest: Vec<&'static str>, known: Vec<&'static str> },
}

/// What is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Unsupported {
    #[error("tokenizer.json's model type {0:?}")]
    Model(String),
    #[error("tekken.json without tokenizer.json (Mistral's own format)")]
    Tekken,
    #[error("tokenizer_config.json's tokenizer_class {0:?}")]
    Class(String),
    #[error(
        "vocab.json without tokenizer.json (a slow tokenizer; `AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes tokenizer.json)"
    )]
    Slow,
    #[error("encoding text by tokenizer.model without tokenizer.json, whose algorithm is {0}")]
    SentencePiece(&'static str),
    #[error("encoding text by tokenizer.model without tokenizer.json for the tokenizer class {0}")]
    SentencePieceClass(&'static str),
}

/// A `tokenizer.model` that SentencePiece would not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SentencePieceDefect {
    #[error("the file ends inside a number")]
    CutVarint,
    #[error("a number is longer than 64 bits")]
    LongVarint,
    #[error("a field of {len} bytes in the {available} that are left")]
    BeyondEnd { len: u64, available: usize },
    #[error("wire type {0} is not used by protocol buffers")]
    WireType(u8),
    #[error("field number 0")]
    FieldZero,
    #[error("field {field} has wire type {found}, expected {expected}")]
    FieldType { field: u64, expected: u8, found: u8 },
    #[error("piece {id} is not UTF-8")]
    NotUtf8 { id: usize },
    #[error("piece {id} has no text")]
    Empty { id: usize },
    #[error("the piece {piece:?} is there twice")]
    Duplicate { piece: String },
    #[error("piece {id} has the unknown type {found}")]
    PieceType { id: usize, found: u64 },
    #[error("{0} pieces of type UNKNOWN, there must be one")]
    Unknowns(usize),
    #[error("no pieces")]
    NoPieces,
}

fn describe(regexes: &Option<Vec<String>>) -> String {
    match regexes {
        Some(list) => format!("{list:?}"),
        None => "that cannot be read from tokenizer.json".into(),
    }
}

fn suggestion(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!(" (did you mean {}?)", nearest.join(", ")) }
}
