//! Pre-tokenizers: how llama.cpp cuts a text into the words that byte-level BPE merges within.
//!
//! `pre.json` has the names of `llama-vocab.cpp` with their regular expressions. Each expression cuts the pieces that the one before
//! it left: its matches and what lies between them. Where the engine has code instead of a regular expression (`unicode.cpp`), the
//! expression says the same, except for [`Cutter::Triples`].

use super::GgufTokenizerError;
use fancy_regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::ops::Range;
use std::sync::LazyLock;

#[derive(Debug, Deserialize)]
struct Table<'a> {
    #[serde(borrow)]
    groups: Vec<Group<'a>>,
    ignore_merges: Vec<&'a str>,
    add_bos: Vec<&'a str>,
    no_bos: Vec<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Group<'a> {
    #[serde(borrow)]
    names: Vec<&'a str>,
    regexes: Vec<String>,
}

static TABLE: LazyLock<Table<'static>> = LazyLock::new(|| {
    // The file is part of the program; a test parses it.
    serde_json::from_str(include_str!("pre.json")).expect("pre.json is well-formed")
});

/// How often one match may step back; the engine has no such limit, a text of spaces alone needs one step each.
const STEPS: usize = 100_000_000;

/// A pre-tokenizer.
#[derive(Debug)]
pub(super) struct Cut {
    name: String,
    cutters: Vec<Cutter>,
    /// Whether a word that is a token is taken as it is, without merging.
    pub(super) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(super) add_bos: bool,
    /// Whether there is no BOS where the file names none.
    pub(super) no_bos: bool,
}

#[derive(Debug)]
enum Cutter {
    Regex(Box<Regex>),
    /// Numbers in groups of three from the right, whatever is in front of a number together with its first group
    /// (`unicode_regex_split_custom_afmoe`).
    Triples,
}

impl Cut {
    pub(super) fn new(name: &str) -> Result<Self, GgufTokenizerError> {
        let Some(group) = TABLE.groups.iter().find(|group| group.names.contains(&name)) else {
            let mut names: Vec<&str> = TABLE.groups.iter().flat_map(|group| group.names.iter().copied()).collect();
            names.sort_unstable();
            let (key, found, supported) = ("tokenizer.ggml.pre", name.to_owned(), names.join(", "));
            return Err(GgufTokenizerError::Unsupported { key, found, supported });
        };
        let cutters = group.regexes.iter().map(|regex| Cutter::new(name, regex)).collect::<Result<_, _>>()?;
        let (ignore_merges, add_bos) = (TABLE.ignore_merges.contains(&name), TABLE.add_bos.contains(&name));
        Ok(Cut { name: name.to_owned(), cutters, ignore_merges, add_bos, no_bos: TABLE.no_bos.contains(&name) })
    }

    /// The words of a text, as byte ranges; together they are the text.
    pub(super) fn words(&self, text: &str) -> Result<Vec<Range<usize>>, GgufTokenizerError> {
        let mut pieces = Vec::from([Range { start: 0, end: text.len() }]);
        for cutter in &self.cutters {
            let mut next = Vec::with_capacity(pieces.len());
            for piece in pieces {
                cutter.cut(text, piece, &mut next).map_err(|(at, message)| {
                    let pre = self.name.clone();
                    GgufTokenizerError::Cut { pre, at, message }
                })?;
            }
            pieces = next;
        }
        Ok(pieces)
    }
}

impl Cutter {
    fn new(name: &str, regex: &str) -> Result<Self, GgufTokenizerError> {
        if regex == r"\p{AFMoE_digits}" || regex == r"\d{1,3}(?=(?:\d{3})*\b)" {
            return Ok(Cutter::Triples);
        }
        let regex = RegexBuilder::new(&translated(regex)).backtrack_limit(STEPS).build();
        regex.map(|regex| Cutter::Regex(Box::new(regex))).map_err(|e| {
            let (pre, message) = (name.to_owned(), e.to_string());
            GgufTokenizerError::Cut { pre, at: 0, message }
        })
    }

