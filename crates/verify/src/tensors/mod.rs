//! Every tensor of the file against the original safetensors.
//!
//! A tensor is read tile by tile from both sides; the source's tile goes through the expression that says where the tensor comes from
//! ([`ggufsmith_arch`]), is encoded again to the file's type and compared byte by byte. So an error of the converter, of the
//! quantizer or of a disk shows, whoever made the file.
//!
//! | verdict | means |
//! | --- | --- |
//! | lossless | F32, F16 or BF16, and every value is the source's |
//! | exact | encoding the source again gives the same bytes: straight, or through one of the 16-bit types, as files are that `llama-quantize` made from a 16-bit GGUF |
//! | bounded | other bytes, but relative RMSE at most [`BOUND`] times that of our own encoder, and no single block that no encoder makes: from another tool, or made with an importance matrix that was not given |
//! | wrong | none of these: the tensor is not the source's, or damaged |
//! | unknown | of a type that cannot be decoded or written yet |
//!
//! Tiles are about 1 MiB of source and the same whatever the number of threads; sums are in F64 and added in order, so figures do
//! not depend on it either. `saturated` counts values at the largest magnitude that occurs in their block.

mod compare;
mod figures;
mod hints;
mod tile;

use crate::imatrix::{Imatrix, ImatrixError};
use crate::report::{Check, Status, TensorFigures, TensorVerdict, layer_and_kind};
use compare::{Item, Part, Slot};
use figures::{Sums, relative};
use ggufsmith_arch::Model;
use ggufsmith_checkpoint::Rounded;
use ggufsmith_core::format::DecodeError;
use ggufsmith_core::{DType, EncodeError, SCHEMES, SourceError, TensorExpr, TensorSource, Words, formats};
use ggufsmith_gguf::{GgufError, GgufTensor, Shards, Value, ggml_shape};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tile::Tile;

/// A tensor is bounded up to this many times the relative RMSE of our own encoder.
pub const BOUND: f64 = 1.05;

/// Tables that are computed from hyper-parameters may differ by this much: another machine's power function.
const COMPUTED_TOLERANCE: f64 = 1e-6;
/// Where at most this share of the blocks differs from what our encoder gives, it was our encoder, or one of the same bytes.
const FEW: f64 = 0.05;
/// There a block is damaged whose error is this many times what is usual;
const DAMAGED_AMONG_EQUAL: f64 = 4.0;
/// elsewhere this many: an importance matrix may cost single blocks some times the usual error.
const DAMAGED: f64 = 32.0;
/// Wrong tensors that are looked at closely.
const MAX_HINTS: usize = 16;
/// Names that a summary lists.
const MAX_NAMES: usize = 8;

/// How to check.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Threads, at least 1.
    pub threads: usize,
    /// The importance matrix that the file was made with, if one is known.
    pub imatrix: Option<&'a Imatrix>,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told the number of source bytes that each finished tile stands for ([`source_bytes`] in all); called from the threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// The source with the values of a scheme that GGUF does not have (NF4, FP4), which a file may carry in another type.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// The source.
    pub source: &'a Rounded,
    /// The model, described by it.
    pub model: &'a Model,
}

/// Why tensors could not be compared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Imatrix(#[from] ImatrixError),
    #[error("tensor {tensor}: {source}")]
    Encode { tensor: String, source: EncodeError },
    #[error("tensor {tensor}: {source}")]
    Decode { tensor: String, source: DecodeError },
    #[error("interrupted")]
    Cancelled,
    #[error("a thread that compared tensors ended early")]
    ThreadPanicked,
}

impl Error {
    fn encode(item: &Item<'_>, source: EncodeError) -> Error {
        Error::Encode { tensor: item.tensor.name.clone(), source }
    }
}

/// What can be done with a tensor of the file.
enum Fate {
    /// It is compared: position in the list of work.
    Compared(usize),
    /// Its type cannot be decoded or written.
    Unknown,
    /// It has no counterpart, or one of another shape.
    Misfit(String),
}

