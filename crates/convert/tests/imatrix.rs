//! Importance matrices: files of `llama-quantize --imatrix`, in both forms, and what is refused.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_convert::plan::{PlanError, Via};
use ggufsmith_convert::recipe::{Choices, FileType, RECIPES};
use ggufsmith_convert::{Conversion, ConvertError, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::Worker;
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_gguf::imatrix::ImatrixError;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The path of the importance matrix enters the bytes: every test works in the fixtures.
fn enter_fixtures() {
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")).unwrap();
}

fn options(types: Vec<&'static FileType>, out: &Path, imatrix: impl Into<PathBuf>) -> Options {
    Options {
        types,
        target: Target::Directory(out.to_owned()),
        via: Via::Auto,
        split: Default::default(),
        choices: Choices::default(),
        imatrix: Some(imatrix.into()),
        overrides: metadata::Overrides::default(),
        pre: None,
        strict_config: false,
        open: OpenOptions::default(),
    }
}

#[test]
fn files_with_importance_equal_llama_quantizes_for_any_number_of_workers() {
    enter_fixtures();
    let text = std::fs::read_to_string("bard.expected.json").unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = json["sha256_llama_quantize_from_bf16_with_imatrix"].as_object().unwrap();
    let types: Vec<_> = recipe::writable().iter().copied().filter(|file| expected.contains_key(file.name())).collect();
    assert!(types.len() >= 5);
    for workers in [1, 3] {
        let out = tempfile::tempdir().unwrap();
        let conversion =
            Conversion::prepare(Path::new("bard"), &options(types.clone(), out.path(), "bard.imatrix.gguf")).unwrap();
        let run = RunOptions {
            workers: (0..workers).map(|_| Box::new(CpuWorker) as Box<dyn Worker>).collect(),
            force: false,
            allow_nonfinite: false,
            manifest: Some(Vec::new()),
            cancel: &AtomicBool::new(false),
            progress: &|_| (),
        };
        let finished = conversion.run(run).unwrap();
        for (output, file) in conversion.plan.outputs.iter().zip(&finished.files) {
            let name = output.file_type.name();
            assert_eq!(file.sha256, expected[name], "{name}");
            let without: Vec<_> = output.without_importance.iter().map(|&i| conversion.plan.tensors[i].name.as_str()).collect();
            assert_eq!(without, ["token_embd.weight"], "{name}");
            let mut manifest = file.path.clone().into_os_string();
            manifest.push(".manifest.json");
            let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
            assert_eq!(manifest["imatrix"]["name"], "bard.imatrix.gguf");
            assert_eq!(manifest["imatrix"]["bytes"], 37216);
        }
    }
}

fn refusal(types: &[&str], imatrix: &Path) -> ConvertError {
    let types = types.iter().map(|name| recipe::by_name(name).unwrap()).collect();
    Conversion::prepare(Path::new("bard"), &options(types, Path::new("/nowhere"), imatrix)).unwrap_err()
}

/// A file in the older form with one entry.
fn legacy(dir: &Path, tensor: &str, values: &[f32]) -> PathBuf {
    let mut bytes = 1i32.to_le_bytes().to_vec();
    bytes.extend((tensor.len() as i32).to_le_bytes());
    bytes.extend(tensor.as_bytes());
    bytes.extend(1i32.to_le_bytes());
    bytes.extend((values.len() as i32).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let path = dir.join(format!("{tensor}.dat"));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn matrices_of_other_models_are_refused() {
    enter_fixtures();
    let dir = tempfile::tempdir().unwrap();
    let foreign = legacy(dir.path(), "blk.9.ffn_up.weight", &[1.0; 256]);
    let error = refusal(&["Q4_0"], &foreign);
    let ConvertError::Plan(PlanError::ForeignImatrix { example, file_type: "Q4_0", .. }) = &error else { panic!("{error}") };
    assert_eq!(example, "blk.9.ffn_up.weight");

    let short = legacy(dir.path(), "blk.0.ffn_up.weight", &[1.0; 255]);
    let error = refusal(&["Q4_0"], &short);
    assert!(matches!(error, ConvertError::Plan(PlanError::Imatrix(ImatrixError::Length { expected: 256, found: 255, .. }))));

    // The embedding's length may be wrong, as in llama-quantize; then nothing is left of this one.
    let embedding = legacy(dir.path(), "token_embd.weight", &[1.0; 3]);
    assert!(matches!(refusal(&["Q4_0"], &embedding), ConvertError::Plan(PlanError::ForeignImatrix { .. })));

    assert!(matches!(refusal(&["Q4_0"], Path::new("bard/config.json")), ConvertError::Imatrix(ImatrixError::Legacy { .. })));
    assert!(matches!(refusal(&["Q4_0"], Path::new("missing")), ConvertError::Imatrix(ImatrixError::Io { .. })));
}

#[test]
fn types_without_an_encoder_or_without_importance_are_refused() {
    enter_fixtures();
    let path = Path::new("/nowhere");
    let prepare = |file: &'static FileType| {
        let prepared = Conversion::prepare(Path::new("bard"), &Options { imatrix: None, ..options(vec![file], path, "") });
        prepared.map(|_| ()).map_err(|error| error.to_string())
    };
    let writable: Vec<_> = recipe::writable().iter().map(|file| file.name()).collect();
    for file in RECIPES {
        match prepare(file) {
            Ok(()) => {}
            Err(error) if error.contains("cannot be written yet") => {
                assert!(!writable.contains(&file.name()), "{}: {error}", file.name());
            }
            Err(error) => assert!(error.contains("importance, and there is no --imatrix"), "{}: {error}", file.name()),
        }
    }
}
