//! Both sides of a changed model: the checkpoint, and the file that the converter makes of it.

use crate::cases::{Case, Golden, Safetensors, fixture, picked};
use ggufsmith_arch::Decoder;
use ggufsmith_checkpoint::{Checkpoint, ModelDir, OpenOptions};
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::TensorSource;
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_gguf::{Limits, Shards};
use ggufsmith_infer::{Batch, Buffers, Gemm, GgufTensors, Model, SourceTensors, Weights};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// A copy of a tiny checkpoint whose config.json and weights can be changed.
pub struct Bench<'a> {
    golden: &'a Golden,
    folder: TempDir,
    config: Value,
    weights: Safetensors,
    /// Whether the weights are other ones than the fixture's.
    other_weights: bool,
}

/// What one change leads to.
pub struct Seen {
    /// What the description refuses, on both sides.
    pub described: Result<(), String>,
    /// Logits from the checkpoint, or why there are none.
    pub source: Result<Vec<f32>, String>,
    /// Logits from the file, or why there are none.
    pub file: Result<Vec<f32>, String>,
    /// What the converter says.
    pub warnings: String,
}

/// A description of both sides; two models of which it is the same are the same.
#[derive(PartialEq)]
pub struct Described {
    decoder: Option<Decoder>,
    file: String,
}

impl<'a> Bench<'a> {
    pub fn new(golden: &'a Golden) -> Self {
        // Thousands of small files, each flushed to its disk before it appears: memory is the disk to have.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let hf = fixture(&format!("tiny/{}/hf", golden.name));
        std::fs::create_dir(folder.path().join("hf")).unwrap();
        for entry in std::fs::read_dir(&hf).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join("hf").join(path.file_name().unwrap())).unwrap();
        }
        let config = serde_json::from_slice(&std::fs::read(hf.join("config.json")).unwrap()).unwrap();
        let weights = Safetensors::open(&hf.join("model.safetensors"));
        Bench { golden, folder, config, weights, other_weights: false }
    }

    fn hf(&self) -> PathBuf {
        self.folder.path().join("hf")
    }

    /// Make the folder what the case says.
    fn set_up(&mut self, case: &Case) {
        std::fs::write(self.hf().join("config.json"), case.config(&self.config).to_string()).unwrap();
        let others = !case.made.is_empty() || !case.gone.is_empty();
        if others || self.other_weights {
            std::fs::write(self.hf().join("model.safetensors"), self.weights.changed(case)).unwrap();
        }
        self.other_weights = others;
    }

    /// How both sides describe the model, where they do.
    pub fn described(&self, case: &Case) -> Result<Described, String> {
        let checkpoint = Checkpoint::open(&ModelDir::open(&self.hf()).unwrap()).unwrap();
        let config = case.config(&self.config);
        let model = ggufsmith_arch::describe(&config, checkpoint.tensors(), &Default::default()).map_err(text)?;
        let decoder = ggufsmith_arch::decoder(&config, &|name| checkpoint.info(name).is_some()).ok();
        Ok(Described { decoder, file: format!("{:?} {:?} {:?}", model.hparams, model.tensors, model.warnings) })
    }

    pub fn run(&mut self, case: &Case) -> Seen {
        self.set_up(case);
        let dir = ModelDir::open(&self.hf()).unwrap();
        let checkpoint: Arc<dyn TensorSource> = Arc::new(Checkpoint::open(&dir).unwrap());
        let described = ggufsmith_arch::describe(dir.config(), checkpoint.tensors(), &Default::default());
        let decoder = ggufsmith_arch::decoder(dir.config(), &|name| checkpoint.info(name).is_some());
        let weights = Weights::new(Box::new(SourceTensors(checkpoint.clone())));
        let source = decoder.map_err(text).and_then(|decoder| self.logits(decoder, weights));
        let (file, warnings) = self.file();
        Seen { described: described.map(|_| ()).map_err(text), source, file, warnings }
    }

    /// Convert the folder and compute with the file.
    fn file(&self) -> (Result<Vec<f32>, String>, String) {
        let out = tempfile::tempdir_in(self.folder.path()).unwrap();
        let options = Options {
            types: vec![recipe::by_name("F32").unwrap()],
            target: Target::Directory(out.path().to_owned()),
            via: Via::Auto,
            split: Default::default(),
            overrides: metadata::Overrides::default(),
            pre: None,
            strict_config: false,
            open: OpenOptions::default(),
            choices: Default::default(),
            imatrix: None,
        };
        let conversion = match Conversion::prepare(&self.hf(), &options) {
            Ok(conversion) => conversion,
            Err(e) => return (Err(text(e)), String::new()),
        };
        let warnings = conversion.warnings.join("\n");
        let run = RunOptions {
            workers: vec![Box::new(CpuWorker)],
            force: false,
            allow_nonfinite: false,
            manifest: None,
            cancel: &AtomicBool::new(false),
            progress: &|_| (),
        };
        let logits = conversion.run(run).map_err(text).and_then(|finished| {
            let shards = Arc::new(Shards::open(&finished.files[0].path, &Limits::default()).map_err(text)?);
            let decoder = ggufsmith_arch::decoder_of_gguf(shards.metadata(), &|name| shards.tensor(name).is_some());
            self.logits(decoder.map_err(text)?, Weights::new(Box::new(GgufTensors(shards))))
        });
        (logits, warnings)
    }

    /// The logits that the goldens keep.
    fn logits(&self, decoder: Decoder, weights: Weights) -> Result<Vec<f32>, String> {
        let golden = self.golden;
        let ids = &golden.ids;
        let model = Model::new(decoder, weights, Box::new(Gemm), ids.len()).map_err(text)?;
        let batch = Batch::of_lengths([ids.len()]);
        let mut buffers = Buffers::default();
        let mut hidden = model.embed(&batch, ids).map_err(text)?;
        for layer in 0..model.decoder().layers.len() {
            model.layer(layer, &batch, &mut hidden, None, &mut buffers).map_err(text)?;
        }
        let rows = model.output_rows(&hidden, &golden.positions).map_err(text)?;
        let (mut logits, n_vocab) = (Vec::new(), model.decoder().n_vocab as usize);
        model.logits(&rows, 0..n_vocab, &mut logits, &mut buffers).map_err(text)?;
        let rows: Vec<usize> = (0..golden.positions.len()).collect();
        Ok(picked(&logits, n_vocab, &rows, &golden.tokens))
    }
}

/// An error with what is behind it.
fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