/// Compare every tensor of a model's files with the source. The figures are in file order.
///
/// # Errors
/// [`Error`]: a side cannot be read, the importance matrix does not fit, or the check was stopped. What is wrong with the file is no
/// error, but a finding of the check.
pub fn check(
    shards: &Shards,
    source: &dyn TensorSource,
    model: &Model,
    options: &Options<'_>,
) -> Result<(Check, Vec<TensorFigures>), Error> {
    check_values(shards, source, model, None, options)
}

/// As [`check`], of a file whose matrices may hold the values of a scheme. Figures are those against the source all the same.
///
/// # Errors
/// As [`check`].
pub fn check_values(
    shards: &Shards,
    source: &dyn TensorSource,
    model: &Model,
    values: Option<Values<'_>>,
    options: &Options<'_>,
) -> Result<(Check, Vec<TensorFigures>), Error> {
    let expected = expressions(model);
    let rounded = values.map(|values| (values.source, expressions(values.model)));
    let mut items: Vec<Item<'_>> = Vec::new();
    let mut fates = Vec::new();
    for tensor in shards.tensors() {
        let expr = expected.get(tensor.name.as_str()).copied();
        fates.push(fate(tensor, expr, options, &mut items)?);
        if let (Some((source, exprs)), Some(Fate::Compared(number))) = (&rounded, fates.last())
            && let Some(expr) = exprs.get(tensor.name.as_str()).copied()
            && expr.reads().iter().any(|info| source.rounds(&info.name))
        {
            items[*number].values = Some(compare::Values { source, expr });
        }
    }
    let mut problems = missing(shards, model);
    let tiles: Vec<Tile> = items.iter().enumerate().flat_map(|(number, item)| tiles_of(number, item)).collect();
    let parts = run(&items, &tiles, shards, source, options)?;
    let mut totals: Vec<Part> = items.iter().map(|_| Part::default()).collect();
    for (tile, part) in tiles.iter().zip(&parts) {
        totals[tile.item].add(part);
    }

    let mut figures = Vec::with_capacity(fates.len());
    let mut bounded = Vec::new();
    let mut hints_left = MAX_HINTS;
    for (tensor, fate) in shards.tensors().zip(fates) {
        let entry = match fate {
            Fate::Unknown => without_figures(tensor, TensorVerdict::Unknown),
            Fate::Misfit(problem) => {
                problems.push(problem);
                without_figures(tensor, TensorVerdict::Wrong)
            }
            Fate::Compared(number) => {
                let (item, total) = (&items[number], &totals[number]);
                let (verdict, via) = judge(item, total);
                if verdict == TensorVerdict::Bounded {
                    bounded.push(bounded_name(item, total));
                }
                if total.sums.non_finite > 0 {
                    problems.push(non_finite(item, total));
                }
                if verdict == TensorVerdict::Wrong {
                    let mut problem = wrong(item, total);
                    if hints_left > 0 {
                        hints_left -= 1;
                        let hint = hints::hint(item, total, model, shards, source, || tiles_of(number, item), options.cancel)?;
                        problem.push_str(&hint);
                    }
                    problems.push(problem);
                }
                with_figures(tensor, verdict, via, &total.sums)
            }
        };
        figures.push(entry);
    }
    Ok((conclude(&figures, &bounded, &named_imatrix(shards), problems), figures))
}

/// The name of a bounded tensor, with the number of blocks that differ where it is small: that may be a fault of a disk.
fn bounded_name(item: &Item<'_>, total: &Part) -> String {
    let (name, differing, blocks) = (&item.tensor.name, total.differing, total.blocks);
    if item.format().is_quantized() && total.few_differ() {
        format!("{name} (in {differing} of {blocks} blocks)")
    } else {
        name.clone()
    }
}

/// What the file says of the importance matrix that it was made with, to be put behind a word of it.
fn named_imatrix(shards: &Shards) -> String {
    match shards.metadata().lookup::<&str>("quantize.imatrix.file") {
        Ok(Some(file)) => format!(" (quantize.imatrix.file is {})", Value::from(file).short(80)),
        _ => String::new(),
    }
}

