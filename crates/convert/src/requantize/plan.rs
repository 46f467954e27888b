//! Everything that is decided before the first weight is read.

use super::inputs::{architecture, file_type_of_copy, recipe_inputs};
use super::overrides::Overridden;
use super::prune::Pruning;
use super::{RequantizeError, RequantizeOptions};
use crate::conversion::ConvertError;
use crate::gguf_source;
use crate::importance::ImatrixFile;
use crate::plan::{
    self, Block, CHUNK_BYTES, FILE_TYPE_KEY, Place, Plan, PlannedFile, PlannedOutput, PlannedTensor, QUANTIZATION_VERSION,
    QUANTIZATION_VERSION_KEY, append, quantize_order,
};
use crate::recipe::{self, Choices, Decision, QuantizeTensor};
use ggufsmith_core::{DType, TensorExpr, TensorInfo};
use ggufsmith_gguf::{
    Array, GgufTensor, Layout, Metadata, SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS_COUNT, Shards, TensorSpec, Value, ggml_shape,
    shard_path,
};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// F32, which blocks are decoded to.
const DECODED_BYTES: u64 = 4;

/// What a file becomes.
pub(super) struct Planned {
    pub plan: Plan,
    pub arch: String,
    /// Names in the source of tensors whose bytes are copied.
    pub copied: Vec<String>,
    /// By tensor of the plan: number of its file, and its bytes there.
    pub reads: Vec<(usize, Range<u64>)>,
    pub warnings: Vec<String>,
}

/// A tensor of the source that is not left out.
struct Source<'a> {
    /// Number of its file.
    file: usize,
    path: &'a Path,
    tensor: &'a GgufTensor,
    /// Its name in the output.
    name: String,
    /// Outermost first, one dimension at least.
    shape: Vec<u64>,
}

/// Decide everything. No I/O.
pub(super) fn build(
    shards: &Shards,
    options: &RequantizeOptions,
    imatrix: Option<&ImatrixFile>,
) -> Result<Planned, ConvertError> {
    let path = shards.files()[0].path(); // there is always one
    let keys = Overridden { file: path, metadata: shards.metadata(), overrides: &options.overrides };
    let arch = architecture(&keys)?;
    let pruning = Pruning::new(&options.prune_layers, shards.tensors().map(|tensor| tensor.name.as_str()))?;
    let sources = walk(shards, options.keep_split, &pruning);
    if sources.is_empty() {
        return Err(RequantizeError::NoTensors { file: path.to_owned() }.into());
    }
    let copy = std::ptr::eq(options.file_type, &recipe::COPY);
    let decisions = match copy {
        true => sources.iter().map(copied_by_copy).collect(),
        false => decide(&keys, &arch, &sources, options, imatrix.is_some())?,
    };
    let file_type = match copy {
        true => file_type_of_copy(&keys, sorted(shards).into_iter().map(|(_, tensor)| tensor))?,
        false => options.file_type.ftype,
    };
    let changed = |index: usize| decisions[index].format != sources[index].tensor.format;
    check_sources(&sources, &decisions, options.allow_requantize)?;

    let tensors: Vec<PlannedTensor> = sources.iter().enumerate().map(|(index, s)| plan_tensor(s, changed(index))).collect();
    let renamed = imatrix.map(|file| renamed(file, &pruning));
    let mut refusals = Vec::new();
    let weighted = plan::weigh(options.file_type, renamed.as_ref(), &tensors, &decisions, changed, &mut refusals)?;
    if let Some(refusal) = refusals.into_iter().next() {
        return Err(refusal.into());
    }
    let metadata = metadata(shards.metadata(), file_type, options, imatrix, &arch, &pruning);
    let count = if options.keep_split { shards.files().len() } else { 1 };
    let (files, offsets) = place(&metadata, &sources, &decisions, count, &options.out)?;
    let mut places = Vec::with_capacity(tensors.len());
    for (index, (file, offset, bytes)) in offsets.into_iter().enumerate() {
        let Decision { format, rule, .. } = decisions[index].clone();
        let encoder = changed(index).then(|| plan::encoder(&tensors[index], format)).transpose()?;
        places.push(Place { format, encoder, rule, weighted: weighted[index], through: None, file, offset, bytes });
    }
    let order: Vec<usize> = (0..tensors.len()).collect();
    let quantized = |index: usize| decisions[index].format.is_quantized() && changed(index);
    let without_importance = plan::without_importance(imatrix, &order, &weighted, quantized);
    let chosen = copy || !options.choices.is_empty();
    let output = PlannedOutput { file_type: options.file_type, via: None, places, order, files, without_importance, chosen };

    let copied = (0..sources.len()).filter(|&index| !changed(index)).map(|index| sources[index].tensor.name.clone()).collect();
    let reads = sources.iter().map(|s| (s.file, s.tensor.offset..s.tensor.offset + s.tensor.bytes)).collect();
    let plan = Plan::new(tensors, vec![output], renamed.map(|file| file.imatrix));
    let mut warnings: Vec<String> = options.overrides.iter().filter_map(|known| known.warning()).collect();
    warnings.extend(requantized(&sources, &decisions));
    warnings.extend(plan.outputs.iter().filter_map(|output| output.misleading_name(plan.elems())));
    Ok(Planned { plan, arch, copied, reads, warnings })
}

