//! Unigram, T5's kind: of all ways to cut a normalized text into tokens the one with the highest sum of scores
//! (`llm_tokenizer_ugm_session` of llama-vocab.cpp).

use super::GgufTokenizerError;
use super::kinds::{NORMAL, UNUSED, USER_DEFINED};
use super::prefixes::Prefixes;
use ggufsmith_gguf::{Array, Metadata, Value};

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
/// How far the score of a character without a token lies below the lowest.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Tokens with scores, and how a text is normalized before they are looked for.
#[derive(Debug)]
pub(super) struct Unigram {
    tokens: Prefixes,
    user_defined: Prefixes,
    /// By id; 0 for user-defined tokens.
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
    charsmap: Charsmap,
    space_prefix: bool,
    merge_spaces: bool,
}

impl Unigram {
    /// `scores` and `attributes`: one for each of `tokens`.
    pub(super) fn new(
        metadata: &Metadata,
        tokens: &[String],
        attributes: &[u8],
        scores: &[f32],
    ) -> Result<Self, GgufTokenizerError> {
        let unknown = metadata.lookup("tokenizer.ggml.unknown_token_id")?.unwrap_or(2u32);
        if unknown as usize >= tokens.len() {
            let (key, id) = ("tokenizer.ggml.unknown_token_id", unknown);
            return Err(GgufTokenizerError::Id { key, id, tokens: tokens.len() });
        }
        let having = |wanted: u8| {
            let all = tokens.iter().zip(attributes).zip(0u32..);
            all.filter(move |((_, attribute), _)| **attribute & wanted != 0).map(|((text, _), id)| (text.clone(), id))
        };
        let lowest = scores.iter().zip(attributes).filter(|(_, a)| **a & NORMAL != 0).map(|(score, _)| *score).reduce(f32::min);
        let score = |(score, attribute): (&f32, &u8)| if attribute & USER_DEFINED != 0 { 0.0 } else { f64::from(*score) };
        Ok(Unigram {
            tokens: Prefixes::new(having(NORMAL | USER_DEFINED | UNUSED)),
            user_defined: Prefixes::new(having(USER_DEFINED)),
            scores: scores.iter().zip(attributes).map(score).collect(),
            unknown,
            unknown_score: f64::from(lowest.unwrap_or(f32::MAX) - UNKNOWN_PENALTY),
            charsmap: Charsmap::read(metadata)?,
            space_prefix: metadata.lookup("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
            merge_spaces: metadata.lookup("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
        })
    }

    /// Append the ids of a text in which there are no special tokens.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), GgufTokenizerError> {
        let text = self.normalize(text)?;
        // The best way to each byte: token, where it starts, sum of scores.
        let mut best: Vec<(u32, usize, f64)> = vec![(self.unknown, 0, f64::MIN); text.len() + 1];
        best[0].2 = 0.0;
        for (start, c) in text.char_indices() {
            let sum = best[start].2;
            let mut whole = false;
            let mut propose = |id: u32, end: usize, score: f64| {
                if score > best[end].2 {
                    best[end] = (id, start, score);
                }
            };
            self.tokens.each(&text.as_bytes()[start..], |len, id| {
                whole |= len == c.len_utf8();
                let score = self.scores.get(id as usize).copied().unwrap_or_default();
                propose(id, start + len, sum + score);
            });
            if !whole {
                propose(self.unknown, start + c.len_utf8(), sum + self.unknown_score);
            }
        }
        let first = out.len();
        let (mut end, mut behind_unknown) = (text.len(), false);
        while end > 0 {
            let (id, start, _) = best[end];
            let unknown = id == self.unknown;
            if !(unknown && behind_unknown) {
                out.push(id);
            }
            (end, behind_unknown) = (start, unknown);
        }
        out[first..].reverse();
        Ok(())
    }

    fn normalize(&self, text: &str) -> Result<String, GgufTokenizerError> {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let (mut prefixed, mut inside) = (false, false);
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let mut longest = 0;
            self.user_defined.each(rest.as_bytes(), |len, _| longest = len);
            let (replacement, len) = match longest {
                0 => self.charsmap.longest(rest)?.unwrap_or_else(|| {
                    let len = rest.chars().next().map_or(1, char::len_utf8);
                    (&rest[..len], len)
                }),
                len => (&rest[..len], len),
            };
            for c in replacement.chars() {
                if c != ' ' {
                    if !inside {
                        inside = true;
                        if (self.space_prefix && !prefixed) || self.merge_spaces {
                            out.push('▁');
                            prefixed = true;
                        }
                    }
                    out.push(c);
                } else {
                    inside = false;
                    if !self.merge_spaces {
                        out.push('▁');
                    }
                }
            }
            at += len;
        }
        Ok(out)
    }
}

/// SentencePiece's table of replacements: a double array (Kanda 2018) over the bytes of what is replaced, and the texts that replace
/// it, each ending with a NUL byte. A node's word has its base in bits 10 to 30 (shifted by 8 where bit 9 is set), its label in bits
/// 0 to 7, and in bit 8 whether something ends there; bit 31 marks the offset of a text.
#[derive(Debug, Default)]
struct Charsmap {
    nodes: Vec<u32>,
    texts: String,
}

