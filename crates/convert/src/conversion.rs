//! One conversion from end to end.

use crate::execute::{Job, execute, file_name};
use crate::importance::ImatrixFile;
use crate::manifest::{self, HashedFile, Manifest, Values};
use crate::metadata::{self, General, MetadataError, ParameterCount};
use crate::pipeline::{PipelineError, RunReport};
use crate::plan::{
    FILE_TYPE_KEY, OutputRequest, Plan, PlanError, PlanRequest, QUANTIZATION_VERSION, QUANTIZATION_VERSION_KEY, Via,
};
use crate::recipe::{Choices, FileType};
use crate::requantize::RequantizeError;
use crate::sink::{self, FinishedFile, SinkError, Wanted};
use ggufsmith_arch::{ArchError, Hparam, Model};
use ggufsmith_checkpoint::{Checkpoint, CheckpointError, ModelDir, OpenOptions, RemoteShard, Rounded, Rounding};
use ggufsmith_core::{TensorSource, Words, Worker};
use ggufsmith_gguf::imatrix::ImatrixError;
use ggufsmith_gguf::{Metadata, SplitLimits};
use ggufsmith_tokenizer::{self as tokenizer, Tokenizer, TokenizerError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Where outputs go.
#[derive(Debug, Clone)]
pub enum Target {
    /// A directory; files are named by the GGUF naming convention.
    Directory(PathBuf),
    /// A file; `{ftype}`, `{outtype}` (lower case) and `{FTYPE}` stand for the type's name.
    File(PathBuf),
}

/// What to convert to.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--type`, in order.
    pub types: Vec<&'static FileType>,
    /// `--out`.
    pub target: Target,
    /// `--via`.
    pub via: Via,
    /// `--split-max-size`, `--split-max-tensors`.
    pub split: SplitLimits,
    /// `--pure`, `--tensor-type` and the like.
    pub choices: Choices,
    /// `--imatrix`; the path as it stands enters the bytes.
    pub imatrix: Option<PathBuf>,
    /// `--model-name` and `--metadata`.
    pub overrides: metadata::Overrides,
    /// `--pre`.
    pub pre: Option<String>,
    /// Unknown config keys are errors.
    pub strict_config: bool,
    /// How weights are opened.
    pub open: OpenOptions,
}

/// What [`Conversion::prepare_with`] may do beside what [`Options`] say.
#[derive(Debug, Clone, Default)]
pub struct Preparation {
    /// The values that matrices hold, whatever type they are stored in.
    pub rounding: Option<Rounding>,
    /// Plan what cannot be written, too: [`Conversion::warnings`] say why it cannot.
    pub draft: bool,
}

