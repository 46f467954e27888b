//! Checkpoints that bitsandbytes quantized, as a source of plain tensors: an adapter over the stored ones.
//!
//! A 4-bit weight `W` is stored as codes `W` (two to a byte; U8, or any type of as many bytes), `W.absmax` (F32, one per block),
//! `W.quant_map` (the sixteen values) and `W.quant_state.bitsandbytes__nf4` (JSON: type, block length, dtype, shape). With double
//! quantization `W.absmax` are U8 codes of `W.nested_quant_map` (256 values), scaled per block by `W.nested_absmax`, and the
//! quant_state has `nested_offset`: `absmax = nested_quant_map[code] * nested_absmax + nested_offset`, each step rounded to F32.
//! The values are those of `bitsandbytes.functional.dequantize_4bit`: `value * absmax` in F32, rounded to the quant_state's dtype.
//!
//! An int8 weight `M.weight` (I8 `[rows, columns]`) has `M.SCB` (F32 `[rows]`) and mostly `M.weight_format` (0). Its values are
//! `CB * SCB / 127` in F32, as [`int8::decode`] says.

mod error;
mod state;

pub use error::BitsandbytesDefect;

use crate::CheckpointError;
use ggufsmith_core::schemes::int8;
use ggufsmith_core::{DType, FourBit, SourceError, TensorInfo, TensorSource, float};
use state::QuantState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use BitsandbytesDefect as Defect;

/// Between a weight's name and its quantization type.
const QUANT_STATE: &str = ".quant_state.bitsandbytes__";
/// What the names of a 4-bit weight's other state tensors end with.
const STATES: [&str; 4] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
/// What the names of an int8 weight's state tensors end with.
const INT8_STATES: [&str; 2] = [".SCB", ".weight_format"];
/// How far a table may be from the one that bitsandbytes uses, whatever the file says.
const MAP_TOLERANCE: f32 = 1e-4;

/// The tensors as they read, and how those that are quantized are stored.
#[derive(Debug)]
pub(crate) struct Bitsandbytes {
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<String, (usize, Option<Stored>)>,
    /// What was quantized how: description to number of tensors.
    kinds: BTreeMap<String, usize>,
}

#[derive(Debug)]
enum Stored {
    FourBit {
        scheme: &'static FourBit,
        block_len: u64,
        nested: Option<(u64, f32)>,
    },
    /// Name of the scales.
    Int8 {
        scales: String,
    },
}

/// Whether names are those of such a checkpoint.
pub(crate) fn is_one<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.contains(QUANT_STATE))
}

