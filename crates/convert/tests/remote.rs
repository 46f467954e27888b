//! Weights that do not lie in the model's directory: read once, from front to back, and published only when they are known to be right.

use ggufsmith_checkpoint::{OpenOptions, RemoteShard, RemoteShards};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::Worker;
use ggufsmith_core::worker::CpuWorker;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

const WEIGHTS: &str = "model.safetensors";

/// One file in memory, and where it was read.
#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    reads: Mutex<Vec<u64>>,
    good: bool,
}

impl RemoteShards for Memory {
    fn names(&self) -> Vec<String> {
        vec!["README.md".into(), WEIGHTS.into()]
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        (name == WEIGHTS).then_some(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, _: &str, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.lock().unwrap().push(offset);
        let bytes = self.bytes.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn finish(&self, names: &[&str]) -> io::Result<Vec<RemoteShard>> {
        assert_eq!(names, [WEIGHTS]);
        let shard = RemoteShard { name: WEIGHTS.into(), bytes: self.bytes.len() as u64, sha256: "0a".repeat(32) };
        if self.good { Ok(vec![shard]) } else { Err(io::Error::other("model.safetensors has another sha256")) }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A model without its weights, and the weights.
fn model(folder: &str, good: bool) -> (tempfile::TempDir, Arc<Memory>) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("bard");
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(fixture(folder)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != WEIGHTS {
            std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    let bytes = std::fs::read(fixture(folder).join(WEIGHTS)).unwrap();
    (temp, Arc::new(Memory { bytes, reads: Mutex::default(), good }))
}

fn options(out: &Path, remote: Option<Arc<dyn RemoteShards>>) -> Options {
    Options {
        types: recipe::writable().iter().copied().filter(|file| ["Q8_0", "Q4_K_M"].contains(&file.name())).collect(),
        target: Target::Directory(out.to_owned()),
        via: Via::Auto,
        split: Default::default(),
        choices: Default::default(),
        imatrix: None,
        overrides: metadata::Overrides { model_name: Some("a model".into()), ..Default::default() },
        pre: None,
        strict_config: false,
        open: OpenOptions { remote, ..OpenOptions::default() },
    }
}

fn run_options(cancel: &AtomicBool, workers: usize) -> RunOptions<'_> {
    RunOptions {
        workers: (0..workers).map(|_| Box::new(CpuWorker) as Box<dyn Worker>).collect(),
        force: false,
        allow_nonfinite: false,
        manifest: Some(vec!["convert".into()]),
        cancel,
        progress: &|_| (),
    }
}

/// The sha256 of every file.
fn convert(dir: &Path, remote: Option<Arc<dyn RemoteShards>>, workers: usize) -> Vec<String> {
    let out = tempfile::tempdir().unwrap();
    let conversion = Conversion::prepare(dir, &options(out.path(), remote)).unwrap();
    let finished = conversion.run(run_options(&AtomicBool::new(false), workers)).unwrap();
    finished.files.into_iter().map(|file| file.sha256).collect()
}

#[test]
fn the_bytes_are_those_of_local_files() {
    // Permuted rows, transposed matrices, experts.
    for folder in ["bard", "tiny/gpt2/hf", "tiny/mixtral/hf"] {
        let (dir, remote) = model(folder, true);
        let local = convert(&fixture(folder), None, 2);
        for workers in [1, 3] {
            assert_eq!(convert(&dir.path().join("bard"), Some(remote.clone()), workers), local, "{folder}");
        }
    }
}

#[test]
fn one_worker_reads_from_front_to_back() {
    let (dir, remote) = model("bard", true);
    convert(&dir.path().join("bard"), Some(remote.clone()), 1);
    let reads = remote.reads.lock().unwrap();
    let weights: Vec<u64> = reads.iter().copied().filter(|&offset| offset > 8).collect();
    assert!(weights.len() > 20 && weights.is_sorted(), "{weights:?}");
}

#[test]
fn nothing_appears_where_a_file_turns_out_wrong() {
    let (dir, remote) = model("bard", false);
    let out = tempfile::tempdir().unwrap();
    let conversion = Conversion::prepare(&dir.path().join("bard"), &options(out.path(), Some(remote))).unwrap();
    let error = conversion.run(run_options(&AtomicBool::new(false), 2)).unwrap_err();
    assert_eq!(error.to_string(), "model.safetensors has another sha256");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn the_manifest_has_the_hashes_of_what_was_read() {
    let (dir, remote) = model("bard", true);
    let out = tempfile::tempdir().unwrap();
    let conversion = Conversion::prepare(&dir.path().join("bard"), &options(out.path(), Some(remote))).unwrap();
    let finished = conversion.run(run_options(&AtomicBool::new(false), 2)).unwrap();
    let path = format!("{}.manifest.json", finished.files[0].path.display());
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let weights = manifest["inputs"].as_array().unwrap().iter().find(|input| input["name"] == WEIGHTS).unwrap();
    assert_eq!(weights["sha256"], "0a".repeat(32));
}