/// How to run.
pub struct RunOptions<'a> {
    /// One thread each.
    pub workers: Vec<Box<dyn Worker>>,
    /// Overwrite outputs.
    pub force: bool,
    /// Go on with NaN, infinities and overflow.
    pub allow_nonfinite: bool,
    /// Write `FILE.gguf.manifest.json` beside each output; the arguments to note in it.
    pub manifest: Option<Vec<String>>,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told source bytes as they are done.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConvertError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Requantize(#[from] RequantizeError),
    #[error(transparent)]
    Imatrix(#[from] ImatrixError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("{found} is no block length: bitsandbytes has {}", Rounding::BLOCK_LENS.map(|len| len.to_string()).join(", "))]
    BlockLength { found: u64 },
    #[error("{} is quantized already; any type of GGUF holds its values as they are read: choose the one that was to carry them", path.display())]
    Quantized { path: PathBuf },
    #[error("no tensor of {} is to be quantized: all are skipped", path.display())]
    Nothing { path: PathBuf },
    #[error("a plan that cannot be written: {0}")]
    Draft(String),
    #[error(transparent)]
    Damaged(#[from] ggufsmith_checkpoint::Damaged),
    #[error("hashing the source for the manifest: {0}")]
    Hash(io::Error),
    #[error("writing the manifest {}: {source}", path.display())]
    Manifest { path: PathBuf, source: io::Error },
}

/// A conversion that is planned and not yet run.
#[derive(Debug)]
pub struct Conversion {
    /// Everything decided.
    pub plan: Plan,
    /// The model's description.
    pub model: Model,
    /// `general.*` and file names.
    pub general: General,
    /// The vocabulary, as its metadata, and how it was found.
    pub tokenizer: Tokenizer,
    /// `--imatrix`.
    pub imatrix: Option<ImatrixFile>,
    /// What a user should know.
    pub warnings: Vec<String>,
    dir: ModelDir,
    checkpoint: Arc<Checkpoint>,
    rounded: Option<Arc<Rounded>>,
    /// Why the plan cannot be written.
    refusal: Option<String>,
}

/// A conversion that was run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// All files in the order of [`Plan::files`].
    pub files: Vec<FinishedFile>,
    /// Counts and shares.
    pub report: RunReport,
}

impl Conversion {
    /// Read everything but the weights and plan.
    ///
    /// # Errors
    /// [`ConvertError`]: whatever is wrong with the directory, its files, or the wishes.
    pub fn prepare(dir: &Path, options: &Options) -> Result<Self, ConvertError> {
        Self::prepare_with(dir, options, Preparation::default())
    }

    /// As [`Conversion::prepare`], with values of another scheme or of what cannot be written.
    ///
    /// # Errors
    /// As [`Conversion::prepare`].
    pub fn prepare_with(dir: &Path, options: &Options, preparation: Preparation) -> Result<Self, ConvertError> {
        let Preparation { rounding, draft } = preparation;
        let dir = ModelDir::open_with(dir, options.open.clone())?;
        let checkpoint = Arc::new(Checkpoint::open(&dir)?);
        let rounded = rounding.map(|rounding| round(&dir, &checkpoint, rounding)).transpose()?;
        let source: &dyn TensorSource = rounded.as_deref().map_or(&*checkpoint, |rounded| rounded);
        let describe = ggufsmith_arch::Options { strict_config: options.strict_config };
        let model = ggufsmith_arch::describe(dir.config(), source.tensors(), &describe)?;
        let request = tokenizer::Request {
            route: model.vocab,
            vocab_size: model.vocab_size,
            config: dir.config(),
            pre: options.pre.as_deref(),
        };
        let tokenizer = tokenizer::build(&dir, &request)?;
        let shapes: Vec<_> = model.tensors.iter().map(|t| (t.name.as_str(), t.expr.shape())).collect();
        let parameters = ParameterCount::of(shapes.iter().map(|(name, shape)| (*name, shape.as_slice())))?;
        let (general, general_warnings) = metadata::load(&dir, &options.overrides, &parameters)?;
        let outputs: Vec<_> = options
            .types
            .iter()
            .map(|&file_type| {
                let scheme = rounded.as_deref().map(|rounded| rounded.rounding().scheme.name);
                Ok(OutputRequest { file_type, path: output_path(&options.target, &general, file_type, scheme)? })
            })
            .collect::<Result<_, MetadataError>>()?;
        let metadata = all_metadata(&model, &general, &tokenizer);
        let imatrix = options.imatrix.as_deref().map(ImatrixFile::open).transpose()?;
        let request = PlanRequest {
            model: &model,
            metadata: &metadata,
            outputs: &outputs,
            via: options.via,
            split: options.split,
            choices: &options.choices,
            imatrix: imatrix.as_ref(),
        };
        let (mut plan, mut refusals) = Plan::draft(&request)?;
        if !draft && !refusals.is_empty() {
            return Err(refusals.swap_remove(0).into());
        }
        plan.source_order = options.open.remote.is_some();
        if let Some(rounded) = &rounded {
            name_values(&mut plan, rounded);
        }
        let refusal = refusals.first().map(ToString::to_string);
        let mut warnings = checkpoint.notes();
        warnings.extend(refusals.iter().map(|refusal| format!("this can be planned, but not written: {refusal}")));
        warnings.extend(model.warnings.iter().cloned());
        warnings.extend(general_warnings.iter().map(ToString::to_string));
        warnings.extend(tokenizer.warnings.iter().cloned());
        warnings.extend(plan.outputs.iter().filter_map(|output| output.misleading_name(plan.elems())));
        Ok(Conversion { plan, model, general, tokenizer, imatrix, warnings, dir, checkpoint, rounded, refusal })
    }

    /// Whether its files could be written here and now: what [`Conversion::run`] looks at first.
    ///
    /// # Errors
    /// [`SinkError`] where one exists (without `force`), has no directory, or does not fit on the disk.
    pub fn check_outputs(&self, force: bool) -> Result<(), SinkError> {
        let files = self.plan.files().map(|file| Wanted { path: &file.path, bytes: file.layout.file_size() });
        sink::check(&files.collect::<Vec<_>>(), force, &self.inputs())
    }

    /// The files of this machine that it reads weights from.
    fn inputs(&self) -> Vec<PathBuf> {
        let files = self.checkpoint.files().filter(|_| self.checkpoint.remote().is_none());
        files.map(|(path, _)| path.to_owned()).collect()
    }

    /// Convert. Files appear under their final names only when all of them are complete.
    ///
    /// # Errors
    /// [`ConvertError`]; temporary files are removed then.
    pub fn run(&self, options: RunOptions<'_>) -> Result<Finished, ConvertError> {
        if let Some(refusal) = &self.refusal {
            return Err(ConvertError::Draft(refusal.clone()));
        }
        let command = options.manifest.clone();
        let reads = |index: usize| {
            let reads = self.plan.tensors[index].expr.reads();
            reads.into_iter().map(|info| (info.file.as_path(), info.offset..info.offset + info.bytes())).collect()
        };
        let job = Job { plan: &self.plan, source: self.source(), inputs: self.inputs(), reads: &reads };
        self.checkpoint.begin();
        let (finished, mut weights) = execute(&job, options)?;
        if let Some(shards) = self.checkpoint.remote() {
            let hashed = |s: &RemoteShard| HashedFile { name: s.name.clone(), bytes: s.bytes, sha256: s.sha256.clone() };
            weights = Some(shards.iter().map(hashed).collect());
        }
        if let (Some(command), Some(weights)) = (command, weights) {
            self.write_manifests(command, weights, &finished.files)?;
        }
        Ok(finished)
    }

    /// The values that matrices hold, whatever type they are stored in.
    pub fn rounding(&self) -> Option<&Rounding> {
        self.rounded.as_deref().map(Rounded::rounding)
    }

    fn source(&self) -> &dyn TensorSource {
        self.rounded.as_deref().map_or(&*self.checkpoint, |rounded| rounded)
    }

    /// The directory it converts.
    pub fn dir(&self) -> &ModelDir {
        &self.dir
    }

    fn write_manifests(
        &self,
        command: Vec<String>,
        weights: Vec<HashedFile>,
        finished: &[FinishedFile],
    ) -> Result<(), ConvertError> {
        let mut inputs = Vec::new();
        for name in self.dir.files_read() {
            let bytes = self.dir.bytes(&name)?.unwrap_or_default();
            inputs.push(HashedFile { name, bytes: bytes.len() as u64, sha256: manifest::sha256(&bytes) });
        }
        inputs.extend(weights);
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut finished = finished.iter();
        let (repository, revision) = manifest::origin(self.dir.path()).unzip();
        for output in &self.plan.outputs {
            let outputs: Vec<_> = finished
                .by_ref()
                .take(output.files.len())
                .map(|f| HashedFile { name: file_name(&f.path), bytes: f.bytes, sha256: f.sha256.clone() })
                .collect();
            let manifest = Manifest {
                schema: manifest::SCHEMA,
                tool: format!("ggufsmith {}", env!("CARGO_PKG_VERSION")),
                reference: REFERENCE,
                command: command.clone(),
                source: self.dir.name(),
                repository: repository.clone(),
                revision: revision.clone(),
                inputs: inputs.clone(),
                file_type: output.file_type.name(),
                values: self.rounding().map(Values::of),
                via: output.via.map(words_name),
                imatrix: self.imatrix.as_ref().filter(|_| output.via.is_some()).map(|imatrix| imatrix.file.clone()),
                pre_tokenizer: Some(format!("{} ({})", self.tokenizer.pre, self.tokenizer.pre_source)),
                outputs,
                warnings: self.warnings.clone(),
            };
            if let Some(first) = output.files.first() {
                manifest.write(&first.path)?;
            }
        }
        Ok(())
    }
}

/// The llama.cpp whose bytes are written.
pub const REFERENCE: &str = "llama.cpp 0.5.0 (llama-cpp-python 0.3.36), transformers 4.57.6";

fn words_name(words: Words) -> &'static str {
    crate::plan::plain_format(words).name
}

