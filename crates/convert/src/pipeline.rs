//! From source chunks to encoded bytes: every chunk is read once and encoded for every output.
//!
//! Each worker has a thread and pulls the next chunk from one counter; whoever encodes a chunk writes it at its final place. So
//! the bytes depend neither on the number of workers nor on their speed, and memory is one slot per worker.

use crate::plan::{Plan, PlannedOutput, PlannedTensor};
use crate::scan::{Scan, nonfinite_values, scan};
use crate::sink::{Sink, SinkError};
use ggufsmith_core::{EncodeError, Rows, SourceError, TensorSource, Words, Worker, formats};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How to run a plan.
pub struct Run<'a> {
    /// Where the weights are.
    pub source: &'a dyn TensorSource,
    /// Where the bytes go.
    pub sink: &'a dyn Sink,
    /// Go on where a weight is NaN or infinite, or becomes infinite in an output.
    pub allow_nonfinite: bool,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told when the last chunk of a tensor (its index in the plan) has been written.
    pub tensor_done: &'a (dyn Fn(usize) + Sync),
    /// Told the number of source bytes each finished chunk stands for; called from the workers' threads, must not block.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Weights that are not finite, or were not after encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonfinite {
    /// GGUF name of the tensor.
    pub tensor: String,
    /// The format in which it overflowed; `None` where the source itself is not finite.
    pub format: Option<&'static str>,
    /// Number of elements.
    pub count: u64,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct RunReport {
    /// Counted with `allow_nonfinite`, in the plan's order.
    pub nonfinite: Vec<Nonfinite>,
    /// Worker names and the source bytes each one took, in the order of the workers.
    pub shares: Vec<(String, u64)>,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PipelineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("tensor {tensor}: {source}")]
    Encode { tensor: String, source: EncodeError },
    #[error(
        "tensor {tensor} holds {count} values that are NaN or infinite (the first at element {element}): the checkpoint is damaged or was trained to that; --allow-nonfinite converts it all the same"
    )]
    Nonfinite { tensor: String, count: u64, element: u64 },
    #[error(
        "tensor {tensor} does not fit {format}: {count} finite weights become infinite (largest magnitude {largest}); choose BF16 or F32, or --allow-nonfinite"
    )]
    Overflow { tensor: String, format: &'static str, count: u64, largest: f32 },
    #[error("interrupted")]
    Cancelled,
    #[error("a worker thread ended early")]
    WorkerPanicked,
}

/// A run of whole rows of one tensor.
#[derive(Debug, Clone)]
struct Chunk {
    tensor: usize,
    rows: Range<u64>,
}

/// The buffers of one worker, reused for every chunk.
#[derive(Default)]
struct Slot {
    source: Vec<u8>,
    via: Vec<u8>,
    encoded: Vec<u8>,
}

