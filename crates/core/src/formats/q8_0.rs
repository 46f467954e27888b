//! `Q8_0`: 32 signed 8-bit codes with one scale. 8.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale, F16 |
//! | 32 | `q`: codes, -127 to 127 |
//!
//! Value: `q * d`, with `d` the largest magnitude / 127. Importance changes nothing.

use crate::blocks::{self, Block, round, simd::Isa, words, words::Word};
use crate::encoder::{Encoder, Rows};
use crate::float;
use crate::format::Format;

/// Elements per block.
const LEN: usize = 32;
/// Bytes per block.
const BYTES: usize = 34;
const _: () = assert!(BYTES == 2 + LEN);

/// ggml's `Q8_0`.
pub static FORMAT: Format =
    Format { ggml_id: 8, name: "Q8_0", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q8_0`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: |rows: Rows<'_>, _, out| blocks::fast::<Q8_0, LEN, BYTES>(rows, out),
    textbook: |rows: Rows<'_>, _, out| blocks::textbook::<Q8_0, LEN, BYTES>(rows, out),
};

struct Q8_0;

impl Block<LEN, BYTES> for Q8_0 {
    fn textbook(values: &[f32; LEN], out: &mut [u8; BYTES]) {
        let mut amax = 0f32;
        for value in values {
            // ggml's MAX gives its second operand where either is NaN.
            amax = if amax > value.abs() { amax } else { value.abs() };
        }
        let d = amax / 127.0;
        let id = if d != 0.0 { 1.0 / d } else { 0.0 };
        let (scale, codes) = out.split_at_mut(2);
        scale.copy_from_slice(&round::scale_to_f16(d).to_le_bytes());
        for (code, value) in codes.iter_mut().zip(values) {
            *code = round::low_byte((value * id).round());
        }
    }

    #[inline(always)]
    fn fast<I: Isa, W: Word>(isa: I, words: &[W::Bytes; LEN], out: &mut [u8; BYTES]) -> bool {
        let values = words::map(words, W::widen);
        let amax = W::magnitude(words, &values);
        if !round::is_ordinary(amax) {
            return false;
        }
        let d = amax / 127.0;
        let id = 1.0 / d;
        let rounded = words::map(&values, |value| {
            let x = value * id;
            x + round::BELOW_HALF.copysign(x)
        });
        out[..2].copy_from_slice(&float::f32_to_f16(d).to_le_bytes());
        out[2..].copy_from_slice(&isa.truncate::<255>(&rounded));
        true
    }
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let d = blocks::f16_field(block, 0);
    for (value, code) in values.iter_mut().zip(blocks::field::<LEN>(block, 2)) {
        *value = f32::from(code as i8) * d;
    }
}
