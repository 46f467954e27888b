//! From GGUF back to a Hugging Face model directory.
//!
//! [`Export::prepare`] reads the header and small tables, rebuilds config.json and the tokenizer's files, undoes every tensor's
//! expression and places all tensors in safetensors files: everything is decided before the first weight is written.
//! [`Export::run`] writes tile by tile; the files appear together, or none does.

pub(crate) mod directory;
mod dtype;
mod error;
mod run;
pub(crate) mod safetensors;

pub use dtype::DTypeChoice;
pub use error::ExportError;

use crate::gguf_source::{self, GgufSource};
use crate::sink::SinkFile;
use dtype::Target;
use ggufsmith_arch::GgufModel;
use ggufsmith_core::inverse::{self, Piece};
use ggufsmith_core::{DType, TensorExpr, TensorInfo, TensorSource};
use ggufsmith_gguf::{Limits, Metadata, Shards, Value};
use ggufsmith_tokenizer::write::{self, Written};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Tensor data of one safetensors file at most, as transformers has it.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// The longest table that is no tensor of a checkpoint; `rope_freqs.weight` has half a head's elements.
const MAX_TABLE_ELEMS: u64 = 1 << 16;

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The directory to write.
    pub out: PathBuf,
    /// `--dtype`.
    pub dtype: DTypeChoice,
    /// `--class`: the class in config.json.
    pub class: Option<String>,
    /// `--max-shard-size`, in bytes of tensor data.
    pub max_shard_bytes: u64,
    /// Whether tokenizer files are written.
    pub tokenizer: bool,
}

/// How to run.
pub struct ExportRun<'a> {
    /// Worker threads.
    pub threads: usize,
    /// Overwrite files that exist.
    pub force: bool,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told output bytes as they are written; called from the workers' threads, must not block.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// A tensor of the checkpoint.
#[derive(Debug)]
pub struct ExportedTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// How it is written.
    pub dtype: DType,
    /// How the GGUF file stores what it is made of: the quantized one where there is one.
    pub stored: &'static str,
    /// Whether its values were decoded from codes.
    pub dequantized: bool,
    expr: TensorExpr,
    /// File number and first byte.
    place: (usize, u64),
}

impl ExportedTensor {
    /// Bytes in the safetensors file.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes() as u64
    }
}

/// An export that is planned and not yet run.
#[derive(Debug)]
pub struct Export {
    /// Every tensor, by name.
    pub tensors: Vec<ExportedTensor>,
    /// The class in config.json.
    pub class: &'static str,
    /// `general.architecture`.
    pub arch: &'static str,
    /// The element type that config.json names.
    pub dtype: DType,
    /// What a user should know.
    pub warnings: Vec<String>,
    out: PathBuf,
    source: GgufSource,
    files: Vec<PlannedFile>,
}

/// A file to write: its name, how it starts, and the tensor data that follows.
#[derive(Debug)]
struct PlannedFile {
    name: String,
    start: Vec<u8>,
    bytes: u64,
    data: Vec<std::ops::Range<u64>>,
}

impl Export {
    /// Read what is needed of a GGUF model (of several shards: any) and plan.
    ///
    /// # Errors
    /// [`ExportError`]: whatever is wrong with the file, its architecture, its tokenizer, or the wishes.
    pub fn prepare(path: &Path, options: &ExportOptions) -> Result<Self, ExportError> {
        let shards = Shards::open(path, &Limits::default())?;
        check_decodable(&shards)?;
        let metadata = shards.metadata().clone();
        let source = GgufSource::new(shards);
        let family = ggufsmith_arch::family_of(&metadata)?;
        let tables = tables(&source, |name| family.names().hf(name).is_some())?;
        let tensors: Vec<_> = source.tensors().iter().map(|info| (info.name.clone(), info.shape.clone())).collect();
        let file = GgufModel { metadata: &metadata, tensors: &tensors, tables: &tables };
        let exported = ggufsmith_arch::export(&file, options.class.as_deref())?;
        let mut warnings = exported.warnings;

        let written = if options.tokenizer { write::write(&metadata)? } else { None };
        match &written {
            None if options.tokenizer => warnings.push("the file has no tokenizer: none is written".to_owned()),
            None => {}
            Some(written) => warnings.extend(written.warnings.iter().cloned()),
        }

        let originals = originals(&exported.model.tensors, &source)?;
        let target = Target::new(options.dtype, &source, &originals);
        let mut tensors = Vec::with_capacity(originals.len());
        for (name, (shape, expr)) in originals {
            let dtype = target.of(&expr, &source)?;
            let (stored, dequantized) = stored(&expr, &source);
            tensors.push(ExportedTensor { name, shape, dtype, stored, dequantized, expr, place: (0, 0) });
        }
        let dtype = target.main(&tensors);
        warnings.extend(target.notes(&tensors));

        let mut config = exported.config;
        add_tokens(&mut config, written.as_ref());
        config.insert("torch_dtype".to_owned(), dtype::torch_name(dtype).into());
        config.sort_keys();
        let card = card(&metadata, source.tensors(), path);
        let files = plan_files(&mut tensors, options.max_shard_bytes, config, written, &metadata, card);
        let (class, arch, out) = (exported.class, exported.model.arch, options.out.clone());
        Ok(Export { tensors, class, arch, dtype, warnings, out, source, files })
    }

