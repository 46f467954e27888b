//! Everything that is decided before the first weight is read.
//!
//! A plan is pure: from a model's description and its metadata it derives, for every output, the metadata, the order of the
//! tensors, each tensor's format and the rule that chose it, and every offset, size and file name.

mod output;

use crate::importance::ImatrixFile;
use crate::recipe::{Choices, Decision, FileType, RecipeError};
use ggufsmith_arch::Model;
use ggufsmith_core::{DType, Encoder, Format, TensorExpr, Words, formats};
use ggufsmith_gguf::imatrix::{Imatrix, ImatrixError};
use ggufsmith_gguf::{Layout, Metadata, SplitError, SplitLimits, Value};
use output::plan_output;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// `general.file_type`; a plan sets it for each output.
pub const FILE_TYPE_KEY: &str = "general.file_type";
/// `general.quantization_version`.
pub const QUANTIZATION_VERSION_KEY: &str = "general.quantization_version";
/// ggml's `GGML_QNT_VERSION`.
pub const QUANTIZATION_VERSION: u32 = 2;
/// Source bytes that a worker takes at a time, where rows allow.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// The intermediate file that the reference tools would have made before `llama-quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// What loses nothing: BF16 where all matrices are BF16, F16 where all are F16, else F32.
    #[default]
    Auto,
    /// Imitate a pipeline with this outtype.
    Words(Words),
}

/// One file to make.
#[derive(Debug, Clone)]
pub struct OutputRequest {
    /// What `--type` named.
    pub file_type: &'static FileType,
    /// Its name; shards derive theirs from it.
    pub path: PathBuf,
}

/// What a plan is made from.
#[derive(Debug)]
pub struct PlanRequest<'a> {
    /// The model.
    pub model: &'a Model,
    /// All keys in the converter's order, [`FILE_TYPE_KEY`] and [`QUANTIZATION_VERSION_KEY`] at their places.
    pub metadata: &'a Metadata,
    /// The files to make.
    pub outputs: &'a [OutputRequest],
    /// The intermediate file of types that `llama-quantize` makes.
    pub via: Via,
    /// How files are split.
    pub split: SplitLimits,
    /// What the user decides instead of the recipes. With any choice every type is made as `llama-quantize` makes it.
    pub choices: &'a Choices,
    /// The importance matrix; with one every quantized type is made as `llama-quantize` makes it.
    pub imatrix: Option<&'a ImatrixFile>,
}

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    #[error("no output type was asked for; name one with --type, `ggufsmith list types` shows them")]
    NoOutput,
    #[error("the model has no tensors")]
    NoTensors,
    #[error("tensor {tensor} of shape {shape:?} holds no elements")]
    Empty { tensor: String, shape: Vec<u64> },
    #[error("tensor {tensor}: {format} cannot be written yet")]
    NoEncoder { tensor: String, format: &'static str },
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Imatrix(#[from] ImatrixError),
    #[error(
        "tensor {tensor}: {format} in a file of type {file_type} is of no use without the tensor's importance, and {}", imatrix.as_ref().map_or_else(|| "there is no --imatrix".to_owned(), |file| format!("{file} has none"))
    )]
    NeedsImportance { tensor: String, format: &'static str, file_type: &'static str, imatrix: Option<String> },
    #[error(
        "{imatrix} has the importance of no tensor that {file_type} quantizes: it was measured on another model (it speaks of {example})"
    )]
    ForeignImatrix { imatrix: String, file_type: &'static str, example: String },
    #[error("the plan of {}: {source}", path.display())]
    Split { path: PathBuf, source: SplitError },
}

/// The whole run, printable as `--dry-run`.
#[derive(Debug)]
pub struct Plan {
    /// Every output tensor, in the converter's order.
    pub tensors: Vec<PlannedTensor>,
    /// Every output.
    pub outputs: Vec<PlannedOutput>,
    /// Indices into `tensors` in the order of work: embedding, blocks, head.
    pub work_order: Vec<usize>,
    /// Work in the order in which the bytes lie in the source's files instead: for a source that can be read only once, from front to
    /// back.
    pub source_order: bool,
    /// The importance that [`Place::weighted`] tensors are encoded with.
    pub(crate) imatrix: Option<Arc<Imatrix>>,
}

