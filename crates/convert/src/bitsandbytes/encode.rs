//! The work on one tensor: read, quantize, hand on.

use super::layout::Job;
use super::state::State;
use super::{Method, Quantization, QuantizeError, QuantizeRun};
use crate::scan::scan;
use ggufsmith_checkpoint::int8::{Int8Config, Int8Scheme, SCALE};
use ggufsmith_core::schemes::dynamic8::{self, Dynamic8};
use ggufsmith_core::schemes::int8_affine::Affine;
use ggufsmith_core::schemes::{int8, int8_absmax};
use ggufsmith_core::{DType, FourBit, TensorInfo, TensorSource, Words, float};
use std::sync::atomic::Ordering;

/// Elements that are read together: a multiple of every block length.
pub(super) const PIECE_ELEMS: u64 = 1 << 20;
/// Rows of a tensor with a scale per row have at most so many elements: they are read whole.
const MAX_COLUMNS: u64 = PIECE_ELEMS * 64;

/// What all elements of a tensor decide together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shared {
    /// With double quantization the mean scale.
    Offset(f32),
    /// How plain codes come about.
    Map(Affine),
}

/// Takes pieces of the written tensors: number of the tensor, first byte, bytes.
pub(super) type Put<'a> = &'a (dyn Fn(usize, u64, &[u8]) -> Result<(), QuantizeError> + Sync);

/// What a thread needs to quantize tensors.
pub(super) struct Work<'a> {
    pub quantization: &'a Quantization,
    pub run: &'a QuantizeRun<'a>,
    pub dynamic: &'a Dynamic8,
    pub put: Put<'a>,
}

impl Work<'_> {
    pub fn write(&self, job: &Job) -> Result<(), QuantizeError> {
        let info = &self.quantization.checkpoint.tensors()[job.source];
        match self.quantization.options.method {
            _ if job.states.is_empty() => self.copy(info, job.tensor),
            Method::Int8 => self.int8(info, job),
            Method::FourBit { scheme, block_len, .. } => self.four_bit(info, job, scheme, block_len),
            Method::Plain(config) => self.plain(info, job, config),
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
            (self.put)(tensor, at, &bytes)?;
            (self.run.progress)(bytes.len() as u64);
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn four_bit(&self, info: &TensorInfo, job: &Job, scheme: &'static FourBit, block_len: u64) -> Result<(), QuantizeError> {
        let codes = |first: u64, codes: &[u8]| (self.put)(job.tensor, first / 2, codes);
        let absmax = self.quantization.encode_four_bit(self.run, info, scheme, block_len, codes)?;
        let nested = match job.shared {
            Some(Shared::Offset(offset)) => {
                let rest: Vec<f32> = absmax.iter().map(|scale| scale - offset).collect();
                Some(self.dynamic.encode(&rest))
            }
            _ => None,
        };
        for &(end, tensor) in &job.states {
            let bytes = match (end, &nested) {
                ("absmax", None) => bytes_of(&absmax),
                ("absmax", Some((codes, _))) => codes.clone(),
                ("nested_absmax", Some((_, scales))) => bytes_of(scales),
                ("nested_quant_map", _) => bytes_of(&dynamic8::values()),
                ("quant_map", _) => bytes_of(&scheme.values),
                _ => state_text(info, scheme, block_len, job.shared).into_bytes(),
            };
            (self.put)(tensor, 0, &bytes)?;
        }
        Ok(())
    }

    fn int8(&self, info: &TensorInfo, job: &Job) -> Result<(), QuantizeError> {
        let (columns, rows) = rows_of(info)?;
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
            (self.put)(job.tensor, first, &bytes)
        })?;
        for &(end, tensor) in &job.states {
            (self.put)(tensor, 0, &if end == "SCB" { bytes_of(&scales) } else { vec![0] })?;
        }
        Ok(())
    }

    fn plain(&self, info: &TensorInfo, job: &Job, config: Int8Config) -> Result<(), QuantizeError> {
        let whole = match job.shared {
            Some(Shared::Map(map)) => Some(map),
            _ => None,
        };
        let mut maps: Vec<Affine> = whole.into_iter().collect();
        // With one map for all a "row" is whatever a piece holds.
        let (columns, elems) = match whole {
            Some(_) => (PIECE_ELEMS, PIECE_ELEMS),
            None => rows_of(info).map(|(columns, rows)| (columns, rows * columns))?,
        };
        let (mut values, mut codes) = (Vec::new(), Vec::new());
        self.quantization.pieces(self.run, info, elems, |first, words, bytes| {
            floats(words, bytes, &mut values);
            codes.clear();
            for row in values.chunks(columns as usize) {
                let map = whole.unwrap_or_else(|| {
                    let map = Range::of(row).map(config.scheme);
                    maps.push(map);
                    map
                });
                codes.extend(row.iter().map(|value| map.encode(*value)));
            }
            (self.put)(job.tensor, first, &codes)
        })?;
        for &(end, tensor) in &job.states {
            let bytes: Vec<u8> = match end {
                SCALE => maps.iter().flat_map(|map| map.scale.to_le_bytes()).collect(),
                _ => maps.iter().flat_map(|map| map.zero_point.to_le_bytes()).collect(),
            };
            (self.put)(tensor, 0, &bytes)?;
        }
        Ok(())
    }
}

