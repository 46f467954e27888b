//! `Q4_K`: 256 codes of 4 bits in 8 groups with a scale and a minimum each. 4.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 2 | `dmin`: scale of the minimums, F16 |
//! | 12 | `scales`: 8 scales and 8 minimums of 6 bits, packed as `blocks/six_bit.rs` says |
//! | 128 | `q`: of each 64 elements, element `l` in the low, element `l + 32` in the high half of byte `l` |
//!
//! Value: `q * scales[group] * d - mins[group] * dmin`. Scale and minimum of a group are searched for.

use crate::blocks;
use crate::blocks::kquants::{self, LEN, Searched};
use crate::blocks::search::Tries;
use crate::blocks::six_bit::{self, AT_ONCE, Kind, Parts, SCALE_BYTES};
use crate::encoder::Encoder;
use crate::format::Format;

/// Bytes per block.
const BYTES: usize = 144;
/// Bytes in front of the codes.
const CODES: usize = 2 + 2 + SCALE_BYTES;
const _: () = assert!(BYTES == CODES + LEN / 2);

/// ggml's `Q4_K`.
pub static FORMAT: Format =
    Format { ggml_id: 12, name: "Q4_K", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q4_K`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: kquants::fast::<Q4K, BYTES, AT_ONCE>,
    textbook: kquants::textbook::<Q4K, BYTES, AT_ONCE>,
};

const KIND: Kind = Kind { top: 15, tries: Tries { first: -1.0, delta: 0.1, steps: 20 }, limit: u8::MAX };

struct Q4K;

impl Searched<BYTES, AT_ONCE> for Q4K {
    fn textbook(values: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [u8; BYTES] {
        block(&six_bit::textbook(KIND, values, importance))
    }

    #[inline(always)]
    fn fast(values: &[[f32; LEN]; AT_ONCE], importance: Option<&[[f32; LEN]; AT_ONCE]>) -> [[u8; BYTES]; AT_ONCE] {
        let mut out = [[0; BYTES]; AT_ONCE];
        for (out, parts) in out.iter_mut().zip(&six_bit::fast(KIND, values, importance)) {
            *out = block(parts);
        }
        out
    }
}

#[inline(always)]
fn block(parts: &Parts) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    six_bit::write_head(parts, &mut out);
    out[CODES..].copy_from_slice(&six_bit::nibbles(&parts.codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    six_bit::decode(block, &six_bit::codes_of_nibbles(&blocks::field(block, CODES)), values);
}