/// All tensors in the order of `llama-quantize`'s walk, with the numbers of their files.
fn sorted(shards: &Shards) -> Vec<(usize, &GgufTensor)> {
    let mut all = in_files(shards);
    all.sort_by(|(_, a), (_, b)| quantize_order(&a.name).cmp(&quantize_order(&b.name)));
    all
}

/// All tensors in the order of the files and of their data there.
fn in_files(shards: &Shards) -> Vec<(usize, &GgufTensor)> {
    let files = shards.files().iter().enumerate();
    let mut all: Vec<_> = files.flat_map(|(number, file)| file.tensors().iter().map(move |tensor| (number, tensor))).collect();
    all.sort_by_key(|(file, tensor)| (*file, tensor.offset));
    all
}

/// The tensors that stay, in the order of the output.
fn walk<'a>(shards: &'a Shards, keep_split: bool, pruning: &Pruning) -> Vec<Source<'a>> {
    let all = if keep_split { in_files(shards) } else { sorted(shards) };
    let source = |(file, tensor): (usize, &'a GgufTensor)| {
        let shape = if tensor.shape.is_empty() { vec![1] } else { tensor.shape.clone() };
        Some(Source { file, path: shards.files()[file].path(), tensor, name: pruning.rename(&tensor.name)?, shape })
    };
    all.into_iter().filter_map(source).collect()
}

fn copied_by_copy(source: &Source<'_>) -> Decision {
    Decision { format: source.tensor.format, rule: "COPY: kept as it is".into(), needs_importance: false }
}

