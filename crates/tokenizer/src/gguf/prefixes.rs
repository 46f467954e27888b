//! Which of many tokens a text begins with.

use std::ops::Range;

/// Tokens in the order of their bytes.
#[derive(Debug)]
pub(super) struct Prefixes {
    tokens: Vec<(String, u32)>,
    /// Where in `tokens` those with each first byte lie.
    by_first: Vec<Range<usize>>,
}

impl Prefixes {
    /// Of texts and what they stand for; no text is empty.
    pub(super) fn new(tokens: impl Iterator<Item = (String, u32)>) -> Self {
        let mut tokens: Vec<(String, u32)> = tokens.collect();
        tokens.sort_unstable();
        let by_first = (0..=u8::MAX).map(|byte| narrow(&tokens, 0..tokens.len(), 0, byte)).collect();
        Prefixes { tokens, by_first }
    }

    /// Every token that `text` begins with, the shortest first: its length in bytes and what it stands for.
    pub(super) fn each(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let Some(&first) = text.first() else { return };
        let mut range = self.by_first[usize::from(first)].clone();
        let mut len = 1;
        // `range`: the tokens that begin with the first `len` bytes; the shortest is the first.
        while let Some((token, id)) = self.tokens.get(range.start).filter(|_| !range.is_empty()) {
            if token.len() == len {
                found(len, *id);
            }
            let Some(&next) = text.get(len) else { break };
            range = narrow(&self.tokens, range, len, next);
            len += 1;
        }
    }
}

/// Of tokens that share their first `at` bytes, those whose next is `byte`.
fn narrow(tokens: &[(String, u32)], range: Range<usize>, at: usize, byte: u8) -> Range<usize> {
    let part = &tokens[range.clone()];
    let next = |token: &(String, u32)| token.0.as_bytes().get(at).copied();
    let start = range.start + part.partition_point(|token| next(token) < Some(byte));
    let end = range.start + part.partition_point(|token| next(token) <= Some(byte));
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_the_shortest_first() {
        let tokens = ["ab", "a", "abcd", "b", "é", "abd"];
        let prefixes = Prefixes::new(tokens.iter().zip(0u32..).map(|(text, id)| ((*text).to_owned(), id)));
        let all = |text: &str| {
            let mut out = Vec::new();
            prefixes.each(text.as_bytes(), |len, id| out.push((len, id)));
            out
        };
        assert_eq!(all("abcde"), [(1, 1), (2, 0), (4, 2)]);
        assert_eq!(all("éa"), [(2, 4)]);
        assert_eq!(all("x"), []);
        assert_eq!(all(""), []);
    }
}
