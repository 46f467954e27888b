//! The forward pass of both sides over the same tokens, and what it says.
//!
//! A [`Sample`] is a run of tokens with the positions that are scored: a window of a text, as llama-perplexity cuts it, or a sentence.
//! [`evaluate`] runs any number of models over samples, layer by layer in lockstep, and yields a [`Group`] of scores;
//! [`figures`] turns scores into perplexities, KL divergences and their errors.

mod evaluate;
pub mod figures;
mod head;
mod logits_file;
mod sample;

pub use evaluate::{Base, Evaluation, ForwardError, Group, Sink, Work, evaluate};
pub use head::{BaseScore, OtherScore};
pub use logits_file::{LogitsError, LogitsFile, LogitsWriter};
pub use sample::{Sample, TextTooShort, sentence, windows};