fn decide(
    keys: &Overridden<'_>,
    arch: &str,
    sources: &[Source<'_>],
    options: &RequantizeOptions,
    imatrix: bool,
) -> Result<Vec<Decision>, ConvertError> {
    let tensors: Vec<_> =
        sources.iter().map(|Source { name, shape, tensor, .. }| QuantizeTensor { name, shape, stored: tensor.format }).collect();
    let context = recipe::Context { arch, inputs: recipe_inputs(keys, arch)?, imatrix };
    let choices: &Choices = &options.choices;
    let decided = recipe::decide_quantize(options.file_type, context, choices, &tensors);
    Ok(decided.map_err(plan::PlanError::Recipe)?)
}

/// What is to change must be decodable, and not quantized yet unless that is allowed.
fn check_sources(sources: &[Source<'_>], decisions: &[Decision], allow: bool) -> Result<(), RequantizeError> {
    for (source, decision) in sources.iter().zip(decisions) {
        let (stored, wanted) = (source.tensor.format, decision.format);
        if stored == wanted {
            continue;
        }
        let (file, tensor) = (source.path.to_owned(), source.tensor.name.clone());
        if stored.decode.is_none() {
            return Err(RequantizeError::Undecodable { file, tensor, format: stored.name, wanted: wanted.name });
        }
        if stored.is_quantized() && !allow {
            return Err(RequantizeError::AlreadyQuantized { file, tensor, format: stored.name, wanted: wanted.name });
        }
    }
    Ok(())
}

/// What to tell where quantized tensors are quantized again.
fn requantized(sources: &[Source<'_>], decisions: &[Decision]) -> Option<String> {
    let again = |(source, decision): &(&Source<'_>, &Decision)| {
        source.tensor.format.is_quantized() && source.tensor.format != decision.format
    };
    let mut names: Vec<&str> = Vec::new();
    let mut count = 0;
    for (source, _) in sources.iter().zip(decisions).filter(again) {
        count += 1;
        if !names.contains(&source.tensor.format.name) {
            names.push(source.tensor.format.name);
        }
    }
    let tensors = if count == 1 { "1 tensor was".to_owned() } else { format!("{count} tensors were") };
    (count > 0).then(|| format!("{tensors} quantized before ({}): what that lost stays lost", names.join(", ")))
}

fn plan_tensor(source: &Source<'_>, changed: bool) -> PlannedTensor {
    let Source { path, tensor, name, shape, .. } = source;
    let (cols, rows) = (tensor.cols(), tensor.rows());
    let rows_per_expert = if shape.len() > 2 { shape[shape.len() - 2] } else { rows };
    let plain = gguf_source::plain(tensor.format);
    let row_bytes = match plain {
        // Blocks are decoded first.
        None if changed => cols * DECODED_BYTES,
        _ => tensor.row_bytes(),
    };
    let chunk_rows = (CHUNK_BYTES / row_bytes.max(1)).clamp(1, rows_per_expert);
    let (dtype, shape_read) = match changed {
        true => (plain.unwrap_or(DType::F32), shape.clone()),
        false => (DType::U8, vec![tensor.bytes]),
    };
    let info =
        TensorInfo { name: tensor.name.clone(), dtype, shape: shape_read, file: (*path).to_owned(), offset: tensor.offset };
    PlannedTensor {
        name: name.clone(),
        shape: shape.clone(),
        expr: TensorExpr::Read(info),
        cols,
        rows,
        rows_per_expert,
        chunk_rows,
        source_type: Some(tensor.format.name),
        source_block: Block { elems: tensor.format.block_len as u64, bytes: tensor.format.block_bytes as u64 },
    }
}

/// The importance matrix under the names that the output's tensors have.
fn renamed(file: &ImatrixFile, pruning: &Pruning) -> ImatrixFile {
    if pruning.block_count.is_none() {
        return file.clone();
    }
    let mut kept = (*file.imatrix).clone();
    kept.retain(|name| pruning.rename(name).is_some());
    let imatrix = kept.renamed(|name| pruning.rename(name).unwrap_or_default());
    ImatrixFile { imatrix: Arc::new(imatrix), file: file.file.clone() }
}

/// The keys of the output, in order: those of the input, then what `llama-quantize` sets, each removed and set anew.
fn metadata(
    source: &Metadata,
    file_type: u32,
    options: &RequantizeOptions,
    imatrix: Option<&ImatrixFile>,
    arch: &str,
    pruning: &Pruning,
) -> Metadata {
    let mut metadata = source.clone();
    source.iter().filter(|(_, value)| has_nul(value)).for_each(|(key, value)| metadata.set(key, until_nul(value)));
    append(&mut metadata, QUANTIZATION_VERSION_KEY, QUANTIZATION_VERSION);
    append(&mut metadata, FILE_TYPE_KEY, file_type);
    for key in [SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS_COUNT] {
        metadata.remove(key);
    }
    options.overrides.iter().for_each(|known| known.apply(&mut metadata));
    if let Some(imatrix) = imatrix {
        imatrix.write_keys(&mut metadata);
    }
    if let Some(count) = pruning.block_count {
        // No more than the file has tensors.
        append(&mut metadata, &format!("{arch}.block_count"), u32::try_from(count).unwrap_or(u32::MAX));
    }
    metadata
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(Array::String(texts)) => texts.iter().any(|text| text.contains('\0')),
        _ => false,
    }
}

/// ggml hands strings on as C strings: what follows a NUL is read by nobody, and not written.
fn until_nul(value: &Value) -> Value {
    let cut = |text: &String| text.split('\0').next().unwrap_or_default().to_owned();
    match value {
        Value::String(text) => Value::String(cut(text)),
        Value::Array(Array::String(texts)) => Value::Array(Array::String(texts.iter().map(cut).collect())),
        other => other.clone(),
    }
}

/// Number of the file, offset and size of every tensor.
type Offsets = Vec<(usize, u64, u64)>;

/// The output's files; of several each holds what the input's file of that number does.
fn place(
    metadata: &Metadata,
    sources: &[Source<'_>],
    decisions: &[Decision],
    count: usize,
    out: &Path,
) -> Result<(Vec<PlannedFile>, Offsets), RequantizeError> {
    let total = i32::try_from(sources.len()).map_err(|_| RequantizeError::TooManyTensors { found: sources.len() })?;
    let base = shard_base(out, count);
    let (mut files, mut offsets) = (Vec::with_capacity(count), Offsets::with_capacity(sources.len()));
    for number in 0..count {
        let mut keys = if number == 0 { metadata.clone() } else { Metadata::new() };
        if count > 1 {
            // As many as the input's own u16 counts.
            append(&mut keys, SPLIT_NO, number as u16);
            append(&mut keys, SPLIT_COUNT, count as u16);
            append(&mut keys, SPLIT_TENSORS_COUNT, total);
        }
        let here = sources.iter().zip(decisions).filter(|(source, _)| count == 1 || source.file == number);
        let specs = here.map(|(source, decision)| TensorSpec {
            name: source.name.clone(),
            shape: ggml_shape(&source.shape).to_vec(),
            format: decision.format,
        });
        let path = shard_path(&base, number, count);
        let fault = |source| RequantizeError::Layout { path: path.clone(), source };
        let layout = Layout::plan(&keys, specs.collect()).map_err(fault)?;
        offsets.extend(layout.tensors().iter().map(|tensor| (number, tensor.offset, tensor.bytes)));
        files.push(PlannedFile { path, layout });
    }
    Ok((files, offsets))
}

/// Shards are named after the output without `.gguf`, whether it is there or not.
fn shard_base(out: &Path, count: usize) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    if count > 1 && !name.to_string_lossy().ends_with(".gguf") {
        name.push(".gguf");
        return out.with_file_name(name);
    }
    out.to_owned()
}
