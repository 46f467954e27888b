//! One side of a comparison, ready to run: a model directory or a GGUF file with its description, weights and tokenizer.

use crate::forward::{Sample, TextTooShort, sentence, windows};
use ggufsmith_arch::{ArchError, Decoder, DecoderError};
use ggufsmith_checkpoint::{Checkpoint, CheckpointError, ModelDir, OpenOptions};
use ggufsmith_core::TensorSource;
use ggufsmith_gguf::{GgufError, Limits, Metadata, Shards};
use ggufsmith_infer::{Gemm, GgufTensors, InferError, Model, SourceTensors, Tensors, Weights};
use ggufsmith_tokenizer::{self as tokenizer, GgufTokenizer, GgufTokenizerError, TokenizerError};
use std::path::Path;
use std::sync::Arc;

/// Why a side cannot be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SideError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error("no forward pass: {0}")]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    GgufTokenizer(#[from] GgufTokenizerError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error("{0}")]
    Rounding(String),
    #[error(transparent)]
    Text(#[from] TextTooShort),
}

/// A checkpoint, as it is opened once for all checks.
pub struct Source {
    /// Its directory.
    pub dir: ModelDir,
    /// Its weights.
    pub checkpoint: Arc<Checkpoint>,
    /// What a GGUF file of it holds.
    pub model: ggufsmith_arch::Model,
}

impl Source {
    /// Open a model directory; headers only.
    ///
    /// # Errors
    /// [`SideError`] where it cannot be read or its class is not known.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, SideError> {
        let dir = ModelDir::open_with(path, options)?;
        let checkpoint = Arc::new(Checkpoint::open(&dir)?);
        let model = ggufsmith_arch::describe(dir.config(), checkpoint.tensors(), &ggufsmith_arch::Options::default())?;
        Ok(Source { dir, checkpoint, model })
    }

    /// What the tokenizer is built by.
    pub fn request(&self) -> tokenizer::Request<'_> {
        let (route, vocab_size) = (self.model.vocab, self.model.vocab_size);
        tokenizer::Request { route, vocab_size, config: self.dir.config(), pre: None }
    }

    /// As transformers computes it.
    ///
    /// # Errors
    /// [`SideError::Decoder`] where there is no forward pass.
    pub fn side(&self) -> Result<Side, SideError> {
        let mut metadata = Metadata::new();
        metadata.extend(tokenizer::build(&self.dir, &self.request())?.metadata);
        let weights: Arc<dyn TensorSource> = self.checkpoint.clone();
        Ok(Side {
            decoder: ggufsmith_arch::decoder(self.dir.config(), &|name| self.checkpoint.info(name).is_some())?,
            tensors: Box::new(SourceTensors(weights)),
            text: Text::new(GgufTokenizer::new(&metadata)?),
        })
    }
}

/// Either side.
pub struct Side {
    /// How it computes.
    pub decoder: Decoder,
    tensors: Box<dyn Tensors>,
    /// Its tokenizer.
    pub text: Text,
}

impl Side {
    /// A model directory, or a GGUF file (of several shards any one).
    ///
    /// # Errors
    /// [`SideError`] where it cannot be read, or has no forward pass here.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, SideError> {
        if path.is_dir() {
            Source::open(path, options)?.side()
        } else {
            Side::of_gguf(Arc::new(Shards::open(path, &Limits::default())?))
        }
    }

    /// A GGUF file, as llama.cpp computes it.
    ///
    /// # Errors
    /// [`SideError`] where its metadata describe no model that is computed here.
    pub fn of_gguf(shards: Arc<Shards>) -> Result<Self, SideError> {
        Ok(Side {
            decoder: ggufsmith_arch::decoder_of_gguf(shards.metadata(), &|name| shards.tensor(name).is_some())?,
            text: Text::new(GgufTokenizer::new(shards.metadata())?),
            tensors: Box::new(GgufTensors(shards)),
        })
    }

    /// The model, for texts of up to `n_ctx` tokens, and the tokenizer.
    ///
    /// # Errors
    /// [`SideError::Infer`] where a tensor is missing or has another shape.
    pub fn model(self, n_ctx: usize) -> Result<(Model, Text), SideError> {
        let model = Model::new(self.decoder, Weights::new(self.tensors), Box::new(Gemm), n_ctx)?;
        Ok((model, self.text))
    }
}

/// Text to samples.
pub struct Text {
    tokenizer: GgufTokenizer,
}

impl Text {
    fn new(tokenizer: GgufTokenizer) -> Self {
        Text { tokenizer }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &GgufTokenizer {
        &self.tokenizer
    }

    /// What windows and sentences begin with, where the model wants that.
    pub fn bos(&self) -> Option<u32> {
        self.tokenizer.bos().filter(|_| self.tokenizer.add_bos())
    }

    /// A text's windows, as llama-perplexity cuts them.
    ///
    /// # Errors
    /// [`SideError`] where the text cannot be encoded or is too short.
    pub fn windows(&self, text: &str, n_ctx: usize, limit: Option<usize>) -> Result<Vec<Sample>, SideError> {
        let tokens: Vec<u32> = self.bos().into_iter().chain(self.tokenizer.encode(text, false)?).collect();
        Ok(windows(&tokens, n_ctx, self.bos(), limit)?)
    }

    /// A text's lines, each a sample; empty ones and those with nothing to score are left out.
    ///
    /// # Errors
    /// [`SideError`] where a line cannot be encoded.
    pub fn sentences(&self, text: &str, n_ctx: usize) -> Result<Vec<Sample>, SideError> {
        let mut samples = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            samples.extend(sentence(&self.tokenizer.encode(line, false)?, n_ctx, self.bos()));
        }
        Ok(samples)
    }
}