impl Charsmap {
    fn read(metadata: &Metadata) -> Result<Self, GgufTokenizerError> {
        let bytes: Vec<u8> = match metadata.get(CHARSMAP) {
            None => return Ok(Charsmap::default()),
            Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|byte| *byte as u8).collect(),
            Some(_) => metadata.require::<&[u8]>(CHARSMAP)?.to_vec(),
        };
        Charsmap::parse(&bytes).ok_or(GgufTokenizerError::Charsmap { key: CHARSMAP })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let size = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let (nodes, texts) = bytes[4..].split_at_checked(size)?;
        let nodes = nodes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let texts = String::from_utf8(texts.to_vec()).ok().filter(|texts| texts.ends_with('\0'))?;
        Some(Charsmap { nodes, texts })
    }

    /// What replaces the longest start of `text` that is in the table, and the length of that start in bytes.
    fn longest(&self, text: &str) -> Result<Option<(&str, usize)>, GgufTokenizerError> {
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let broken = || GgufTokenizerError::Charsmap { key: CHARSMAP };
        let node = |at: u32| self.nodes.get(at as usize).copied().ok_or_else(broken);
        let base = |word: u32| (word >> 10) << ((word & (1 << 9)) >> 6);
        let mut found = None;
        let mut at = base(node(0)?);
        for (index, byte) in text.bytes().enumerate() {
            at ^= u32::from(byte);
            let word = node(at)?;
            if byte == 0 || word & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= base(word);
            if word & (1 << 8) != 0 {
                found = Some((node(at)? & (u32::MAX >> 1), index + 1));
            }
        }
        let Some((offset, len)) = found else { return Ok(None) };
        // A replacement may end inside a character of the text: such a table is broken.
        if !text.is_char_boundary(len) {
            return Err(broken());
        }
        let rest = self.texts.get(offset as usize..).ok_or_else(broken)?;
        let end = rest.find('\0').ok_or_else(broken)?;
        Ok(Some((&rest[..end], len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(tokens: &[(&str, f32, i32)], more: &[(&str, bool)]) -> Unigram {
        let mut metadata = Metadata::new();
        for (key, value) in more {
            metadata.set(*key, *value);
        }
        let texts: Vec<String> = tokens.iter().map(|(text, ..)| (*text).to_owned()).collect();
        let scores: Vec<f32> = tokens.iter().map(|(_, score, _)| *score).collect();
        let attributes: Vec<u8> = tokens.iter().map(|(.., kind)| super::super::kinds::from_type(0, *kind).unwrap()).collect();
        Unigram::new(&metadata, &texts, &attributes, &scores).unwrap()
    }

    fn ids(tokenizer: &Unigram, text: &str) -> Vec<u32> {
        let mut out = vec![77];
        tokenizer.encode(text, &mut out).unwrap();
        out.split_off(1)
    }

    const TOKENS: [(&str, f32, i32); 8] = [
        ("<pad>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("<unk>", 0.0, 2),
        ("▁", -2.0, 1),
        ("a", -3.0, 1),
        ("ab", -4.0, 1),
        ("b", -2.5, 1),
        ("▁a b", -9.0, 4),
    ];

    #[test]
    fn the_best_sum_wins() {
        let plain = tokenizer(&TOKENS, &[]);
        assert_eq!(ids(&plain, "ab"), [5], "-4 beats -3 - 2.5");
        assert_eq!(ids(&plain, "aab"), [4, 5]);
        assert_eq!(ids(&plain, "axyb"), [4, 2, 6], "neighbours that are not known are one");
        assert_eq!(ids(&plain, ""), Vec::<u32>::new());
        assert_eq!(ids(&plain, "a  b"), [4, 3, 3, 6]);
    }

    #[test]
    fn spaces_by_the_files_flags() {
        let prefixed = tokenizer(&TOKENS, &[("tokenizer.ggml.add_space_prefix", true)]);
        assert_eq!(ids(&prefixed, "a  b"), [3, 4, 3, 3, 6]);
        let merged = tokenizer(&TOKENS, &[("tokenizer.ggml.remove_extra_whitespaces", true)]);
        assert_eq!(ids(&merged, "  a   b "), [3, 4, 3, 6]);
    }

    #[test]
    fn a_broken_table_is_refused() {
        for bytes in [&[][..], &[1, 0, 0], &[9, 0, 0, 0, 1, 2], &[0, 0, 0, 0, b'x'], &[0, 0, 0, 0, 0xff, 0]] {
            let mut metadata = Metadata::new();
            metadata.set(CHARSMAP, Value::Array(Array::U8(bytes.to_vec())));
            assert!(matches!(Charsmap::read(&metadata), Err(GgufTokenizerError::Charsmap { .. })), "{bytes:?}");
        }
        // One node that leads nowhere.
        let table = Charsmap { nodes: vec![1 << 10], texts: "\0".into() };
        assert!(matches!(table.longest("a"), Err(GgufTokenizerError::Charsmap { .. })));
        assert_eq!(Charsmap::default().longest("a"), Ok(None));
    }
}
