//! A tokenizer made of the metadata of a GGUF file alone, as llama.cpp 0.5.0 reads it (`src/llama-vocab.cpp`, `src/unicode.cpp`).
//!
//! | `tokenizer.ggml.model` | what it is | module |
//! | --- | --- | --- |
//! | `gpt2` | byte-level BPE: a pre-tokenizer cuts words, ranked merges join their bytes | `cut`, `bpe` |
//! | `llama` | SentencePiece's BPE: pieces merge by score, what is no piece becomes bytes | `pieces` |
//! | `gemma4` | ranked merges of characters, what is no token becomes bytes | `raw` |
//! | `bert` | WordPiece: the longest tokens from left to right | `wordpiece` |
//! | `t5` | Unigram: the tokens with the highest sum of scores | `unigram` |
//!
//! What the engine would read and then work wrongly with (scores that are missing, two tokens of one text, a BOS out of range) is an
//! error here; other special ids out of range are ignored, as they are there.

mod bpe;
mod bytes;
mod cut;
mod error;
mod kind;
mod kinds;
mod partition;
mod pieces;
mod prefixes;
mod raw;
mod unigram;
mod wordpiece;

pub use error::GgufTokenizerError;

use crate::MAX_TOKENS;
use ggufsmith_gguf::Metadata;
use kind::{Defaults, Kind};
use partition::{Part, Specials};
use std::collections::{BTreeSet, HashMap};

/// Bytes of the longest text that is encoded at once.
pub const MAX_TEXT: usize = 1 << 30;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const CHAT: &str = "tokenizer.chat_template";

/// Text to tokens and back, from GGUF metadata.
#[derive(Debug)]
pub struct GgufTokenizer {
    tokens: Vec<String>,
    attributes: Vec<u8>,
    ids: HashMap<String, u32>,
    specials: Specials,
    kind: Kind,
    bos: Option<u32>,
    eos: Option<u32>,
    end: BTreeSet<u32>,
    add_bos: bool,
    add_eos: bool,
    chat_template: Option<String>,
}

impl GgufTokenizer {
    /// The tokenizer that the `tokenizer.*` keys describe.
    ///
    /// # Errors
    /// [`GgufTokenizerError`], naming the key: one is missing, of another type, inconsistent with the others, or names a kind of
    /// tokenizer that is not supported.
    pub fn new(metadata: &Metadata) -> Result<Self, GgufTokenizerError> {
        let tokens = tokens(metadata)?;
        let count = tokens.len();
        let mut attributes = attributes(metadata, &tokens)?;
        let ids = index(&tokens)?;

        let defaults = Defaults::new(metadata, &tokens, &attributes, &ids)?;
        let in_range = |id: &u32| (*id as usize) < count;
        let bos = id(metadata, BOS, count)?.or(defaults.bos.filter(in_range));
        let eos = id(metadata, EOS, count)?.or(defaults.eos.filter(in_range));
        let eot = metadata.lookup("tokenizer.ggml.eot_token_id")?.filter(in_range);
        let eom = metadata.lookup("tokenizer.ggml.eom_token_id")?.filter(in_range);
        let end = kinds::end_of_generation(metadata, &ids, &mut attributes, &[eos, eot, eom])?;
        // Which tokens are looked for is settled before white space is: the engine's order.
        kinds::strip(metadata, &defaults.pre, &ids, &mut attributes);
        let specials = Specials::new(&tokens, &attributes);
        Ok(GgufTokenizer {
            specials,
            kind: defaults.kind,
            bos,
            eos,
            end,
            add_bos: metadata.lookup("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos) || defaults.always_bos,
            add_eos: metadata.lookup("tokenizer.ggml.add_eos_token")?.unwrap_or(defaults.add_eos),
            chat_template: metadata.lookup::<&str>(CHAT)?.map(str::to_owned),
            tokens,
            attributes,
            ids,
        })
    }

    /// The ids of a text, without BOS and EOS. `parse_special`: whether control tokens that the text spells out are recognised;
    /// user-defined ones always are. (`llama-perplexity` does not, `llama-completion` does.)
    ///
    /// # Errors
    /// [`GgufTokenizerError::NoByte`], [`GgufTokenizerError::Cut`] and [`GgufTokenizerError::Text`]: the text cannot be encoded.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, GgufTokenizerError> {
        if text.len() > MAX_TEXT {
            return Err(GgufTokenizerError::Text { bytes: text.len(), limit: MAX_TEXT });
        }
        let mut out = Vec::with_capacity(text.len() / 3);
        let mut first = true;
        for part in self.specials.split(text, parse_special) {
            match part {
                Part::Token(id) => {
                    out.push(id);
                    first = true;
                }
                Part::Text(range) => {
                    self.kind.encode(&self.ids, &text[range], first, &mut out)?;
                    first = false;
                }
            }
        }
        Ok(out)
    }