impl Bitsandbytes {
    /// Look through the stored tensors; reads their small states.
    ///
    /// # Errors
    /// [`CheckpointError::Bitsandbytes`] where a tensor's state is missing or does not fit it; [`CheckpointError::Source`].
    pub fn open(raw: &dyn TensorSource, max_dims: usize) -> Result<Self, CheckpointError> {
        let mut found = BTreeMap::new();
        let mut states: BTreeSet<&str> = BTreeSet::new();
        for info in raw.tensors() {
            if let Some((weight, suffix)) = info.name.rsplit_once(QUANT_STATE) {
                states.insert(&info.name);
                if let Some((other, _)) = found.insert(weight, (info.name.as_str(), suffix)) {
                    let (first, second) = (other.to_owned(), info.name.clone());
                    return Err(defect(raw, weight, Defect::TwoStates { first, second }));
                }
            } else if STATES.iter().chain(&INT8_STATES).any(|end| info.name.ends_with(end)) {
                states.insert(&info.name);
            }
        }
        check_owners(raw, &states, &found)?;
        let mut adapter = Bitsandbytes { tensors: Vec::new(), by_name: HashMap::new(), kinds: BTreeMap::new() };
        for info in raw.tensors().iter().filter(|info| !states.contains(info.name.as_str())) {
            let (read, stored) = match found.get(info.name.as_str()) {
                Some(&(state, suffix)) => {
                    four_bit(raw, info, state, suffix, max_dims).map(|(read, stored)| (read, Some(stored)))?
                }
                None if info.dtype == DType::I8 && info.name.ends_with("weight") => {
                    int8_weight(raw, info).map(|(read, stored)| (read, Some(stored)))?
                }
                None if info.dtype == DType::U8 && info.name.ends_with("weight") => {
                    let state = format!("{}{QUANT_STATE}nf4", info.name);
                    return Err(defect(raw, &info.name, Defect::MissingState { state }));
                }
                None => (info.clone(), None),
            };
            if let Some(stored) = &stored {
                *adapter.kinds.entry(stored.describe(read.dtype)).or_default() += 1;
            }
            adapter.by_name.insert(read.name.clone(), (adapter.tensors.len(), stored));
            adapter.tensors.push(read);
        }
        Ok(adapter)
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&(at, _)| &self.tensors[at])
    }

    /// What precision was lost before anything here was done, one line per kind.
    pub fn notes(&self) -> Vec<String> {
        let total = self.tensors.len();
        let lines = self.kinds.iter().map(|(kind, count)| {
            format!("the source is quantized already: {count} of {total} tensors are {kind}; the precision of the original weights is gone")
        });
        lines.collect()
    }

    /// Decode whole elements.
    pub fn read(&self, raw: &dyn TensorSource, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let Some((at, stored)) = self.by_name.get(name) else {
            return Err(SourceError::NoTensor { tensor: name.to_owned() });
        };
        let Some(stored) = stored else { return raw.read(name, offset, out) };
        let info = &self.tensors[*at];
        let (bytes, width) = (info.bytes(), info.dtype.bytes());
        let end = offset.saturating_add(out.len() as u64);
        if end > bytes {
            return Err(SourceError::Range { tensor: name.to_owned(), start: offset, end, bytes });
        }
        if !offset.is_multiple_of(width as u64) || !out.len().is_multiple_of(width) {
            let what = format!("bytes {offset}..{end} are no whole elements of {width} bytes");
            return Err(SourceError::Shape { tensor: name.to_owned(), what });
        }
        let elems = offset / width as u64..end / width as u64;
        if elems.is_empty() {
            return Ok(());
        }
        match stored {
            Stored::FourBit { scheme, block_len, nested } => {
                let absmax = absmax(raw, name, elems.start / block_len..elems.end.div_ceil(*block_len), *nested)?;
                let blocks = Blocks { scheme, block_len: *block_len, absmax: &absmax, first: elems.start / block_len };
                // The byte of the first element, and of the last.
                let mut codes = vec![0; (elems.end.div_ceil(2) - elems.start / 2) as usize];
                raw.read(name, elems.start / 2, &mut codes)?;
                match info.dtype {
                    DType::F16 => blocks.decode(&codes, elems, |value| float::f32_to_f16(value).to_le_bytes(), out),
                    DType::BF16 => blocks.decode(&codes, elems, |value| float::f32_to_bf16(value).to_le_bytes(), out),
                    _ => blocks.decode(&codes, elems, f32::to_le_bytes, out),
                }
            }
            Stored::Int8 { scales } => {
                let columns = info.shape.last().copied().unwrap_or(1).max(1);
                let rows = elems.start / columns..elems.end.div_ceil(columns);
                let scales = floats(raw, scales, rows.clone())?;
                let mut codes = vec![0; (elems.end - elems.start) as usize];
                raw.read(name, elems.start, &mut codes)?;
                let (mut codes, mut out) = (codes.as_slice(), out);
                for (row, scale) in rows.zip(scales) {
                    let len = (elems.end.min((row + 1) * columns) - elems.start.max(row * columns)) as usize;
                    let (now, later) = codes.split_at(len);
                    let (words, rest) = out.split_at_mut(len * 4);
                    for (word, code) in words.as_chunks_mut::<4>().0.iter_mut().zip(now) {
                        *word = int8::decode(*code as i8, scale).to_le_bytes();
                    }
                    (codes, out) = (later, rest);
                }
            }
        }
        Ok(())
    }
}

impl Stored {
    fn describe(&self, dtype: DType) -> String {
        match self {
            Stored::FourBit { scheme, block_len, nested } => {
                let nested = if nested.is_some() { ", double-quantized" } else { "" };
                format!("{} in blocks of {block_len}{nested}, decoded to {}", scheme.name, dtype.name())
            }
            Stored::Int8 { .. } => format!("int8 with a scale per row (LLM.int8), decoded to {}", dtype.name()),
        }
    }
}

