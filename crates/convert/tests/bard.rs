//! The embedded model through the library: every type in one read, for any number of workers.

use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::Worker;
use ggufsmith_core::worker::CpuWorker;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// File type to sha256, as the reference tools gave it.
fn expected() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(fixtures().join("bard.expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    ["sha256_llama_quantize_from_bf16", "sha256_converter"]
        .iter()
        .flat_map(|tool| json[tool].as_object().unwrap())
        .map(|(name, sha)| (name.clone(), sha.as_str().unwrap().to_owned()))
        .collect()
}

fn options(out: &Path) -> Options {
    Options {
        // Without an importance matrix llama-quantize refuses some.
        types: recipe::writable().iter().copied().filter(|file| expected().contains_key(file.name())).collect(),
        target: Target::Directory(out.to_owned()),
        via: Via::Auto,
        split: Default::default(),
        choices: Default::default(),
        imatrix: None,
        overrides: metadata::Overrides::default(),
        pre: None,
        strict_config: false,
        open: OpenOptions::default(),
    }
}

#[test]
fn every_type_equals_the_reference_for_any_number_of_workers() {
    let expected = expected();
    assert_eq!(options(Path::new("")).types.len(), expected.len(), "every type of the table can be written");
    for workers in [1, 3] {
        let out = tempfile::tempdir().unwrap();
        let conversion = Conversion::prepare(&fixtures().join("bard"), &options(out.path())).unwrap();
        let done = AtomicU64::new(0);
        let run = RunOptions {
            workers: (0..workers).map(|_| Box::new(CpuWorker) as Box<dyn Worker>).collect(),
            force: false,
            allow_nonfinite: false,
            manifest: Some(vec!["convert".into()]),
            cancel: &AtomicBool::new(false),
            progress: &|bytes| _ = done.fetch_add(bytes, Ordering::Relaxed),
        };
        let finished = conversion.run(run).unwrap();
        for (output, file) in conversion.plan.outputs.iter().zip(&finished.files) {
            assert_eq!(file.sha256, expected[output.file_type.name()], "{}", output.file_type.name());
        }
        assert_eq!(done.into_inner(), conversion.plan.source_bytes());
        assert!(finished.report.nonfinite.is_empty());
    }
}

#[test]
fn a_cancelled_run_leaves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let conversion = Conversion::prepare(&fixtures().join("bard"), &options(out.path())).unwrap();
    let run = RunOptions {
        workers: vec![Box::new(CpuWorker)],
        force: false,
        allow_nonfinite: false,
        manifest: Some(Vec::new()),
        cancel: &AtomicBool::new(true),
        progress: &|_| (),
    };
    assert!(conversion.run(run).is_err());
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}
