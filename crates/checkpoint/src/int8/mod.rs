//! Models of plain 8-bit codes, as `ggufsmith convert --format safetensors` writes them (INT8_AFFINE, INT8_ABSMAX), as a source of
//! plain tensors: an adapter over the stored ones.
//!
//! A quantized matrix `M.weight` is stored as codes of its shape (I8; U8 where config.json says `unsigned`), `M.weight.scale` (F32) and,
//! with INT8_AFFINE, `M.weight.zero_point` (I64), both of the shape `[]`, or `[rows]` with a scale per row. The value is
//! `(code - zero_point) / scale`, rounded to F32 once: the scale is codes per unit. config.json has a `quantization_config` with
//! `"quant_method": "ggufsmith_int8"`, `version`, `scheme`, `granularity` (`tensor` or `row`), `unsigned` and, for information,
//! `modules_to_not_convert`.

mod config;

pub use config::{Int8Config, Int8ConfigDefect, Int8Scheme, QUANT_METHOD};

use crate::CheckpointError;
use ggufsmith_core::schemes::int8_affine::{Affine, Codes, MAX_ZERO_POINT};
use ggufsmith_core::{DType, SourceError, TensorInfo, TensorSource};
use std::collections::HashMap;
use std::ops::Range;

use Int8Defect as Defect;

/// What the name of a quantized tensor ends with.
const WEIGHT: &str = ".weight";
/// Behind it: its scales.
pub const SCALE: &str = ".scale";
/// Its zero points.
pub const ZERO_POINT: &str = ".zero_point";
/// Scales that are checked at a time.
const PIECE: u64 = 1 << 16;

/// A tensor of such a model that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Int8Defect {
    #[error("its state tensor {state:?} is missing: the checkpoint is incomplete")]
    MissingState { state: String },
    #[error("it belongs to {weight:?}, which is missing: the checkpoint is incomplete")]
    MissingWeight { weight: String },
    #[error("{scheme} has no zero points, {state:?} is one")]
    ZeroPoint { scheme: &'static str, state: String },
    #[error("{tensor:?} has the element type {}, {} is needed", found.name(), expected.name())]
    Dtype { tensor: String, found: DType, expected: DType },
    #[error("{tensor:?} has the shape {found:?}, {expected:?} is needed")]
    Shape { tensor: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("codes of the shape {found:?} are no matrix")]
    NoMatrix { found: Vec<u64> },
    #[error("entry {at} of {state:?} is {found}; a scale is a finite number above 0")]
    Scale { state: String, at: u64, found: f32 },
    #[error("entry {at} of {state:?} is {found}; no zero point of a range of F32 numbers is so far from 0")]
    FarZeroPoint { state: String, at: u64, found: i64 },
    #[error("config.json says that the model is quantized, but no tensor is")]
    Nothing,
}

/// The tensors as they read, and which of them are quantized.
#[derive(Debug)]
pub(crate) struct Int8 {
    config: Int8Config,
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<String, (usize, bool)>,
    quantized: usize,
}

impl Int8 {
    /// Look through the stored tensors; reads their scales and zero points once.
    ///
    /// # Errors
    /// [`CheckpointError::Int8`] where a tensor's state is missing or does not fit it; [`CheckpointError::Source`].
    pub fn open(raw: &dyn TensorSource, config: Int8Config) -> Result<Self, CheckpointError> {
        let mut adapter = Int8 { config, tensors: Vec::new(), by_name: HashMap::new(), quantized: 0 };
        for info in raw.tensors() {
            if let Some(weight) = owner(&info.name) {
                if raw.info(weight).is_none() {
                    return Err(defect(info, Defect::MissingWeight { weight: weight.to_owned() }));
                }
                continue;
            }
            let states = [SCALE, ZERO_POINT].map(|end| format!("{}{end}", info.name));
            let codes = matches!(info.dtype, DType::I8 | DType::U8);
            let quantized = info.name.ends_with(WEIGHT) && (codes || states.iter().any(|state| raw.info(state).is_some()));
            let mut read = info.clone();
            if quantized {
                check(raw, config, info, &states)?;
                read.dtype = DType::F32;
                adapter.quantized += 1;
            }
            adapter.by_name.insert(read.name.clone(), (adapter.tensors.len(), quantized));
            adapter.tensors.push(read);
        }
        match raw.tensors().first() {
            Some(info) if adapter.quantized == 0 => Err(defect(info, Defect::Nothing)),
            _ => Ok(adapter),
        }
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&(at, _)| &self.tensors[at])
    }

    /// What precision was lost before anything here was done.
    pub fn notes(&self) -> Vec<String> {
        let (quantized, all, scheme) = (self.quantized, self.tensors.len(), self.config.scheme.name());
        let per = if self.config.per_row { "row" } else { "tensor" };
        vec![format!(
            "the source is quantized already: {quantized} of {all} tensors are {scheme} with a scale per {per}, decoded to F32; the precision of the original weights is gone"
        )]
    }

    /// Decode whole elements.
    pub fn read(&self, raw: &dyn TensorSource, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let Some(&(at, quantized)) = self.by_name.get(name) else {
            return Err(SourceError::NoTensor { tensor: name.to_owned() });
        };
        if !quantized {
            return raw.read(name, offset, out);
        }
        let info = &self.tensors[at];
        let (bytes, end) = (info.bytes(), offset.saturating_add(out.len() as u64));
        if end > bytes {
            return Err(SourceError::Range { tensor: name.to_owned(), start: offset, end, bytes });
        }
        let (words, rest) = out.as_chunks_mut::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            let what = format!("bytes {offset}..{end} are no whole elements of 4 bytes");
            return Err(SourceError::Shape { tensor: name.to_owned(), what });
        }
        let elems = offset / 4..end / 4;
        let mut codes = vec![0; words.len()];
        raw.read(name, elems.start, &mut codes)?;
        // Without a scale per row all elements are one.
        let columns = info.shape.last().copied().filter(|_| self.config.per_row).unwrap_or(info.elems()).max(1);
        let rows = elems.start / columns..elems.end.div_ceil(columns);
        let maps = maps(raw, self.config.scheme, name, rows.clone())?;
        let (mut words, mut codes) = (words.iter_mut(), codes.iter());
        for (row, map) in rows.zip(maps) {
            let len = elems.end.min((row + 1) * columns) - elems.start.max(row * columns);
            let values = map.values();
            for (word, code) in words.by_ref().zip(codes.by_ref()).take(len as usize) {
                *word = values[usize::from(*code)].to_le_bytes();
            }
        }
        Ok(())
    }
}