/// Consecutive blocks of a tensor with their scales.
struct Blocks<'a> {
    scheme: &'static FourBit,
    block_len: u64,
    absmax: &'a [f32],
    /// Number of the first.
    first: u64,
}

impl Blocks<'_> {
    /// Decode `elems`; `codes` begins with the byte of the first one.
    fn decode<const N: usize>(&self, codes: &[u8], elems: Range<u64>, word: impl Fn(f32) -> [u8; N], out: &mut [u8]) {
        let mut words = out.as_chunks_mut::<N>().0.iter_mut();
        let origin = elems.start / 2;
        for (block, absmax) in (self.first..).zip(self.absmax) {
            let table = self.scheme.scaled(*absmax).map(&word);
            let range = elems.start.max(block * self.block_len)..elems.end.min((block + 1) * self.block_len);
            for (elem, word) in range.clone().zip(words.by_ref()) {
                let byte = codes[(elem / 2 - origin) as usize];
                *word = table[usize::from(if elem.is_multiple_of(2) { byte >> 4 } else { byte & 15 })];
            }
        }
    }
}

/// The scales of a range of blocks.
fn absmax(raw: &dyn TensorSource, weight: &str, blocks: Range<u64>, nested: Option<(u64, f32)>) -> Result<Vec<f32>, SourceError> {
    let name = format!("{weight}.absmax");
    let Some((block_len, offset)) = nested else { return floats(raw, &name, blocks) };
    let mut codes = vec![0; (blocks.end - blocks.start) as usize];
    raw.read(&name, blocks.start, &mut codes)?;
    let map = floats(raw, &format!("{weight}.nested_quant_map"), 0..256)?;
    let first = blocks.start / block_len;
    let scales = floats(raw, &format!("{weight}.nested_absmax"), first..blocks.end.div_ceil(block_len))?;
    let value = |(block, code): (u64, u8)| map[usize::from(code)] * scales[(block / block_len - first) as usize] + offset;
    Ok(blocks.zip(codes).map(value).collect())
}