/// Source bytes that a check reads: the whole of its progress.
pub fn source_bytes(shards: &Shards, model: &Model) -> u64 {
    let expected = expressions(model);
    let bytes = |tensor: &GgufTensor| {
        let expr = expected.get(tensor.name.as_str())?;
        let judged = same_shape(tensor, expr) && formats::encoder_of(tensor.format).is_some_and(|e| !e.needs_importance);
        judged.then(|| tensor.elems() * tile::source_bytes_per_element(expr))
    };
    shards.tensors().filter_map(bytes).sum()
}

/// Where each tensor of the file comes from.
fn expressions(model: &Model) -> BTreeMap<&str, &TensorExpr> {
    let mut expected: BTreeMap<&str, &TensorExpr> = model.tensors.iter().map(|t| (t.name.as_str(), &t.expr)).collect();
    // Where the head is tied, some tools write the embedding a second time, as what the engine would use instead.
    if let Some(&embedding) = expected.get("token_embd.weight") {
        expected.entry("output.weight").or_insert(embedding);
    }
    expected
}

fn same_shape(tensor: &GgufTensor, expr: &TensorExpr) -> bool {
    ggml_shape(&tensor.shape) == ggml_shape(&expr.shape())
}

fn fate<'a>(
    tensor: &'a GgufTensor,
    expr: Option<&'a TensorExpr>,
    options: &Options<'a>,
    items: &mut Vec<Item<'a>>,
) -> Result<Fate, Error> {
    let name = &tensor.name;
    let Some(expr) = expr else {
        return Ok(Fate::Misfit(format!("the file has the tensor {name}, to which nothing in the source corresponds")));
    };
    if !same_shape(tensor, expr) {
        let (found, expected) = (&tensor.shape, expr.shape());
        return Ok(Fate::Misfit(format!("{name} has the shape {found:?}, the source makes it {expected:?}")));
    }
    let importance = match options.imatrix {
        Some(imatrix) if tensor.format.is_quantized() => imatrix.of(name, &tensor.shape)?,
        _ => None,
    };
    let encoder = formats::encoder_of(tensor.format).filter(|e| !e.needs_importance || importance.is_some());
    let (Some(encoder), Some(_)) = (encoder, tensor.format.decode) else { return Ok(Fate::Unknown) };
    items.push(Item::new(tensor, expr, encoder, importance));
    Ok(Fate::Compared(items.len() - 1))
}

fn tiles_of(number: usize, item: &Item<'_>) -> Vec<Tile> {
    tile::tiles(number, item.tensor, item.expr, item.importance.is_some())
}

/// Tensors that the source has and the file lacks.
fn missing(shards: &Shards, model: &Model) -> Vec<String> {
    let lacks = |name: &str| shards.tensor(name).is_none();
    let names: Vec<&str> = model.tensors.iter().map(|t| t.name.as_str()).filter(|name| lacks(name)).collect();
    names.iter().map(|name| format!("the file has no tensor {name}, the source does")).collect()
}

/// Compare all tiles; in the order of the tiles. Threads pull them from one counter, so both sides are read in order.
fn run(
    items: &[Item<'_>],
    tiles: &[Tile],
    shards: &Shards,
    source: &dyn TensorSource,
    options: &Options<'_>,
) -> Result<Vec<Part>, Error> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    // The earliest tile that failed: tiles are handed out in order, so every earlier one was handed out too and reports here.
    let first_error: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let work = || {
        let mut slot = Slot::default();
        let mut done: Vec<(usize, Part)> = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(tile) = tiles.get(index) else { break };
            let item = &items[tile.item];
            let compared = match options.cancel.load(Ordering::Relaxed) {
                true => Err(Error::Cancelled),
                false => compare::compare(item, tile, shards, source, &mut slot),
            };
            match compared {
                Ok(part) => {
                    done.push((index, part));
                    (options.progress)(tile.len() as u64 * tile::source_bytes_per_element(item.expr));
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                        *first = Some((index, error));
                    }
                }
            }
        }
        done
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    if let Some((_, error)) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut parts = Vec::with_capacity(tiles.len());
    for result in results {
        parts.extend(result.map_err(|_| Error::ThreadPanicked)?);
    }
    parts.sort_by_key(|(index, _)| *index);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

