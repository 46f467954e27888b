//! BPE: merges by rank within each word (`llm_tokenizer_bpe_session` of llama-vocab.cpp), and byte-level BPE.

use super::cut::Cut;
use super::{GgufTokenizerError, bytes};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

const MERGES: &str = "tokenizer.ggml.merges";

/// Merges over symbols: ids below the number of tokens are tokens, those above are texts that only merges have.
#[derive(Debug)]
pub(super) struct Merges {
    /// Rank of the merge of two symbols, and the symbol that it makes.
    ranks: HashMap<(u32, u32), (u32, u32)>,
    tokens: u32,
    /// Symbols that are no tokens.
    others: HashMap<String, u32>,
}

/// A text that is neither a token nor in a merge.
const NO_SYMBOL: u32 = u32::MAX;

impl Merges {
    /// `ids`: token texts and their ids, which are below `tokens`. `more`: texts that get a symbol, too, if they are no tokens.
    pub(super) fn new<'a>(
        ids: &HashMap<String, u32>,
        tokens: u32,
        merges: &[String],
        more: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, GgufTokenizerError> {
        if merges.len() > crate::MAX_MERGES {
            return Err(GgufTokenizerError::Limit { key: MERGES, count: merges.len(), limit: crate::MAX_MERGES });
        }
        let mut others: HashMap<String, u32> = HashMap::new();
        let mut symbol = |text: &str| match ids.get(text).or_else(|| others.get(text)) {
            Some(&id) => id,
            None => {
                // At most three a merge and 256: far below 2^32.
                let id = tokens + others.len() as u32;
                others.insert(text.to_owned(), id);
                id
            }
        };
        for text in more {
            symbol(text);
        }
        let mut ranks = HashMap::with_capacity(merges.len());
        let mut joined = String::new();
        for (rank, merge) in merges.iter().enumerate() {
            // As the engine does: the first space that is not the first character.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let space = merge[first..].find(' ').map(|at| first + at);
            let pair = space.map(|at| (&merge[..at], &merge[at + 1..]));
            let Some((left, right)) = pair.filter(|(left, right)| ![left, right].iter().any(|t| t.is_empty() || t.contains(' ')))
            else {
                return Err(GgufTokenizerError::Merge { at: rank, found: merge.clone() });
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let pair = (symbol(left), symbol(right));
            let merged = symbol(&joined);
            // Of a merge that is there twice the first counts.
            ranks.entry(pair).or_insert((rank as u32, merged));
        }
        Ok(Merges { ranks, tokens, others })
    }

    /// The symbol of a text; `ids` as in [`Merges::new`].
    pub(super) fn symbol(&self, ids: &HashMap<String, u32>, text: &str) -> u32 {
        ids.get(text).or_else(|| self.others.get(text)).copied().unwrap_or(NO_SYMBOL)
    }

    pub(super) fn is_token(&self, symbol: u32) -> bool {
        symbol < self.tokens
    }

    /// Merge the symbols of a word until nothing merges, the best first.
    pub(super) fn apply(&self, chain: &mut Chain) {
        let mut queue = BinaryHeap::new();
        let propose = |chain: &Chain, left: usize, queue: &mut BinaryHeap<_>| {
            let Some(right) = chain.next(left) else { return };
            let pair = (chain.value(left), chain.value(right));
            if let Some(&(rank, merged)) = self.ranks.get(&pair) {
                queue.push(Reverse((rank, left, right, pair, merged)));
            }
        };
        for left in 0..chain.len() {
            propose(chain, left, &mut queue);
        }
        while let Some(Reverse((_, left, right, pair, merged))) = queue.pop() {
            // What was proposed may have been merged otherwise since.
            if !chain.holds(left, pair.0) || !chain.holds(right, pair.1) {
                continue;
            }
            chain.merge(left, right, merged);
            if let Some(before) = chain.previous(left) {
                propose(chain, before, &mut queue);
            }
            propose(chain, left, &mut queue);
        }
    }
}

/// Byte-level BPE.
#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) cut: Cut,
    /// Symbol of each byte.
    bytes: [u32; 256],
    merges: Merges,
    /// Texts of the symbols that are no tokens, from the number of tokens on.
    others: Vec<String>,
}