/// A tensor that all outputs share.
#[derive(Debug)]
pub struct PlannedTensor {
    /// GGUF name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<u64>,
    /// Where its elements come from.
    pub expr: TensorExpr,
    /// Elements of the innermost dimension.
    pub cols: u64,
    /// Product of the other dimensions.
    pub rows: u64,
    /// Rows of one expert (all rows of a matrix).
    pub rows_per_expert: u64,
    /// Rows per chunk.
    pub chunk_rows: u64,
    /// The name of the type that the source stores; `None` for computed tables.
    pub source_type: Option<&'static str>,
    /// The smallest whole piece of the source, for progress and rates.
    pub source_block: Block,
}

/// Elements that are stored together, and the bytes they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Elements.
    pub elems: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One output, in one file or several shards.
#[derive(Debug)]
pub struct PlannedOutput {
    /// What was asked for.
    pub file_type: &'static FileType,
    /// The intermediate file it goes through; `None` for the converter's own types.
    pub via: Option<Words>,
    /// By tensor index of the plan.
    pub places: Vec<Place>,
    /// Tensor indices in file order.
    pub order: Vec<usize>,
    /// The file, or its shards.
    pub files: Vec<PlannedFile>,
    /// Tensors, in file order, that are quantized without importance although there is an importance matrix.
    pub without_importance: Vec<usize>,
    /// Whether the user decided types.
    pub(crate) chosen: bool,
}

/// Where and how a tensor is written in one output.
#[derive(Debug)]
pub struct Place {
    /// What the tensor is stored as.
    pub format: &'static Format,
    /// Makes the bytes. Without one the source's own bytes, which are of this format, are copied.
    pub encoder: Option<&'static Encoder>,
    /// The rule that chose the format.
    pub rule: Cow<'static, str>,
    /// Whether it is encoded with importance.
    pub weighted: bool,
    /// Words that the values are rounded to first.
    pub through: Option<Words>,
    /// File number over all outputs of the plan.
    pub file: usize,
    /// Byte offset in that file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl Place {
    /// Where a row of `cols` elements starts in the file.
    pub(crate) fn offset_of(&self, row: u64, cols: u64) -> u64 {
        self.offset + row * (cols / self.format.block_len as u64 * self.format.block_bytes as u64)
    }
}

/// One file.
#[derive(Debug)]
pub struct PlannedFile {
    /// Its final name.
    pub path: PathBuf,
    /// Header and offsets.
    pub layout: Layout,
}

impl Plan {
    /// Decide everything. No I/O.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn build(request: &PlanRequest<'_>) -> Result<Plan, PlanError> {
        match Plan::draft(request)? {
            (plan, refusals) if refusals.is_empty() => Ok(plan),
            (_, mut refusals) => Err(refusals.swap_remove(0)),
        }
    }

    /// Decide everything, although it may not be possible to write all of it: what stands in the way comes with the plan.
    ///
    /// # Errors
    /// [`PlanError`] where nothing can be decided.
    pub fn draft(request: &PlanRequest<'_>) -> Result<(Plan, Vec<PlanError>), PlanError> {
        if request.outputs.is_empty() {
            return Err(PlanError::NoOutput);
        }
        if request.model.tensors.is_empty() {
            return Err(PlanError::NoTensors);
        }
        let tensors = request.model.tensors.iter().map(plan_tensor).collect::<Result<Vec<_>, _>>()?;
        let via = resolve_via(request.via, request.model);
        let mut outputs = Vec::with_capacity(request.outputs.len());
        let mut file = 0;
        let mut refusals = Vec::new();
        for output in request.outputs {
            let planned = plan_output(request, output, via, &tensors, file, &mut refusals)?;
            file += planned.files.len();
            outputs.push(planned);
        }
        Ok((Plan::new(tensors, outputs, request.imatrix.map(|file| Arc::clone(&file.imatrix))), refusals))
    }

    pub(crate) fn new(tensors: Vec<PlannedTensor>, outputs: Vec<PlannedOutput>, imatrix: Option<Arc<Imatrix>>) -> Plan {
        let mut work_order: Vec<usize> = (0..tensors.len()).collect();
        work_order.sort_by_key(|&i| model_order(&tensors[i].name));
        Plan { tensors, outputs, work_order, source_order: false, imatrix }
    }

    /// The importance of the columns of a tensor's rows from `row` on, up to the end of its expert; by index in `tensors`.
    pub(crate) fn importance(&self, index: usize, place: &Place, row: u64) -> Option<&[f32]> {
        let imatrix = self.imatrix.as_deref().filter(|_| place.weighted)?;
        let tensor = &self.tensors[index];
        // Its length was found right when this plan was made.
        let values = imatrix.of(&tensor.name, &tensor.shape).ok().flatten()?;
        values.chunks_exact(tensor.cols as usize).nth((row / tensor.rows_per_expert) as usize)
    }

    /// All files of all outputs, in the numbering of [`Place::file`].
    pub fn files(&self) -> impl Iterator<Item = &PlannedFile> {
        self.outputs.iter().flat_map(|output| &output.files)
    }

    /// Source bytes that are read.
    pub fn source_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.source_bytes(t.elems())).sum()
    }

    /// Number of weights.
    pub fn elems(&self) -> u64 {
        self.tensors.iter().map(PlannedTensor::elems).sum()
    }

    /// Bytes of buffers that `workers` workers hold at most: for each the source tile, its intermediate rounding and one
    /// encoded chunk, and one tile for hashing each file.
    pub fn memory_bound(&self, workers: usize) -> u64 {
        let slot = |index: usize, tensor: &PlannedTensor| {
            let elems = tensor.chunk_rows * tensor.cols;
            let encoded = |place: &Place| {
                let through = place.through.map_or(0, |words| elems * words.bytes() as u64);
                // Bytes that are copied are in no other buffer.
                let read = place.encoder.map_or(0, |_| tensor.expr.working_set(elems) + tensor.blocks(elems));
                read + through + place.format.bytes_for(elems).unwrap_or(0)
            };
            self.outputs.iter().map(|o| encoded(&o.places[index])).max().unwrap_or(0)
        };
        let slots = self.tensors.iter().enumerate().map(|(i, t)| slot(i, t)).max().unwrap_or(0);
        workers as u64 * slots + self.files().count() as u64 * (1 << 20)
    }
}