fn floats(raw: &dyn TensorSource, name: &str, range: Range<u64>) -> Result<Vec<f32>, SourceError> {
    let mut bytes = vec![0; (range.end - range.start) as usize * 4];
    raw.read(name, range.start * 4, &mut bytes)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// A 4-bit weight: how it reads and how it is stored, everything checked.
fn four_bit(
    raw: &dyn TensorSource,
    codes: &TensorInfo,
    state: &str,
    suffix: &str,
    max_dims: usize,
) -> Result<(TensorInfo, Stored), CheckpointError> {
    let weight = codes.name.as_str();
    let refuse = |what| defect(raw, weight, what);
    let state_info = raw.info(state).filter(|info| info.dtype == DType::U8 && info.bytes() <= state::MAX_BYTES);
    let Some(bytes) = state_info.map(TensorInfo::bytes) else {
        // It is there: its name was found.
        let (found, bytes) = raw.info(state).map_or((DType::U8, 0), |info| (info.dtype, info.bytes()));
        return Err(refuse(match found {
            DType::U8 => Defect::LongState { bytes, limit: state::MAX_BYTES },
            found => Defect::Dtype { state: state.to_owned(), found, expected: "U8" },
        }));
    };
    let mut text = vec![0; bytes as usize];
    raw.read(state, 0, &mut text)?;
    let state = QuantState::parse(&text, suffix, max_dims).map_err(refuse)?;
    let expected = state.elems.div_ceil(2);
    if codes.bytes() != expected {
        return Err(refuse(Defect::Codes { elems: state.elems, found: codes.bytes(), expected }));
    }
    let check = |end: &str, dtype, len| check_state(raw, &format!("{weight}{end}"), dtype, &[len]).map_err(refuse);
    match state.nested {
        None => check(".absmax", DType::F32, state.blocks())?,
        Some((block_len, _)) => {
            check(".absmax", DType::U8, state.blocks())?;
            check(".nested_absmax", DType::F32, state.blocks().div_ceil(block_len))?;
            check(".nested_quant_map", DType::F32, 256)?;
        }
    }
    check(".quant_map", DType::F32, 16)?;
    let map_name = format!("{weight}.quant_map");
    let map = floats(raw, &map_name, 0..16)?;
    for (code, (found, expected)) in map.into_iter().zip(state.scheme.values).enumerate() {
        // Written so that NaN is refused.
        if !matches!((found - expected).abs().partial_cmp(&MAP_TOLERANCE), Some(std::cmp::Ordering::Less)) {
            let quant_type = state.scheme.name;
            return Err(refuse(Defect::Map { state: map_name, quant_type, code, found, expected }));
        }
    }
    let read = TensorInfo { dtype: state.dtype, shape: state.shape, ..codes.clone() };
    Ok((read, Stored::FourBit { scheme: state.scheme, block_len: state.block_len, nested: state.nested }))
}

/// An int8 weight, everything checked.
fn int8_weight(raw: &dyn TensorSource, codes: &TensorInfo) -> Result<(TensorInfo, Stored), CheckpointError> {
    let refuse = |what| defect(raw, &codes.name, what);
    let module = codes.name.strip_suffix("weight").unwrap_or(&codes.name);
    let scales = format!("{module}SCB");
    let &[rows, _] = codes.shape.as_slice() else {
        let (found, state) = (codes.shape.clone(), codes.name.clone());
        return Err(refuse(Defect::Shape { state, found, expected: vec![raw.info(&scales).map_or(0, TensorInfo::elems), 0] }));
    };
    check_state(raw, &scales, DType::F32, &[rows]).map_err(refuse)?;
    let format = format!("{module}weight_format");
    if raw.info(&format).is_some() {
        check_state(raw, &format, DType::U8, &[]).map_err(refuse)?;
        let mut found = [0];
        raw.read(&format, 0, &mut found)?;
        if found != [0] {
            return Err(refuse(Defect::WeightFormat { found: found[0] }));
        }
    }
    Ok((TensorInfo { dtype: DType::F32, ..codes.clone() }, Stored::Int8 { scales }))
}

fn check_state(raw: &dyn TensorSource, state: &str, dtype: DType, shape: &[u64]) -> Result<(), Defect> {
    let state = state.to_owned();
    match raw.info(&state) {
        None => Err(Defect::MissingState { state }),
        Some(info) if info.dtype != dtype => Err(Defect::Dtype { state, found: info.dtype, expected: dtype.name() }),
        Some(info) if info.shape != shape => Err(Defect::Shape { state, found: info.shape.clone(), expected: shape.to_vec() }),
        Some(_) => Ok(()),
    }
}

/// Every state tensor belongs to a weight that is stored in its way.
fn check_owners(
    raw: &dyn TensorSource,
    states: &BTreeSet<&str>,
    described: &BTreeMap<&str, (&str, &str)>,
) -> Result<(), CheckpointError> {
    for state in states {
        let (weight, int8) = match (state.rsplit_once(QUANT_STATE), state.rsplit_once('.')) {
            (Some((weight, _)), _) => (weight.to_owned(), false),
            (None, Some((module, "SCB" | "weight_format"))) => (format!("{module}.weight"), true),
            (None, Some((weight, _))) => (weight.to_owned(), false),
            (None, None) => continue,
        };
        match raw.info(&weight) {
            None => return Err(defect(raw, state, Defect::MissingWeight { weight })),
            Some(info) if int8 && info.dtype != DType::I8 => {
                return Err(defect(raw, state, Defect::Dtype { state: weight, found: info.dtype, expected: "I8" }));
            }
            Some(_) if !int8 && !described.contains_key(weight.as_str()) => {
                let state = format!("{weight}{QUANT_STATE}nf4");
                return Err(defect(raw, &weight, Defect::MissingState { state }));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn defect(raw: &dyn TensorSource, tensor: &str, defect: Defect) -> CheckpointError {
    let path = raw.info(tensor).map(|info| info.file.clone()).unwrap_or_default();
    CheckpointError::Bitsandbytes { path, tensor: tensor.to_owned(), defect }
}
