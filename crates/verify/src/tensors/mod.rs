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
mod conclude;
mod figures;
mod hints;
mod judge;
mod tile;

use crate::imatrix::{Imatrix, ImatrixError};
use crate::report::{Check, TensorFigures, TensorVerdict};
use compare::{Item, Part, Slot};
use conclude::{conclude, with_figures, without_figures};
use ggufsmith_arch::Model;
use ggufsmith_checkpoint::Rounded;
use ggufsmith_core::format::DecodeError;
use ggufsmith_core::{EncodeError, SourceError, TensorExpr, TensorSource, formats};
use ggufsmith_gguf::{GgufError, GgufTensor, Shards, Value, ggml_shape};
use judge::{judge, non_finite, wrong};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tile::Tile;

/// A tensor is bounded up to this many times the relative RMSE of our own encoder.
pub const BOUND: f64 = 1.05;

/// Wrong tensors that are looked at closely.
const MAX_HINTS: usize = 16;
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
