//! What is written equals what transformers and bitsandbytes wrote of the same model.

use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_convert::bitsandbytes::{Method, Quantization, QuantizeError, QuantizeOptions, QuantizeRun};
use ggufsmith_core::TensorSource;
use ggufsmith_core::schemes::{fp4, nf4};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const NF4: Method = Method::FourBit { scheme: &nf4::SCHEME, block_len: 64, double: false };
const NF4_DOUBLE: Method = Method::FourBit { scheme: &nf4::SCHEME, block_len: 64, double: true };
const FP4: Method = Method::FourBit { scheme: &fp4::SCHEME, block_len: 64, double: false };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn options(method: Method, out: &Path) -> QuantizeOptions {
    QuantizeOptions::new(method, out.to_owned())
}

fn run(quantization: &Quantization, threads: usize) -> Result<(), QuantizeError> {
    let cancel = AtomicBool::new(false);
    let run = QuantizeRun { threads, force: false, manifest: None, cancel: &cancel, progress: &|_| (), begun: &|_| () };
    quantization.run(&run).map(|_| ())
}

fn quantize(source: &Path, options: QuantizeOptions) -> Result<(), QuantizeError> {
    run(&Quantization::prepare(source, options)?, 2)
}

type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// All tensors of a directory as they are stored.
fn stored(dir: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let file = std::fs::read(path).unwrap();
            for (name, view) in safetensors::SafeTensors::deserialize(&file).unwrap().tensors() {
                tensors.insert(name, (view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    tensors
}

fn json(path: PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn tensors_and_config_are_those_of_transformers() {
    for (name, method) in [("nf4", NF4), ("nf4-dq", NF4_DOUBLE), ("fp4", FP4), ("int8", Method::Int8)] {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("model");
        quantize(&fixture("tiny/llama/hf"), options(method, &dir)).unwrap();
        let reference = fixture(&format!("bnb/checkpoint-{name}"));
        let (found, expected) = (stored(&dir), stored(&reference));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (tensor, found) in &found {
            assert!(*found == expected[tensor], "{name} {tensor}");
        }
        let key = "quantization_config";
        assert_eq!(json(dir.join("config.json"))[key], json(reference.join("config.json"))[key], "{name}");
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            assert!(std::fs::read(dir.join(file)).unwrap() == std::fs::read(fixture("tiny/llama/hf").join(file)).unwrap());
        }
        // A second time over it: refused, and nothing changed.
        assert!(quantize(&fixture("tiny/llama/hf"), options(method, &dir)).is_err());
        assert!(stored(&dir) == found);
    }
}

#[test]
fn shards_threads_and_the_way_back() {
    let whole = tempfile::tempdir().unwrap();
    quantize(&fixture("bard"), options(NF4_DOUBLE, &whole.path().join("m"))).unwrap();
    let out = tempfile::tempdir().unwrap();
    let small = QuantizeOptions { max_shard_bytes: 100_000, ..options(NF4_DOUBLE, &out.path().join("m")) };
    run(&Quantization::prepare(&fixture("bard"), small).unwrap(), 4).unwrap();
    assert!(out.path().join("m/model.safetensors.index.json").exists());
    assert!(stored(&out.path().join("m")) == stored(&whole.path().join("m")));
    // Read again: near the original, in its dtype.
    let open = |path: &Path| Checkpoint::open(&ModelDir::open(path).unwrap()).unwrap();
    let (original, read) = (open(&fixture("bard")), open(&out.path().join("m")));
    assert_eq!(original.tensors().len(), read.tensors().len());
    for (a, b) in original.tensors().iter().zip(read.tensors()) {
        assert_eq!((&a.name, a.dtype, &a.shape), (&b.name, b.dtype, &b.shape));
        let values = |source: &Checkpoint| {
            let (mut bytes, mut words) = (vec![0; a.bytes() as usize], Vec::new());
            source.read(&a.name, 0, &mut bytes).unwrap();
            for chunk in bytes.chunks(2) {
                words.push(f64::from(ggufsmith_core::float::bf16_to_f32(u16::from_le_bytes(chunk.try_into().unwrap()))));
            }
            words
        };
        assert_eq!(a.dtype.name(), "BF16");
        let (x, y) = (values(&original), values(&read));
        let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let error = squares(&mut x.iter().zip(&y).map(|(x, y)| x - y)) / squares(&mut x.iter().copied());
        assert!(
            if a.shape.len() == 2 && !a.name.contains("embed") && !a.name.contains("head") {
                error > 0.0 && error < 0.15
            } else {
                error == 0.0
            },
            "{} {error}",
            a.name
        );
    }
}

#[test]
fn what_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("m");
    let refused = |source: &Path, options: QuantizeOptions| quantize(source, options).unwrap_err();
    let length = Method::FourBit { scheme: &nf4::SCHEME, block_len: 96, double: false };
    assert!(matches!(refused(&fixture("bard"), options(length, &dir)), QuantizeError::BlockLength { found: 96 }));
    let skip = QuantizeOptions { skip_modules: vec!["model".into()], ..options(NF4, &dir) };
    assert!(matches!(refused(&fixture("bard"), skip), QuantizeError::Nothing { .. }));
    assert!(matches!(refused(&fixture("bnb/checkpoint-nf4"), options(NF4, &dir)), QuantizeError::Quantized { .. }));
    assert!(!dir.exists());
}
