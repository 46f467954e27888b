//! Writing: every thread takes the next tensor and quantizes it piece by piece.

use super::state::State;
use super::{COPIED, Method, NESTED_BLOCK_LEN, Quantization, QuantizeError};
use crate::export::{directory, safetensors};
use crate::scan::scan;
use crate::sink::{FileSink, FinishedFile, Sink, SinkFile};
use ggufsmith_core::schemes::dynamic8::{self, Dynamic8};
use ggufsmith_core::schemes::int8;
use ggufsmith_core::{DType, FourBit, TensorInfo, TensorSource, Words, float};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Elements that are read together: a multiple of every block length.
const PIECE_ELEMS: u64 = 1 << 20;

/// How to run.
pub struct QuantizeRun<'a> {
    /// Worker threads.
    pub threads: usize,
    /// Overwrite files that exist.
    pub force: bool,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told source bytes as they are done; called from the workers' threads, must not block.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// A tensor to be written.
#[derive(Debug)]
struct Written {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    /// File number and first byte.
    place: (usize, u64),
}

/// Which of the written tensors belong to a tensor of the source: the tensor itself, and its states by what their names end with.
struct Job {
    source: usize,
    tensor: usize,
    states: Vec<(&'static str, usize)>,
    offset: Option<f32>,
}

impl Quantization {
    /// The files, as they will be called (the names of shards are known only while running).
    pub fn directory(&self) -> &std::path::Path {
        &self.options.out
    }

    /// Write all files; they appear under their names when all of them are complete.
    ///
    /// # Errors
    /// [`QuantizeError`]; what was written is removed then, the directory too where it was made for it.
    pub fn run(&self, run: &QuantizeRun<'_>) -> Result<Vec<FinishedFile>, QuantizeError> {
        let offsets = self.offsets(run)?;
        let mut written = Vec::new();
        let jobs = self.jobs(&offsets, &mut written);
        let mut files = self.small_files()?;
        let mut order: Vec<usize> = (0..written.len()).collect();
        order.sort_by(|&a, &b| written[a].name.cmp(&written[b].name));
        let specs: Vec<_> = order
            .iter()
            .map(|&index| {
                let Written { name, dtype, shape, .. } = &written[index];
                safetensors::Spec { name, dtype: *dtype, shape }
            })
            .collect();
        let (shards, index) = safetensors::place(&specs, self.options.max_shard_bytes);
        files.extend(index.map(|index| whole_file("model.safetensors.index.json", format!("{index:#}\n").into_bytes())));
        for shard in shards {
            for (spec, range) in &shard.tensors {
                written[order[*spec]].place = (files.len(), range.start);
            }
            let data = shard.tensors.into_iter().map(|(_, range)| range).collect();
            files.push(SinkFile { path: shard.name.into(), bytes: shard.bytes, header: shard.header, data });
        }

        let out = &self.options.out;
        let names: Vec<String> = files.iter().map(|file| file.path.to_string_lossy().into_owned()).collect();
        let made = directory::prepare(out, &names.iter().map(String::as_str).collect::<BTreeSet<_>>())
            .map_err(QuantizeError::Directory)?;
        let canonical = |path: &std::path::Path| std::fs::canonicalize(path).ok();
        if canonical(out).is_some() && canonical(out) == canonical(self.dir.path()) {
            return Err(QuantizeError::SameDirectory { path: out.clone() });
        }
        for file in &mut files {
            file.path = out.join(&file.path);
        }
        let inputs: Vec<PathBuf> = self.checkpoint.files().map(|(path, _)| path.to_owned()).collect();
        let sink = FileSink::create(files, run.force, &inputs)?;
        let dynamic = Dynamic8::new();
        parallel(run, jobs.len(), |index| {
            let work = Work { quantization: self, run, sink: &sink, written: &written, dynamic: &dynamic };
            work.write(&jobs[index])
        })?;
        self.checkpoint.check_unchanged()?;
        let finished = sink.finish()?;
        made.keep();
        Ok(finished)
    }

    /// config.json, and what is copied.
    fn small_files(&self) -> Result<Vec<SinkFile>, QuantizeError> {
        let mut files = vec![whole_file("config.json", self.config())];
        for &name in COPIED {
            files.extend(self.dir.bytes(name)?.map(|bytes| whole_file(name, bytes)));
        }
        Ok(files)
    }