impl Quantization {
    /// What all elements of a chosen tensor decide together, where they do.
    pub(super) fn shared(&self, run: &QuantizeRun<'_>, info: &TensorInfo) -> Result<Option<Shared>, QuantizeError> {
        match self.options.method {
            Method::FourBit { scheme, block_len, double: true } => {
                let absmax = self.encode_four_bit(run, info, scheme, block_len, |_, _| Ok(()))?;
                Ok(Some(Shared::Offset(dynamic8::mean(&absmax))))
            }
            Method::Plain(config) if !config.per_row => {
                let (mut range, mut values) = (Range::default(), Vec::new());
                self.pieces(run, info, PIECE_ELEMS, |_, words, bytes| {
                    floats(words, bytes, &mut values);
                    range.add(&values);
                    Ok(())
                })?;
                Ok(Some(Shared::Map(range.map(config.scheme))))
            }
            _ => Ok(None),
        }
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

/// The smallest and the largest of some elements.
#[derive(Debug, Clone, Copy)]
struct Range {
    min: f32,
    max: f32,
}

impl Default for Range {
    fn default() -> Self {
        Range { min: f32::INFINITY, max: f32::NEG_INFINITY }
    }
}

impl Range {
    fn of(values: &[f32]) -> Self {
        let mut range = Range::default();
        range.add(values);
        range
    }

    fn add(&mut self, values: &[f32]) {
        let smaller = |a: f32, b: &f32| if *b < a { *b } else { a };
        let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
        self.min = values.iter().fold(self.min, smaller);
        self.max = values.iter().fold(self.max, larger);
    }

    fn map(self, scheme: Int8Scheme) -> Affine {
        match scheme {
            Int8Scheme::Affine(codes) => Affine::new(self.min, self.max, codes),
            Int8Scheme::Absmax => int8_absmax::map(self.max.abs().max(self.min.abs())),
        }
    }
}

/// Columns, and rows of a piece, of a matrix with a scale per row.
fn rows_of(info: &TensorInfo) -> Result<(u64, u64), QuantizeError> {
    let columns = info.shape[1];
    if columns > MAX_COLUMNS {
        return Err(QuantizeError::LongRow { tensor: info.name.clone(), columns });
    }
    Ok((columns, (PIECE_ELEMS / columns).max(1)))
}

pub(super) fn state_text(info: &TensorInfo, scheme: &FourBit, block_len: u64, shared: Option<Shared>) -> String {
    let quant_type = scheme.name.to_lowercase();
    let offset = match shared {
        Some(Shared::Offset(offset)) => Some(offset),
        _ => None,
    };
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