/// The weight whose state a tensor is, by its name.
fn owner(name: &str) -> Option<&str> {
    [SCALE, ZERO_POINT].iter().find_map(|end| name.strip_suffix(end)).filter(|weight| weight.ends_with(WEIGHT))
}

/// The maps of some rows, of a tensor without scales per row that of "row" 0.
fn maps(raw: &dyn TensorSource, scheme: Int8Scheme, name: &str, rows: Range<u64>) -> Result<Vec<Affine>, SourceError> {
    let len = (rows.end - rows.start) as usize;
    let mut scales = vec![0; len * 4];
    raw.read(&format!("{name}{SCALE}"), rows.start * 4, &mut scales)?;
    let mut zeros = vec![0; len * 8];
    if matches!(scheme, Int8Scheme::Affine(_)) {
        raw.read(&format!("{name}{ZERO_POINT}"), rows.start * 8, &mut zeros)?;
    }
    let pairs = scales.as_chunks::<4>().0.iter().zip(zeros.as_chunks::<8>().0);
    let codes = scheme.codes();
    let map = |(scale, zero): (&[u8; 4], &[u8; 8])| Affine {
        scale: f32::from_le_bytes(*scale),
        zero_point: i64::from_le_bytes(*zero),
        codes,
    };
    Ok(pairs.map(map).collect())
}

fn check(raw: &dyn TensorSource, config: Int8Config, info: &TensorInfo, states: &[String; 2]) -> Result<(), CheckpointError> {
    let refuse = |what| defect(info, what);
    let wanted = match config.scheme.codes() {
        Codes::Signed => DType::I8,
        Codes::Unsigned => DType::U8,
    };
    let &[rows, _] = info.shape.as_slice() else { return Err(refuse(Defect::NoMatrix { found: info.shape.clone() })) };
    let shape = if config.per_row { vec![rows] } else { Vec::new() };
    let state = |state: &str, dtype| match raw.info(state) {
        None => Err(Defect::MissingState { state: state.to_owned() }),
        Some(found) => like(found, dtype, &shape),
    };
    state(&states[0], DType::F32).map_err(refuse)?;
    match (config.scheme, raw.info(&states[1])) {
        (Int8Scheme::Affine(_), _) => state(&states[1], DType::I64).map_err(refuse)?,
        (Int8Scheme::Absmax, None) => {}
        (Int8Scheme::Absmax, Some(found)) => {
            return Err(refuse(Defect::ZeroPoint { scheme: config.scheme.name(), state: found.name.clone() }));
        }
    }
    like(info, wanted, &info.shape).map_err(refuse)?;
    let count = if config.per_row { rows } else { 1 };
    let mut first = 0;
    while first < count {
        let range = first..count.min(first + PIECE);
        for (at, map) in range.clone().zip(maps(raw, config.scheme, &info.name, range.clone())?) {
            // Written so that NaN is refused.
            if !(map.scale > 0.0 && map.scale.is_finite()) {
                return Err(refuse(Defect::Scale { state: states[0].clone(), at, found: map.scale }));
            }
            if map.zero_point.unsigned_abs() > MAX_ZERO_POINT.unsigned_abs() {
                return Err(refuse(Defect::FarZeroPoint { state: states[1].clone(), at, found: map.zero_point }));
            }
        }
        first = range.end;
    }
    Ok(())
}

fn like(info: &TensorInfo, dtype: DType, shape: &[u64]) -> Result<(), Defect> {
    let tensor = info.name.clone();
    if info.dtype != dtype {
        return Err(Defect::Dtype { tensor, found: info.dtype, expected: dtype });
    }
    if info.shape != shape {
        return Err(Defect::Shape { tensor, found: info.shape.clone(), expected: shape.to_vec() });
    }
    Ok(())
}

fn defect(info: &TensorInfo, defect: Defect) -> CheckpointError {
    CheckpointError::Int8 { path: info.file.clone(), tensor: info.name.clone(), defect: Box::new(defect) }
}
