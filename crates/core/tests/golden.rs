//! Every encoder named `ggml` and every format against digests of what the real ggml writes and decodes.

mod common;

use common::inputs::{self, COLS, INPUTS};
use common::{ALL_WORDS, at_every_level, difference};
use ggufsmith_core::{ENCODERS, Encoder, FORMATS, Format, Rows, Words};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/formats/golden.tsv");

const DECODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/formats/decode.tsv");
/// Random blocks per format.
const BLOCKS: usize = 4096;

/// Input, words and whether importance was given.
type Case = (String, String, bool);

#[derive(Default)]
struct Golden {
    /// Digest of the words.
    words: BTreeMap<Case, String>,
    /// Digests of the blocks and of the decoded values, per format.
    blocks: BTreeMap<(Case, String), (String, String)>,
}

fn golden() -> Golden {
    let mut golden = Golden::default();
    let mut case = Case::default();
    for line in std::fs::read_to_string(Path::new(GOLDEN)).unwrap().lines().filter(|line| !line.starts_with('#')) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["", format, blocks, decoded] => {
                golden.blocks.insert((case.clone(), format.into()), (blocks.into(), decoded.into()));
            }
            [input, words, weighted, digest] => {
                case = (input.into(), words.into(), weighted == "1");
                golden.words.insert(case.clone(), digest.into());
            }
            _ => panic!("a line of {} columns: {line}", line.split('\t').count()),
        }
    }
    golden
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of the bits, with one pattern for all NaN.
fn digest_values(values: &[f32]) -> String {
    let bits = |v: &f32| if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() };
    digest(&values.iter().flat_map(|v| bits(v).to_le_bytes()).collect::<Vec<_>>())
}

fn for_each_case(mut f: impl FnMut(&Case, Rows<'_>, Option<&[f32]>)) {
    let importance = inputs::importance();
    for input in INPUTS {
        let values = inputs::values(*input);
        for words in ALL_WORDS {
            let bytes = inputs::as_words(&values, words);
            for weighted in [false, true] {
                let case = (input.0.to_string(), format!("{words:?}"), weighted);
                f(&case, Rows { words, cols: COLS, bytes: &bytes }, weighted.then_some(&importance[..]));
            }
        }
    }
}

fn ggml_encoders() -> impl Iterator<Item = &'static Encoder> {
    ENCODERS.iter().copied().filter(|encoder| encoder.name == "ggml")
}

fn encode(encoder: &Encoder, rows: Rows<'_>, importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xA5; encoder.format.bytes_for(rows.elems() as u64).unwrap() as usize];
    encoder.encode(rows, importance, &mut out).unwrap();
    out
}

