//! `BF16`: plain floats. 16 bits per weight.

use crate::blocks;
use crate::blocks::words::{BF16, F16, F32, Word};
use crate::encoder::{Encoder, Rows, Words};
use crate::float;
use crate::format::Format;

/// Bytes per element.
const BYTES: usize = 2;

/// ggml's `BF16`.
pub static FORMAT: Format = Format { ggml_id: 30, name: "BF16", block_len: 1, block_bytes: BYTES, decode: Some(decode) };

/// Copies, widens exactly, or rounds to nearest, ties to even.
pub static ENCODER: Encoder = Encoder { name: "ggml", format: &FORMAT, needs_importance: false, fast, textbook };

fn decode(blocks: &[u8], values: &mut [f32]) {
    blocks::decode(
        blocks,
        values,
        #[inline(always)]
        |word: &[u8; BYTES], value: &mut [f32; 1]| value[0] = BF16::widen(*word),
    );
}

fn textbook(rows: Rows<'_>, _importance: Option<&[f32]>, out: &mut [u8]) {
    if rows.words == Words::BF16 {
        return out.copy_from_slice(rows.bytes);
    }
    blocks::each_row(rows, out, |row, out| {
        for (value, out) in row.iter().zip(out.as_chunks_mut().0) {
            *out = half::bf16::from_f32(*value).to_le_bytes();
        }
    });
}

fn fast(rows: Rows<'_>, _importance: Option<&[f32]>, out: &mut [u8]) {
    match rows.words {
        Words::BF16 => out.copy_from_slice(rows.bytes),
        Words::F32 => blocks::each_word::<F32, BYTES>(rows.bytes, out, |word| float::f32_to_bf16(F32::widen(word)).to_le_bytes()),
        Words::F16 => blocks::each_word::<F16, BYTES>(rows.bytes, out, |word| float::f32_to_bf16(F16::widen(word)).to_le_bytes()),
    }
}
