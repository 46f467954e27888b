//! Special tokens in a text (`tokenizer_st_partition` of llama-vocab.cpp): the longest first, each wherever it still fits, from left
//! to right.

use super::kinds::{CONTROL, STRIP_LEFT, STRIP_RIGHT, UNKNOWN, is_special};
use super::prefixes::Prefixes;
use std::ops::Range;

/// The tokens that are looked for.
#[derive(Debug)]
pub(super) struct Specials {
    tokens: Prefixes,
    /// Of all tokens, by id.
    attributes: Vec<u8>,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Token(u32),
    /// Bytes from, to.
    Text(Range<usize>),
}

struct Hit {
    start: usize,
    end: usize,
    id: u32,
    attribute: u8,
}

impl Specials {
    pub(super) fn new(tokens: &[String], attributes: &[u8]) -> Self {
        let all = tokens.iter().zip(attributes).zip(0u32..);
        let special = all.filter(|((_, attribute), _)| is_special(**attribute)).map(|((text, _), id)| (text.clone(), id));
        Specials { tokens: Prefixes::new(special), attributes: attributes.to_vec() }
    }

    /// The parts of a text, in order. `control`: whether control tokens are looked for, too, not only user-defined ones.
    pub(super) fn split(&self, text: &str, control: bool) -> Vec<Part> {
        let mut hits = self.hits(text, control);
        // The engine's order among tokens of one length is not defined; here it is that of their ids.
        hits.sort_by(|a, b| (b.end - b.start).cmp(&(a.end - a.start)).then(a.id.cmp(&b.id)).then(a.start.cmp(&b.start)));
        let bytes = text.as_bytes();
        let is_space = |at: usize| matches!(bytes[at], b' ' | b'\t'..=b'\r');
        let mut taken = vec![false; text.len()];
        let mut chosen: Vec<Hit> = Vec::new();
        for hit in hits {
            // Whatever is taken is at least as long, or stripped beside what is: it covers an end of this one if it covers any of it.
            if taken[hit.start] || taken[hit.end - 1] {
                continue;
            }
            taken[hit.start..hit.end].fill(true);
            if hit.attribute & STRIP_LEFT != 0 {
                let mut at = hit.start;
                while at > 0 && !taken[at - 1] && is_space(at - 1) {
                    at -= 1;
                    taken[at] = true;
                }
            }
            if hit.attribute & STRIP_RIGHT != 0 {
                let mut at = hit.end;
                while at < taken.len() && !taken[at] && is_space(at) {
                    taken[at] = true;
                    at += 1;
                }
            }
            chosen.push(hit);
        }
        chosen.sort_by_key(|hit| hit.start);

        let mut parts = Vec::with_capacity(2 * chosen.len() + 1);
        let mut at = 0;
        let between = |parts: &mut Vec<Part>, from: usize, to: usize| {
            // What was stripped lies at the ends.
            let start = (from..to).find(|&at| !taken[at]).unwrap_or(to);
            let end = (start..to).rev().find(|&at| !taken[at]).map_or(start, |at| at + 1);
            if start < end {
                parts.push(Part::Text(start..end));
            }
        };
        for hit in chosen {
            between(&mut parts, at, hit.start);
            parts.push(Part::Token(hit.id));
            at = hit.end;
        }
        between(&mut parts, at, text.len());
        parts
    }

    /// Every place where a token stands.
    fn hits(&self, text: &str, control: bool) -> Vec<Hit> {
        let mut hits = Vec::new();
        for start in 0..text.len() {
            self.tokens.each(&text.as_bytes()[start..], |len, id| {
                let attribute = self.attributes.get(id as usize).copied().unwrap_or_default();
                if control || attribute & (CONTROL | UNKNOWN) == 0 {
                    hits.push(Hit { start, end: start + len, id, attribute });
                }
            });
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{NORMAL, USER_DEFINED};
    use super::*;

    fn split(tokens: &[(&str, u8)], text: &str, control: bool) -> Vec<String> {
        let texts: Vec<String> = tokens.iter().map(|(text, _)| (*text).to_owned()).collect();
        let attributes: Vec<u8> = tokens.iter().map(|(_, attribute)| *attribute).collect();
        let parts = Specials::new(&texts, &attributes).split(text, control);
        let spell = |part: &Part| match part {
            Part::Token(id) => format!("[{id}]"),
            Part::Text(range) => text[range.clone()].to_owned(),
        };
        parts.iter().map(spell).collect()
    }

    #[test]
    fn longest_first_and_only_what_is_looked_for() {
        let tokens = [("<s>", CONTROL), ("  ", USER_DEFINED), ("    ", USER_DEFINED), ("a", NORMAL), ("s>  ", USER_DEFINED)];
        assert_eq!(split(&tokens, "a<s>  b", true), ["a<", "[4]", "b"]);
        assert_eq!(split(&tokens, "x     y", true), ["x", "[2]", " y"]);
        assert_eq!(split(&tokens, "<s>a<s>", true), ["[0]", "a", "[0]"]);
        assert_eq!(split(&tokens, "<s>a", false), ["<s>a"]);
        assert_eq!(split(&tokens, "", true), Vec::<String>::new());
        assert_eq!(split(&[("aa", USER_DEFINED)], "aaaaa", false), ["[0]", "[0]", "a"]);
    }

    #[test]
    fn white_space_that_goes_with_a_token() {
        let tokens = [("<|end|>", CONTROL | STRIP_RIGHT), ("<mask>", CONTROL | STRIP_LEFT)];
        assert_eq!(split(&tokens, "a<|end|> \n b <mask> c", true), ["a", "[0]", "b", "[1]", " c"]);
        assert_eq!(split(&tokens, "a<|end|> \n<mask>", true), ["a", "[0]", "[1]"]);
        assert_eq!(split(&tokens, "<|end|>  ", true), ["[0]"]);
    }
}
