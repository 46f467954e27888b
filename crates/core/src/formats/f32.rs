//! `F32`: plain floats.

use crate::blocks::{
    self,
    words::Word,
    words::{BF16, F16},
};
use crate::encoder::{Encoder, Rows, Words};
use crate::format::Format;

/// ggml's `F32`.
pub static FORMAT: Format = Format { ggml_id: 0, name: "F32", block_len: 1, block_bytes: 4, decode };

/// Copies, widens exactly, or rounds to nearest, ties to even.
pub static ENCODER: Encoder = Encoder { name: "ggml", format: &FORMAT, needs_importance: false, fast: encode, textbook: encode };

fn decode(blocks: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(blocks.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

fn encode(rows: Rows<'_>, _importance: Option<&[f32]>, out: &mut [u8]) {
    match rows.words {
        Words::F32 => out.copy_from_slice(rows.bytes),
        Words::F16 => blocks::each_word::<F16, 4>(rows.bytes, out, |word| F16::widen(word).to_le_bytes()),
        Words::BF16 => blocks::each_word::<BF16, 4>(rows.bytes, out, |word| BF16::widen(word).to_le_bytes()),
    }
}
