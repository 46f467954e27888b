//! `Q5_K`: 256 codes of 5 bits in 8 groups with a scale and a minimum each. 5.5 bits per weight.
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | `d`: scale of the scales, F16 |
//! | 2 | `dmin`: scale of the minimums, F16 |
//! | 12 | `scales`: 8 scales and 8 minimums of 6 bits, packed as `blocks/six_bit.rs` says |
//! | 32 | `qh`: bit `g` of byte `l` is the upper bit of code `l` of group `g` |
//! | 128 | `ql`: lower 4 bits; of each 64 elements, element `l` in the low, element `l + 32` in the high half of byte `l` |
//!
//! Value: `q * scales[group] * d - mins[group] * dmin`. Scale and minimum of a group are searched for.

use crate::blocks;
use crate::blocks::kquants::{self, LEN, Searched};
use crate::blocks::search::Tries;
use crate::blocks::six_bit::{self, AT_ONCE, GROUP, Kind, Parts, SCALE_BYTES};
use crate::encoder::Encoder;
use crate::format::Format;

/// Bytes per block.
const BYTES: usize = 176;
/// Bytes in front of the codes' upper bits.
const UPPER: usize = 2 + 2 + SCALE_BYTES;
/// Bytes in front of their lower bits.
const LOWER: usize = UPPER + LEN / 8;
const _: () = assert!(BYTES == LOWER + LEN / 2);

/// ggml's `Q5_K`.
pub static FORMAT: Format =
    Format { ggml_id: 13, name: "Q5_K", block_len: LEN, block_bytes: BYTES, decode: Some(blocks::decoder!(decode)) };

/// `quantize_q5_K`.
pub static ENCODER: Encoder = Encoder {
    name: "ggml",
    format: &FORMAT,
    needs_importance: false,
    fast: kquants::fast::<Q5K, BYTES, AT_ONCE>,
    textbook: kquants::textbook::<Q5K, BYTES, AT_ONCE>,
};

const KIND: Kind = Kind { top: 31, tries: Tries { first: -0.5, delta: 0.1, steps: 15 }, limit: 63 };

struct Q5K;

impl Searched<BYTES, AT_ONCE> for Q5K {
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
    for (group, codes) in parts.codes.as_chunks::<GROUP>().0.iter().enumerate() {
        for (byte, code) in out[UPPER..LOWER].iter_mut().zip(codes) {
            *byte |= code >> 4 << group;
        }
    }
    out[LOWER..].copy_from_slice(&six_bit::nibbles(&parts.codes));
    out
}

#[inline(always)]
fn decode(block: &[u8; BYTES], values: &mut [f32; LEN]) {
    let mut codes = six_bit::codes_of_nibbles(&blocks::field(block, LOWER));
    let mut upper: [u8; GROUP] = blocks::field(block, UPPER);
    for codes in codes.as_chunks_mut::<GROUP>().0 {
        for (code, byte) in codes.iter_mut().zip(&mut upper) {
            *code |= (*byte & 1) << 4;
            *byte >>= 1;
        }
    }
    six_bit::decode(block, &codes, values);
}