    /// With double quantization the mean scale of each tensor that is quantized.
    fn offsets(&self, run: &QuantizeRun<'_>) -> Result<Vec<Option<f32>>, QuantizeError> {
        let tensors = self.checkpoint.tensors();
        let Method::FourBit { scheme, block_len, double: true } = self.options.method else {
            return Ok(vec![None; tensors.len()]);
        };
        let offsets = Mutex::new(vec![None; tensors.len()]);
        parallel(run, tensors.len(), |index| {
            if self.chosen[index] {
                let absmax = self.encode_four_bit(run, &tensors[index], scheme, block_len, |_, _| Ok(()))?;
                offsets.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(dynamic8::mean(&absmax));
            }
            Ok(())
        })?;
        Ok(offsets.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is written for each tensor of the source.
    fn jobs(&self, offsets: &[Option<f32>], written: &mut Vec<Written>) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (source, info) in self.checkpoint.tensors().iter().enumerate() {
            let mut add = |name: String, dtype, shape| {
                written.push(Written { name, dtype, shape, place: (0, 0) });
                written.len() - 1
            };
            let offset = offsets[source];
            let mut states = Vec::new();
            let tensor = match self.options.method {
                _ if !self.chosen[source] => add(info.name.clone(), info.dtype, info.shape.clone()),
                Method::Int8 => {
                    let module = super::module_of(&info.name);
                    states.push(("SCB", add(format!("{module}.SCB"), DType::F32, vec![info.shape[0]])));
                    states.push(("weight_format", add(format!("{module}.weight_format"), DType::U8, Vec::new())));
                    add(info.name.clone(), DType::I8, info.shape.clone())
                }
                Method::FourBit { scheme, block_len, double } => {
                    let blocks = info.elems().div_ceil(block_len);
                    let mut state = |end: &'static str, suffix: &str, dtype, len| {
                        states.push((end, add(format!("{}.{end}{suffix}", info.name), dtype, vec![len])));
                    };
                    state("absmax", "", if double { DType::U8 } else { DType::F32 }, blocks);
                    state("quant_map", "", DType::F32, 16);
                    if double {
                        state("nested_absmax", "", DType::F32, blocks.div_ceil(NESTED_BLOCK_LEN));
                        state("nested_quant_map", "", DType::F32, 256);
                    }
                    let text = state_text(info, scheme, block_len, offset);
                    let suffix = format!(".bitsandbytes__{}", scheme.name.to_lowercase());
                    state("quant_state", &suffix, DType::U8, text.len() as u64);
                    add(info.name.clone(), DType::U8, vec![info.elems().div_ceil(2), 1])
                }
            };
            jobs.push(Job { source, tensor, states, offset });
        }
        jobs
    }

    /// Encode a tensor piece by piece: `put` gets the first element's number and the codes. Returns the scales of all blocks.
    fn encode_four_bit(
        &self,
        run: &QuantizeRun<'_>,
        info: &TensorInfo,
        scheme: &'static FourBit,
        block_len: u64,
        mut put: impl FnMut(u64, &[u8]) -> Result<(), QuantizeError>,
    ) -> Result<Vec<f32>, QuantizeError> {
        let mut absmax = Vec::new();
        let mut codes = Vec::new();
        self.pieces(run, info, PIECE_ELEMS, |first, words, bytes| {
            let elems = bytes.len() / words.bytes();
            let known = absmax.len();
            absmax.resize(known + elems.div_ceil(block_len as usize), 0.0);
            codes.resize(scheme.codes_len(elems), 0);
            scheme
                .encode(words, bytes, block_len as usize, &mut codes, &mut absmax[known..])
                .map_err(|source| QuantizeError::Scheme { tensor: info.name.clone(), source })?;
            put(first, &codes)
        })?;
        Ok(absmax)
    }

    /// Read a tensor in pieces of `elems` elements as words; refuses what is not finite.
    fn pieces(
        &self,
        run: &QuantizeRun<'_>,
        info: &TensorInfo,
        elems: u64,
        mut each: impl FnMut(u64, Words, &[u8]) -> Result<(), QuantizeError>,
    ) -> Result<(), QuantizeError> {
        let (width, total) = (info.dtype.bytes() as u64, info.elems());
        let (mut stored, mut converted) = (Vec::new(), Vec::new());
        let mut first = 0;
        while first < total {
            if run.cancel.load(Ordering::Relaxed) {
                return Err(QuantizeError::Cancelled);
            }
            let count = elems.min(total - first);
            stored.resize((count * width) as usize, 0);
            self.checkpoint.read(&info.name, first * width, &mut stored)?;
            let words = info.dtype.words();
            let bytes = if words.bytes() as u64 == width && matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16) {
                &stored
            } else {
                converted.clear();
                info.dtype.append_words(&stored, &mut converted);
                &converted
            };
            let found = scan(words, bytes);
            if found.nonfinite > 0 {
                let (tensor, at) = (info.name.clone(), first + found.first_nonfinite);
                return Err(QuantizeError::NotFinite { tensor, count: found.nonfinite, first: at });
            }
            each(first, words, bytes)?;
            (run.progress)(count * width);
            first += count;
        }
        Ok(())
    }
}

/// What a thread needs to write.
struct Work<'a> {
    quantization: &'a Quantization,
    run: &'a QuantizeRun<'a>,
    sink: &'a FileSink,
    written: &'a [Written],
    dynamic: &'a Dynamic8,
}

