//! `Q4_0`: 32 codes of 4 bits with one scale. 4.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 16 | `q`: codes 0 to 15; element `j` in the low, element `j + 16` in the high half of byte `j` |
//!
//! Value: `(q - 8) * d`, with `d` the value of largest magnitude / -8, so that this value's code is 0.
//! With importance, `d` is searched for.

use crate::blocks::{self, Block, round, search, simd::Isa, words, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::float;
use crate::format::Format;

/// Elements per block.
const LEN: usize = 32;
/// Bytes per block.
const BYTES: usize = 18;
const _: () = assert!(BYTES == 2 + LEN / 2);

/// ggml's `Q4_0`.
pub static FORMAT: Format = Format { ggml_id: 2, name: "Q4_0", block_len: LEN, block_bytes: BYTES, decode };

/// `quantize_q4_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::fast::<Q4_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted(rows, importance, out),
    },
    textbook: |rows: Rows<'_>, importance, out| match importance {
        None => blocks::textbook::<Q4_0, LEN, BYTES>(rows, out),
        Some(importance) => weighted(rows, importance, out),
    },
};

struct Q4_0;

impl Block<LEN, BYTES> for Q4_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        let (mut amax, mut max) = (0f32, 0f32);
        for &value in values {
            if amax < value.abs() {
                (amax, max) = (value.abs(), value);
            }
        }
        let d = max / -8.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        let codes = values.map(|value| (round::low_byte(value * id + 8.5) as i8).min(15) as u8);
        write(round::scale_to_f16(d), &codes, out);
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        let max = words::first_largest::<W, LEN>(words);
        if !round::is_ordinary(max.abs()) {
            return false;
        }
        let d = max / -8.0;
        let id = 1.0 / d;
        let values = words::map(words, W::widen);
        let codes = isa.truncate(&words::map(&values, |value| value * id + 8.5));
        write(float::f32_to_f16(d), &words::map(&codes, |code| code.min(15)), out);
        true
    }
}

/// `quantize_row_q4_0_impl`.
fn weighted(rows: Rows<'_>, importance: &[f32], out: &mut [u8]) {
    blocks::each_row(rows, out, |row, out| {
        let mean_square = search::mean_square(row);
        let inputs = row.as_chunks::<LEN>().0.iter().zip(importance.as_chunks::<LEN>().0);
        for ((values, importance), out) in inputs.zip(out.as_chunks_mut::<BYTES>().0) {
            let weights = search::weigh(values, importance, mean_square);
            let mut codes = [0; LEN];
            let d = search::make_qx_quants(8, values, Some(&weights), &mut codes);
            write(round::scale_to_f16(d), &codes, out);
        }
    });
}

#[inline(always)]
fn write(d: u16, codes: &[u8; LEN], out: &mut [u8; BYTES]) {
    out[..2].copy_from_slice(&d.to_le_bytes());
    for (j, byte) in out[2..].iter_mut().enumerate() {
        *byte = codes[j] | codes[j + LEN / 2] << 4;
    }
}

fn decode(blocks: &[u8], out: &mut [f32]) {
    for (values, block) in out.as_chunks_mut::<LEN>().0.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        let d = float::f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
        for (j, byte) in block[2..].iter().enumerate() {
            values[j] = (f32::from(byte & 15) - 8.0) * d;
            values[j + LEN / 2] = (f32::from(byte >> 4) - 8.0) * d;
        }
    }
}
