//! The kinds of tokenizers: what `tokenizer.ggml.model` says.

use super::bpe::{Bpe, Merges};
use super::cut::Cut;
use super::pieces::{Found, Pieces};
use super::unigram::Unigram;
use super::wordpiece::WordPiece;
use super::{GgufTokenizerError, MODEL, PRE, SCORES, bytes, raw, same_length};
use ggufsmith_gguf::{Array, Metadata, Value};
use std::collections::HashMap;

/// Tokens of single bytes.
type Bytes = Box<[Option<u32>; 256]>;

#[derive(Debug)]
pub(super) enum Kind {
    Bpe(Box<Bpe>),
    Raw { merges: Merges, bytes: Bytes, newlines: bool },
    Llama { scores: Vec<f32>, longest: usize, space_prefix: bool, bytes: Bytes },
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
}

/// A kind, and what the engine assumes where the file is silent.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) kind: Kind,
    pub(super) pre: String,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// BOS is added even where the file says that it is not.
    pub(super) always_bos: bool,
}

/// Names of pre-tokenizers for BPE on characters as they are, and whether a run of newlines that is a token is taken as it is.
const RAW: [(&str, bool); 3] = [("gemma4", true), ("granite-embed-multi-311m", true), ("sarvam-moe", false)];

impl Defaults {
    /// By the keys of the file. `ids`: ids of `tokens`; `attributes`: one for each of them.
    pub(super) fn new(
        metadata: &Metadata,
        tokens: &[String],
        attributes: &[u8],
        ids: &HashMap<String, u32>,
    ) -> Result<Self, GgufTokenizerError> {
        let plain = |kind, bos, eos| Defaults {
            kind,
            pre: "default".to_owned(),
            bos,
            eos,
            add_bos: false,
            add_eos: false,
            always_bos: false,
        };
        // `tokens` has no more than MAX_TOKENS.
        let count = tokens.len() as u32;
        let longest = tokens.iter().map(String::len).max().unwrap_or_default();
        let merges = || metadata.require::<&[String]>("tokenizer.ggml.merges");
        match metadata.require(MODEL)? {
            "gpt2" => {
                let pre = metadata.lookup(PRE)?.filter(|pre: &&str| !pre.is_empty()).unwrap_or("default");
                if let Some(kind) = raw_kind(pre, ids, count, merges)? {
                    return Ok(Defaults { pre: pre.to_owned(), ..raw_defaults(kind, pre, Some(11)) });
                }
                let cut = Cut::new(pre)?;
                let add_bos = cut.add_bos;
                let bos = if cut.no_bos { None } else { Some(11) };
                let kind = Kind::Bpe(Box::new(Bpe::new(cut, ids, count, merges()?)?));
                Ok(Defaults { add_bos, pre: pre.to_owned(), ..plain(kind, bos, Some(11)) })
            }
            "gemma4" => {
                // The engine does not look at the file's name for it.
                let pre = "gemma4";
                let kind = raw_kind(pre, ids, count, merges)?.ok_or_else(|| unsupported(pre))?;
                Ok(raw_defaults(kind, pre, None))
            }
            "llama" => {
                let scores = scores(metadata, tokens.len())?;
                let bytes = std::array::from_fn(|byte| {
                    let one = char::from(byte as u8).to_string();
                    // A token that is the byte itself serves, too; beyond ASCII none can be.
                    byte_token(ids, byte).or_else(|| ids.get(&one).copied().filter(|_| byte < 0x80))
                });
                let space_prefix = metadata.lookup("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                let kind = Kind::Llama { scores, longest, space_prefix, bytes: Box::new(bytes) };
                Ok(Defaults { add_bos: true, ..plain(kind, Some(1), Some(2)) })
            }
            "bert" => {
                let kind = Kind::WordPiece(Box::new(WordPiece::new(metadata, tokens.len(), longest)?));
                Ok(Defaults { add_bos: true, ..plain(kind, Some(101), None) })
            }
            "t5" => {
                let scores = scores(metadata, tokens.len())?;
                let kind = Kind::Unigram(Box::new(Unigram::new(metadata, tokens, attributes, &scores)?));
                Ok(Defaults { add_eos: true, ..plain(kind, None, Some(1)) })
            }
            other => Err(unsupported(other)),
        }
    }
}

fn unsupported(found: &str) -> GgufTokenizerError {
    let supported =
        "gpt2 (byte-level BPE), llama (SentencePiece), gemma4 (BPE with byte tokens), bert (WordPiece) and t5 (Unigram)"
            .to_owned();
    GgufTokenizerError::Unsupported { key: MODEL, found: found.to_owned(), supported }
}

fn raw_kind<'m>(
    pre: &str,
    ids: &HashMap<String, u32>,
    count: u32,
    merges: impl FnOnce() -> Result<&'m [String], ggufsmith_gguf::LookupError>,
) -> Result<Option<Kind>, GgufTokenizerError> {
    let Some(&(_, newlines)) = RAW.iter().find(|(name, _)| *name == pre) else { return Ok(None) };
    let merges = Merges::new(ids, count, merges()?, [])?;
    let bytes = Box::new(std::array::from_fn(|byte| byte_token(ids, byte)));
    Ok(Some(Kind::Raw { merges, bytes, newlines }))
}

