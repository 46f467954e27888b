//! Is this GGUF file that model, and what did it cost? Every check runs against the original safetensors.
//!
//! | check | module | asks |
//! | --- | --- | --- |
//! | structure | [`structure`] | does the file hold together by its own metadata, as llama.cpp reads it? |
//! | tensors | [`tensors`] | does re-encoding the source give the same bytes, or at least the same error? |
//! | tokenizer | [`tokens`] | do both sides turn text into the same tokens? |
//! | forward | [`forward`] | do both sides compute the same thing, each in its own layout? |
//!
//! The checks that pass or fail make the file *faithful*; the figures of the forward pass say what quantization *cost*. Both end in
//! a [`report::Report`].
#![forbid(unsafe_code)]

pub mod forward;
pub mod gate;
mod hash;
pub mod latency;
mod reencoded;
pub mod report;
mod run;
mod side;
pub mod structure;
pub mod tensors;
pub mod tokens;
pub mod values;

pub use ggufsmith_gguf::imatrix;
pub use run::{Events, FORWARD, NamedText, Request, VerifyError, run, run_with};
pub use side::{Side, SideError, Source, Text};

/// What is evaluated on where a user names no text: the article "Shakespeare" of the Encyclopaedia Britannica, 11th edition (1911), in
/// the public domain.
pub const EVALUATION_TEXT: &str = include_str!("eb1911-shakespeare.txt");