    /// The files, as they will be called, in the order in which a run reports them.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|file| self.out.join(&file.name))
    }

    /// Bytes of tensor data to write.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(ExportedTensor::bytes).sum()
    }

    /// Elements of all tensors.
    pub fn elems(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum()
    }

    fn sink_files(&self) -> Vec<SinkFile> {
        let file = |file: &PlannedFile| SinkFile {
            path: self.out.join(&file.name),
            bytes: file.bytes,
            header: file.start.clone(),
            data: file.data.clone(),
        };
        self.files.iter().map(file).collect()
    }
}

/// Formats without a decoder are named all at once.
fn check_decodable(shards: &Shards) -> Result<(), ExportError> {
    let mut unknown: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    for tensor in shards.tensors().filter(|tensor| tensor.format.decode.is_none()) {
        unknown.entry(tensor.format.name).or_insert_with(|| (0, tensor.name.clone())).0 += 1;
    }
    match unknown.is_empty() {
        true => Ok(()),
        false => {
            Err(ExportError::Undecodable { formats: unknown.into_iter().map(|(name, (n, first))| (name, n, first)).collect() })
        }
    }
}

/// The small F32 vectors that stand for no tensor of a checkpoint.
fn tables(source: &GgufSource, known: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<f32>>, ExportError> {
    let mut tables = BTreeMap::new();
    for info in source.tensors().iter().filter(|info| !known(&info.name)) {
        let float = source.format(&info.name).and_then(gguf_source::plain) == Some(DType::F32);
        if float && info.shape.len() == 1 && info.elems() <= MAX_TABLE_ELEMS {
            // At most MAX_TABLE_ELEMS.
            tables.insert(info.name.clone(), source.floats(&info.name, info.elems() as usize)?);
        }
    }
    Ok(tables)
}

/// Shape and expression by name.
type Originals = BTreeMap<String, (Vec<u64>, TensorExpr)>;

/// Every tensor of the checkpoint, as an expression over the file's tensors.
fn originals(outputs: &[ggufsmith_arch::OutputTensor], source: &GgufSource) -> Result<Originals, ExportError> {
    let mut pieces: BTreeMap<String, (TensorInfo, Vec<Piece>)> = BTreeMap::new();
    for output in outputs.iter().filter(|output| !output.expr.reads().is_empty()) {
        let fault = |error| ExportError::Inverse { tensor: output.name.clone(), source: error };
        let missing = || ExportError::Source(ggufsmith_core::SourceError::NoTensor { tensor: output.name.clone() });
        let info = source.info(&output.name).ok_or_else(missing)?;
        for piece in inverse::invert(&output.expr, info).map_err(fault)? {
            pieces.entry(piece.source.name.clone()).or_insert_with(|| (piece.source.clone(), Vec::new())).1.push(piece);
        }
    }
    let mut originals = Originals::new();
    for (name, (info, pieces)) in pieces {
        let expr = inverse::join(&info, pieces).map_err(|error| ExportError::Inverse { tensor: name.clone(), source: error })?;
        originals.insert(name, (info.shape, expr));
    }
    Ok(originals)
}

/// How the file stores what a tensor is made of; a quantized format counts before others.
fn stored(expr: &TensorExpr, source: &GgufSource) -> (&'static str, bool) {
    let formats: Vec<_> = expr.reads().into_iter().filter_map(|info| source.format(&info.name)).collect();
    let quantized = formats.iter().find(|format| format.is_quantized());
    (quantized.or(formats.first()).map_or("", |format| format.name), quantized.is_some())
}

/// Ids of special tokens, where config.json has them.
fn add_tokens(config: &mut Map<String, Json>, written: Option<&Written>) {
    for (key, id) in written.map(|written| written.ids.as_slice()).unwrap_or_default() {
        if ["bos_token_id", "eos_token_id", "pad_token_id"].contains(key) {
            config.insert((*key).to_owned(), (*id).into());
        }
    }
}

/// generation_config.json; `None` where there is nothing to say.
fn generation_config(written: Option<&Written>, metadata: &Metadata) -> Option<Map<String, Json>> {
    let mut config = Map::new();
    add_tokens(&mut config, written);
    if let (Some(eot), Some(eos)) = (written.and_then(|written| written.eot), config.get("eos_token_id").cloned()) {
        config.insert("eos_token_id".to_owned(), vec![eos, eot.into()].into());
    }
    for (key, name) in crate::metadata::sampling_names() {
        let value = match metadata.get(&format!("general.sampling.{key}")) {
            Some(Value::I32(value)) => Json::from(*value),
            // The shortest digits that are this F32.
            Some(Value::F32(value)) if value.is_finite() => value.to_string().parse::<f64>().map_or(Json::Null, Json::from),
            Some(Value::String(text)) => Json::from(text.as_str()),
            _ => continue,
        };
        config.insert(name.to_owned(), value);
        config.insert("do_sample".to_owned(), true.into());
    }
    config.sort_keys();
    (!config.is_empty()).then_some(config)
}

/// README.md: what the file says of the model, its license above all.
fn card(metadata: &Metadata, tensors: &[TensorInfo], path: &Path) -> Option<String> {
    let total = tensors.iter().fold(0u64, |total, info| total.saturating_add(info.elems()));
    let front_matter = crate::metadata::front_matter(metadata, total)?;
    let name = metadata.lookup::<&str>("general.name").ok().flatten().unwrap_or("Model");
    let line = |text: &str| text.replace(char::is_control, " ");
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Some(format!(
        "---\n{front_matter}---\n\n# {}\n\nExported by ggufsmith from `{}`.\n",
        line(name),
        line(&file).replace('`', "'")
    ))
}

/// Place the tensors; all files in the order of their names.
fn plan_files(
    tensors: &mut [ExportedTensor],
    max_shard_bytes: u64,
    config: Map<String, Json>,
    written: Option<Written>,
    metadata: &Metadata,
    card: Option<String>,
) -> Vec<PlannedFile> {
    let text = |name: &str, start: Vec<u8>| {
        let bytes = start.len() as u64;
        PlannedFile { name: name.to_owned(), start, bytes, data: Vec::new() }
    };
    let mut files: Vec<_> = card.map(|card| text("README.md", card.into_bytes())).into_iter().collect();
    files.push(text("config.json", json_text(config.into())));
    if let Some(config) = generation_config(written.as_ref(), metadata) {
        files.push(text("generation_config.json", json_text(config.into())));
    }
    files.extend(written.into_iter().flat_map(|written| written.files).map(|(name, bytes)| text(name, bytes)));
    let specs: Vec<_> = tensors
        .iter()
        .map(|tensor| safetensors::Spec { name: &tensor.name, dtype: tensor.dtype, shape: &tensor.shape })
        .collect();
    let (shards, index) = safetensors::place(&specs, max_shard_bytes);
    files.extend(index.map(|index| text("model.safetensors.index.json", json_text(index))));
    for shard in shards {
        for (index, range) in &shard.tensors {
            tensors[*index].place = (files.len(), range.start);
        }
        let data = shard.tensors.into_iter().map(|(_, range)| range).collect();
        files.push(PlannedFile { name: shard.name, start: shard.header, bytes: shard.bytes, data });
    }
    files
}

fn json_text(value: Json) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