impl Work<'_> {
    fn write(&self, job: &Job) -> Result<(), QuantizeError> {
        let info = &self.quantization.checkpoint.tensors()[job.source];
        match self.quantization.options.method {
            _ if job.states.is_empty() => self.copy(info, job.tensor),
            Method::Int8 => self.int8(info, job),
            Method::FourBit { scheme, block_len, .. } => {
                let codes = |first: u64, codes: &[u8]| self.put(job.tensor, first / 2, codes);
                let absmax = self.quantization.encode_four_bit(self.run, info, scheme, block_len, codes)?;
                let nested = job.offset.map(|offset| {
                    let rest: Vec<f32> = absmax.iter().map(|scale| scale - offset).collect();
                    self.dynamic.encode(&rest)
                });
                for &(end, tensor) in &job.states {
                    let bytes = match (end, &nested) {
                        ("absmax", None) => bytes_of(&absmax),
                        ("absmax", Some((codes, _))) => codes.clone(),
                        ("nested_absmax", Some((_, scales))) => bytes_of(scales),
                        ("nested_quant_map", _) => bytes_of(&dynamic8::values()),
                        ("quant_map", _) => bytes_of(&scheme.values),
                        _ => state_text(info, scheme, block_len, job.offset).into_bytes(),
                    };
                    self.put(tensor, 0, &bytes)?;
                }
                Ok(())
            }
        }
    }

    /// As it is.
    fn copy(&self, info: &TensorInfo, tensor: usize) -> Result<(), QuantizeError> {
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < info.bytes() {
            if self.run.cancel.load(Ordering::Relaxed) {
                return Err(QuantizeError::Cancelled);
            }
            bytes.resize((info.bytes() - at).min(PIECE_ELEMS * 8) as usize, 0);
            self.quantization.checkpoint.read(&info.name, at, &mut bytes)?;
            self.put(tensor, at, &bytes)?;
            (self.run.progress)(bytes.len() as u64);
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn int8(&self, info: &TensorInfo, job: &Job) -> Result<(), QuantizeError> {
        let columns = info.shape[1];
        if columns > PIECE_ELEMS * 64 {
            return Err(QuantizeError::LongRow { tensor: info.name.clone(), columns });
        }
        let rows = (PIECE_ELEMS / columns).max(1);
        let (mut scales, mut values, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        self.quantization.pieces(self.run, info, rows * columns, |first, words, bytes| {
            floats(words, bytes, &mut values);
            codes.resize(values.len(), 0);
            for (row, codes) in values.chunks(columns as usize).zip(codes.chunks_mut(columns as usize)) {
                let scale = int8::encode(row, codes);
                if scale.is_infinite() {
                    return Err(QuantizeError::Overflow { tensor: info.name.clone(), row: scales.len() as u64 });
                }
                scales.push(scale);
            }
            let bytes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
            self.put(job.tensor, first, &bytes)
        })?;
        for &(end, tensor) in &job.states {
            self.put(tensor, 0, &if end == "SCB" { bytes_of(&scales) } else { vec![0] })?;
        }
        Ok(())
    }

    fn put(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<(), QuantizeError> {
        let (file, start) = self.written[tensor].place;
        Ok(self.sink.put(file, start + offset, bytes)?)
    }
}

fn state_text(info: &TensorInfo, scheme: &FourBit, block_len: u64, offset: Option<f32>) -> String {
    let quant_type = scheme.name.to_lowercase();
    State { quant_type: &quant_type, block_len, dtype: info.dtype, shape: &info.shape, offset }.text()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(words: Words, bytes: &[u8], out: &mut Vec<f32>) {
    out.clear();
    match words {
        Words::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word))),
        Words::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|word| float::f16_to_f32(u16::from_le_bytes(*word)))),
        Words::BF16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|word| float::bf16_to_f32(u16::from_le_bytes(*word)))),
    }
}

fn whole_file(name: &str, header: Vec<u8>) -> SinkFile {
    SinkFile { path: name.into(), bytes: header.len() as u64, header, data: Vec::new() }
}

/// Do `count` pieces of work in all threads; the error of the earliest one that failed.
fn parallel(
    run: &QuantizeRun<'_>,
    count: usize,
    work: impl Fn(usize) -> Result<(), QuantizeError> + Sync,
) -> Result<(), QuantizeError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first: Mutex<Option<(usize, QuantizeError)>> = Mutex::new(None);
    let thread = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Err(error) = work(index) {
                failed.store(true, Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                    *first = Some((index, error));
                }
            }
        }
    };
    let whole = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..run.threads.max(1)).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().map(|thread| thread.join()).all(|ended| ended.is_ok())
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None if !whole => Err(QuantizeError::WorkerPanicked),
        None => Ok(()),
    }
}
