//! From the `tokenizer.*` metadata of a GGUF file back to the tokenizer files of a model directory.
//!
//! | `tokenizer.ggml.model` | files | module |
//! | --- | --- | --- |
//! | `gpt2`: byte-level BPE | tokenizer.json | `bpe` |
//! | `llama`: SentencePiece's BPE | tokenizer.json, and tokenizer.model where the scores are known | `spm` |
//!
//! and for both tokenizer_config.json and special_tokens_map.json. What the files say is what [`crate::build`] would read the same
//! metadata from again; what transformers makes of them gives the ids of the model's own tokenizer.

mod bpe;
mod files;
mod rules;
mod spm;

use crate::MAX_TOKENS;
use crate::vocabulary::TokenType;
use ggufsmith_gguf::{LookupError, Metadata, Value};

/// The files of a tokenizer, and what config.json says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Names and contents, in the order of their names.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Ids by their role in config.json and generation_config.json (`bos_token_id`, ...), where the file has them.
    pub ids: Vec<(&'static str, u32)>,
    /// The end of a turn, where the file names one that is not the end of the text.
    pub eot: Option<u32>,
    /// Notes for the summary.
    pub warnings: Vec<String>,
}

/// Why no tokenizer files can be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("a tokenizer of the kind {model:?} (tokenizer.ggml.model); {} can be written", known.join(" and "))]
    Model { model: String, known: &'static [&'static str] },
    #[error("the pre-tokenizer {pre:?} (tokenizer.ggml.pre) has rules that are not known as regular expressions")]
    Pre { pre: String },
    #[error("{key} has {found} entries for {tokens} tokens")]
    Length { key: &'static str, found: usize, tokens: usize },
    #[error("{count} tokens; at most {limit} are read")]
    Limit { count: usize, limit: usize },
    #[error("tokenizer.ggml.token_type says {found} for token {id}, which is no type")]
    Type { id: usize, found: i32 },
    #[error("tokenizer.ggml.merges, entry {index}: {text:?} is no pair of tokens")]
    Merge { index: usize, text: String },
    #[error("tokens {first} and {second} have the same text {text:?}")]
    Duplicate { first: usize, second: usize, text: String },
}

/// The tokenizer files that give this metadata; `None` where the file has no tokenizer.
///
/// # Errors
/// [`WriteError`]: the tokenizer is of another kind, its pre-tokenizer is not known, or keys are missing or contradict each other.
pub fn write(metadata: &Metadata) -> Result<Option<Written>, WriteError> {
    const KNOWN: &[&str] = &["gpt2", "llama"];
    match metadata.lookup::<&str>("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => Ok(None),
        Some("gpt2") => bpe::write(&Source::read(metadata)?).map(Some),
        Some("llama") => spm::write(&Source::read(metadata)?).map(Some),
        Some(other) => Err(WriteError::Model { model: other.to_owned(), known: KNOWN }),
    }
}

/// Score that llama.cpp's converter gives to a token which the SentencePiece model does not know.
const ADDED_SCORE: f32 = -1000.0;

/// The metadata, as far as both kinds need it. Slices are of one length.
#[derive(Debug)]
struct Source<'a> {
    metadata: &'a Metadata,
    tokens: &'a [String],
    types: Vec<TokenType>,
    scores: Option<&'a [f32]>,
    roles: Vec<Role<'a>>,
    warnings: Vec<String>,
}

/// A special token with a role.
#[derive(Debug, Clone, Copy)]
struct Role<'a> {
    /// As in tokenizer_config.json: `bos_token`.
    name: &'static str,
    /// As in config.json: `bos_token_id`.
    id_name: &'static str,
    id: u32,
    text: &'a str,
    /// Whether tokenizer_config.json gave it; else config.json did.
    named: bool,
}

/// Roles by their key below `tokenizer.ggml.`, in the order in which the converter looks for them.
const ROLES: [(&str, &str, &str); 6] = [
    ("bos_token_id", "bos_token", "bos_token_id"),
    ("eos_token_id", "eos_token", "eos_token_id"),
    ("unknown_token_id", "unk_token", "unk_token_id"),
    ("seperator_token_id", "sep_token", "sep_token_id"),
    ("padding_token_id", "pad_token", "pad_token_id"),
    ("mask_token_id", "mask_token", "mask_token_id"),
];

/// A token that text is searched for before anything else happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Added<'a> {
    id: usize,
    text: &'a str,
    special: bool,
    /// Searched for after the text was normalized. Where nothing is normalized it makes no difference, but the converter decodes
    /// the others first, so that bytes spelled as letters would be taken for bytes.
    normalized: bool,
}

