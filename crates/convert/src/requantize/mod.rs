//! From GGUF to GGUF: `llama-quantize`'s place.
//!
//! [`Requantization::prepare`] reads the header and decides everything: the recipe asks for names, shapes and a few keys alone, so the
//! architecture need not be known. [`Requantization::run`] is the pipeline of every conversion. The output's bytes are those of
//! `llama-quantize` with the same options (llama-quant.cpp, `llama_model_quantize_impl`).

mod error;
mod inputs;
mod overrides;
mod plan;
mod prune;

pub use error::RequantizeError;
pub use overrides::{KeyOverride, OverrideError};

use crate::conversion::{ConvertError, Finished, REFERENCE, RunOptions};
use crate::execute::{Job, execute, file_name};
use crate::gguf_source::GgufSource;
use crate::importance::ImatrixFile;
use crate::manifest::{self, HashedFile, Manifest};
use crate::plan::Plan;
use crate::recipe::{Choices, FileType};
use ggufsmith_gguf::{Limits, Shards};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What to make of a file.
#[derive(Debug, Clone)]
pub struct RequantizeOptions {
    /// The type; [`crate::recipe::COPY`] keeps every tensor as it is.
    pub file_type: &'static FileType,
    /// The file to write; shards derive their names from it.
    pub out: PathBuf,
    /// `--pure`, `--tensor-type` and the like.
    pub choices: Choices,
    /// `--imatrix`; the path as it stands enters the bytes.
    pub imatrix: Option<PathBuf>,
    /// `--include-weights`: parts of names.
    pub include_weights: Vec<String>,
    /// `--exclude-weights`: parts of names.
    pub exclude_weights: Vec<String>,
    /// `--override-kv`.
    pub overrides: Vec<KeyOverride>,
    /// `--prune-layers`.
    pub prune_layers: Vec<u64>,
    /// `--keep-split`: one output shard for each of the input's.
    pub keep_split: bool,
    /// `--allow-requantize`.
    pub allow_requantize: bool,
}

/// A run that is planned and not yet done.
#[derive(Debug)]
pub struct Requantization {
    /// Everything decided.
    pub plan: Plan,
    /// `general.architecture`.
    pub arch: String,
    /// `--imatrix`, with what `--include-weights` and `--exclude-weights` left of it.
    pub imatrix: Option<ImatrixFile>,
    /// What a user should know.
    pub warnings: Vec<String>,
    /// The file that was named.
    pub path: PathBuf,
    source: GgufSource,
    /// Where each tensor of the plan lies: number of the file, and bytes.
    reads: Vec<(usize, Range<u64>)>,
}

impl Requantization {
    /// Read everything but the weights and plan. Of a model in shards `path` is any of them.
    ///
    /// # Errors
    /// [`ConvertError`]: whatever is wrong with the file, the importance matrix or the wishes.
    pub fn prepare(path: &Path, options: &RequantizeOptions) -> Result<Self, ConvertError> {
        let shards = Shards::open(path, &Limits::default()).map_err(RequantizeError::from)?;
        let mut imatrix = options.imatrix.as_deref().map(ImatrixFile::open).transpose()?;
        if let Some(imatrix) = &mut imatrix {
            imatrix.select(&options.include_weights, &options.exclude_weights);
            if imatrix.imatrix.names().len() == 0 {
                return Err(RequantizeError::NothingSelected { file: imatrix.file.name.clone() }.into());
            }
        }
        let plan::Planned { plan, arch, copied, reads, warnings } = plan::build(&shards, options, imatrix.as_ref())?;
        let mut source = GgufSource::new(shards);
        copied.iter().for_each(|name| source.read_raw(name));
        Ok(Requantization { plan, arch, imatrix, warnings, path: path.to_owned(), source, reads })
    }

    /// Write the output. Files appear under their final names only when all of them are complete.
    ///
    /// # Errors
    /// [`ConvertError`]; temporary files are removed then.
    pub fn run(&self, options: RunOptions<'_>) -> Result<Finished, ConvertError> {
        let command = options.manifest.clone();
        let files = self.source.shards().files();
        let reads = |index: usize| {
            let (file, range) = &self.reads[index];
            vec![(files[*file].path(), range.clone())]
        };
        let inputs = files.iter().map(|file| file.path().to_owned()).collect();
        let job = Job { plan: &self.plan, source: &self.source, inputs, reads: &reads };
        let (finished, weights) = execute(&job, options)?;
        if let (Some(command), Some(weights)) = (command, weights) {
            self.write_manifest(command, weights, &finished)?;
        }
        Ok(finished)
    }

    fn write_manifest(&self, command: Vec<String>, inputs: Vec<HashedFile>, finished: &Finished) -> Result<(), ConvertError> {
        let (Some(output), Some(first)) = (self.plan.outputs.first(), finished.files.first()) else { return Ok(()) };
        let hashed = |file: &crate::sink::FinishedFile| HashedFile {
            name: file_name(&file.path),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
        };
        let manifest = Manifest {
            schema: manifest::SCHEMA,
            tool: format!("ggufsmith {}", env!("CARGO_PKG_VERSION")),
            reference: REFERENCE,
            command,
            source: file_name(&self.path),
            repository: None,
            revision: None,
            inputs,
            file_type: output.file_type.name(),
            values: None,
            via: None,
            imatrix: self.imatrix.as_ref().map(|imatrix| imatrix.file.clone()),
            pre_tokenizer: None,
            outputs: finished.files.iter().map(hashed).collect(),
            warnings: self.warnings.clone(),
        };
        manifest.write(&first.path)
    }
}
