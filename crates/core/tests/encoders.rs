//! Properties of every encoder of the registry, and literal blocks from the real ggml.

mod common;

use common::{ALL_WORDS, at_every_level, difference, inputs};
use ggufsmith_core::{ENCODERS, EncodeError, Encoder, FORMATS, Rows, Words};
use proptest::prelude::*;
use std::path::Path;

const BLOCKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/formats/blocks.tsv");
/// Elements per row of the generated inputs: a whole number of blocks of every format.
const COLS: usize = 512;

fn encode(encoder: &Encoder, rows: Rows<'_>, importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xA5; encoder.format.bytes_for(rows.elems() as u64).unwrap() as usize];
    encoder.encode(rows, importance, &mut out).unwrap();
    out
}

/// How the fast implementation differs from the textbook, at the first level where it does. Both outputs are poisoned differently,
/// so that a byte that nobody writes is a difference.
fn fast_against_textbook(encoder: &Encoder, rows: Rows<'_>, importance: Option<&[f32]>) -> Option<String> {
    let mut expected = vec![0x5A; encoder.format.bytes_for(rows.elems() as u64).unwrap() as usize];
    encoder.encode_textbook(rows, importance, &mut expected).unwrap();
    let mut found = None;
    at_every_level(|level| {
        let out = encode(encoder, rows, importance);
        if let Some(difference) = difference(&out, &expected, encoder.format.block_bytes) {
            let importance = importance.is_some();
            found.get_or_insert(format!(
                "{} {:?} importance {importance} {level:?}: {difference:?}",
                encoder.format.name, rows.words
            ));
        }
    });
    found
}

/// F32 bits of one row whose exponents lie in a window: from blocks of one magnitude to every magnitude at once, denormals,
/// infinities and NaN among them, with fractions of few bits (ties) or of any.
fn row() -> impl Strategy<Value = Vec<u32>> {
    (0u32..=255, 0u32..=12, 0u32..=23).prop_flat_map(|(exponent, spread, coarse)| {
        let element = move |(bits, down): (u32, u32)| {
            let exponent = exponent.saturating_sub(down);
            bits & 0x8000_0000 | exponent << 23 | (bits & 0x7f_ffff) >> coarse << coarse
        };
        prop::collection::vec((any::<u32>(), 0..=spread).prop_map(element), COLS)
    })
}

/// Importance: usually positive, sometimes zero.
fn importance() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop_oneof![8 => (0u32..1 << 20).prop_map(|n| n as f32 * 1e-5), 1 => Just(0.0)], COLS)
}

