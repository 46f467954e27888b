//! Checkpoints that bitsandbytes quantized become the same files as models that hold their decoded values.

use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::TensorSource;
use ggufsmith_core::worker::CpuWorker;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const CHECKPOINTS: [&str; 4] = ["checkpoint-nf4", "checkpoint-nf4-dq", "checkpoint-fp4", "checkpoint-int8"];
const TYPES: [&str; 4] = ["F32", "BF16", "Q8_0", "Q4_0"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The checkpoint with the tokenizer of the model that it was made of.
fn with_tokenizer(name: &str, out: &Path) {
    for folder in ["tiny/llama/hf", &format!("bnb/{name}")] {
        for entry in std::fs::read_dir(fixtures().join(folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::write(out.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// The model with its weights as plain tensors.
fn decoded(source: &Path, out: &Path) {
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(out.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
    let dir = ModelDir::open(source).unwrap();
    let mut config = dir.config().clone();
    config.as_object_mut().unwrap().remove("quantization_config").unwrap();
    std::fs::write(out.join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::new());
    for info in checkpoint.tensors() {
        let mut bytes = vec![0; info.bytes() as usize];
        checkpoint.read(&info.name, 0, &mut bytes).unwrap();
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(info.name.clone(), json!({"dtype": info.dtype.name(), "shape": info.shape, "data_offsets": range}));
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    std::fs::write(out.join("model.safetensors"), file).unwrap();
}

/// All types: sha256 of the files, and the warnings.
fn convert(source: &Path) -> (Vec<String>, Vec<String>) {
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        types: TYPES.iter().map(|name| recipe::by_name(name).unwrap()).collect(),
        target: Target::Directory(out.path().to_owned()),
        via: Via::Auto,
        split: Default::default(),
        overrides: metadata::Overrides { directory_name: Some("tiny".into()), ..Default::default() },
        pre: None,
        strict_config: true,
        open: OpenOptions::default(),
        choices: Default::default(),
        imatrix: None,
    };
    let conversion = Conversion::prepare(source, &options).unwrap();
    let run = RunOptions {
        workers: vec![Box::new(CpuWorker), Box::new(CpuWorker)],
        force: false,
        allow_nonfinite: false,
        manifest: Some(Vec::new()),
        cancel: &AtomicBool::new(false),
        progress: &|_| (),
    };
    let finished = conversion.run(run).unwrap();
    // The manifest's hash of the weights is that of the whole file.
    let manifest = std::fs::read_to_string(
        out.path().join(conversion.plan.outputs[0].files[0].path.file_name().unwrap()).with_extension("gguf.manifest.json"),
    );
    assert!(manifest.unwrap().contains("model.safetensors"));
    (finished.files.iter().map(|file| file.sha256.clone()).collect(), conversion.warnings)
}

#[test]
fn the_same_files_as_of_the_decoded_model() {
    let mut seen = Vec::new();
    for name in CHECKPOINTS {
        let (quantized, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        with_tokenizer(name, quantized.path());
        decoded(quantized.path(), plain.path());
        let (found, mut warnings) = convert(quantized.path());
        let (expected, without) = convert(plain.path());
        assert_eq!(found, expected, "{name}");
        let note = warnings.remove(0);
        assert!(note.contains("14 of 20 tensors") && note.contains("precision of the original weights is gone"), "{note}");
        assert_eq!(warnings, without);
        seen.extend(found);
    }
    // Four checkpoints, four types, sixteen different files.
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), CHECKPOINTS.len() * TYPES.len());
}