impl Part {
    /// Add what was found in the tile behind.
    fn add(&mut self, next: &Part) {
        self.sums.add(&next.sums);
        self.max_relative = self.max_relative.max(next.max_relative);
        self.own_error2 += next.own_error2;
        self.own_non_finite += next.own_non_finite;
        self.ruled_out |= next.ruled_out;
        self.differing += next.differing;
        self.blocks += next.blocks;
        if let Some((_, times)) = next.worst
            && self.worst.is_none_or(|(_, worst)| times > worst)
        {
            self.worst = next.worst;
        }
        self.changed = self.changed.or(next.changed);
    }

    /// Whether hardly any block differs from what our encoder gives.
    fn few_differ(&self) -> bool {
        self.differing as f64 <= FEW * self.blocks as f64
    }

    /// First element of a block that was changed after it was encoded: where nearly all blocks are ours, another encoder's would be, too,
    /// but for ties.
    fn changed(&self) -> Option<u64> {
        self.changed.filter(|_| self.few_differ())
    }

    /// First element of a block that no encoder makes, and its error over what is usual.
    fn damaged(&self) -> Option<(u64, f64)> {
        let limit = if self.few_differ() { DAMAGED_AMONG_EQUAL } else { DAMAGED };
        self.worst.filter(|&(_, times)| times > limit)
    }

    /// Relative RMSE of our own encoder.
    fn own_relative(&self) -> f64 {
        relative(self.own_error2, self.sums.source2)
    }
}

/// Source types that do not fit F32.
fn is_rounded(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::I64 | DType::I32 | DType::U64 | DType::U32)
}

/// The verdict, and what the values went through before they were encoded: a 16-bit type's name or a scheme's.
fn judge(item: &Item<'_>, total: &Part) -> (TensorVerdict, Option<&'static str>) {
    let sums = &total.sums;
    let plain = !item.format().is_quantized();
    if plain && sums.different == 0 && !item.expr.reads().iter().any(|info| is_rounded(info.dtype)) {
        return (TensorVerdict::Lossless, None);
    }
    let way = (0..item.ways.len()).find(|number| total.ruled_out & 1 << number == 0);
    if let Some(way) = way {
        return (TensorVerdict::Exact, item.ways[way].map(name_of));
    }
    if let Some(values) = item.values.filter(|_| total.ruled_out & item.values_bit() == 0) {
        return (TensorVerdict::Exact, Some(values.source.rounding().scheme.name));
    }
    let bounded = match item.expr {
        TensorExpr::Values(..) => total.max_relative <= COMPUTED_TOLERANCE,
        _ => sums.error2 <= BOUND * BOUND * total.own_error2 && total.damaged().is_none() && total.changed().is_none(),
    };
    let verdict = if bounded && sums.non_finite <= total.own_non_finite { TensorVerdict::Bounded } else { TensorVerdict::Wrong };
    (verdict, None)
}

fn wrong(item: &Item<'_>, total: &Part) -> String {
    let (name, format) = (&item.tensor.name, item.format().name);
    let (error, own) = (total.sums.relative_rmse(), total.own_relative());
    if item.format().is_quantized() {
        format!(
            "{name} ({format}) is not what the source gives: its relative error is {error:.3e}, our own encoder's is {own:.3e}"
        )
    } else {
        let (different, elems) = (total.sums.different, total.sums.elems);
        format!(
            "{name} ({format}) is not what the source gives: the relative error is {error:.3e}, {different} of {elems} values differ"
        )
    }
}

fn non_finite(item: &Item<'_>, total: &Part) -> String {
    let (name, format, count) = (&item.tensor.name, item.format().name, total.sums.non_finite);
    let source = match total.sums.source_non_finite {
        0 => "all of the source's are finite".to_owned(),
        n => format!("{n} of the source's are not finite either"),
    };
    format!("{name} ({format}) has {count} values that are NaN or infinite ({source}): llama.cpp refuses it with --check-tensors")
}

