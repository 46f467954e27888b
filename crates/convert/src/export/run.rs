//! Writing: every thread takes the next chunk, evaluates it, brings it to its type and puts it at its place.

use super::{Export, ExportError, ExportRun, ExportedTensor, directory};
use crate::plan::CHUNK_BYTES;
use crate::scan::{nonfinite_values, scan};
use crate::sink::{FileSink, FinishedFile, Sink};
use ggufsmith_core::{DType, Encoder, Rows, TensorExpr, formats};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The longest block of any format: chunks that end with one decode nothing twice.
const BLOCK_ELEMS: u64 = 256;

/// A run of elements of one tensor.
struct Chunk {
    tensor: usize,
    elems: Range<u64>,
}

/// The buffers of one thread.
#[derive(Default)]
struct Slot {
    read: Vec<u8>,
    encoded: Vec<u8>,
}

impl Export {
    /// Write all files; they appear under their names when all of them are complete. In the order of [`Export::paths`].
    ///
    /// # Errors
    /// [`ExportError`]; what was written is removed then, the directory too where it was made for it.
    pub fn run(&self, run: &ExportRun<'_>) -> Result<Vec<FinishedFile>, ExportError> {
        let names: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let made = directory::prepare(&self.out, &names)?;
        let inputs: Vec<PathBuf> = self.source.shards().files().iter().map(|file| file.path().to_owned()).collect();
        let sink = FileSink::create(self.sink_files(), run.force, &inputs)?;
        self.write(run, &sink)?;
        let finished = sink.finish()?;
        made.keep();
        Ok(finished)
    }

    /// The error of the earliest chunk that failed, whatever the number of threads.
    fn write(&self, run: &ExportRun<'_>, sink: &FileSink) -> Result<(), ExportError> {
        let chunks = self.chunks();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let first_error: Mutex<Option<(usize, ExportError)>> = Mutex::new(None);
        let work = || {
            let mut slot = Slot::default();
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = chunks.get(index) else { break };
                let written = match run.cancel.load(Ordering::Relaxed) {
                    true => Err(ExportError::Cancelled),
                    false => self.write_chunk(chunk, sink, &mut slot),
                };
                match written {
                    Ok(bytes) => (run.progress)(bytes),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                        if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                            *first = Some((index, error));
                        }
                    }
                }
            }
        };
        let whole = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..run.threads.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join()).all(|ended| ended.is_ok())
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None if !whole => Err(ExportError::WorkerPanicked),
            None if run.cancel.load(Ordering::Relaxed) => Err(ExportError::Cancelled),
            None => Ok(()),
        }
    }

    /// Every chunk, tensor after tensor.
    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for (tensor, planned) in self.tensors.iter().enumerate() {
            let (mut at, elems) = (0, planned.expr.elems());
            let step = whole_rows(&planned.expr, CHUNK_BYTES / planned.expr.words().bytes() as u64);
            while at < elems {
                let end = elems.min(at + step);
                chunks.push(Chunk { tensor, elems: at..end });
                at = end;
            }
        }
        chunks
    }

    /// Returns the bytes written.
    fn write_chunk(&self, chunk: &Chunk, sink: &FileSink, slot: &mut Slot) -> Result<u64, ExportError> {
        let tensor = &self.tensors[chunk.tensor];
        slot.read.clear();
        tensor.expr.append(&self.source, chunk.elems.clone(), &mut slot.read)?;
        let bytes = encode(tensor, slot)?;
        let (file, start) = tensor.place;
        sink.put(file, start + chunk.elems.start * tensor.dtype.bytes() as u64, bytes)?;
        Ok(bytes.len() as u64)
    }
}

/// The slot's words in the tensor's type. Words that are of it already are not touched, be they numbers or not.
fn encode<'a>(tensor: &ExportedTensor, slot: &'a mut Slot) -> Result<&'a [u8], ExportError> {
    let Slot { read, encoded } = slot;
    let words = tensor.expr.words();
    let encoder = encoder(tensor.dtype);
    if words == tensor.dtype.words() {
        return Ok(read);
    }
    let rows = Rows { words, cols: 1, bytes: read };
    encoded.clear();
    encoded.resize(rows.elems() * tensor.dtype.bytes(), 0);
    encoder.encode(rows, None, encoded).map_err(|source| ExportError::Encode { tensor: tensor.name.clone(), source })?;
    let found = scan(words, read);
    if found.may_overflow() {
        let count = nonfinite_values(encoder.format, encoded).saturating_sub(found.nonfinite);
        if count > 0 {
            let (tensor, dtype, largest) = (tensor.name.clone(), tensor.dtype.name(), found.largest());
            return Err(ExportError::Overflow { tensor, dtype, count, largest });
        }
    }
    Ok(encoded)
}

fn encoder(dtype: DType) -> &'static Encoder {
    match dtype {
        DType::F16 => &formats::f16::ENCODER,
        DType::BF16 => &formats::bf16::ENCODER,
        _ => &formats::f32::ENCODER,
    }
}

/// About `elems` elements that can be evaluated together: whole rows, and as many as reading wants; of rows that are longer, a part
/// where the expression allows it.
pub(super) fn whole_rows(expr: &TensorExpr, elems: u64) -> u64 {
    let shape = expr.shape();
    let cols = if shape.len() > 1 { shape.last().copied().unwrap_or(1).max(1) } else { 1 };
    let (least, wanted) = (expr.min_rows(), elems / cols);
    if least <= 1 && wanted == 0 {
        return (elems / BLOCK_ELEMS).max(1) * BLOCK_ELEMS;
    }
    wanted.max(least).max(1).saturating_mul(cols)
}