/// Rows of words from F32 bits. Halves take the upper bits as they are; F16 gets a smaller exponent range that way, and all of it.
fn words_of(bits: &[u32], words: Words) -> Vec<u8> {
    match words {
        Words::F32 => bits.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        Words::F16 | Words::BF16 => bits.iter().flat_map(|bits| ((bits >> 16) as u16).to_le_bytes()).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn fast_is_textbook(first in row(), second in row(), importance in importance()) {
        let bits = [first, second].concat();
        for words in ALL_WORDS {
            let bytes = words_of(&bits, words);
            let rows = Rows { words, cols: COLS, bytes: &bytes };
            for encoder in ENCODERS {
                for importance in [None, Some(&importance[..])] {
                    if importance.is_some() || !encoder.needs_importance {
                        prop_assert_eq!(fast_against_textbook(encoder, rows, importance), None);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_do_not_influence_each_other(first in row(), second in row(), importance in importance()) {
        let bytes = words_of(&[&first[..], &second[..]].concat(), Words::F32);
        let rows = |bytes| Rows { words: Words::F32, cols: COLS, bytes };
        for encoder in ENCODERS {
            let importance = Some(&importance[..]);
            let (left, right) = bytes.split_at(COLS * 4);
            let apart = [encode(encoder, rows(left), importance), encode(encoder, rows(right), importance)].concat();
            prop_assert_eq!(encode(encoder, rows(&bytes), importance), apart, "{}", encoder.format.name);
        }
    }

    #[test]
    fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 1024)) {
        for format in FORMATS {
            let blocks = bytes.len() / format.block_bytes;
            let mut values = vec![0.0; blocks * format.block_len];
            format.decode(&bytes[..blocks * format.block_bytes], &mut values).unwrap();
        }
    }
}

#[test]
fn a_wrong_fast_encoder_is_noticed() {
    let bytes = inputs::as_words(&inputs::values(inputs::INPUTS[0]), Words::BF16);
    let rows = Rows { words: Words::BF16, cols: inputs::COLS, bytes: &bytes };
    for encoder in ENCODERS {
        let whole = Encoder { fast: encoder.textbook, ..copy(encoder) };
        assert_eq!(fast_against_textbook(&whole, rows, None), None);
        fn last_bit_flipped(rows: Rows<'_>, _: Option<&[f32]>, out: &mut [u8]) {
            let encoder = ENCODERS.iter().find(|e| e.format.bytes_for(rows.elems() as u64) == Some(out.len() as u64)).unwrap();
            (encoder.textbook)(rows, None, out);
            *out.last_mut().unwrap() ^= 1;
        }
        let sabotaged = Encoder { fast: last_bit_flipped, ..copy(encoder) };
        assert!(fast_against_textbook(&sabotaged, rows, None).is_some(), "{}", encoder.format.name);
    }
}

fn copy(encoder: &Encoder) -> Encoder {
    let Encoder { name, format, needs_importance, fast, textbook } = *encoder;
    Encoder { name, format, needs_importance, fast, textbook }
}

/// Blocks per (input, format) of the literal fixtures, with the input's values as bytes.
fn literal_blocks() -> Vec<(String, Vec<u8>, String, Vec<u8>)> {
    let hex = |text: &str| -> Vec<u8> {
        text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    let (mut input, mut found) = ((String::new(), Vec::new()), Vec::new());
    for line in std::fs::read_to_string(Path::new(BLOCKS)).unwrap().lines().filter(|line| !line.starts_with('#')) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["", format, blocks] => found.push((input.0.clone(), input.1.clone(), format.into(), hex(blocks))),
            [name, values] => input = (name.into(), hex(values)),
            _ => panic!("a line of {} columns", line.split('\t').count()),
        }
    }
    found
}

/// NaN and infinity are refused before an encoder sees them, unless the user insists; then the bytes are still ggml's.
#[test]
fn literal_blocks_come_out_as_ggml_writes_them() {
    let literals = literal_blocks();
    let mut wrong = Vec::new();
    for encoder in ENCODERS.iter().filter(|encoder| encoder.name == "ggml" && encoder.format.is_quantized()) {
        let mut seen = 0;
        for (input, values, _, expected) in literals.iter().filter(|literal| literal.2 == encoder.format.name) {
            let rows = Rows { words: Words::F32, cols: 256, bytes: values };
            seen += 1;
            if let Some(difference) = difference(&encode(encoder, rows, None), expected, encoder.format.block_bytes) {
                wrong.push(format!("{} {input}: {difference:?}", encoder.format.name));
            }
            if let Some(difference) = fast_against_textbook(encoder, rows, None) {
                wrong.push(difference);
            }
        }
        assert!(seen > 0, "{} has no literal blocks", encoder.format.name);
    }
    assert_eq!(wrong, [""; 0]);
}

/// Decoding and encoding again loses little, and the error of the first time is what the format's width suggests. Searched scales
/// need not be found again: the second loss of Q3_K is more than a tenth of the first, that of the others less.
#[test]
fn decoded_blocks_encode_to_what_they_were() {
    let values = inputs::values(inputs::INPUTS[0]);
    let bytes = inputs::as_words(&values, Words::F32);
    let rms = |left: &[f32], right: &[f32]| {
        let sum = |f: &dyn Fn(usize) -> f64| (0..left.len()).map(|i| f(i) * f(i)).sum::<f64>();
        (sum(&|i| f64::from(left[i] - right[i])) / sum(&|i| f64::from(right[i]))).sqrt()
    };
    for encoder in ENCODERS {
        let rows = |bytes| Rows { words: Words::F32, cols: inputs::COLS, bytes };
        let decode = |blocks: &[u8]| {
            let mut decoded = vec![0.0; values.len()];
            encoder.format.decode(blocks, &mut decoded).unwrap();
            decoded
        };
        let once = decode(&encode(encoder, rows(&bytes), None));
        let twice = decode(&encode(encoder, rows(&inputs::as_words(&once, Words::F32)), None));
        let (first, second) = (rms(&once, &values), rms(&twice, &once));
        if encoder.format.is_quantized() {
            // Below two and a half bits a block's largest magnitude sets the step, and most weights become zero.
            let bits = encoder.format.bits_per_weight();
            let expected = if bits < 2.5 { 1.0 } else { 2f64.powf(1.5 - bits) };
            assert!(first <= expected, "{}: {first}", encoder.format.name);
        }
        assert!(second <= first / 4.0, "{}: {second}", encoder.format.name);
    }
}

#[test]
fn wrong_lengths_are_errors_that_say_which() {
    let bytes = vec![0; 4 * COLS];
    for encoder in ENCODERS {
        let rows = |cols, bytes| Rows { words: Words::F32, cols, bytes };
        let mut out = vec![0; encoder.format.bytes_for(COLS as u64).unwrap() as usize];
        let all = rows(COLS, &bytes[..]);
        assert!(matches!(encoder.encode(all, None, &mut out[1..]), Err(EncodeError::OutputLength { .. })));
        assert!(matches!(encoder.encode(rows(COLS, &bytes[1..]), None, &mut out), Err(EncodeError::InputLength { .. })));
        assert!(matches!(encoder.encode(rows(0, &bytes[..]), None, &mut out), Err(EncodeError::RowLength { .. })));
        if encoder.format.is_quantized() {
            assert!(matches!(encoder.encode(rows(COLS + 1, &bytes[..]), None, &mut out), Err(EncodeError::RowLength { .. })));
            assert!(encoder.format.decode(&out[1..], &mut vec![0.0; COLS]).is_err());
        }
        let short = [1.0; COLS - 1];
        assert!(matches!(encoder.encode(all, Some(&short), &mut out), Err(EncodeError::ImportanceLength { .. })));
        encoder.encode(rows(COLS, &[]), Some(&[1.0; COLS]), &mut []).unwrap();
    }
}
