//! From the tokenizer files of a model to the `tokenizer.*` metadata.
//!
//! The reference is llama.cpp's converter together with transformers 4.57.6: what `AutoTokenizer` would load decides which tokens
//! there are, how they are typed and by which ids the pre-tokenizer is recognised. Three kinds of vocabulary come out:
//!
//! | source | `tokenizer.ggml.model` | module |
//! | --- | --- | --- |
//! | `tokenizer.model` (SentencePiece) | `llama` | `spm` |
//! | `tokenizer.json`, BPE with byte fallback | `llama` | `byte_fallback` |
//! | `tokenizer.json`, byte-level BPE | `gpt2` | `bpe` |
//!
//! Which of them is looked for first, and what a family adds, is a [`VocabRoute`] (module `routes`).
//!
//! Text becomes tokens on both sides: [`SourceTokenizer`] encodes as the source does, [`GgufTokenizer`] as llama.cpp does with nothing
//! but the metadata.
//!
//! Nothing here trusts a file: ids and counts are checked before anything is allocated by them, and the `tokenizers` library runs
//! where a panic is caught.

#![forbid(unsafe_code)]

mod arguments;
mod auto;
mod bpe;
mod byte_fallback;
mod chat;
mod classes;
mod engine;
mod error;
mod files;
mod gguf;
mod json;
mod pre;
mod python;
mod routes;
mod sentencepiece;
mod source;
mod special;
mod spm;
mod template;
mod vocabulary;
pub mod write;

pub use error::{SentencePieceDefect, TokenizerError, Unsupported};
pub use gguf::{GgufTokenizer, GgufTokenizerError, MAX_TEXT};
pub use json::Kind;
pub use pre::{PreSource, names as pre_tokenizers};
pub use source::SourceTokenizer;

use files::Files;
use ggufsmith_arch::VocabRoute;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::Value;
use pre::Pre;
use routes::Output;
use vocabulary::{TokenType, Vocabulary, looks_special};

/// The largest vocabulary that is read or written; the largest in use has 262,400 tokens.
pub const MAX_TOKENS: usize = 1 << 20;
/// The most merges that are read; the most in use are some 600,000.
const MAX_MERGES: usize = 1 << 21;

/// What is known of the model beside its tokenizer files.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where the vocabulary is looked for.
    pub route: VocabRoute,
    /// Embedding rows; 0 where config.json does not say.
    pub vocab_size: u64,
    /// config.json.
    pub config: &'a serde_json::Value,
    /// The user's `--pre NAME`.
    pub pre: Option<&'a str>,
}

/// A tokenizer as GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    /// The `tokenizer.*` keys in the order in which the converter writes them.
    pub metadata: Vec<(String, Value)>,
    /// `tokenizer.ggml.model`: `llama` or `gpt2`.
    pub model: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre: String,
    /// How [`Tokenizer::pre`] was found.
    pub pre_source: PreSource,
    /// By what the converter recognises the pre-tokenizer: SHA-256, in hex, of the ids of its reference text. `None` for
    /// SentencePiece vocabularies, and where the text could not be encoded.
    pub pre_hash: Option<String>,
    /// Notes for the summary.
    pub warnings: Vec<String>,
}

/// The `tokenizer.*` metadata of the model in `dir`.
///
/// # Errors
/// [`TokenizerError`]: a file is missing, damaged or inconsistent, the tokenizer is of a kind that is not supported, or its
/// pre-tokenizer is not known and [`Request::pre`] does not name one.
pub fn build(dir: &ModelDir, request: &Request) -> Result<Tokenizer, TokenizerError> {
    let given = request.pre.map(pre::given).transpose()?;
    if request.vocab_size > MAX_TOKENS as u64 {
        let limit = MAX_TOKENS as u64;
        return Err(TokenizerError::Limit { what: "vocab_size of config.json", count: request.vocab_size, limit });
    }
    let mut files = Files::read(dir, request)?;
    let mut out = Output { metadata: Vec::new(), warnings: Vec::new() };
    let (model, pre) = out.fill(&mut files, request, given)?;
    let Pre { name, source, hash } = pre;
    let Output { metadata, warnings } = out;
    Ok(Tokenizer { metadata, model, pre: name.to_owned(), pre_source: source, pre_hash: hash, warnings })
}

/// Append a key, or replace its value in place.
fn set(out: &mut Vec<(String, Value)>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    match out.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value,
        None => out.push((key.to_owned(), value)),
    }
}
