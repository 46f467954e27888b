//! Token texts, scores and types in id order.

use super::TokenizerError;
use ggufsmith_gguf::Value;

/// `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The three lists; their lengths are equal.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
}

impl Vocabulary {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Vocabulary { tokens: Vec::with_capacity(tokens), scores: Vec::with_capacity(tokens), types: Vec::with_capacity(tokens) }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn push(&mut self, text: String, score: f32, kind: TokenType) {
        self.tokens.push(text);
        self.scores.push(score);
        self.types.push(kind as i32);
    }

    /// Put another token in the place of the one at `id`, which has to be there.
    pub(super) fn replace(&mut self, id: usize, text: String, score: f32, kind: TokenType) {
        self.tokens[id] = text;
        self.scores[id] = score;
        self.types[id] = kind as i32;
    }

    /// `tokens`, `scores` where the tokenizer's model has any, `token_type`.
    pub(super) fn write(self, scores: bool, out: &mut Vec<(String, Value)>) -> Result<(), TokenizerError> {
        if self.tokens.is_empty() {
            return Err(TokenizerError::NoKey { file: "tokenizer.json", key: "any token".into() });
        }
        super::set(out, "tokenizer.ggml.tokens", self.tokens);
        if scores {
            super::set(out, "tokenizer.ggml.scores", self.scores);
        }
        super::set(out, "tokenizer.ggml.token_type", self.types);
        Ok(())
    }
}

/// Whether llama.cpp's converter takes an added token for a control token although its file does not say so.
pub(super) fn looks_special(token: &str) -> bool {
    let framed = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
        || framed("<|", "|>")
        || framed("<｜", "｜>")
        || framed("<unused", ">")
}