impl<'a> Source<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, WriteError> {
        let tokens = metadata.require::<&[String]>("tokenizer.ggml.tokens")?;
        if tokens.len() > MAX_TOKENS {
            return Err(WriteError::Limit { count: tokens.len(), limit: MAX_TOKENS });
        }
        let length = |key, found: usize| match found == tokens.len() {
            true => Ok(()),
            false => Err(WriteError::Length { key, found, tokens: tokens.len() }),
        };
        let types = match metadata.lookup::<&[i32]>("tokenizer.ggml.token_type")? {
            None => vec![TokenType::Normal; tokens.len()],
            Some(types) => {
                length("tokenizer.ggml.token_type", types.len())?;
                let known = |(id, &found): (usize, &i32)| token_type(found).ok_or(WriteError::Type { id, found });
                types.iter().enumerate().map(known).collect::<Result<_, _>>()?
            }
        };
        let scores = metadata.lookup::<&[f32]>("tokenizer.ggml.scores")?;
        scores.map_or(Ok(()), |scores| length("tokenizer.ggml.scores", scores.len()))?;
        let mut source = Source { metadata, tokens, types, scores, roles: Vec::new(), warnings: Vec::new() };
        // It goes through tokenizer_config.json first and through config.json then, so what is out of order comes from there.
        let mut first_later = usize::MAX;
        for (key, name, id_name) in ROLES.into_iter().rev() {
            if let Some((id, text)) = source.token_of(key)? {
                let place = source.place(&format!("tokenizer.ggml.{key}")).unwrap_or_default();
                source.roles.push(Role { name, id_name, id, text, named: place < first_later });
                first_later = first_later.min(place);
            }
        }
        source.roles.reverse();
        Ok(source)
    }

    /// The token that a key below `tokenizer.ggml.` names; one beyond the vocabulary is left out, as the engine does.
    fn token_of(&mut self, key: &str) -> Result<Option<(u32, &'a str)>, WriteError> {
        let full = format!("tokenizer.ggml.{key}");
        let Some(id) = self.metadata.lookup::<u32>(&full)? else { return Ok(None) };
        let found = self.tokens.get(id as usize).map(|text| (id, text.as_str()));
        if found.is_none() {
            self.warnings.push(format!("{full} is {id}, the vocabulary has {} tokens: left out", self.tokens.len()));
        }
        Ok(found)
    }

    fn role(&self, name: &str) -> Option<Role<'a>> {
        self.roles.iter().find(|role| role.name == name).copied()
    }

    /// Whether a token stands for no text: an id that pads the vocabulary to the rows of the embedding.
    fn is_padding(&self, id: usize) -> bool {
        self.types[id] == TokenType::Unused && self.tokens[id] == format!("[PAD{id}]")
    }

    /// The added tokens by id.
    fn added(&self) -> Vec<Added<'a>> {
        let tokens = self.types.iter().zip(self.tokens).enumerate();
        let special = |kind: &TokenType| match kind {
            TokenType::Control | TokenType::Unknown => Some(true),
            TokenType::UserDefined => Some(false),
            TokenType::Normal | TokenType::Unused | TokenType::Byte => None,
        };
        let normalized = |text: &str| self.scores.is_none() && !text.is_ascii();
        tokens
            .filter_map(|(id, (kind, text))| Some(Added { id, text, special: special(kind)?, normalized: normalized(text) }))
            .collect()
    }

    /// `add_bos_token` and its like.
    fn flag(&self, key: &str) -> Result<Option<bool>, WriteError> {
        Ok(self.metadata.lookup::<bool>(&format!("tokenizer.ggml.{key}"))?)
    }

    /// Where a key stands among the others.
    fn place(&self, key: &str) -> Option<usize> {
        self.metadata.iter().position(|(found, _)| found == key)
    }

    /// Two ids of one text would become one in a JSON object.
    fn check_unique(&self, ids: impl Iterator<Item = usize>) -> Result<(), WriteError> {
        let mut seen = std::collections::HashMap::with_capacity(self.tokens.len());
        for second in ids {
            let text = &self.tokens[second];
            if let Some(first) = seen.insert(text.as_str(), second) {
                return Err(WriteError::Duplicate { first, second, text: text.clone() });
            }
        }
        Ok(())
    }
}

fn token_type(number: i32) -> Option<TokenType> {
    use TokenType::{Byte, Control, Normal, Unknown, Unused, UserDefined};
    // Files from before types were written say 0.
    if number == 0 {
        return Some(Normal);
    }
    [Normal, Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|kind| *kind as i32 == number)
}

/// The default chat template, and others as names and texts.
type ChatTemplates<'a> = (Option<&'a str>, Vec<(&'a str, &'a str)>);

fn chat_templates(metadata: &Metadata) -> Result<ChatTemplates<'_>, WriteError> {
    let default = metadata.lookup::<&str>("tokenizer.chat_template")?;
    let mut named = Vec::new();
    if let Some(Value::Array(_)) = metadata.get("tokenizer.chat_templates") {
        for name in metadata.require::<&[String]>("tokenizer.chat_templates")? {
            if let Some(text) = metadata.lookup::<&str>(&format!("tokenizer.chat_template.{name}"))? {
                named.push((name.as_str(), text));
            }
        }
    }
    Ok((default, named))
}