/// A file is called after its type, and after the scheme whose values it carries.
fn output_path(target: &Target, general: &General, file_type: &FileType, scheme: Option<&str>) -> Result<PathBuf, MetadataError> {
    let carrier = file_type.name();
    let type_name = scheme.map_or_else(|| carrier.to_owned(), |scheme| format!("{scheme}-in-{carrier}"));
    Ok(match target {
        Target::Directory(dir) => {
            let (name, end) = (general.file_name(carrier), format!("{carrier}.gguf"));
            // The naming convention is in capitals, "in" is not.
            let stem = name.strip_suffix(&end).unwrap_or(&name);
            dir.join(format!("{stem}{type_name}.gguf"))
        }
        Target::File(path) => path.with_file_name(metadata::fill_template(&file_name(path), &type_name)?),
    })
}

fn round(dir: &ModelDir, checkpoint: &Arc<Checkpoint>, rounding: Rounding) -> Result<Arc<Rounded>, ConvertError> {
    let (found, path) = (rounding.block_len, || dir.path().to_owned());
    if !checkpoint.notes().is_empty() {
        return Err(ConvertError::Quantized { path: path() });
    }
    let raw: Arc<dyn TensorSource> = checkpoint.clone();
    let rounded = Rounded::new(raw, rounding).map_err(|_| ConvertError::BlockLength { found })?;
    if rounded.count() == 0 {
        return Err(ConvertError::Nothing { path: path() });
    }
    Ok(Arc::new(rounded))
}