impl PlannedTensor {
    /// Number of elements.
    pub fn elems(&self) -> u64 {
        self.rows * self.cols
    }

    /// Bytes of the source that so many of its elements take; whole blocks.
    pub(crate) fn source_bytes(&self, elems: u64) -> u64 {
        elems / self.source_block.elems * self.source_block.bytes
    }

    /// Bytes that are held beside the evaluated expression where the source's blocks have to be decoded.
    fn blocks(&self, elems: u64) -> u64 {
        if self.source_block.elems > 1 { self.source_bytes(elems) } else { 0 }
    }
}

impl PlannedOutput {
    /// Size of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.layout.file_size()).sum()
    }

    /// Bits of tensor data per weight.
    pub fn bits_per_weight(&self, elems: u64) -> f64 {
        self.places.iter().map(|p| p.bytes).sum::<u64>() as f64 * 8.0 / elems as f64
    }

    /// What to tell a user whose file is much larger than its type's name promises, because rows do not divide into blocks or
    /// the embedding is a large part of the model.
    pub fn misleading_name(&self, elems: u64) -> Option<String> {
        let (promised, real) = (self.file_type.bits_per_weight(), self.bits_per_weight(elems));
        (!self.chosen && real > promised * 1.1).then(|| {
            let name = self.file_type.name();
            format!(
                "{name} promises {promised:.2} bits per weight; this model's tensors come to {real:.2} (--dry-run shows which)"
            )
        })
    }
}

fn plan_tensor(tensor: &ggufsmith_arch::OutputTensor) -> Result<PlannedTensor, PlanError> {
    let shape = tensor.expr.shape();
    let cols = shape.last().copied().unwrap_or(1);
    let rows: u64 = shape.iter().rev().skip(1).product();
    if rows * cols == 0 {
        return Err(PlanError::Empty { tensor: tensor.name.clone(), shape });
    }
    let rows_per_expert = if shape.len() > 2 { shape[shape.len() - 2] } else { rows };
    let source_dtype = tensor.expr.reads().first().map(|info| info.dtype);
    let source_block = Block { elems: 1, bytes: source_dtype.map_or(4, |d| d.bytes() as u64) };
    let wanted = (CHUNK_BYTES / (cols * source_block.bytes)).max(tensor.expr.min_rows());
    let chunk_rows = wanted.clamp(1, rows_per_expert);
    let (name, expr, source_type) = (tensor.name.clone(), tensor.expr.clone(), source_dtype.map(DType::name));
    Ok(PlannedTensor { name, shape, expr, cols, rows, rows_per_expert, chunk_rows, source_type, source_block })
}

