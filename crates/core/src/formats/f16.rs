//! `F16`: plain floats.

use crate::blocks::{
    self,
    words::Word,
    words::{BF16, F32},
};
use crate::encoder::{Encoder, Rows, Words};
use crate::float;
use crate::format::Format;

/// ggml's `F16`.
pub static FORMAT: Format = Format { ggml_id: 1, name: "F16", block_len: 1, block_bytes: 2, decode };

/// Copies, widens exactly, or rounds to nearest, ties to even.
pub static ENCODER: Encoder = Encoder { name: "ggml", format: &FORMAT, needs_importance: false, fast: encode, textbook: encode };

fn decode(blocks: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(blocks.as_chunks::<2>().0) {
        *value = float::f16_to_f32(u16::from_le_bytes(*bytes));
    }
}

fn encode(rows: Rows<'_>, _importance: Option<&[f32]>, out: &mut [u8]) {
    match rows.words {
        Words::F16 => out.copy_from_slice(rows.bytes),
        Words::F32 => blocks::each_word::<F32, 2>(rows.bytes, out, |word| float::f32_to_f16(F32::widen(word)).to_le_bytes()),
        Words::BF16 => blocks::each_word::<BF16, 2>(rows.bytes, out, |word| float::f32_to_f16(BF16::widen(word)).to_le_bytes()),
    }
}
