//! From source chunks to encoded bytes: every chunk is read once and encoded for every output.
//!
//! Each worker has a thread and pulls the next chunk from one counter; whoever encodes a chunk writes it at its final place. So
//! the bytes depend neither on the number of workers nor on their speed, and memory is one slot per worker.

use crate::plan::{Place, Plan, PlannedTensor};
use crate::scan::{nonfinite_blocks, nonfinite_values, scan};
use crate::sink::{Sink, SinkError};
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_core::{EncodeError, Encoder, Format, Rows, SourceError, TensorInfo, TensorSource, Words, Worker, formats};
use std::collections::BTreeMap;
use std::fmt;
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
    /// Encoded chunks that a device took back and the CPU made again.
    pub redone: u64,
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
        "tensor {tensor}{origin}: {count} or more values are NaN or infinite, the first at element {element}: the checkpoint is damaged or was trained to that; --allow-nonfinite converts it all the same"
    )]
    Nonfinite { tensor: String, origin: Origin, count: u64, element: u64 },
    #[error(
        "tensor {tensor}{origin} does not fit {format}: {count} or more finite weights become infinite (largest magnitude {largest:e}); choose BF16 or F32, or --allow-nonfinite"
    )]
    Overflow { tensor: String, origin: Origin, format: &'static str, count: u64, largest: f32 },
    #[error("interrupted")]
    Cancelled,
    #[error("a worker thread ended early")]
    WorkerPanicked,
}

/// Where a tensor was read from: the first source tensor of its expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Option<Box<TensorInfo>>);

impl Origin {
    fn of(tensor: &PlannedTensor) -> Self {
        Origin(tensor.expr.reads().first().map(|&info| Box::new(info.clone())))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(info) => write!(f, " (from {:?} in {})", info.name, info.file.display()),
            None => Ok(()),
        }
    }
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

/// One call of a worker: what to do again if the worker takes its bytes back.
struct Call {
    chunk: usize,
    output: usize,
}

/// What a worker's thread leaves behind.
struct Done {
    worker: Box<dyn Worker>,
    calls: Vec<Call>,
    source_bytes: u64,
    counts: Counts,
}

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
    let work = |worker: Box<dyn Worker>| {
        let mut done = Done { worker, calls: Vec::new(), source_bytes: 0, counts: Counts::new() };
        let mut slot = Slot::default();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { break };
            let converted = if run.cancel.load(Ordering::Relaxed) {
                Err(PipelineError::Cancelled)
            } else {
                convert_chunk(plan, chunk, index, run, &mut done, &mut slot)
            };
            match converted {
                Ok(source_bytes) => {
                    done.source_bytes += source_bytes;
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
        done
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| work(worker))).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    if let Some((_, error)) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let results = results.into_iter().collect::<Result<Vec<_>, _>>().map_err(|_| PipelineError::WorkerPanicked)?;
    let mut report = RunReport::default();
    let mut counts = Counts::new();
    for done in &results {
        report.shares.push((done.worker.name().to_owned(), done.source_bytes));
        for (key, count) in &done.counts {
            *counts.entry(*key).or_default() += count;
        }
    }
    report.redone = redo(plan, run, &chunks, &results)?;
    report.nonfinite = counts
        .into_iter()
        .map(|((tensor, format), count)| Nonfinite { tensor: plan.tensors[tensor].name.clone(), format, count })
        .collect();
    Ok(report)
}

/// Encode again on the CPU what workers took back (see [`Worker::retracted`]); the number of such chunks.
fn redo(plan: &Plan, run: &Run<'_>, chunks: &[Chunk], results: &[Done]) -> Result<u64, PipelineError> {
    let mut slot = Slot::default();
    let mut redone = 0;
    for done in results {
        for call in done.worker.retracted() {
            let Some(&Call { chunk, output }) = usize::try_from(call).ok().and_then(|call| done.calls.get(call)) else {
                continue;
            };
            let chunk = &chunks[chunk];
            let tensor = &plan.tensors[chunk.tensor];
            read_chunk(tensor, chunk, run, &mut slot)?;
            let place = &plan.outputs[output].places[chunk.tensor];
            let Some(encoder) = place.encoder else { continue };
            let importance = plan.importance(chunk.tensor, place, chunk.rows.start);
            encode(encoder, place, tensor, importance, &mut CpuWorker, &mut slot)?;
            run.sink.replace(place.file, place.offset_of(chunk.rows.start, tensor.cols), &slot.encoded)?;
            redone += 1;
        }
    }
    Ok(redone)
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
    if plan.source_order {
        chunks.sort_by_cached_key(|chunk| {
            let tensor = &plan.tensors[chunk.tensor];
            let first = tensor.expr.first_read(chunk.rows.start * tensor.cols);
            first.map(|(info, byte)| (info.file.clone(), info.offset + byte))
        });
    }
    chunks
}

