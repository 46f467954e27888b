//! A model with its tokenizer, as text generation needs it.

use crate::failure::Failure;
use ggufsmith_infer::generate::NextToken;
use ggufsmith_infer::{InferError, Model, Session};
use ggufsmith_verify::{Side, Text};
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
    fn session(&self, slots: usize) -> Result<Box<dyn NextToken<Error = InferError> + '_>, Failure>;
}

/// How to open a model.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// `--n-ctx`.
    pub n_ctx: Option<usize>,
    /// Bytes of weights, as they are stored, that may be kept in memory.
    pub memory: u64,
}

/// Tokens that a text may have where the user does not say: keys and values of more take much memory.
const DEFAULT_CONTEXT: usize = 8192;

/// Open a model by its path.
///
/// # Errors
/// [`Failure`] where it is no model, or one that cannot be run.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn TextModel>, Failure> {
    let side = Side::open(path, ggufsmith_checkpoint::OpenOptions::default())?;
    let n_ctx = options.n_ctx.unwrap_or_else(|| (side.decoder.n_ctx_train as usize).min(DEFAULT_CONTEXT));
    let (mut model, text) = side.model(n_ctx)?;
    // Where they do not fit, weights are read anew for each token: slower, and right.
    model.make_resident(options.memory)?;
    let stop = text.tokenizer().end_of_generation();
    Ok(Box::new(Opened { model, text, stop }))
}

/// A model that runs.
struct Opened {
    model: Model,
    text: Text,
    stop: Vec<u32>,
}

impl TextModel for Opened {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let tokens = self.text.tokenizer().encode(text, true)?;
        Ok(self.text.bos().into_iter().chain(tokens).collect())
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        self.text.tokenizer().token_bytes(token)
    }

    fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }

    fn session(&self, slots: usize) -> Result<Box<dyn NextToken<Error = InferError> + '_>, Failure> {
        Ok(Box::new(Session::new(&self.model, slots)))
    }
}