    /// The text of ids, with the replacement character where bytes are no UTF-8. `special`: whether control tokens are spelled out
    /// or left out. The space that a SentencePiece tokenizer puts in front of a text is removed again.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            let hidden = self.attribute(id) & (kinds::CONTROL | kinds::UNKNOWN) != 0;
            if special || !hidden {
                bytes.extend(self.token_bytes(id));
            }
        }
        let prefixed = self.kind.prefixes_space()
            && ids.first().is_some_and(|&id| self.attribute(id) & (kinds::NORMAL | kinds::BYTE) != 0)
            && bytes.first() == Some(&b' ');
        String::from_utf8_lossy(&bytes[usize::from(prefixed)..]).into_owned()
    }

    /// The bytes that a token stands for, control tokens spelled out; no bytes for an unused token, or an id that there is none of.
    /// Characters may be spread over several tokens.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.token(id) else { return Vec::new() };
        let attribute = self.attribute(id);
        if kinds::is_special(attribute) {
            text.as_bytes().to_vec()
        } else if attribute & kinds::BYTE != 0 {
            bytes::fallback(text).into_iter().collect()
        } else if attribute & kinds::NORMAL == 0 {
            Vec::new()
        } else {
            self.kind.bytes(text)
        }
    }

    /// The text of a token as it stands in the file.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The id of a token by its text as it stands in the file.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Tokens that are recognised in texts, in the order of their ids. `control`: those that only `parse_special` recognises, too.
    pub fn special_tokens(&self, control: bool) -> impl Iterator<Item = (u32, &str)> {
        let wanted = if control { kinds::CONTROL | kinds::UNKNOWN | kinds::USER_DEFINED } else { kinds::USER_DEFINED };
        let hidden = if control { 0 } else { kinds::CONTROL | kinds::UNKNOWN };
        let all = self.tokens.iter().zip(&self.attributes).zip(0u32..);
        all.filter(move |((_, a), _)| **a & wanted != 0 && **a & hidden == 0).map(|((text, _), id)| (id, text.as_str()))
    }

    /// Begin of sequence: the file's, else the engine's default for this kind (1, 11 or 101), where there is such a token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of sequence: the file's, else the engine's default for this kind (1, 2 or 11), where there is such a token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Tokens that end a generation, ascending: eos, end of turn, end of message, and those that the engine knows by their text.
    pub fn end_of_generation(&self) -> Vec<u32> {
        self.end.iter().copied().collect()
    }

    /// Whether the engine puts BOS in front of a prompt.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the engine puts EOS behind a text.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: a vocabulary without tokens is refused.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// `tokenizer.chat_template`.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    fn attribute(&self, id: u32) -> u8 {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }
}

fn tokens(metadata: &Metadata) -> Result<Vec<String>, GgufTokenizerError> {
    let tokens: &[String] = metadata.require(TOKENS)?;
    if tokens.is_empty() {
        return Err(GgufTokenizerError::Empty { key: TOKENS });
    }
    if tokens.len() > MAX_TOKENS {
        return Err(GgufTokenizerError::Limit { key: TOKENS, count: tokens.len(), limit: MAX_TOKENS });
    }
    let named = |(at, token): (usize, &String)| if token.is_empty() { format!("[EMPTY_{at}]") } else { token.clone() };
    Ok(tokens.iter().enumerate().map(named).collect())
}

/// One attribute a token; without `token_type` all are normal.
fn attributes(metadata: &Metadata, tokens: &[String]) -> Result<Vec<u8>, GgufTokenizerError> {
    let Some(types) = metadata.lookup::<&[i32]>(TYPES)? else { return Ok(vec![kinds::NORMAL; tokens.len()]) };
    same_length(TYPES, types.len(), tokens.len())?;
    let attributes =
        types.iter().enumerate().map(|(id, &number)| kinds::from_type(id, number)).collect::<Result<Vec<u8>, _>>()?;
    let mut bytes = attributes.iter().zip(tokens).enumerate().filter(|(_, (attribute, _))| **attribute == kinds::BYTE);
    match bytes.find(|(_, (_, token))| bytes::fallback(token).is_none()) {
        Some((id, (_, token))) => Err(GgufTokenizerError::Byte { id, found: token.clone() }),
        None => Ok(attributes),
    }
}

fn index(tokens: &[String]) -> Result<HashMap<String, u32>, GgufTokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (token, id) in tokens.iter().zip(0u32..) {
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(GgufTokenizerError::Duplicate { token: token.clone(), first: first as usize, second: id as usize });
        }
    }
    Ok(ids)
}

fn same_length(key: &'static str, found: usize, expected: usize) -> Result<(), GgufTokenizerError> {
    if found == expected { Ok(()) } else { Err(GgufTokenizerError::Length { key, found, expected }) }
}

/// The token id that a key holds.
fn id(metadata: &Metadata, key: &'static str, tokens: usize) -> Result<Option<u32>, GgufTokenizerError> {
    let id = metadata.lookup(key)?;
    match id {
        Some(id) if id as usize >= tokens => Err(GgufTokenizerError::Id { key, id, tokens }),
        id => Ok(id),
    }
}