/// Fail with the number of wrong cases and the first few.
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong, first {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn the_goldens_cover_the_registry_and_nothing_else() {
    let golden = golden();
    let mut names: Vec<_> = golden.blocks.keys().map(|(_, format)| format.as_str()).collect();
    names.sort();
    names.dedup();
    let mut encoders: Vec<_> = ggml_encoders().map(|encoder| encoder.format.name).collect();
    encoders.sort();
    assert_eq!(names, encoders);
    assert_eq!(golden.words.len(), INPUTS.len() * ALL_WORDS.len() * 2);
    assert_eq!(golden.blocks.len(), golden.words.len() * names.len());
}

#[test]
fn the_inputs_are_those_of_the_goldens() {
    let golden = golden();
    for_each_case(|case, rows, _| assert_eq!(digest(rows.bytes), golden.words[case], "{case:?}"));
}

#[test]
fn fast_encoders_write_ggml_s_bytes() {
    let golden = golden();
    let mut wrong = Vec::new();
    for_each_case(|case, rows, importance| {
        for encoder in ggml_encoders() {
            let expected = &golden.blocks[&(case.clone(), encoder.format.name.to_string())].0;
            at_every_level(|level| {
                if digest(&encode(encoder, rows, importance)) != *expected {
                    wrong.push(format!("{} {case:?} {level:?}", encoder.format.name));
                }
            });
        }
    });
    report(&wrong);
}

#[test]
fn textbook_encoders_write_ggml_s_bytes() {
    let golden = golden();
    let mut wrong = Vec::new();
    for_each_case(|case, rows, importance| {
        for encoder in ggml_encoders() {
            let mut out = vec![0x5A; encoder.format.bytes_for(rows.elems() as u64).unwrap() as usize];
            encoder.encode_textbook(rows, importance, &mut out).unwrap();
            if digest(&out) != golden.blocks[&(case.clone(), encoder.format.name.to_string())].0 {
                let fast = encode(encoder, rows, importance);
                let difference = difference(&out, &fast, encoder.format.block_bytes);
                wrong.push(format!("{} {case:?}, against fast: {difference:?}", encoder.format.name));
            }
        }
    });
    report(&wrong);
}

#[test]
fn formats_decode_as_ggml_does() {
    let golden = golden();
    let mut wrong = Vec::new();
    for_each_case(|case, rows, importance| {
        for encoder in ggml_encoders() {
            let mut values = vec![f32::MAX; rows.elems()];
            encoder.format.decode(&encode(encoder, rows, importance), &mut values).unwrap();
            if digest_values(&values) != golden.blocks[&(case.clone(), encoder.format.name.to_string())].1 {
                wrong.push(format!("{} {case:?}", encoder.format.name));
            }
        }
    });
    report(&wrong);
}

/// Random blocks as the goldens have them. Bits 4 to 6 of the bytes `scales` are not all ones, so that scales are finite.
fn random_blocks(format: &Format, scales: &[usize]) -> Vec<u8> {
    let mix = |at| inputs::mix(1000 + u64::from(format.ggml_id), at).to_le_bytes();
    let mut blocks: Vec<u8> = (0..BLOCKS * format.block_bytes / 8).flat_map(mix).collect();
    for block in blocks.chunks_mut(format.block_bytes) {
        for &at in scales {
            if block[at] & 0x70 == 0x70 {
                block[at] &= 0xBF;
            }
        }
    }
    blocks
}

#[test]
fn random_blocks_decode_as_ggml_decodes_them() {
    let golden = std::fs::read_to_string(Path::new(DECODE)).unwrap();
    for format in FORMATS.iter().filter(|format| format.is_quantized()) {
        let line = golden.lines().find(|line| line.split('\t').next() == Some(format.name));
        let columns: Vec<_> = line.unwrap_or_else(|| panic!("{} is missing", format.name)).split('\t').collect();
        let scales: Vec<usize> = columns[1].split(',').filter(|at| !at.is_empty()).map(|at| at.parse().unwrap()).collect();
        let mut blocks = random_blocks(format, &scales);
        assert_eq!(digest(&blocks), columns[2], "{}", format.name);
        let mut values = vec![f32::MAX; BLOCKS * format.block_len];
        at_every_level(|level| {
            values.fill(f32::MAX);
            format.decode(&blocks, &mut values).unwrap();
            assert_eq!(digest_values(&values), columns[3], "{} {level:?}", format.name);
        });
        let middle = blocks.len() / 2 + 5;
        blocks[middle] ^= 1;
        format.decode(&blocks, &mut values).unwrap();
        assert_ne!(digest_values(&values), columns[3], "{}", format.name);
    }
}

/// The comparison above fails when one bit of the output or one input word is another.
#[test]
fn one_flipped_bit_changes_the_digests() {
    let golden = golden();
    let values = inputs::values(INPUTS[0]);
    let mut bytes = inputs::as_words(&values, Words::F32);
    for encoder in ggml_encoders() {
        let case = (INPUTS[0].0.to_string(), format!("{:?}", Words::F32), false);
        let expected = &golden.blocks[&(case, encoder.format.name.to_string())];
        let blocks = encode(encoder, Rows { words: Words::F32, cols: COLS, bytes: &bytes }, None);
        assert_eq!(digest(&blocks), expected.0);
        let mut flipped = blocks.clone();
        flipped[blocks.len() / 2] ^= 1;
        assert_ne!(digest(&flipped), expected.0);
        let mut decoded = vec![0.0; values.len()];
        encoder.format.decode(&flipped, &mut decoded).unwrap();
        assert_ne!(digest_values(&decoded), expected.1);
    }
    bytes[1000] ^= 1;
    assert_ne!(digest(&bytes), golden.words[&("gaussian".into(), "F32".into(), false)]);
}

#[test]
fn registry_is_in_order_and_names_are_unique() {
    assert!(FORMATS.is_sorted_by(|a, b| a.ggml_id < b.ggml_id));
    for (i, encoder) in ENCODERS.iter().enumerate() {
        assert!(FORMATS.contains(&encoder.format));
        assert!(ENCODERS[..i].iter().all(|other| other.format != encoder.format || other.name != encoder.name));
    }
}

#[test]
fn difference_counts_blocks() {
    let left = [0u8; 12];
    let mut right = left;
    assert_eq!(difference(&left, &right, 4), None);
    right[5] = 1;
    right[11] = 1;
    assert_eq!(difference(&left, &right, 4), Some(common::Difference { blocks: 2, first: 1 }));
}
