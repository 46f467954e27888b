//! Models of plain 8-bit codes: the published example as a checkpoint, and what is refused.

use ggufsmith_checkpoint::{Checkpoint, CheckpointError, ModelDir};
use ggufsmith_core::{DType, TensorSource};
use serde_json::{Map, Value, json};
use std::path::Path;

type Tensor = (&'static str, Vec<u64>, Vec<u8>);
type Tensors = Vec<(&'static str, Tensor)>;
type Change<'a> = &'a dyn Fn(&mut Tensors);

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

fn write(dir: &Path, entry: &Value, tensors: &[(&str, Tensor)]) {
    std::fs::write(dir.join("config.json"), json!({"quantization_config": entry}).to_string()).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": range}));
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

fn entry(scheme: &str, granularity: &str, unsigned: bool) -> Value {
    json!({"quant_method": "ggufsmith_int8", "version": 1, "scheme": scheme, "granularity": granularity, "unsigned": unsigned})
}

fn open(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(&ModelDir::open(dir).unwrap())
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.info(name).unwrap();
    assert_eq!(info.dtype, DType::F32);
    let mut bytes = vec![0; info.bytes() as usize];
    checkpoint.read(name, 0, &mut bytes).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The tensors of the example.
fn of_example() -> Tensors {
    let example = example();
    let codes = numbers(&example["quantized"]).into_iter().map(|code| code as i8 as u8).collect();
    let scale = (example["scale"].as_f64().unwrap() as f32).to_le_bytes().to_vec();
    let zero = example["zero_point"].as_i64().unwrap().to_le_bytes().to_vec();
    vec![
        ("a.weight", ("I8", vec![5, 5], codes)),
        ("a.weight.scale", ("F32", vec![], scale)),
        ("a.weight.zero_point", ("I64", vec![], zero)),
        ("norm.weight", ("BF16", vec![1], vec![0x80, 0x3f])),
    ]
}

#[test]
fn the_example_reads_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &entry("INT8_AFFINE", "tensor", false), &of_example());
    let checkpoint = open(dir.path()).unwrap();
    let names: Vec<_> = checkpoint.tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "norm.weight"]);
    let note = checkpoint.notes().remove(0);
    assert!(note.contains("1 of 2 tensors are INT8_AFFINE with a scale per tensor"), "{note}");

    let (example, found) = (example(), values(&checkpoint, "a.weight"));
    let matrix = numbers(&example["matrix"]);
    let codes = numbers(&example["quantized"]);
    let (scale, zero) = (example["scale"].as_f64().unwrap(), example["zero_point"].as_f64().unwrap());
    for (value, code) in found.iter().zip(codes) {
        assert_eq!(*value, ((code - zero) / scale) as f32);
    }
    let squares: f64 = found.iter().zip(&matrix).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    assert!((squares / 25.0 / example["mse_of_these_rounded_inputs"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    // Any range of elements is that part of the whole.
    let mut part = vec![0; 28];
    checkpoint.read("a.weight", 16, &mut part).unwrap();
    let part: Vec<f32> = part.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    assert_eq!(part, found[4..11]);
    for (offset, len) in [(2, 4), (0, 3), (96, 8)] {
        assert!(checkpoint.read("a.weight", offset, &mut vec![0; len]).is_err());
    }
}

#[test]
fn rows_have_maps_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let floats = |list: &[f32]| list.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let zeros = [0i64, -300, 255].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [
        ("a.weight", ("U8", vec![3, 2], vec![0, 255, 1, 2, 255, 0])),
        ("a.weight.scale", ("F32", vec![3], floats(&[1.0, 4.0, 0.5]))),
        ("a.weight.zero_point", ("I64", vec![3], zeros)),
    ];
    write(dir.path(), &entry("INT8_AFFINE", "row", true), &tensors);
    let checkpoint = open(dir.path()).unwrap();
    assert_eq!(values(&checkpoint, "a.weight"), [0.0, 255.0, 75.25, 75.5, 0.0, -510.0]);
    let mut middle = [0; 12];
    checkpoint.read("a.weight", 4, &mut middle).unwrap();
    assert_eq!(middle, floats(&[255.0, 75.25, 75.5])[..]);
    // Without a zero point, and signed.
    let tensors = [("a.weight", ("I8", vec![2, 1], vec![129, 127])), ("a.weight.scale", ("F32", vec![2], floats(&[127.0, 2.0])))];
    write(dir.path(), &entry("INT8_ABSMAX", "row", false), &tensors);
    assert_eq!(values(&open(dir.path()).unwrap(), "a.weight"), [-1.0, 63.5]);
}

#[test]
fn what_is_broken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let affine = entry("INT8_AFFINE", "tensor", false);
    let refusal = |entry: &Value, change: Change<'_>| {
        let mut tensors = of_example();
        change(&mut tensors);
        write(dir.path(), entry, &tensors);
        open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let set = |at: usize, tensor: Tensor| move |tensors: &mut Tensors| tensors[at].1 = tensor.clone();
    let scale = |value: f32| set(1, ("F32", vec![], value.to_le_bytes().to_vec()));
    assert_eq!(refusal(&affine, &|_| ()), "");
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(refusal(&affine, &scale(value)).contains("a scale is a finite number above 0"), "{value}");
    }
    assert_eq!(refusal(&affine, &scale(1e-45)), "");
    for (said, change) in [
        ("\"a.weight.scale\" is missing", &(|t: &mut Vec<_>| drop(t.remove(1))) as Change<'_>),
        ("\"a.weight.zero_point\" is missing", &|t: &mut Vec<_>| drop(t.remove(2))),
        ("belongs to \"a.weight\", which is missing", &|t: &mut Vec<_>| drop(t.remove(0))),
        ("shape [1], [] is needed", &set(1, ("F32", vec![1], vec![0, 0, 128, 63]))),
        ("type F16, F32 is needed", &set(1, ("F16", vec![], vec![0, 60]))),
        ("type I32, I64 is needed", &set(2, ("I32", vec![], vec![0; 4]))),
        ("is so far from 0", &set(2, ("I64", vec![], vec![255, 255, 255, 255, 255, 255, 255, 127]))),
        ("is so far from 0", &set(2, ("I64", vec![], vec![0, 0, 0, 0, 0, 0, 0, 128]))),
        ("type U8, I8 is needed", &set(0, ("U8", vec![5, 5], vec![0; 25]))),
        ("type F32, I8 is needed", &set(0, ("F32", vec![5, 5], vec![0; 100]))),
        ("no matrix", &set(0, ("I8", vec![25], vec![0; 25]))),
        ("but no tensor is", &|t: &mut Vec<_>| drop(t.drain(..3))),
    ] {
        let found = refusal(&affine, change);
        assert!(found.contains(said), "{said}: {found}");
    }
    assert!(refusal(&entry("INT8_AFFINE", "row", false), &|_| ()).contains("shape [], [5] is needed"));
    assert!(refusal(&entry("INT8_AFFINE", "tensor", true), &|_| ()).contains("type I8, U8 is needed"));
    assert!(refusal(&entry("INT8_ABSMAX", "tensor", false), &|_| ()).contains("has no zero points"));
    assert!(refusal(&entry("INT4", "tensor", false), &|_| ()).contains("\"scheme\" of quantization_config is \"INT4\""));
    let unknown = json!({"quant_method": "ggufsmith_int9"});
    assert!(refusal(&unknown, &|_| ()).contains("quantized with ggufsmith_int9"));
}
