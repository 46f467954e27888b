//! A published worked example of zero-point quantization: `fixtures/int8_example.json`.

use ggufsmith_core::schemes::int8_affine::{Affine, Codes};
use ggufsmith_core::schemes::nf4;
use ggufsmith_core::{FourBit, Words};
use serde_json::Value;
use std::path::Path;

fn example() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/int8_example.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

#[test]
fn a_matrix_of_five_by_five() {
    let example = example();
    let matrix: Vec<f32> = numbers(&example["matrix"]).into_iter().map(|x| x as f32).collect();
    let codes: Vec<f64> = numbers(&example["quantized"]);
    assert_eq!((matrix.len(), codes.len()), (25, 25));
    let (min, max) = matrix.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| (min.min(x), max.max(x)));
    let affine = Affine::new(min, max, Codes::Signed);
    assert_eq!(f64::from(affine.scale), example["scale"].as_f64().unwrap());
    assert_eq!(affine.zero_point, example["zero_point"].as_i64().unwrap());
    let found: Vec<f64> = matrix.iter().map(|x| f64::from(affine.encode(*x) as i8)).collect();
    assert_eq!(found, codes);
    let squares = matrix.iter().map(|x| f64::from(affine.decode(affine.encode(*x)) - x).powi(2));
    let expected = example["mse_of_these_rounded_inputs"].as_f64().unwrap();
    assert!((squares.sum::<f64>() / 25.0 / expected - 1.0).abs() < 1e-5);
    // Unsigned codes are the same ones, 128 further.
    let unsigned = Affine::new(min, max, Codes::Unsigned);
    assert_eq!((unsigned.scale, unsigned.zero_point), (affine.scale, affine.zero_point + 128));
    assert_eq!(matrix.iter().map(|x| f64::from(unsigned.encode(*x)) - 128.0).collect::<Vec<_>>(), codes);
}

/// The same source's NF4: one short block, whose codes are given in order.
#[test]
fn a_block_of_nf4() {
    let block = &example()["nf4_block_of_20"];
    let values: Vec<u8> = numbers(&block["values"]).into_iter().flat_map(|x| (x as f32).to_le_bytes()).collect();
    let (mut packed, mut absmax) = (vec![0; 10], vec![0.0]);
    nf4::SCHEME.encode(Words::F32, &values, FourBit::DEFAULT_BLOCK_LEN, &mut packed, &mut absmax).unwrap();
    assert_eq!(packed.iter().map(|byte| f64::from(*byte)).collect::<Vec<_>>(), numbers(&block["packed"]));
    let codes: Vec<f64> = packed.iter().flat_map(|byte| [f64::from(byte >> 4), f64::from(byte & 15)]).collect();
    assert_eq!(codes, numbers(&block["codes"]));
}
