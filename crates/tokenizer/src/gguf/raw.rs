//! BPE on characters as they are, with byte tokens for what is no token: Gemma 4's kind (`byte_encode = false` in llama-vocab.cpp).

use super::bpe::{Chain, Merges};
use std::collections::HashMap;
use std::ops::Range;

/// Words are runs of newlines and runs of anything else: no merge crosses them.
pub(super) fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let newline = rest.starts_with('\n');
        let len = rest.find(|c| (c == '\n') != newline).unwrap_or(rest.len());
        let start = at;
        at += len;
        (len > 0).then_some(start..at)
    })
}

/// Append the ids of an escaped text (spaces spelled `▁`) in which there are no special tokens. `newlines`: whether a run of newlines
/// that is a token is taken as it is.
pub(super) fn encode(
    merges: &Merges,
    ids: &HashMap<String, u32>,
    bytes: &[Option<u32>; 256],
    newlines: bool,
    text: &str,
    out: &mut Vec<u32>,
) {
    for range in words(text) {
        let word = &text[range];
        if newlines
            && word.starts_with('\n')
            && let Some(&id) = ids.get(word)
        {
            out.push(id);
            continue;
        }
        let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).collect();
        let mut chain = Chain::new(word.chars().map(|c| merges.symbol(ids, c.encode_utf8(&mut [0; 4]))));
        merges.apply(&mut chain);
        let mut parts = chain.positions().map(|(at, symbol)| (starts.get(at).copied().unwrap_or(word.len()), symbol)).peekable();
        while let Some((start, symbol)) = parts.next() {
            if merges.is_token(symbol) {
                out.push(symbol);
                continue;
            }
            let end = parts.peek().map_or(word.len(), |(next, _)| *next);
            // As the engine does: a byte without a token is left out.
            out.extend(word[start..end].bytes().filter_map(|byte| bytes[usize::from(byte)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_stand_alone() {
        let cut = |text: &str| words(text).map(|range| text[range].to_owned()).collect::<Vec<_>>();
        assert_eq!(cut("a b\n\n\nc\n"), ["a b", "\n\n\n", "c", "\n"]);
        assert_eq!(cut(""), Vec::<String>::new());
        assert_eq!(cut("é\n"), ["é", "\n"]);
    }
}