impl Bpe {
    /// `ids`: token texts and their ids, which are below `tokens`.
    pub(super) fn new(cut: Cut, ids: &HashMap<String, u32>, tokens: u32, merges: &[String]) -> Result<Self, GgufTokenizerError> {
        let chars = bytes::chars().map(String::from);
        let merges = Merges::new(ids, tokens, merges, chars.iter().map(String::as_str))?;
        let bytes = std::array::from_fn(|byte| merges.symbol(ids, &chars[byte]));
        let mut others: Vec<(u32, String)> = merges.others.iter().map(|(text, id)| (*id, text.clone())).collect();
        others.sort_unstable();
        Ok(Bpe { cut, bytes, merges, others: others.into_iter().map(|(_, text)| text).collect() })
    }

    /// Append the ids of a text in which there are no special tokens. `ids` as in [`Bpe::new`].
    pub(super) fn encode(&self, text: &str, ids: &HashMap<String, u32>, out: &mut Vec<u32>) -> Result<(), GgufTokenizerError> {
        // Words repeat: where the ids of each lie in `out`.
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::new();
        for range in self.cut.words(text)? {
            let word = &text[range];
            if let Some(&(start, end)) = seen.get(word) {
                out.extend_from_within(start..end);
                continue;
            }
            let start = out.len();
            self.word(word, ids, out);
            seen.insert(word, (start, out.len()));
        }
        Ok(())
    }

    fn word(&self, word: &str, ids: &HashMap<String, u32>, out: &mut Vec<u32>) {
        if self.cut.ignore_merges {
            let chars = bytes::chars();
            let spelled: String = word.bytes().map(|b| chars[usize::from(b)]).collect();
            if let Some(&id) = ids.get(&spelled) {
                return out.push(id);
            }
        }
        let mut chain = Chain::new(word.bytes().map(|b| self.bytes[usize::from(b)]));
        self.merges.apply(&mut chain);
        for symbol in chain.values() {
            match symbol.checked_sub(self.merges.tokens) {
                None => out.push(symbol),
                // The engine looks for its bytes as tokens of one byte, and leaves out those it does not find.
                Some(at) => {
                    let text = self.others.get(at as usize).map_or("", String::as_str);
                    out.extend(text.chars().filter(char::is_ascii).filter_map(|c| ids.get(c.encode_utf8(&mut [0; 4]) as &str)));
                }
            }
        }
    }
}

/// A list of values in which neighbours merge; a position is that of a value's first part.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<Link>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// `None`: merged into one further left.
    value: Option<u32>,
    previous: u32,
    next: u32,
}

/// No position; texts are shorter, see [`super::MAX_TEXT`].
const NONE: u32 = u32::MAX;

impl Chain {
    pub(super) fn new(values: impl Iterator<Item = u32>) -> Self {
        let mut links: Vec<Link> = values
            .zip(0u32..)
            .map(|(value, at)| Link { value: Some(value), previous: at.wrapping_sub(1), next: at + 1 })
            .collect();
        if let Some(last) = links.last_mut() {
            last.next = NONE;
        }
        Chain { links }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn next(&self, at: usize) -> Option<usize> {
        Some(self.links[at].next).filter(|&at| at != NONE).map(|at| at as usize)
    }

    pub(super) fn previous(&self, at: usize) -> Option<usize> {
        Some(self.links[at].previous).filter(|&at| at != NONE).map(|at| at as usize)
    }

    /// The value of a position that is not merged into another.
    pub(super) fn value(&self, at: usize) -> u32 {
        self.links[at].value.unwrap_or_default()
    }

    pub(super) fn holds(&self, at: usize, value: u32) -> bool {
        self.links[at].value == Some(value)
    }

    /// Whether the position is not merged into another.
    pub(super) fn alive(&self, at: usize) -> bool {
        self.links[at].value.is_some()
    }

    /// Make one value of two neighbours.
    pub(super) fn merge(&mut self, left: usize, right: usize, value: u32) {
        let next = self.links[right].next;
        self.links[right].value = None;
        self.links[left].value = Some(value);
        self.links[left].next = next;
        if next != NONE {
            self.links[next as usize].previous = left as u32;
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.links.iter().filter_map(|link| link.value)
    }

    /// Values with the position where each starts.
    pub(super) fn positions(&self) -> impl Iterator<Item = (usize, u32)> {
        self.links.iter().enumerate().filter_map(|(at, link)| Some((at, link.value?)))
    }
}
