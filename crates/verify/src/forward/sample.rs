//! Text, cut into what is scored together.

use std::ops::Range;

/// Tokens that are computed together, from position 0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Positions whose next token is scored; the last one is in front of the last token.
    pub scored: Range<usize>,
}

/// A text has not enough tokens for one window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the text has {tokens} tokens, one window needs {n_ctx}: take a longer text or a smaller --n-ctx")]
pub struct TextTooShort {
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens of a window.
    pub n_ctx: usize,
}

/// Windows of `n_ctx` tokens as llama-perplexity takes them: one behind the other, the rest is left out; with `bos` the first token of
/// each is replaced by it. The first half is context, the tokens behind it are scored. `tokens` are those of the whole text, a BOS of
/// its own included. `limit`: the most windows.
///
/// # Errors
/// [`TextTooShort`] where there is not even one.
pub fn windows(tokens: &[u32], n_ctx: usize, bos: Option<u32>, limit: Option<usize>) -> Result<Vec<Sample>, TextTooShort> {
    // A window of fewer than four tokens would have nothing to score.
    if n_ctx < 4 || tokens.len() < n_ctx {
        return Err(TextTooShort { tokens: tokens.len(), n_ctx: n_ctx.max(4) });
    }
    let window = |tokens: &[u32]| {
        let mut tokens = tokens.to_vec();
        if let Some(bos) = bos {
            tokens[0] = bos;
        }
        Sample { tokens, scored: n_ctx / 2..n_ctx - 1 }
    };
    Ok(tokens.chunks_exact(n_ctx).take(limit.unwrap_or(usize::MAX)).map(window).collect())
}

/// One sentence: every token behind the first is scored, behind a BOS the first, too. At most `n_ctx` tokens; `None` where nothing
/// would be scored.
pub fn sentence(tokens: &[u32], n_ctx: usize, bos: Option<u32>) -> Option<Sample> {
    let tokens: Vec<u32> = bos.into_iter().chain(tokens.iter().copied()).take(n_ctx).collect();
    let scored = 0..tokens.len().saturating_sub(1);
    (!scored.is_empty()).then_some(Sample { tokens, scored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_llama_perplexity() {
        let tokens: Vec<u32> = (0..25).collect();
        let all = windows(&tokens, 8, Some(99), None).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1], Sample { tokens: vec![99, 9, 10, 11, 12, 13, 14, 15], scored: 4..7 });
        assert_eq!(windows(&tokens, 8, None, Some(2)).unwrap().len(), 2);
        assert_eq!(windows(&tokens, 26, None, None), Err(TextTooShort { tokens: 25, n_ctx: 26 }));
    }

    #[test]
    fn sentences_score_all_they_can() {
        assert_eq!(sentence(&[5, 6, 7], 10, None), Some(Sample { tokens: vec![5, 6, 7], scored: 0..2 }));
        assert_eq!(sentence(&[5], 10, Some(1)), Some(Sample { tokens: vec![1, 5], scored: 0..1 }));
        assert_eq!(sentence(&[5, 6, 7], 2, None), Some(Sample { tokens: vec![5, 6], scored: 0..1 }));
        assert_eq!(sentence(&[5], 10, None), None);
    }
}