/// The words of the intermediate file.
fn resolve_via(via: Via, model: &Model) -> Words {
    let Via::Auto = via else {
        return match via {
            Via::Words(words) => words,
            Via::Auto => Words::F32,
        };
    };
    let mut dtypes = model.tensors.iter().filter(|t| !t.keep_f32).flat_map(|t| t.expr.reads()).map(|info| info.dtype);
    match dtypes.next() {
        Some(DType::BF16) if dtypes.all(|d| d == DType::BF16) => Words::BF16,
        Some(DType::F16) if dtypes.all(|d| d == DType::F16) => Words::F16,
        _ => Words::F32,
    }
}

/// The format that holds such words as they are.
pub fn plain_format(words: Words) -> &'static Format {
    match words {
        Words::F32 => &formats::f32::FORMAT,
        Words::F16 => &formats::f16::FORMAT,
        Words::BF16 => &formats::bf16::FORMAT,
    }
}

/// Set a key as ggml's `gguf_set_val_*` does: an older one is removed, the new one comes last.
pub(crate) fn append(metadata: &mut Metadata, key: &str, value: impl Into<Value>) {
    metadata.remove(key);
    metadata.set(key, value);
}

pub(crate) fn encoder(tensor: &PlannedTensor, format: &'static Format) -> Result<&'static Encoder, PlanError> {
    let missing = || PlanError::NoEncoder { tensor: tensor.name.clone(), format: format.name };
    formats::encoder_of(format).ok_or_else(missing)
}

/// The tensors, in file order, that are quantized without importance although there is an importance matrix.
pub(crate) fn without_importance(
    imatrix: Option<&ImatrixFile>,
    order: &[usize],
    weighted: &[bool],
    quantized: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let without = |&index: &usize| imatrix.is_some() && quantized(index) && !weighted[index];
    order.iter().copied().filter(without).collect()
}

/// Which tensors are encoded with importance; `changed` says which are not stored as they are in the intermediate file.
pub(crate) fn weigh(
    file_type: &FileType,
    imatrix: Option<&ImatrixFile>,
    tensors: &[PlannedTensor],
    decisions: &[Decision],
    changed: impl Fn(usize) -> bool,
    refusals: &mut Vec<PlanError>,
) -> Result<Vec<bool>, PlanError> {
    let mut refused = false;
    let mut weighted = vec![false; tensors.len()];
    let mut quantized = 0;
    for (index, (tensor, decision)) in tensors.iter().zip(decisions).enumerate() {
        if !changed(index) || !decision.format.is_quantized() {
            continue;
        }
        quantized += 1;
        let values = imatrix.map(|file| file.imatrix.of(&tensor.name, &tensor.shape)).transpose()?.flatten();
        weighted[index] = values.is_some();
        if decision.needs_importance && values.is_none() && !std::mem::replace(&mut refused, true) {
            refusals.push(PlanError::NeedsImportance {
                tensor: tensor.name.clone(),
                format: decision.format.name,
                file_type: file_type.name(),
                imatrix: imatrix.map(|file| file.file.name.clone()),
            });
        }
    }
    match imatrix {
        Some(file) if quantized > 0 && !weighted.contains(&true) => Err(PlanError::ForeignImatrix {
            imatrix: file.file.name.clone(),
            file_type: file_type.name(),
            example: file.imatrix.names().next().unwrap_or_default().to_owned(),
        }),
        _ => Ok(weighted),
    }
}

/// The block number of `blk.N.…`.
pub(crate) fn block_number(name: &str) -> Option<u64> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// llama.cpp's `weight_name_comparer`: tensors of no block first, then blocks by number, then names bytewise.
pub(crate) fn quantize_order(name: &str) -> (Option<u64>, &str) {
    (block_number(name), name)
}

/// Embeddings and tables, block 0 to n, then what comes after the blocks.
fn model_order(name: &str) -> (u8, u64) {
    match block_number(name) {
        Some(number) => (1, number),
        None if name.starts_with("output") => (2, 0),
        None => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_the_tools_and_of_work() {
        let mut names = ["blk.10.a", "output.weight", "blk.2.b", "blk.2.a", "token_embd.weight", "output_norm.weight"];
        names.sort_by(|a, b| quantize_order(a).cmp(&quantize_order(b)));
        let expected = ["output.weight", "output_norm.weight", "token_embd.weight", "blk.2.a", "blk.2.b", "blk.10.a"];
        assert_eq!(names, expected);
        names.sort_by_key(|name| model_order(name));
        let expected = ["token_embd.weight", "blk.2.a", "blk.2.b", "blk.10.a", "output.weight", "output_norm.weight"];
        assert_eq!(names, expected);
    }
}