fn entry(tensor: &GgufTensor, verdict: TensorVerdict) -> TensorFigures {
    let (layer, kind) = layer_and_kind(&tensor.name);
    TensorFigures {
        name: tensor.name.clone(),
        layer,
        kind: kind.to_owned(),
        format: tensor.format.name.to_owned(),
        elems: tensor.elems(),
        bytes: tensor.bytes,
        verdict,
        via: None,
        max_error: f64::NAN,
        rmse: f64::NAN,
        relative_rmse: f64::NAN,
        cosine: f64::NAN,
        saturated: f64::NAN,
        non_finite: 0,
    }
}

/// The entry of a tensor that was not compared: its figures are NaN.
fn without_figures(tensor: &GgufTensor, verdict: TensorVerdict) -> TensorFigures {
    entry(tensor, verdict)
}

fn name_of(words: Words) -> &'static str {
    match words {
        Words::F32 => formats::f32::FORMAT.name,
        Words::F16 => formats::f16::FORMAT.name,
        Words::BF16 => formats::bf16::FORMAT.name,
    }
}

fn with_figures(tensor: &GgufTensor, verdict: TensorVerdict, via: Option<&str>, sums: &Sums) -> TensorFigures {
    TensorFigures {
        via: via.map(str::to_owned),
        max_error: sums.max_error,
        rmse: sums.rmse(),
        relative_rmse: sums.relative_rmse(),
        cosine: sums.cosine(),
        saturated: sums.saturated as f64 / sums.elems.max(1) as f64,
        non_finite: sums.non_finite,
        ..entry(tensor, verdict)
    }
}

/// `a, b and 3 more`.
fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn conclude(figures: &[TensorFigures], bounded: &[String], imatrix: &str, problems: Vec<String>) -> Check {
    let with = |verdict| figures.iter().filter(move |f| f.verdict == verdict);
    let count = |verdict| with(verdict).count();
    let (lossless, exact) = (count(TensorVerdict::Lossless), count(TensorVerdict::Exact));
    let all = figures.len();
    let mut summary = match (lossless, exact) {
        (lossless, 0) => format!("{lossless} of {all} tensors are lossless"),
        (0, exact) => format!("{exact} of {all} tensors are exact"),
        (lossless, exact) => format!("{} of {all} tensors are exact ({lossless} of them lossless)", lossless + exact),
    };
    let is_scheme = |name: &str| SCHEMES.iter().any(|scheme| scheme.name == name);
    for scheme in SCHEMES {
        let holding = figures.iter().filter(|f| f.via.as_deref() == Some(scheme.name)).count();
        if holding > 0 {
            summary.push_str(&format!("; {holding} of them hold {} values of the source's", scheme.name));
        }
    }
    let via: BTreeSet<&str> = figures.iter().filter_map(|f| f.via.as_deref()).filter(|via| !is_scheme(via)).collect();
    if !via.is_empty() {
        let via = via.into_iter().collect::<Vec<_>>().join(" and ");
        summary.push_str(&format!(", through a {via} file on the way"));
    }
    if !bounded.is_empty() {
        let names = listed(&bounded.iter().map(String::as_str).collect::<Vec<_>>());
        let have = if bounded.len() == 1 { "has" } else { "have" };
        summary.push_str(&format!(
            "; {} {have} other bytes and an error of at most {BOUND} times our own encoder's, as from another tool or with an importance matrix{imatrix}: {names}",
            bounded.len()
        ));
    }
    let wrong = count(TensorVerdict::Wrong);
    if wrong > 0 {
        let are = if wrong == 1 { "is" } else { "are" };
        summary.push_str(&format!("; {wrong} {are} wrong"));
    }
    let unknown: Vec<&str> = with(TensorVerdict::Unknown).map(|f| f.name.as_str()).collect();
    if !unknown.is_empty() {
        let types: BTreeSet<&str> = with(TensorVerdict::Unknown).map(|f| f.format.as_str()).collect();
        let types = types.into_iter().collect::<Vec<_>>().join(", ");
        summary.push_str(&format!("; {} of type {types} cannot be judged yet: {}", unknown.len(), listed(&unknown)));
    }
    let status = match (problems.is_empty(), unknown.is_empty()) {
        (false, _) => Status::Failed,
        (true, false) => Status::Skipped,
        (true, true) => Status::Passed,
    };
    Check { name: "tensors".to_owned(), status, summary, problems }
}
