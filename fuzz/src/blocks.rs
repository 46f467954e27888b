//! Blocks of every format.

use ggufsmith_core::formats::{ENCODERS, FORMATS};
use ggufsmith_core::{Rows, Words};

/// The input is the number of a format and its blocks: any bytes are some blocks, and the same ones each time.
pub fn block_decoders(data: &[u8]) {
    let Some((number, bytes)) = data.split_first() else { return };
    let format = FORMATS[usize::from(*number) % FORMATS.len()];
    let blocks = (bytes.len() / format.block_bytes).min(256);
    let bytes = &bytes[..blocks * format.block_bytes];
    let decode = || {
        let mut out = vec![0f32; blocks * format.block_len];
        format.decode(bytes, &mut out).expect("lengths belong together");
        out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let whole = decode();
    assert_eq!(whole, decode(), "{}", format.name);
    // Block by block it is the same.
    for (block, expected) in bytes.chunks_exact(format.block_bytes).zip(whole.chunks_exact(format.block_len)) {
        let mut out = vec![0f32; format.block_len];
        format.decode(block, &mut out).expect("one block is a whole number of them");
        assert!(out.iter().map(|value| value.to_bits()).eq(expected.iter().copied()), "{}", format.name);
    }
}

/// The input is the number of an encoder, of a type of words, whether there is importance, and words: any of them, NaN and infinities
/// too. The fast encoder writes what the textbook's does; finite weights that the format has room for decode to finite ones.
pub fn encode_decode(data: &[u8]) {
    let Some((&[encoder, words, weighted], bytes)) = data.split_first_chunk::<3>() else { return };
    let encoder = ENCODERS[usize::from(encoder) % ENCODERS.len()];
    let words = [Words::F32, Words::F16, Words::BF16][usize::from(words) % 3];
    let format = encoder.format;
    // At least one block, at most eight; short inputs are repeated.
    let blocks = (bytes.len() / words.bytes() / format.block_len).clamp(1, 8);
    let elems = blocks * format.block_len;
    if bytes.len() < words.bytes() {
        return;
    }
    let bytes: Vec<u8> = bytes.iter().copied().cycle().take(elems * words.bytes()).collect();
    let rows = Rows { words, cols: elems, bytes: &bytes };
    let importance: Vec<f32> = (0..elems).map(|i| f32::from(weighted.wrapping_mul(i as u8)) / 16.0).collect();
    let importance = (weighted > 0 || encoder.needs_importance).then_some(&importance[..]);
    let mut fast = vec![0; blocks * format.block_bytes];
    let mut textbook = fast.clone();
    encoder.encode(rows, importance, &mut fast).expect("lengths belong together");
    encoder.encode_textbook(rows, importance, &mut textbook).expect("lengths belong together");
    let mut out = vec![0f32; elems];
    format.decode(&fast, &mut out).expect("lengths belong together");
    let weights = floats(words, &bytes);
    if weights.iter().all(|weight| weight.is_finite()) {
        assert!(fast == textbook, "{} of {words:?}: fast {fast:?}, textbook {textbook:?}", format.name);
        // Scales are F16 in most formats: 1000 fits all of them.
        if weights.iter().all(|weight| weight.abs() < 1000.0) {
            assert!(out.iter().all(|value| value.is_finite()), "{} of {words:?}: {weights:?} becomes {out:?}", format.name);
        }
    }
}

fn floats(words: Words, bytes: &[u8]) -> Vec<f32> {
    let pairs = |of: fn(u16) -> f32| bytes.as_chunks::<2>().0.iter().map(|word| of(u16::from_le_bytes(*word))).collect();
    match words {
        Words::F32 => bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        Words::F16 => pairs(|word| half::f16::from_bits(word).to_f32()),
        Words::BF16 => pairs(|word| half::bf16::from_bits(word).to_f32()),
    }
}
