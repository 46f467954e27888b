//! Every scheme against what the real bitsandbytes writes and decodes.

mod common;

use common::{ALL_WORDS, at_every_level, inputs};
use ggufsmith_core::{FourBit, SCHEMES, SchemeError, Words};
use proptest::prelude::*;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Folder of a scheme's fixtures.
fn fixtures(scheme: &FourBit) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(scheme.name.to_lowercase())
}

fn table(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').map(String::from).collect()).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

type Codes = (Vec<u8>, Vec<f32>);

fn buffers(scheme: &FourBit, elems: usize, block_len: usize, poison: u8) -> Codes {
    (vec![poison; scheme.codes_len(elems)], vec![f32::from(poison); elems.div_ceil(block_len)])
}

fn encode(scheme: &FourBit, words: Words, source: &[u8], block_len: usize) -> Codes {
    let (mut codes, mut absmax) = buffers(scheme, source.len() / words.bytes(), block_len, 0xA5);
    scheme.encode(words, source, block_len, &mut codes, &mut absmax).unwrap();
    (codes, absmax)
}

fn textbook(scheme: &FourBit, words: Words, source: &[u8], block_len: usize) -> Codes {
    let (mut codes, mut absmax) = buffers(scheme, source.len() / words.bytes(), block_len, 0x5A);
    scheme.encode_textbook(words, source, block_len, &mut codes, &mut absmax).unwrap();
    (codes, absmax)
}

/// Values at the bounds between two codes and up to 2 units in the last place beside them; one of 32 values sets the scale.
fn threshold(scheme: &FourBit, i: usize) -> f32 {
    let (z, b) = (inputs::mix(31, i), inputs::mix(30, i / 32));
    let scale = match i / 32 % 2 {
        0 => 2f32.powi((b % 60) as i32 - 40),
        _ => inputs::bell(32, i / 32).abs() + 0.25,
    };
    if i as u64 % 32 == (b >> 8) % 32 {
        return scale;
    }
    let value = scheme.bounds[(z % 15) as usize] * scale;
    let ulps = ((z >> 8) % 5) as i32 - 2;
    if value == 0.0 { f32::from_bits(ulps.unsigned_abs()) } else { f32::from_bits(value.to_bits().wrapping_add_signed(ulps)) }
}

fn input(scheme: &FourBit, name: &str) -> Vec<f32> {
    match inputs::INPUTS.iter().find(|input| input.0 == name) {
        Some(input) => inputs::values(*input),
        None if name == "thresholds" => (0..inputs::ROWS * inputs::COLS).map(|i| threshold(scheme, i)).collect(),
        None => panic!("no input {name}"),
    }
}

#[test]
fn schemes_write_and_decode_what_bitsandbytes_does() {
    for scheme in SCHEMES {
        let golden = table(&fixtures(scheme).join("golden.tsv"));
        assert_eq!(golden.len(), (inputs::INPUTS.len() + 1) * ALL_WORDS.len() * 2 * 3);
        let mut wrong = Vec::new();
        let mut values = (String::new(), Vec::new());
        for line in &golden {
            if values.0 != line[0] {
                values = (line[0].clone(), input(scheme, &line[0]));
            }
            let words = ALL_WORDS.into_iter().find(|words| format!("{words:?}") == line[1]).unwrap();
            let (elems, block_len): (usize, usize) = (line[2].parse().unwrap(), line[3].parse().unwrap());
            let source = inputs::as_words(&values.1[..elems], words);
            let digests = |(codes, absmax): &Codes| {
                let mut decoded = vec![f32::MAX; elems];
                scheme.decode(codes, absmax, block_len, &mut decoded).unwrap();
                vec![digest(codes), digest(&bytes_of(absmax)), digest(&bytes_of(&decoded))]
            };
            if digests(&textbook(scheme, words, &source, block_len)) != line[4..] {
                wrong.push(format!("textbook {line:?}"));
            }
            at_every_level(|level| {
                if digests(&encode(scheme, words, &source, block_len)) != line[4..] {
                    wrong.push(format!("{level:?} {line:?}"));
                }
            });
        }
        assert!(wrong.is_empty(), "{} wrong, first {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

#[test]
fn whole_tensors_of_bitsandbytes_come_out() {
    for scheme in SCHEMES {
        let file = std::fs::read(fixtures(scheme).join("tensors.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let cases = table(&fixtures(scheme).join("decoded.tsv"));
        assert!(!cases.is_empty());
        for case in cases {
            let [name, decoded_digest] = &case[..] else { panic!("{case:?}") };
            let (input, block_len) = (name.split('.').next().unwrap(), name.rsplit('.').next().unwrap().parse().unwrap());
            let tensor = |name: String| tensors.tensor(&name).unwrap().data().to_vec();
            let source = tensor(format!("{input}.input"));
            let (codes, absmax) = encode(scheme, Words::F32, &source, block_len);
            assert_eq!(codes, tensor(format!("{name}.packed")), "{name}");
            assert_eq!(bytes_of(&absmax), tensor(format!("{name}.absmax")), "{name}");
            let mut decoded = vec![0.0; source.len() / 4];
            scheme.decode(&codes, &absmax, block_len, &mut decoded).unwrap();
            assert_eq!(digest(&bytes_of(&decoded)), *decoded_digest, "{name}");
            // One flipped bit of a code or a scale is noticed.
            let (mut flipped, mut scales) = (codes.clone(), absmax.clone());
            let largest = scales.iter().position(|scale| *scale > 0.0).unwrap();
            flipped[largest * block_len / 2] ^= 1;
            assert_ne!(flipped, tensor(format!("{name}.packed")));
            scheme.decode(&flipped, &absmax, block_len, &mut decoded).unwrap();
            assert_ne!(digest(&bytes_of(&decoded)), *decoded_digest);
            scales[largest] = scales[largest].next_up();
            scheme.decode(&codes, &scales, block_len, &mut decoded).unwrap();
            assert_ne!(digest(&bytes_of(&decoded)), *decoded_digest);
        }
    }
}

/// A published worked example: one block of twenty values.
#[test]
fn a_block_of_twenty() {
    let scheme = SCHEMES.iter().find(|scheme| scheme.name == "NF4").unwrap();
    let values = [
        0.4767, -0.2921, 0.0787, -0.1018, -0.3453, 0.3834, -0.0107, -0.4692, -0.4072, -0.2996, -0.4942, -0.264, 0.0125, 0.2962,
        0.3123, -0.4705, -0.1982, -0.1545, 0.3358, -0.4086,
    ];
    let codes = [15, 2, 9, 5, 1, 14, 7, 0, 1, 2, 0, 2, 7, 13, 13, 0, 3, 4, 14, 1u8];
    let (packed, absmax) = encode(scheme, Words::F32, &bytes_of(&values), FourBit::DEFAULT_BLOCK_LEN);
    assert_eq!(packed, [242, 149, 30, 112, 18, 2, 125, 208, 52, 225]);
    assert_eq!(packed, codes.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>());
    assert_eq!(absmax, [0.4942]);
}

#[test]
fn zeros_and_odd_ends() {
    for scheme in SCHEMES {
        let zeros = vec![0u8; 4 * 101];
        let (codes, absmax) = encode(scheme, Words::F32, &zeros, 64);
        let zero = codes[0] & 15;
        assert_eq!(scheme.values[usize::from(zero)], 0.0);
        assert!(codes.iter().all(|byte| *byte == zero << 4 | zero));
        assert_eq!(absmax, [0.0, 1e-38]);
        assert_eq!(encode(scheme, Words::F16, &[], 64), (vec![], vec![]));
    }
}

#[test]
fn wrong_lengths_are_errors_that_say_which() {
    for scheme in SCHEMES {
        let source = [0u8; 256];
        let encode = |bytes: usize, block_len, codes: usize, absmax: usize| {
            scheme.encode(Words::F32, &source[..bytes], block_len, &mut vec![0; codes], &mut vec![0.0; absmax])
        };
        assert_eq!(encode(256, 64, 32, 1), Ok(()));
        assert!(matches!(encode(255, 64, 32, 1), Err(SchemeError::InputLength { .. })));
        assert!(matches!(encode(256, 0, 32, 1), Err(SchemeError::BlockLength { .. })));
        assert!(matches!(encode(256, 48, 32, 2), Err(SchemeError::BlockLength { .. })));
        assert!(matches!(encode(256, 8192, 32, 1), Err(SchemeError::BlockLength { .. })));
        assert!(matches!(encode(256, 64, 31, 1), Err(SchemeError::CodesLength { .. })));
        assert!(matches!(encode(256, 64, 32, 2), Err(SchemeError::ScalesLength { .. })));
        assert!(matches!(scheme.decode(&[0; 32], &[0.0; 2], 64, &mut [0.0; 64]), Err(SchemeError::ScalesLength { .. })));
        assert!(matches!(scheme.decode(&[0; 31], &[0.0], 64, &mut [0.0; 64]), Err(SchemeError::CodesLength { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Any bits, in a window of exponents; also infinities and NaN, whose payloads do not matter.
    #[test]
    fn fast_is_textbook(
        bits in (0u32..=255, 0u32..=12).prop_flat_map(|(exponent, spread)| {
            let element = move |(bits, down): (u32, u32)| bits & 0x807f_ffff | exponent.saturating_sub(down) << 23;
            prop::collection::vec((any::<u32>(), 0..=spread).prop_map(element), 0..400)
        }),
        block_len in prop::sample::select(vec![32usize, 64, 96, 128, 256]),
    ) {
        for words in ALL_WORDS {
            let source: Vec<u8> = match words {
                Words::F32 => bits.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
                _ => bits.iter().flat_map(|bits| ((bits >> 16) as u16).to_le_bytes()).collect(),
            };
            let plain = |(codes, absmax): Codes| {
                (codes, absmax.iter().map(|a| if a.is_nan() { 0x7fc0_0000 } else { a.to_bits() }).collect::<Vec<_>>())
            };
            for scheme in SCHEMES {
                let expected = plain(textbook(scheme, words, &source, block_len));
                at_every_level(|_| assert_eq!(plain(encode(scheme, words, &source, block_len)), expected, "{words:?}"));
            }
        }
    }
}

/// Decoding and encoding again gives the same codes: values are a fixed point of the scheme.
#[test]
fn decoded_blocks_encode_to_what_they_were() {
    for scheme in SCHEMES {
        let source = bytes_of(&input(scheme, "gaussian"));
        let once = encode(scheme, Words::F32, &source, 64);
        let mut decoded = vec![0.0; source.len() / 4];
        scheme.decode(&once.0, &once.1, 64, &mut decoded).unwrap();
        let twice = encode(scheme, Words::F32, &bytes_of(&decoded), 64);
        // Where two codes stand for 0 the first one is taken.
        let mut again = vec![0.0; decoded.len()];
        scheme.decode(&twice.0, &twice.1, 64, &mut again).unwrap();
        assert_eq!(again, decoded);
        assert!(twice == once || scheme.values.iter().filter(|value| **value == 0.0).count() == 2);
    }
}