fn raw_defaults(kind: Kind, pre: &str, id: Option<u32>) -> Defaults {
    let always_bos = RAW.iter().any(|(name, newlines)| *name == pre && *newlines);
    Defaults { kind, pre: pre.to_owned(), bos: id, eos: id, add_bos: always_bos, add_eos: false, always_bos }
}

fn byte_token(ids: &HashMap<String, u32>, byte: usize) -> Option<u32> {
    ids.get(&format!("<0x{byte:02X}>")).copied()
}

fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, GgufTokenizerError> {
    let scores: Vec<f32> = match metadata.get(SCORES) {
        Some(Value::Array(Array::I32(scores))) => scores.iter().map(|&score| score as f32).collect(),
        _ => metadata.require::<&[f32]>(SCORES)?.to_vec(),
    };
    same_length(SCORES, scores.len(), tokens)?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(id) => Err(GgufTokenizerError::Score { id }),
        None => Ok(scores),
    }
}

impl Kind {
    /// Append the ids of a part of a text in which there are no special tokens. `first`: it stands at the start, or behind a special
    /// token.
    pub(super) fn encode(
        &self,
        ids: &HashMap<String, u32>,
        text: &str,
        first: bool,
        out: &mut Vec<u32>,
    ) -> Result<(), GgufTokenizerError> {
        match self {
            Kind::Bpe(bpe) => bpe.encode(text, ids, out),
            Kind::Raw { merges, bytes, newlines } => {
                raw::encode(merges, ids, bytes, *newlines, &text.replace(' ', "▁"), out);
                Ok(())
            }
            Kind::Llama { scores, longest, space_prefix, bytes } => {
                let mut escaped = String::with_capacity(text.len() + 3);
                if *space_prefix && first {
                    escaped.push('▁');
                }
                escaped.push_str(&text.replace(' ', "▁"));
                encode_pieces(&Pieces { ids, scores, longest: *longest }, bytes, &escaped, out)
            }
            Kind::WordPiece(tokenizer) => tokenizer.encode(ids, text, out),
            Kind::Unigram(tokenizer) => tokenizer.encode(text, out),
        }
    }

    /// Whether a space is put in front of a text, which decoding takes away again.
    pub(super) fn prefixes_space(&self) -> bool {
        matches!(self, Kind::Llama { space_prefix: true, .. })
    }

    /// The bytes of a normal token by its text.
    pub(super) fn bytes(&self, text: &str) -> Vec<u8> {
        let Kind::Bpe(_) = self else { return text.replace('▁', " ").into_bytes() };
        let mut out = Vec::with_capacity(text.len());
        for c in text.chars() {
            match bytes::byte(c) {
                Some(byte) => out.push(byte),
                None => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        out
    }
}

/// Append the ids of an escaped text, by bytes where a character is no piece.
fn encode_pieces(pieces: &Pieces, bytes: &[Option<u32>; 256], text: &str, out: &mut Vec<u32>) -> Result<(), GgufTokenizerError> {
    let mut missing = None;
    pieces.encode(text, |found| match found {
        Found::Piece(id) => out.push(id),
        Found::Unknown(c) => {
            for byte in c.bytes() {
                match bytes[usize::from(byte)] {
                    Some(id) => out.push(id),
                    None => missing = missing.or(Some(byte)),
                }
            }
        }
    });
    missing.map_or(Ok(()), |byte| Err(GgufTokenizerError::NoByte { byte }))
}