/// Say in the rules which tensors hold values of a scheme.
fn name_values(plan: &mut Plan, rounded: &Rounded) {
    let holds = |tensor: &crate::plan::PlannedTensor| tensor.expr.reads().iter().any(|info| rounded.rounds(&info.name));
    let holding: Vec<bool> = plan.tensors.iter().map(holds).collect();
    let values = rounded.rounding().describe();
    for place in plan.outputs.iter_mut().flat_map(|output| output.places.iter_mut().zip(&holding)) {
        if let (place, true) = place {
            place.rule = format!("{}; {values}", place.rule).into();
        }
    }
}

/// All keys in the order of the reference converter.
fn all_metadata(model: &Model, general: &General, tokenizer: &Tokenizer) -> Metadata {
    let mut all = Metadata::new();
    all.set("general.architecture", model.arch);
    all.extend(model.first.iter().cloned());
    general.write(&mut all);
    for hparam in &model.hparams {
        match hparam {
            Hparam::Set(key, value) => all.set(key.clone(), value.clone()),
            Hparam::FileType => all.set(FILE_TYPE_KEY, 0u32),
        }
    }
    all.set(QUANTIZATION_VERSION_KEY, QUANTIZATION_VERSION);
    all.extend(tokenizer.metadata.iter().cloned());
    all
}
