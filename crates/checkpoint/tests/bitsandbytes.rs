//! Checkpoints that transformers and bitsandbytes wrote, and what is wrong with broken ones.

use ggufsmith_checkpoint::{BitsandbytesDefect as D, Checkpoint, CheckpointError as E, ModelDir};
use ggufsmith_core::{DType, SourceError, TensorSource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CHECKPOINTS: [&str; 4] = ["checkpoint-nf4", "checkpoint-nf4-dq", "checkpoint-fp4", "checkpoint-int8"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bnb").join(name)
}

fn open(dir: &Path) -> Result<Checkpoint, E> {
    Checkpoint::open(&ModelDir::open(dir)?)
}

fn whole(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let mut bytes = vec![0xA5; checkpoint.info(name).unwrap().bytes() as usize];
    checkpoint.read(name, 0, &mut bytes).unwrap();
    bytes
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checkpoint and tensor to the digest of its values, from bitsandbytes' own kernels.
fn golden() -> BTreeMap<(String, String), String> {
    let text = std::fs::read_to_string(fixture("decoded.tsv")).unwrap();
    let line = |line: &str| {
        let mut fields = line.split('\t').map(String::from);
        ((fields.next().unwrap(), fields.next().unwrap()), fields.next().unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

#[test]
fn every_value_is_the_one_that_bitsandbytes_decodes() {
    let golden = golden();
    assert_eq!(golden.len(), 4 * 14);
    for name in CHECKPOINTS {
        let checkpoint = open(&fixture(name)).unwrap();
        assert_eq!(checkpoint.tensors().len(), 20, "{name}");
        assert!(checkpoint.tensors().is_sorted_by(|a, b| a.name < b.name));
        for info in checkpoint.tensors() {
            let bytes = whole(&checkpoint, &info.name);
            match golden.get(&(name.to_owned(), info.name.clone())) {
                Some(expected) => {
                    assert_eq!(info.dtype, if name.ends_with("int8") { DType::F32 } else { DType::BF16 });
                    assert_eq!(digest(&bytes), *expected, "{name} {}", info.name);
                }
                None => assert!(info.name.contains("norm") || info.name.contains("embed"), "{}", info.name),
            }
        }
        checkpoint.check_unchanged().unwrap();
    }
}

#[test]
fn a_flipped_bit_of_codes_or_states_is_seen() {
    let golden = golden();
    for name in CHECKPOINTS {
        for end in ["", ".absmax", ".nested_absmax", ".nested_quant_map", "SCB"] {
            let mut model = Model::load(name);
            let weight = "model.layers.0.mlp.up_proj.weight";
            let state = if end == "SCB" { weight.replace("weight", end) } else { format!("{weight}{end}") };
            let Some(tensor) = model.tensors.get_mut(&state) else { continue };
            // For a table of 256 all entries, since not every one is used.
            let bytes = if end == ".nested_quant_map" { tensor.data.len() } else { 4 };
            tensor.data[..bytes].iter_mut().skip(2).step_by(4).for_each(|byte| *byte ^= 1);
            let found = digest(&whole(&model.open().unwrap(), weight));
            assert_ne!(found, golden[&(name.to_owned(), weight.to_owned())], "{name} {state}");
        }
    }
}

#[test]
fn any_run_of_elements_equals_that_part_of_the_whole() {
    for name in CHECKPOINTS {
        let checkpoint = open(&fixture(name)).unwrap();
        let tensor = "model.layers.1.mlp.gate_proj.weight";
        let (bytes, width) = (whole(&checkpoint, tensor), checkpoint.info(tensor).unwrap().dtype.bytes());
        let elems = bytes.len() / width;
        for (start, len) in
            [(0, 1), (1, 1), (1, 2), (63, 2), (64, 64), (63, 130), (4095, 4097), (elems - 1, 1), (elems, 0), (0, 0)]
        {
            let mut part = vec![0; len * width];
            checkpoint.read(tensor, (start * width) as u64, &mut part).unwrap();
            assert!(part == bytes[start * width..(start + len) * width], "{name} {start} {len}");
        }
        let beyond = checkpoint.read(tensor, bytes.len() as u64, &mut vec![0; width]);
        assert!(matches!(beyond, Err(SourceError::Range { .. })));
        assert!(matches!(checkpoint.read(tensor, u64::MAX, &mut [0; 4]), Err(SourceError::Range { .. })));
        assert!(matches!(checkpoint.read(tensor, 1, &mut [0; 4]), Err(SourceError::Shape { .. })));
        assert!(matches!(checkpoint.read("absent", 0, &mut []), Err(SourceError::NoTensor { .. })));
        let state = if name.ends_with("int8") { tensor.replace("weight", "SCB") } else { format!("{tensor}.quant_map") };
        assert!(checkpoint.info(&state).is_none());
    }
}

#[test]
fn notes_say_what_was_lost() {
    let notes = |name: &str| open(&fixture(name)).unwrap().notes();
    let expect = |kind: &str| {
        vec![format!(
            "the source is quantized already: 14 of 20 tensors are {kind}; the precision of the original weights is gone"
        )]
    };
    assert_eq!(notes("checkpoint-nf4"), expect("NF4 in blocks of 64, decoded to BF16"));
    assert_eq!(notes("checkpoint-nf4-dq"), expect("NF4 in blocks of 64, double-quantized, decoded to BF16"));
    assert_eq!(notes("checkpoint-fp4"), expect("FP4 in blocks of 64, decoded to BF16"));
    assert_eq!(notes("checkpoint-int8"), expect("int8 with a scale per row (LLM.int8), decoded to F32"));
    assert!(open(&fixture("../tiny/llama/hf")).unwrap().notes().is_empty());
}

#[test]
fn the_states_are_enough_and_so_is_an_old_config() {
    for config in [json!({}), json!({"quantization_config": {"load_in_4bit": true}})] {
        let mut model = Model::load("checkpoint-nf4");
        model.config = config;
        assert_eq!(model.open().unwrap().tensors().len(), 20);
    }
    // A plain model that is to be quantized when it is loaded.
    let mut model = Model::load("checkpoint-nf4");
    model.tensors.retain(|name, _| name.contains("norm"));
    assert_eq!(model.open().unwrap().notes(), [""; 0]);
    // Other methods beside it are still refused.
    model.config = json!({"quantization_config": {"quant_method": "gptq", "load_in_4bit": true}});
    assert!(matches!(model.open(), Err(E::Prequantized { method, .. }) if method == "gptq"));
}

/// Other ways to store the same: codes in a wider type, no weight format, another dtype.
#[test]
fn variants_that_bitsandbytes_writes_too() {
    let weight = "model.layers.0.mlp.up_proj.weight";
    let expected = &golden()[&("checkpoint-nf4".to_owned(), weight.to_owned())];
    let mut model = Model::load("checkpoint-nf4");
    let codes = model.tensors.get_mut(weight).unwrap();
    (codes.dtype, codes.shape) = ("BF16".into(), vec![codes.data.len() as u64 / 2, 1]);
    assert_eq!(digest(&whole(&model.open().unwrap(), weight)), *expected);

    let bf16 = whole(&open(&fixture("checkpoint-nf4")).unwrap(), weight);
    for (dtype, width) in [("float32", 4), ("float16", 2)] {
        let mut model = Model::load("checkpoint-nf4");
        model.edit_state(weight, |text| text.replace("bfloat16", dtype));
        let wide = whole(&model.open().unwrap(), weight);
        assert_eq!(wide.len(), bf16.len() / 2 * width);
        for (word, expected) in wide.chunks(width).zip(bf16.as_chunks::<2>().0) {
            let value = match width {
                4 => f32::from_le_bytes(word.try_into().unwrap()),
                _ => ggufsmith_core::float::f16_to_f32(u16::from_le_bytes(word.try_into().unwrap())),
            };
            let expected = f32::from_bits(u32::from(u16::from_le_bytes(*expected)) << 16);
            assert!((value - expected).abs() <= expected.abs() / 128.0, "{dtype}: {value} {expected}");
        }
    }

    let mut model = Model::load("checkpoint-int8");
    model.tensors.retain(|name, _| !name.ends_with("weight_format"));
    assert_eq!(digest(&whole(&model.open().unwrap(), weight)), golden()[&("checkpoint-int8".to_owned(), weight.to_owned())]);
}

const WEIGHT: &str = "model.layers.0.mlp.up_proj.weight";

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let refused = |name: &str, change: &dyn Fn(&mut Model)| {
        let mut model = Model::load(name);
        change(&mut model);
        match model.open().map(|_| ()) {
            Err(E::Bitsandbytes { tensor, defect, path }) => {
                assert!(path.ends_with("model.safetensors"), "{path:?}");
                (tensor, defect)
            }
            other => panic!("{other:?}"),
        }
    };
    let remove = |name: &str, end: &str| {
        let state = if name.ends_with("int8") { WEIGHT.replace("weight", end) } else { format!("{WEIGHT}{end}") };
        match refused(name, &|model| drop(model.tensors.remove(&state).unwrap())) {
            (tensor, D::MissingState { state: missing }) if tensor == WEIGHT => assert_eq!(missing, state),
            other => panic!("{name} {end}: {other:?}"),
        }
    };
    const STATE: &str = ".quant_state.bitsandbytes__nf4";
    for end in [".absmax", ".quant_map", STATE] {
        remove("checkpoint-nf4", end);
    }
    for end in [".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map", STATE] {
        remove("checkpoint-nf4-dq", end);
    }
    remove("checkpoint-int8", "SCB");
    for name in CHECKPOINTS {
        let (_, defect) = refused(name, &|model| drop(model.tensors.remove(WEIGHT).unwrap()));
        assert!(matches!(defect, D::MissingWeight { weight } if weight == WEIGHT));
    }
    // All of a tensor's states.
    let (tensor, defect) =
        refused("checkpoint-nf4", &|model| model.tensors.retain(|name, _| !name.starts_with(&format!("{WEIGHT}."))));
    assert!(tensor == WEIGHT && matches!(defect, D::MissingState { .. }));

    let shorter = |name: &str, end: &str| {
        let state = if name.ends_with("int8") { WEIGHT.replace("weight", end) } else { format!("{WEIGHT}{end}") };
        refused(name, &|model| model.tensors.get_mut(&state).unwrap().shorten()).1
    };
    for (name, end) in [
        ("checkpoint-nf4", ".absmax"),
        ("checkpoint-nf4", ".quant_map"),
        ("checkpoint-nf4-dq", ".absmax"),
        ("checkpoint-nf4-dq", ".nested_absmax"),
        ("checkpoint-nf4-dq", ".nested_quant_map"),
        ("checkpoint-int8", "SCB"),
    ] {
        assert!(matches!(shorter(name, end), D::Shape { .. }), "{name} {end}");
    }
    assert!(matches!(shorter("checkpoint-fp4", ""), D::Codes { .. }));

    let wide = |model: &mut Model| {
        let tensor = model.tensors.get_mut(&format!("{WEIGHT}.absmax")).unwrap();
        (tensor.dtype, tensor.data) = ("F64".into(), vec![0; tensor.data.len() * 2]);
    };
    assert!(matches!(refused("checkpoint-nf4", &wide).1, D::Dtype { found: DType::F64, expected: "F32", .. }));

    let state = |change: &dyn Fn(String) -> String| refused("checkpoint-nf4", &|model| model.edit_state(WEIGHT, change)).1;
    assert!(matches!(state(&|_| "{".into()), D::StateJson(_)));
    assert!(matches!(state(&|text| text.replace("64, \"dtype", "48, \"dtype")), D::StateValue { key: "blocksize", .. }));
    assert!(matches!(state(&|text| text.replace("64, \"dtype", "32, \"dtype")), D::Shape { .. }));
    assert!(matches!(state(&|text| text.replace("[128, 64]", "[128, 65]")), D::Codes { .. }));
    assert!(matches!(state(&|text| format!("{text}{}", " ".repeat(5000))), D::LongState { .. }));
    assert!(matches!(state(&|text| text.replace("nf4", "fp4")), D::StateValue { key: "quant_type", .. }));
    let renamed = |model: &mut Model| {
        let mut state = model.tensors.remove(&format!("{WEIGHT}{STATE}")).unwrap();
        state.data = String::from_utf8(state.data).unwrap().replace("nf4", "nf3").into_bytes();
        model.tensors.insert(format!("{WEIGHT}.quant_state.bitsandbytes__nf3"), state);
    };
    assert!(matches!(refused("checkpoint-nf4", &renamed).1, D::QuantType { found, .. } if found == "nf3"));
    let twice = |model: &mut Model| {
        let state = model.tensors[&format!("{WEIGHT}{STATE}")].clone();
        model.tensors.insert(format!("{WEIGHT}.quant_state.bitsandbytes__fp4"), state);
    };
    assert!(matches!(refused("checkpoint-nf4", &twice).1, D::TwoStates { .. }));
    for bytes in [1f32.to_le_bytes(), f32::NAN.to_le_bytes()] {
        let map = |model: &mut Model| {
            model.tensors.get_mut(&format!("{WEIGHT}.quant_map")).unwrap().data[20..24].copy_from_slice(&bytes)
        };
        assert!(matches!(refused("checkpoint-nf4", &map).1, D::Map { code: 5, .. }));
    }
    let turing = |model: &mut Model| model.tensors.get_mut(&WEIGHT.replace("weight", "weight_format")).unwrap().data[0] = 2;
    assert!(matches!(refused("checkpoint-int8", &turing).1, D::WeightFormat { found: 2 }));
    let floats = |model: &mut Model| {
        let tensor = model.tensors.get_mut(WEIGHT).unwrap();
        (tensor.dtype, tensor.data) = ("BF16".into(), vec![0; tensor.data.len() * 2]);
    };
    assert!(matches!(refused("checkpoint-int8", &floats).1, D::Dtype { found: DType::BF16, expected: "I8", .. }));
}

/// A checkpoint in memory, to be changed.
struct Model {
    config: Value,
    tensors: BTreeMap<String, Tensor>,
    dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data: Vec<u8>,
}

impl Tensor {
    /// Without its last row.
    fn shorten(&mut self) {
        let rows = self.shape[0] as usize;
        self.data.truncate(self.data.len() / rows * (rows - 1));
        self.shape[0] -= 1;
    }
}

impl Model {
    fn load(name: &str) -> Self {
        let dir = fixture(name);
        let file = std::fs::read(dir.join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let shape = view.shape().iter().map(|&dim| dim as u64).collect();
            (name, Tensor { dtype: view.dtype().to_string(), shape, data: view.data().to_vec() })
        };
        let config = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        let tensors = tensors.tensors().into_iter().map(tensor).collect();
        Model { config, tensors, dir: tempfile::tempdir().unwrap() }
    }

    fn edit_state(&mut self, weight: &str, change: impl FnOnce(String) -> String) {
        let state = self.tensors.get_mut(&format!("{weight}.quant_state.bitsandbytes__nf4")).unwrap();
        state.data = change(String::from_utf8(state.data.clone()).unwrap()).into_bytes();
        state.shape = vec![state.data.len() as u64];
    }

    fn open(&self) -> Result<Checkpoint, E> {
        let mut at = 0;
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, tensor) in &self.tensors {
            let range = [at, at + tensor.data.len()];
            header.insert(name.clone(), json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": range}));
            data.extend_from_slice(&tensor.data);
            at = range[1];
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(data);
        std::fs::write(self.dir.path().join("model.safetensors"), file).unwrap();
        std::fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        open(self.dir.path())
    }
}
