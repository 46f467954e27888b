//! Double quantization and int8 against what bitsandbytes itself wrote.

mod common;

use common::inputs;
use ggufsmith_core::schemes::dynamic8::{self, BLOCK_LEN, Dynamic8};
use ggufsmith_core::schemes::int8;
use ggufsmith_core::{SCHEMES, Words, float};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bnb").join(name)
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    tensors.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn digest_bytes(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(values: &[f32]) -> String {
    digest_bytes(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

#[test]
fn the_table_is_that_of_bitsandbytes() {
    let file = std::fs::read(fixture("tensors.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let expected = floats(&tensors, "nested_code");
    assert_eq!(dynamic8::values().map(f32::to_bits).to_vec(), expected.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[test]
fn double_quantization_writes_and_decodes_what_bitsandbytes_does() {
    let file = std::fs::read(fixture("tensors.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (encoder, table) = (Dynamic8::new(), dynamic8::values());
    let text = std::fs::read_to_string(fixture("cases.tsv")).unwrap();
    let cases: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('\t').unwrap()).collect();
    assert_eq!(cases.len(), 8 * 2 * 3);
    for (name, decoded_digest) in cases {
        let [input, scheme, block_len, "dq"] = name.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let (scheme, block_len) =
            (SCHEMES.iter().find(|s| s.name.to_lowercase() == scheme).unwrap(), block_len.parse::<usize>().unwrap());
        let source = tensors.tensor(&format!("{input}.input")).unwrap().data().to_vec();
        let elems = source.len() / 4;
        let (mut codes, mut absmax) = (vec![0; scheme.codes_len(elems)], vec![0.0; elems.div_ceil(block_len)]);
        scheme.encode(Words::F32, &source, block_len, &mut codes, &mut absmax).unwrap();
        assert_eq!(codes, tensors.tensor(&format!("{name}.packed")).unwrap().data(), "{name}");

        let offset = dynamic8::mean(&absmax);
        assert_eq!(offset.to_bits(), floats(&tensors, &format!("{name}.offset"))[0].to_bits(), "{name}");
        let rest: Vec<f32> = absmax.iter().map(|scale| scale - offset).collect();
        let (nested, scales) = encoder.encode(&rest);
        assert_eq!(nested, tensors.tensor(&format!("{name}.absmax")).unwrap().data(), "{name}");
        assert_eq!(scales, floats(&tensors, &format!("{name}.nested_absmax")), "{name}");

        let value = |(i, code): (usize, &u8)| table[usize::from(*code)] * scales[i / BLOCK_LEN] + offset;
        let restored: Vec<f32> = nested.iter().enumerate().map(value).collect();
        let mut decoded = vec![0.0; elems];
        scheme.decode(&codes, &restored, block_len, &mut decoded).unwrap();
        assert_eq!(digest(&decoded), decoded_digest, "{name}");
        let first = decoded.iter().position(|value| *value != 0.0).unwrap();
        decoded[first] = decoded[first].next_up();
        assert_ne!(digest(&decoded), decoded_digest, "{name}");
    }
}

/// Matrices of 4 and 16 million weights: every state tensor and every value.
#[test]
fn large_matrices_are_those_of_bitsandbytes() {
    let (encoder, table) = (Dynamic8::new(), dynamic8::values());
    let text = std::fs::read_to_string(fixture("large.tsv")).unwrap();
    let cases: Vec<Vec<_>> = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    assert_eq!(cases.len(), 2 * 2 * 2 * 3);
    let mut source = (("", 0), Vec::new());
    for case in cases {
        let [input, side, scheme, block_len, words, expected @ ..] = &case[..] else { panic!("{case:?}") };
        let (side, block_len): (usize, usize) = (side.parse().unwrap(), block_len.parse().unwrap());
        if source.0 != (*input, side) {
            let value = inputs::INPUTS.iter().find(|(name, _)| name == input).unwrap().1;
            let values: Vec<f32> = (0..side * side).map(value).collect();
            source = ((*input, side), inputs::as_words(&values, Words::BF16));
            assert_eq!(digest_bytes(&source.1), **words, "{input} {side}");
        }
        let scheme = SCHEMES.iter().find(|s| s.name.to_lowercase() == **scheme).unwrap();
        let (mut codes, mut absmax) = (vec![0; scheme.codes_len(side * side)], vec![0.0; side * side / block_len]);
        scheme.encode(Words::BF16, &source.1, block_len, &mut codes, &mut absmax).unwrap();
        let offset = dynamic8::mean(&absmax);
        let (nested, scales) = encoder.encode(&absmax.iter().map(|scale| scale - offset).collect::<Vec<_>>());
        let restored = nested.iter().enumerate().map(|(i, code)| table[usize::from(*code)] * scales[i / BLOCK_LEN] + offset);
        let mut values = vec![0.0; side * side];
        scheme.decode(&codes, &restored.collect::<Vec<_>>(), block_len, &mut values).unwrap();
        let values: Vec<u8> = values.iter().flat_map(|value| float::f32_to_bf16(*value).to_le_bytes()).collect();
        let mut found = [
            digest_bytes(&codes),
            digest_bytes(&nested),
            digest(&scales),
            format!("{:08x}", offset.to_bits()),
            digest_bytes(&values),
        ];
        assert_eq!(found, *expected, "{input} {side} {}", scheme.name);
        // One flipped bit is noticed.
        codes[side] ^= 1;
        found[0] = digest_bytes(&codes);
        assert_ne!(found, *expected);
    }
}

#[test]
fn int8_rows_are_those_of_bitsandbytes() {
    let file = std::fs::read(fixture("tensors.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut cases = 0;
    for name in tensors.names().into_iter().filter_map(|name| name.strip_suffix(".int8.CB")) {
        let input = floats(&tensors, &format!("{name}.input"));
        let shape = tensors.tensor(&format!("{name}.input")).unwrap().shape().to_vec();
        let (mut codes, mut scales) = (vec![0x5a; input.len()], Vec::new());
        for (row, codes) in input.chunks(shape[1]).zip(codes.chunks_mut(shape[1])) {
            scales.push(int8::encode(row, codes));
        }
        let found: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        assert_eq!(found, tensors.tensor(&format!("{name}.int8.CB")).unwrap().data(), "{name}");
        assert_eq!(scales, floats(&tensors, &format!("{name}.int8.SCB")), "{name}");
        cases += 1;
    }
    assert_eq!(cases, 8);
    let mut codes = [0; 3];
    assert_eq!(int8::encode(&[1e6, -1.0, 0.5], &mut codes), f32::INFINITY);
}
