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
use special::SpecialVocab;
use vocabulary::{TokenType, Vocabulary, looks_special};

/// The largest vocabulary that is read or written; the largest in use has 262,400 tokens.
pub const MAX_TOKENS: usize = 1 << 22;

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
    let (model, pre) = match request.route {
        VocabRoute::Llama => out.llama(&mut files, request, given)?,
        VocabRoute::Bpe => out.bpe(&mut files, request, given)?,
    };
    let Pre { name, source, hash } = pre;
    let Output { metadata, warnings } = out;
    Ok(Tokenizer { metadata, model, pre: name.to_owned(), pre_source: source, pre_hash: hash, warnings })
}

/// `tokenizer.ggml.model` and `tokenizer.ggml.pre`.
type Names = (&'static str, Pre);

struct Output {
    metadata: Vec<(String, Value)>,
    warnings: Vec<String>,
}

impl Output {
    fn llama(&mut self, files: &mut Files, request: &Request, given: Option<&'static str>) -> Result<Names, TokenizerError> {
        if files.tokenizer_json.is_none() && files.dir.bytes("tekken.json")?.is_some() {
            return Err(TokenizerError::Unsupported {
                what: Unsupported::Tekken,
                supported: "tokenizer.json and tokenizer.model, both of which transformers can write",
            });
        }
        if let Some(config) = &files.tokenizer_config {
            match config.get("add_prefix_space") {
                None | Some(serde_json::Value::Null) => {}
                Some(&serde_json::Value::Bool(flag)) => set(&mut self.metadata, "tokenizer.ggml.add_space_prefix", flag),
                Some(other) => {
                    return Err(TokenizerError::Type {
                        file: "tokenizer_config.json",
                        key: "add_prefix_space".into(),
                        expected: "a boolean",
                        found: Kind::of(other),
                    });
                }
            }
            if config.get("tokenizer_class").and_then(serde_json::Value::as_str) == Some("HybridDNATokenizer") {
                return Err(TokenizerError::Unsupported {
                    what: Unsupported::Class("HybridDNATokenizer".into()),
                    supported: "byte-level BPE and SentencePiece tokenizers",
                });
            }
        }
        let kind = if let Some(model) = files.dir.bytes("tokenizer.model")? {
            let vocabulary = spm::vocabulary(files, &model, request.vocab_size, &mut self.warnings)?;
            self.sentencepiece_like(files, vocabulary, given)?
        } else if files.tokenizer_json.as_ref().is_some_and(byte_fallback::accepts) {
            let vocabulary = byte_fallback::vocabulary(files, &mut self.warnings)?;
            self.sentencepiece_like(files, vocabulary, given)?
        } else {
            self.bpe(files, request, given)?
        };
        // The converter takes these two numbers for Code Llama and for Granite's code models; SmolLM's 49,152 is caught, too.
        if request.vocab_size == 32016 {
            let mut special = SpecialVocab::load(files, &["prefix", "suffix", "middle", "eot"], false, None)?;
            for (kind, id) in [("prefix", 32007), ("suffix", 32008), ("middle", 32009), ("eot", 32010)] {
                special.set_id(kind, &id.into(), None, "Code Llama's vocabulary", kind)?;
            }
            special.write(&mut self.metadata);
        }
        if request.vocab_size == 49152 {
            set(&mut self.metadata, "tokenizer.ggml.add_bos_token", false);
        }
        Ok(kind)
    }

    fn sentencepiece_like(
        &mut self,
        files: &mut Files,
        vocabulary: Vocabulary,
        given: Option<&'static str>,
    ) -> Result<Names, TokenizerError> {
        if let Some(name) = given.filter(|&name| name != "default") {
            self.warnings.push(format!("--pre {name} is ignored: a SentencePiece vocabulary has no pre-tokenizer"));
        }
        let tokens = vocabulary.len();
        set(&mut self.metadata, "tokenizer.ggml.model", "llama");
        set(&mut self.metadata, "tokenizer.ggml.pre", "default");
        vocabulary.write(true, &mut self.metadata)?;
        self.special(files, false, Some(tokens))?;
        Ok(("llama", Pre { name: "default", source: PreSource::Fixed, hash: None }))
    }

    fn bpe(&mut self, files: &mut Files, request: &Request, given: Option<&'static str>) -> Result<Names, TokenizerError> {
        let found = bpe::vocabulary(files, request.vocab_size, given, &mut self.warnings)?;
        set(&mut self.metadata, "tokenizer.ggml.model", "gpt2");
        set(&mut self.metadata, "tokenizer.ggml.pre", found.pre.name);
        found.vocabulary.write(false, &mut self.metadata)?;
        self.special(files, true, None)?;
        Ok(("gpt2", found.pre))
    }

    fn special(&mut self, files: &mut Files, merges: bool, tokens: Option<usize>) -> Result<(), TokenizerError> {
        let mut special = SpecialVocab::load(files, special::KINDS, merges, tokens)?;
        self.warnings.append(&mut special.warnings);
        special.write(&mut self.metadata);
        Ok(())
    }
}

/// Append a key, or replace its value in place.
fn set(out: &mut Vec<(String, Value)>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    match out.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value,
        None => out.push((key.to_owned(), value)),
    }
}