/// Read one chunk and put it, encoded, into every output. Returns the source bytes it stands for.
fn convert_chunk(
    plan: &Plan,
    chunk: &Chunk,
    index: usize,
    run: &Run<'_>,
    done: &mut Done,
    slot: &mut Slot,
) -> Result<u64, PipelineError> {
    let tensor = &plan.tensors[chunk.tensor];
    let elems = (chunk.rows.end - chunk.rows.start) * tensor.cols;
    if plan.outputs.iter().all(|output| output.places[chunk.tensor].encoder.is_none()) {
        copy_chunk(plan, chunk, run, done, slot)?;
        return Ok(tensor.source_bytes(elems));
    }
    read_chunk(tensor, chunk, run, slot)?;
    let found = scan(tensor.expr.words(), &slot.source);
    if found.nonfinite > 0 {
        if !run.allow_nonfinite {
            let element = chunk.rows.start * tensor.cols + found.first_nonfinite;
            let (tensor, origin) = (tensor.name.clone(), Origin::of(tensor));
            return Err(PipelineError::Nonfinite { tensor, origin, count: found.nonfinite, element });
        }
        *done.counts.entry((chunk.tensor, None)).or_default() += found.nonfinite;
    }
    for (number, output) in plan.outputs.iter().enumerate() {
        let place = &output.places[chunk.tensor];
        let Some(encoder) = place.encoder else { continue };
        let importance = plan.importance(chunk.tensor, place, chunk.rows.start);
        encode(encoder, place, tensor, importance, done.worker.as_mut(), slot)?;
        done.calls.push(Call { chunk: index, output: number });
        if found.may_overflow() {
            let format = place.format;
            let count = nonfinite_values(format, &slot.encoded).saturating_sub(found.nonfinite);
            if count > 0 && !run.allow_nonfinite {
                let (tensor, origin) = (tensor.name.clone(), Origin::of(tensor));
                let (format, largest) = (format.name, found.largest());
                return Err(PipelineError::Overflow { tensor, origin, format, count, largest });
            }
            if count > 0 {
                *done.counts.entry((chunk.tensor, Some(format.name))).or_default() += count;
            }
        }
        run.sink.put(place.file, place.offset_of(chunk.rows.start, tensor.cols), &slot.encoded)?;
    }
    Ok(tensor.source_bytes(elems))
}

/// Put the source's own bytes into every output; all of them store the format that the source does.
fn copy_chunk(plan: &Plan, chunk: &Chunk, run: &Run<'_>, done: &mut Done, slot: &mut Slot) -> Result<(), PipelineError> {
    let tensor = &plan.tensors[chunk.tensor];
    let first = chunk.rows.start * tensor.cols;
    let (offset, end) = (tensor.source_bytes(first), tensor.source_bytes(chunk.rows.end * tensor.cols));
    let Some(info) = tensor.expr.reads().first().copied() else { return Ok(()) };
    slot.encoded.clear();
    slot.encoded.resize((end - offset) as usize, 0);
    run.source.read(&info.name, offset, &mut slot.encoded)?;
    let places = plan.outputs.iter().map(|output| &output.places[chunk.tensor]);
    if let Some(place) = places.clone().next() {
        let (count, at) = nonfinite(place.format, &slot.encoded);
        if count > 0 && !run.allow_nonfinite {
            let (tensor, origin) = (tensor.name.clone(), Origin::of(tensor));
            return Err(PipelineError::Nonfinite { tensor, origin, count, element: first + at });
        }
        if count > 0 {
            *done.counts.entry((chunk.tensor, None)).or_default() += count;
        }
    }
    for place in places {
        run.sink.put(place.file, place.offset_of(chunk.rows.start, tensor.cols), &slot.encoded)?;
    }
    Ok(())
}

/// Number of elements that are not finite, and the position of the first one.
fn nonfinite(format: &Format, bytes: &[u8]) -> (u64, u64) {
    let plain = [Words::F32, Words::F16, Words::BF16].into_iter().find(|words| plain_encoder(*words).format == format);
    match plain {
        Some(words) => {
            let found = scan(words, bytes);
            (found.nonfinite, found.first_nonfinite)
        }
        None => nonfinite_blocks(format, bytes),
    }
}

fn read_chunk(tensor: &PlannedTensor, chunk: &Chunk, run: &Run<'_>, slot: &mut Slot) -> Result<(), SourceError> {
    slot.source.clear();
    let elems = chunk.rows.start * tensor.cols..chunk.rows.end * tensor.cols;
    tensor.expr.append(run.source, elems, &mut slot.source)
}

/// Encode the slot's source for one output, into the slot.
fn encode(
    encoder: &'static Encoder,
    place: &Place,
    tensor: &PlannedTensor,
    importance: Option<&[f32]>,
    worker: &mut dyn Worker,
    slot: &mut Slot,
) -> Result<(), PipelineError> {
    let fault = |source| PipelineError::Encode { tensor: tensor.name.clone(), source };
    let (words, cols) = (tensor.expr.words(), tensor.cols as usize);
    let Slot { source, via, encoded } = slot;
    let mut rows = Rows { words, cols, bytes: source };
    // Through the 16-bit file that the reference tools would have made: only where that rounds.
    if let Some(narrow) = place.through
        && narrow != words
    {
        via.clear();
        via.resize(rows.elems() * narrow.bytes(), 0);
        plain_encoder(narrow).encode(rows, None, via).map_err(fault)?;
        rows = Rows { words: narrow, cols, bytes: via };
    }
    let format = encoder.format;
    encoded.clear();
    encoded.resize(rows.elems() / format.block_len * format.block_bytes, 0);
    worker.encode(encoder, rows, importance, encoded).map_err(fault)
}

fn plain_encoder(words: Words) -> &'static Encoder {
    match words {
        Words::F16 => &formats::f16::ENCODER,
        Words::BF16 => &formats::bf16::ENCODER,
        Words::F32 => &formats::f32::ENCODER,
    }
}