    fn cut(&self, text: &str, piece: Range<usize>, out: &mut Vec<Range<usize>>) -> Result<(), (usize, String)> {
        let (start, end) = (piece.start, piece.end);
        let mut done = start;
        let mut push = |done: &mut usize, until: usize| {
            if until > *done {
                out.push(*done..until);
                *done = until;
            }
        };
        match self {
            Cutter::Regex(regex) => {
                for found in regex.find_iter(&text[piece]) {
                    let found = found.map_err(|e| (done, e.to_string()))?;
                    push(&mut done, start + found.start());
                    push(&mut done, start + found.end());
                }
            }
            Cutter::Triples => {
                let mut digits: Vec<usize> = Vec::new();
                let mut flush = |digits: &mut Vec<usize>, end: usize| {
                    let ends = digits.iter().skip(1).copied().chain([end]).collect::<Vec<_>>();
                    let first = digits.len() % 3;
                    for (at, &until) in ends.iter().enumerate() {
                        if (at + 1) % 3 == first % 3 {
                            push(&mut done, until);
                        }
                    }
                    digits.clear();
                };
                for (at, c) in text[piece].char_indices() {
                    if c.is_numeric() {
                        digits.push(start + at);
                    } else if !digits.is_empty() {
                        flush(&mut digits, start + at);
                    }
                }
                if !digits.is_empty() {
                    flush(&mut digits, end);
                }
            }
        }
        push(&mut done, end);
        Ok(())
    }
}

/// An expression in this library's terms. ECMAScript's digits are ASCII. Where an expression has no Unicode categories, the engine
/// matches a text in which white space beyond ASCII is a vertical tab: then only `\s` and negated classes contain it.
fn translated(regex: &str) -> String {
    let regex = regex.replace(r"\d", "[0-9]");
    if regex.contains(r"\p{") || regex.is_ascii() {
        return regex;
    }
    let (mut out, mut class, mut escaped) = (String::new(), None, false);
    for c in regex.chars() {
        if c == ']' && !escaped {
            if let Some(start) = class.take()
                && !out[start..].starts_with("[^")
            {
                out.push_str(r"&&[^\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]");
            }
        } else if c == '[' && !escaped && class.is_none() {
            class = Some(out.len());
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pre: &str, text: &str) -> Vec<String> {
        let cut = Cut::new(pre).unwrap();
        cut.words(text).unwrap().into_iter().map(|range| text[range].to_owned()).collect()
    }

    #[test]
    fn every_name_cuts_and_loses_nothing() {
        let text = "Hello, World's 12345 ١٢٣ naïve   \n\n\t日本語 don't\u{a0}x == 'RE ½ 🙂\u{200d}🙂 \r\n ";
        let mut count = 0;
        for name in TABLE.groups.iter().flat_map(|group| &group.names) {
            assert!(crate::pre_tokenizers().contains(name) || ["llama3", "llama-v3"].contains(name), "{name}");
            assert_eq!(words(name, text).concat(), text, "{name}");
            count += 1;
        }
        assert_eq!(count, 87);
        for name in TABLE.ignore_merges.iter().chain(&TABLE.add_bos).chain(&TABLE.no_bos) {
            assert!(Cut::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn words_of_known_expressions() {
        assert_eq!(words("gpt-2", "it's  12 a\n"), ["it", "'s", " ", " 12", " a", "\n"]);
        assert_eq!(words("smollm", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(words("llama-bpe", "12345\n\n x"), ["123", "45", "\n\n", " x"]);
        assert_eq!(words("superbpe", "a 1234567"), ["a ", "1", "234", "567"]);
        assert_eq!(words("tiny_aya", "1234567 12"), ["1", "234", "567", " ", "12"]);
        assert_eq!(words("afmoe", "a12345"), ["a", "12", "345"]);
    }

    #[test]
    fn names_that_are_not_supported_are_refused() {
        for name in ["whitespace", "gemma4", "GPT-2", ""] {
            assert!(matches!(Cut::new(name), Err(GgufTokenizerError::Unsupported { .. })), "{name}");
        }
    }

    #[test]
    fn long_runs_are_cut_in_linear_time() {
        for unit in [" ", "\n", "a", "1", "!", "\u{3000}"] {
            for pre in ["llama-bpe", "gpt-2", "default"] {
                assert!(!Cut::new(pre).unwrap().words(&unit.repeat(300_000)).unwrap().is_empty());
            }
        }
    }
}
