//! Text to tokens on both sides.
//!
//! Two questions. *Are the keys the source's?* The `tokenizer.*` metadata is derived from the source again and compared entry by
//! entry: a merge that no text of ours needs is found all the same. *Do both sides encode alike?* Three texts go through the file's
//! tokenizer, which is llama.cpp's reading of its metadata, and through the source's, which is what transformers loads.
//!
//! llama.cpp does not do everything that `tokenizers` does. What it leaves out whatever the file says is not the file's fault; these
//! texts are then not compared, and the summary says so:
//! - it normalizes nothing: `decomposed.txt` has accents apart from their letters, which NFC (Qwen, for one) joins;
//! - some of its pre-tokenizers have no classes for upper and lower case and for combining marks (`ROUGH`): `marks.txt` has both.
//!
//! Text behind a special token is not compared: llama.cpp puts a space there for every SentencePiece vocabulary, transformers only for
//! those saved with `legacy`. Special tokens stand at the end of the text, one behind the other.
//!
//! The text has no two U+2581 in a row: transformers finds user-defined pieces of a tokenizer.model in the text as it is written,
//! where "▁▁" is not two spaces.
//!
//! What is compared although llama.cpp is known to do it otherwise, since the model then gets other tokens than it was trained on: the
//! merges of a tokenizer.json with byte fallback and without tokenizer.model (the converter gives all pieces one score), and spaces
//! that `add_prefix_space` puts in front of byte-level BPE.

mod compare;

use crate::report::{Check, Status};
use compare::grouped;
use ggufsmith_checkpoint::ModelDir;
use ggufsmith_gguf::Metadata;
use ggufsmith_tokenizer::{GgufTokenizer, GgufTokenizerError, Request, SourceTokenizer, TokenizerError, build};

const STRESS: &str = include_str!("stress.txt");
const MARKS: &str = include_str!("marks.txt");
const DECOMPOSED: &str = include_str!("decomposed.txt");

/// Pre-tokenizers whose expressions in llama.cpp are rougher than the original ones.
const ROUGH: [&str; 7] = ["gpt-4o", "granite-embed-multi-97m", "kanana2", "llama4", "minimax-m2", "talkie", "tekken"];
/// Special tokens at the end of the text.
const MAX_SPECIALS: usize = 1000;
/// Characters shown on either side of a difference.
const AROUND: usize = 24;

/// The source's tokenizer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files are missing, damaged or of a kind that is not converted.
    #[error("the source's tokenizer: {0}")]
    Source(#[from] TokenizerError),
}

/// Whether the tokenizer in `gguf` is that of the model in `source_dir`. `request`: as for the conversion.
///
/// The check is [`Status::Skipped`] where nothing is wrong with the keys but text cannot be encoded on one of the sides.
///
/// # Errors
/// [`Error::Source`]: the source has no tokenizer that could be compared.
pub fn check(source_dir: &ModelDir, request: &Request, gguf: &Metadata) -> Result<Check, Error> {
    let mut notes = Vec::new();
    let named = gguf.lookup::<&str>("tokenizer.ggml.pre").ok().flatten();
    let source = match build(source_dir, request) {
        // Of an unknown pre-tokenizer the file has to say what it is; whether that is right is seen where both sides encode.
        Err(TokenizerError::UnknownPre { .. }) if named.is_some() && request.pre.is_none() => {
            notes.push(format!(
                "the pre-tokenizer {:?} is taken from the file: the source's is not a known one",
                named.unwrap_or_default()
            ));
            match build(source_dir, &Request { pre: named, ..*request }) {
                Err(TokenizerError::NoSuchPre { .. }) => build(source_dir, request),
                other => other,
            }
        }
        other => other,
    }?;
    let mut metadata = Metadata::new();
    metadata.extend(source.metadata.iter().cloned());
    let mut problems = compare::differences(&source.metadata, GgufTokenizer::new(&metadata).ok().as_ref(), gguf);

    let skipped = match encode(source_dir, request, gguf) {
        Ok(found) => {
            problems.extend(found.problem);
            notes.extend(found.notes);
            None
        }
        Err(Hindrance::File(error)) => {
            problems.push(error.to_string());
            None
        }
        Err(Hindrance::Unsupported(reason)) => Some(reason),
        Err(Hindrance::Source(error)) => return Err(error.into()),
    };
    let keys = format!("{} tokenizer keys", grouped(source.metadata.len()));
    let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
    let (status, summary) = match (problems.len(), skipped) {
        (0, None) => (Status::Passed, format!("{keys} are the source's, and both sides encode alike{notes}")),
        (0, Some(reason)) => (Status::Skipped, format!("{keys} are the source's, but text was not encoded: {reason}{notes}")),
        (1, _) => (Status::Failed, format!("1 difference to the source's tokenizer{notes}")),
        (n, _) => (Status::Failed, format!("{} differences to the source's tokenizer{notes}", grouped(n))),
    };
    Ok(Check { name: "tokenizer".into(), status, summary, problems })
}

