//! WordPiece, BERT's kind: words in lower case without accents, each cut into the longest tokens from left to right
//! (`llm_tokenizer_wpm_session` of llama-vocab.cpp).

use super::GgufTokenizerError;
use fancy_regex::Regex;
use ggufsmith_gguf::Metadata;
use std::collections::HashMap;
use tokenizers::NormalizedString;

/// How a text is normalized.
#[derive(Debug)]
pub(super) struct WordPiece {
    lowercase: bool,
    strip_accents: bool,
    unknown: Option<u32>,
    /// Bytes of the longest token.
    longest: usize,
    classes: Classes,
}

/// Classes of single characters.
#[derive(Debug)]
struct Classes {
    control: Regex,
    accent: Regex,
    punctuation: Regex,
    symbol: Regex,
}

impl Classes {
    fn new() -> Result<Self, GgufTokenizerError> {
        let class = |class: &str| {
            let cut = |e: fancy_regex::Error| GgufTokenizerError::Cut { pre: class.to_owned(), at: 0, message: e.to_string() };
            Regex::new(class).map_err(cut)
        };
        Ok(Classes {
            control: class(r"^[\p{Cc}\p{Cf}\p{Co}]$")?,
            accent: class(r"^\p{M}$")?,
            punctuation: class(r"^\p{P}$")?,
            symbol: class(r"^\p{S}$")?,
        })
    }
}

impl WordPiece {
    /// `longest`: bytes of the longest token.
    pub(super) fn new(metadata: &Metadata, tokens: usize, longest: usize) -> Result<Self, GgufTokenizerError> {
        let lowercase = metadata.lookup("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = metadata.lookup("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        let in_range = |id: &u32| (*id as usize) < tokens;
        let unknown = metadata.lookup("tokenizer.ggml.unknown_token_id")?.filter(in_range).or(Some(100).filter(in_range));
        Ok(WordPiece { lowercase, strip_accents, unknown, longest, classes: Classes::new()? })
    }

    /// Append the ids of a text in which there are no special tokens.
    pub(super) fn encode(&self, ids: &HashMap<String, u32>, text: &str, out: &mut Vec<u32>) -> Result<(), GgufTokenizerError> {
        for word in self.words(text)? {
            // Tokens that start a word are spelled with what stands for a space; it is a character of the word here.
            let word = format!("▁{word}");
            let start = out.len();
            if !self.word(ids, &word, out) {
                out.truncate(start);
                out.extend(self.unknown);
            }
        }
        Ok(())
    }

    /// Whether the whole word is made of tokens.
    fn word(&self, ids: &HashMap<String, u32>, word: &str, out: &mut Vec<u32>) -> bool {
        let mut at = 0;
        while at < word.len() {
            let longest = word.len().min(at + self.longest);
            let found = (at + 1..=longest).rev().filter_map(|end| Some((end, *ids.get(word.get(at..end)?)?))).next();
            let Some((end, id)) = found else { return false };
            out.push(id);
            at = end;
        }
        true
    }

    fn words(&self, text: &str) -> Result<Vec<String>, GgufTokenizerError> {
        let is = |class: &Regex, c: char| {
            let found = class.is_match(c.encode_utf8(&mut [0; 4]));
            found.map_err(|e| GgufTokenizerError::Cut { pre: "bert".to_owned(), at: 0, message: e.to_string() })
        };
        let (mut words, mut word) = (Vec::new(), String::new());
        let finish = |words: &mut Vec<String>, word: &mut String| {
            if !word.is_empty() {
                words.push(std::mem::take(word));
            }
        };
        for c in text.chars() {
            let c = if self.strip_accents { base(c) } else { c };
            if c.is_whitespace() {
                finish(&mut words, &mut word);
                continue;
            }
            if c == '\0' || c == '\u{fffd}' || is(&self.classes.control, c)? {
                continue;
            }
            if self.strip_accents && is(&self.classes.accent, c)? {
                continue;
            }
            let alone = is(&self.classes.punctuation, c)? || (c < '\x7f' && is(&self.classes.symbol, c)?) || is_chinese(c);
            // Where a character has several in lower case the engine takes the first.
            let c = if self.lowercase { c.to_lowercase().next().unwrap_or(c) } else { c };
            if alone {
                finish(&mut words, &mut word);
                words.push(c.to_string());
            } else {
                word.push(c);
            }
        }
        finish(&mut words, &mut word);
        Ok(words)
    }
}

/// The first character of the canonical decomposition: all that the engine's table has of it.
fn base(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let mut text = NormalizedString::from(c.encode_utf8(&mut [0; 4]) as &str);
    text.nfd();
    text.get().chars().next().unwrap_or(c)
}

/// Characters that are words of their own.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f | 0x2b920..=0x2ceaf
        | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, lowercase: bool, strip_accents: bool) -> Vec<String> {
        let classes = Classes::new().unwrap();
        WordPiece { lowercase, strip_accents, unknown: None, longest: 4, classes }.words(text).unwrap()
    }

    #[test]
    fn words_as_bert_cuts_them() {
        assert_eq!(words("Héllo,  wörld!\u{a0}x", true, true), ["hello", ",", "world", "!", "x"]);
        assert_eq!(words("Héllo \u{200d}a", false, false), ["Héllo", "a"]);
        assert_eq!(words("日本 a+b €1", true, true), ["日", "本", "a", "+", "b", "€1"]);
        assert_eq!(words("İ각", true, true), ["i\u{1100}"]);
        assert_eq!(words(" \n", true, true), Vec::<String>::new());
    }

    #[test]
    fn the_longest_token_first_or_none_at_all() {
        let ids: HashMap<String, u32> =
            [("▁un", 1), ("▁u", 2), ("do", 3), ("d", 4), ("▁", 5)].map(|(t, id)| (t.to_owned(), id)).into();
        let classes = Classes::new().unwrap();
        let tokenizer = WordPiece { lowercase: true, strip_accents: true, unknown: Some(9), longest: 5, classes };
        let mut out = Vec::new();
        tokenizer.encode(&ids, "undo undoe D", &mut out).unwrap();
        assert_eq!(out, [1, 3, 9, 5, 4]);
    }
}
