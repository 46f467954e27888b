//! Fixtures converted with the real library, and GGUF files with something changed.
#![allow(dead_code, reason = "each test file uses some of it")]

use ggufsmith_arch::Model;
use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::TensorSource;
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_gguf::{Layout, Limits, Metadata, Shards, SplitLimits, TensorSpec};
use ggufsmith_verify::imatrix::Imatrix;
use ggufsmith_verify::report::{Check, TensorFigures};
use ggufsmith_verify::tensors;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// A source and what its file should hold.
pub struct Source {
    pub checkpoint: Checkpoint,
    pub model: Model,
}

impl Source {
    pub fn open(path: &str) -> Source {
        let dir = ModelDir::open(&fixture(path)).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let model = ggufsmith_arch::describe(dir.config(), checkpoint.tensors(), &Default::default()).unwrap();
        Source { checkpoint, model }
    }

    pub fn check_with(&self, file: &Path, imatrix: Option<&Imatrix>, threads: usize) -> (Check, Vec<TensorFigures>) {
        let shards = Shards::open(file, &Limits::default()).unwrap();
        let options = tensors::Options { threads, imatrix, cancel: &AtomicBool::new(false), progress: &|_| () };
        tensors::check(&shards, &self.checkpoint, &self.model, &options).unwrap()
    }

    pub fn check(&self, file: &Path) -> (Check, Vec<TensorFigures>) {
        self.check_with(file, None, 2)
    }
}

/// Convert a fixture to some types.
pub fn convert_with(path: &str, types: &[&str], via: Via, split: SplitLimits) -> (TempDir, Vec<PathBuf>) {
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        types: types.iter().map(|name| recipe::by_name(name).unwrap()).collect(),
        target: Target::File(out.path().join("model-{ftype}.gguf")),
        via,
        split,
        choices: Default::default(),
        imatrix: None,
        overrides: metadata::Overrides::default(),
        pre: None,
        strict_config: false,
        open: OpenOptions::default(),
    };
    let conversion = Conversion::prepare(&fixture(path), &options).unwrap();
    let run = RunOptions {
        workers: vec![Box::new(CpuWorker)],
        force: false,
        allow_nonfinite: false,
        manifest: None,
        cancel: &AtomicBool::new(false),
        progress: &|_| (),
    };
    let files = conversion.run(run).unwrap().files.into_iter().map(|file| file.path).collect();
    (out, files)
}

pub fn convert(path: &str, file_type: &str) -> (TempDir, PathBuf) {
    let (out, mut files) = convert_with(path, &[file_type], Via::Auto, SplitLimits::default());
    (out, files.remove(0))
}

/// A GGUF file in memory, to be changed and written.
#[derive(Clone)]
pub struct Edit {
    pub metadata: Metadata,
    pub tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Edit {
    pub fn read(file: &Path) -> Edit {
        let shards = Shards::open(file, &Limits::default()).unwrap();
        let read = |tensor: &ggufsmith_gguf::GgufTensor| {
            let mut bytes = vec![0; tensor.bytes as usize];
            shards.read_at(&tensor.name, 0, &mut bytes).unwrap();
            (TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), format: tensor.format }, bytes)
        };
        Edit { metadata: shards.metadata().clone(), tensors: shards.tensors().map(read).collect() }
    }

    pub fn at(&self, name: &str) -> usize {
        self.tensors.iter().position(|(spec, _)| spec.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn data(&mut self, name: &str) -> &mut Vec<u8> {
        let at = self.at(name);
        &mut self.tensors[at].1
    }

    pub fn remove(&mut self, name: &str) {
        let at = self.at(name);
        self.tensors.remove(at);
    }

    /// Exchange the data of two tensors.
    pub fn swap(&mut self, a: &str, b: &str) {
        let (a, b) = (self.at(a), self.at(b));
        let data = std::mem::take(&mut self.tensors[a].1);
        self.tensors[a].1 = std::mem::replace(&mut self.tensors[b].1, data);
    }

    pub fn write(&self, file: &Path) {
        let specs = self.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let layout = Layout::plan(&self.metadata, specs).unwrap();
        let mut bytes = layout.header().to_vec();
        for (placed, (_, data)) in layout.tensors().iter().zip(&self.tensors) {
            assert_eq!(placed.bytes as usize, data.len(), "{}", placed.name);
            bytes.resize(placed.offset as usize, 0);
            bytes.extend_from_slice(data);
        }
        bytes.resize(layout.file_size() as usize, 0);
        std::fs::write(file, bytes).unwrap();
    }
}

/// Every file type that a model can be written in without an importance matrix. Q1_0 has no fallback for short rows.
pub fn plain_types(model: &str) -> Vec<&'static str> {
    let types = ggufsmith_convert::recipe::writable();
    let short = !["bard", "tiny/llama-256/hf"].contains(&model);
    types.iter().map(|file| file.name()).filter(|name| *name != "Q2_K_S" && !(short && *name == "Q1_0")).collect()
}
