//! A model with its tokenizer, as text generation needs it.

use crate::failure::Failure;
use ggufsmith_infer::generate::NextToken;
use std::path::Path;

/// A GGUF file or a model directory that can continue text.
pub trait TextModel {
    /// Tokens of a prompt, with the tokens in front that the model wants there.
    ///
    /// # Errors
    /// [`Failure`] where the tokenizer cannot encode it.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure>;

    /// The bytes that a token adds to a text: possibly a part of a character, none for a control token.
    fn bytes(&self, token: u32) -> Vec<u8>;

    /// Tokens that end a text.
    fn stop_tokens(&self) -> &[u32];

    /// Empty sequences, `slots` of them, each with room for `--n-ctx` tokens or, without it, as many as the model was made for.
    ///
    /// # Errors
    /// [`Failure`] where there is no memory for them.
    fn session(&self, slots: usize) -> Result<Box<dyn NextToken<Error = ModelError> + '_>, Failure>;
}

/// A forward pass failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ModelError(pub Box<dyn std::error::Error + Send + Sync>);

/// How to open a model.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "read where `open` opens something")]
pub struct OpenOptions {
    /// `--n-ctx`.
    pub n_ctx: Option<usize>,
    /// Bytes of weights, as they are stored, that may be kept in memory.
    pub memory: u64,
}

/// Open a model by its path.
///
/// # Errors
/// [`Failure`] where it is no model, or one that cannot be run.
pub fn open(path: &Path, _options: &OpenOptions) -> Result<Box<dyn TextModel>, Failure> {
    // PLUG IN HERE: tokenizer and forward pass of GGUF files and of model directories.
    Err(Failure::new(format!("{}: running models is not supported yet", path.display())))
}