/// Counts by (tensor, format of an output or none).
type Counts = BTreeMap<(usize, Option<&'static str>), u64>;

/// Run a plan. Blocks until every chunk is in the sink, or the first error; the caller finishes the sink.
///
/// # Errors
/// The error of the earliest chunk that failed, whatever the number of workers.
pub fn run(plan: &Plan, run: &Run<'_>, workers: Vec<Box<dyn Worker>>) -> Result<RunReport, PipelineError> {
    let chunks = chunks(plan);
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let mut chunks_left = vec![0; plan.tensors.len()];
    chunks.iter().for_each(|chunk| chunks_left[chunk.tensor] += 1);
    let chunks_left: Vec<AtomicUsize> = chunks_left.into_iter().map(AtomicUsize::new).collect();
    // The earliest failed chunk: chunks are handed out in order, so every earlier one was handed out too and reports here.
    let first_error: Mutex<Option<(usize, PipelineError)>> = Mutex::new(None);
    let work = |mut worker: Box<dyn Worker>| {
        let mut slot = Slot::default();
        let mut counts = Counts::new();
        let mut bytes = 0;
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { break };
            let done = if run.cancel.load(Ordering::Relaxed) {
                Err(PipelineError::Cancelled)
            } else {
                convert_chunk(plan, chunk, run, worker.as_mut(), &mut slot, &mut counts)
            };
            match done {
                Ok(source_bytes) => {
                    bytes += source_bytes;
                    if chunks_left[chunk.tensor].fetch_sub(1, Ordering::AcqRel) == 1 {
                        (run.tensor_done)(chunk.tensor);
                    }
                    (run.progress)(source_bytes);
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
        ((worker.name().to_owned(), bytes), counts)
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| work(worker))).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    if let Some((_, error)) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut report = RunReport::default();
    let mut counts = Counts::new();
    for result in results {
        let (share, found) = result.map_err(|_| PipelineError::WorkerPanicked)?;
        report.shares.push(share);
        for (key, count) in found {
            *counts.entry(key).or_default() += count;
        }
    }
    report.nonfinite = counts
        .into_iter()
        .map(|((tensor, format), count)| Nonfinite { tensor: plan.tensors[tensor].name.clone(), format, count })
        .collect();
    Ok(report)
}

/// Every chunk in the order of work.
fn chunks(plan: &Plan) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for &tensor in &plan.work_order {
        let planned = &plan.tensors[tensor];
        let mut at = 0;
        while at < planned.rows {
            // Chunks end where an expert ends.
            let left = planned.rows_per_expert - at % planned.rows_per_expert;
            let rows = planned.chunk_rows.min(left).max(1);
            chunks.push(Chunk { tensor, rows: at..at + rows });
            at += rows;
        }
    }
    chunks
}

/// Read one chunk and put it, encoded, into every output. Returns the source bytes it stands for.
fn convert_chunk(
    plan: &Plan,
    chunk: &Chunk,
    run: &Run<'_>,
    worker: &mut dyn Worker,
    slot: &mut Slot,
    counts: &mut Counts,
) -> Result<u64, PipelineError> {
    let tensor = &plan.tensors[chunk.tensor];
    let elems = chunk.rows.start * tensor.cols..chunk.rows.end * tensor.cols;
    slot.source.clear();
    tensor.expr.append(run.source, elems.clone(), &mut slot.source)?;
    let words = tensor.expr.words();
    let found = scan(words, &slot.source);
    if found.nonfinite > 0 {
        if !run.allow_nonfinite {
            let element = elems.start + found.first_nonfinite;
            return Err(PipelineError::Nonfinite { tensor: tensor.name.clone(), count: found.nonfinite, element });
        }
        *counts.entry((chunk.tensor, None)).or_default() += found.nonfinite;
    }
    for output in &plan.outputs {
        let overflowed = convert_for(output, chunk, tensor, words, &found, run, worker, slot)?;
        if let Some((format, count)) = overflowed {
            *counts.entry((chunk.tensor, Some(format))).or_default() += count;
        }
    }
    Ok((elems.end - elems.start) * tensor.source_bytes_per_element)
}

/// Encode a chunk for one output and write it. Returns what became infinite by it.
#[allow(clippy::too_many_arguments)] // one call, all of it the chunk's context
fn convert_for(
    output: &PlannedOutput,
    chunk: &Chunk,
    tensor: &PlannedTensor,
    words: Words,
    found: &Scan,
    run: &Run<'_>,
    worker: &mut dyn Worker,
    slot: &mut Slot,
) -> Result<Option<(&'static str, u64)>, PipelineError> {
    let place = &output.places[chunk.tensor];
    let fault = |source| PipelineError::Encode { tensor: tensor.name.clone(), source };
    let cols = tensor.cols as usize;
    let Slot { source, via, encoded } = slot;
    let mut rows = Rows { words, cols, bytes: source };
    // Through the 16-bit file that the reference tools would have made: only where that rounds.
    if let Some(narrow) = place.through
        && narrow != words
    {
        let encoder = match narrow {
            Words::F16 => &formats::f16::ENCODER,
            Words::BF16 => &formats::bf16::ENCODER,
            Words::F32 => &formats::f32::ENCODER,
        };
        via.clear();
        via.resize(rows.elems() * narrow.bytes(), 0);
        encoder.encode(rows, None, via).map_err(fault)?;
        rows = Rows { words: narrow, cols, bytes: via };
    }
    let block = place.encoder.format;
    let bytes = rows.elems() / block.block_len * block.block_bytes;
    encoded.clear();
    encoded.resize(bytes, 0);
    worker.encode(place.encoder, rows, None, encoded).map_err(fault)?;
    let mut overflowed = None;
    if found.may_overflow() {
        let count = nonfinite_values(block, encoded).saturating_sub(found.nonfinite);
        if count > 0 {
            if !run.allow_nonfinite {
                let (tensor, format, largest) = (tensor.name.clone(), block.name, found.largest());
                return Err(PipelineError::Overflow { tensor, format, count, largest });
            }
            overflowed = Some((block.name, count));
        }
    }
    let row_bytes = (cols / block.block_len * block.block_bytes) as u64;
    run.sink.put(place.file, place.offset + chunk.rows.start * row_bytes, encoded)?;
    Ok(overflowed)
}
