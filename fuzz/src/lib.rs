//! What the fuzz targets do with an input. `tests/replay.rs` does the same with every file of `corpus/`.
//!
//! None of these functions returns anything: an input is good or refused, and neither may panic, run for long or take memory that
//! the input does not account for. What can be checked beyond that is asserted.
#![forbid(unsafe_code)]

mod blocks;
mod config;
mod gguf;
mod model_dir;
mod vocabulary;

pub use blocks::{block_decoders, encode_decode};
pub use config::config_json;
pub use gguf::gguf_reader;
pub use model_dir::safetensors;
pub use vocabulary::{sentencepiece, tokenizer_json};

/// A target, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("gguf_reader", gguf_reader),
    ("safetensors", safetensors),
    ("config_json", config_json),
    ("tokenizer_json", tokenizer_json),
    ("sentencepiece", sentencepiece),
    ("block_decoders", block_decoders),
    ("encode_decode", encode_decode),
];

/// The first of two parts of an input: a length in two bytes, that many bytes, and the rest.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return (&[], data) };
    rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))))
}