/// What encoding on both sides came to.
struct Encoded {
    problem: Option<String>,
    notes: Vec<String>,
}

/// Why text cannot be encoded.
enum Hindrance {
    /// The file's tokenizer is damaged.
    File(GgufTokenizerError),
    /// One of the sides is of a kind that is not encoded by.
    Unsupported(String),
    /// The source's tokenizer fails.
    Source(TokenizerError),
}

impl From<TokenizerError> for Hindrance {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::Unsupported { .. } | TokenizerError::Limit { .. } => Hindrance::Unsupported(error.to_string()),
            other => Hindrance::Source(other),
        }
    }
}

impl From<GgufTokenizerError> for Hindrance {
    fn from(error: GgufTokenizerError) -> Self {
        match error {
            GgufTokenizerError::Unsupported { .. } | GgufTokenizerError::NoByte { .. } => {
                Hindrance::Unsupported(error.to_string())
            }
            other => Hindrance::File(other),
        }
    }
}

fn encode(source_dir: &ModelDir, request: &Request, gguf: &Metadata) -> Result<Encoded, Hindrance> {
    let file = GgufTokenizer::new(gguf)?;
    let source = SourceTokenizer::new(source_dir, request)?;
    let pre = gguf.lookup::<&str>("tokenizer.ggml.pre").ok().flatten().unwrap_or_default();
    let mut notes = Vec::new();
    let specials = file.special_tokens(true).take(MAX_SPECIALS).map(|(_, text)| text);
    let mut texts = vec![STRESS.to_owned() + &specials.collect::<String>()];
    if ROUGH.contains(&pre) {
        notes.push(format!("llama.cpp's {pre} has no classes for case and combining marks: not compared"));
    } else {
        texts.push(MARKS.to_owned());
    }
    // Only what normalizes makes the same of both.
    if source.encode("e\u{301}", false)? == source.encode("\u{e9}", false)? {
        notes.push("llama.cpp does not normalize text as the source does: decomposed characters were not compared".to_owned());
    } else {
        texts.push(DECOMPOSED.to_owned());
    }
    for text in texts {
        let (ours, theirs) = (file.encode(&text, true)?, source.encode(&text, false)?);
        if let Some(problem) = difference(&text, &file, &ours, &source, &theirs) {
            return Ok(Encoded { problem: Some(problem), notes });
        }
    }
    Ok(Encoded { problem: None, notes })
}

/// The first token in which the two sides differ.
fn difference(text: &str, file: &GgufTokenizer, ours: &[u32], source: &SourceTokenizer, theirs: &[u32]) -> Option<String> {
    let at = (0..ours.len().max(theirs.len())).find(|&at| ours.get(at) != theirs.get(at))?;
    let position = file.decode(&ours[..at], true).chars().count();
    let quoted = |from: usize, to: usize| text.chars().skip(from).take(to - from).collect::<String>();
    let (before, behind) = (quoted(position.saturating_sub(AROUND), position), quoted(position, position + AROUND));
    let name = |id: Option<&u32>, token: Option<String>| match (id, token) {
        (Some(id), Some(token)) => format!("{id} ({token:?})"),
        (Some(id), None) => format!("{id}, which is no token"),
        (None, _) => "no more tokens".to_owned(),
    };
    let theirs = name(theirs.get(at), theirs.get(at).and_then(|&id| source.token(id)));
    let ours = name(ours.get(at), ours.get(at).and_then(|&id| file.token(id)).map(str::to_owned));
    Some(format!("between {before:?} and {behind:?} (token {at} of the test text) the source has {theirs}, the file {ours}"))
}
