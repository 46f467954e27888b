//! A model whose matrices read as the values that a scheme of sixteen values makes of them: an adapter over another source.
//!
//! It is how NF4 comes into GGUF, which has no such type: `x` reads as `values[code] * absmax`, a F32 that is not rounded further, and
//! what is made of this source holds NF4's values in a type that can carry them. The matrices are those that transformers would
//! quantize ([`Kept`]), the blocks those of bitsandbytes: over the elements of the checkpoint's tensor, whatever its rows are.

use crate::modules::Kept;
use ggufsmith_core::schemes::dynamic8::{self, Dynamic8};
use ggufsmith_core::{DType, FourBit, SchemeError, SourceError, TensorInfo, TensorSource};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Elements that are read together: a multiple of every block length.
const PIECE_ELEMS: u64 = 1 << 18;

/// How matrices are rounded.
#[derive(Debug, Clone)]
pub struct Rounding {
    /// The sixteen values.
    pub scheme: &'static FourBit,
    /// Elements per scale: one of [`Rounding::BLOCK_LENS`].
    pub block_len: u64,
    /// Whether the scales are quantized, too.
    pub double: bool,
    /// Modules that stay as they are, beside the head: a module's whole name, or parts of it at its dots.
    pub skip_modules: Vec<String>,
}

impl Rounding {
    /// The block lengths that bitsandbytes has.
    pub const BLOCK_LENS: [u64; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

    /// `NF4 in blocks of 64`, and `double-quantized`.
    pub fn describe(&self) -> String {
        let double = if self.double { ", double-quantized" } else { "" };
        format!("{} in blocks of {}{double}", self.scheme.name, self.block_len)
    }
}

/// The adapter.
pub struct Rounded {
    raw: Arc<dyn TensorSource>,
    rounding: Rounding,
    /// As they read: rounded ones are F32.
    tensors: Vec<TensorInfo>,
    /// Position of each tensor, and whether it is rounded.
    by_name: HashMap<String, (usize, bool)>,
    dynamic: Dynamic8,
    /// Of tensors with quantized scales that were read: what all their blocks decide together.
    nested: Mutex<HashMap<String, Arc<Nested>>>,
}

/// What quantized scales share: the mean of all scales of a tensor, and a scale per 256 scales.
#[derive(Debug)]
struct Nested {
    offset: f32,
    scales: Vec<f32>,
}

impl Rounded {
    /// Round the matrices of `raw`.
    ///
    /// # Errors
    /// [`SchemeError::BlockLength`] where bitsandbytes has no such blocks.
    pub fn new(raw: Arc<dyn TensorSource>, rounding: Rounding) -> Result<Self, SchemeError> {
        if !Rounding::BLOCK_LENS.contains(&rounding.block_len) {
            let block_len = usize::try_from(rounding.block_len).unwrap_or(usize::MAX);
            return Err(SchemeError::BlockLength { scheme: rounding.scheme.name, block_len });
        }
        let mut tensors = raw.tensors().to_vec();
        let mut by_name = HashMap::new();
        for (at, info) in tensors.iter_mut().enumerate() {
            let rounds = Kept::of(info, &rounding.skip_modules).is_none();
            by_name.insert(info.name.clone(), (at, rounds));
            if rounds {
                info.dtype = DType::F32;
            }
        }
        Ok(Rounded { raw, rounding, tensors, by_name, dynamic: Dynamic8::new(), nested: Mutex::default() })
    }

    /// How.
    pub fn rounding(&self) -> &Rounding {
        &self.rounding
    }

    /// Whether a tensor is rounded.
    pub fn rounds(&self, tensor: &str) -> bool {
        self.by_name.get(tensor).is_some_and(|(_, rounds)| *rounds)
    }

    /// Number of tensors that are rounded.
    pub fn count(&self) -> usize {
        self.by_name.values().filter(|(_, rounds)| *rounds).count()
    }

    /// Encode whole blocks of a tensor: scales and codes.
    fn encode(
        &self,
        info: &TensorInfo,
        elems: Range<u64>,
        absmax: &mut Vec<f32>,
        codes: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let width = info.dtype.bytes() as u64;
        let mut bytes = vec![0; ((elems.end - elems.start) * width) as usize];
        self.raw.read(&info.name, elems.start * width, &mut bytes)?;
        let words = info.dtype.words();
        if !matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16) {
            let mut converted = Vec::new();
            info.dtype.append_words(&bytes, &mut converted);
            bytes = converted;
        }
        let len = (elems.end - elems.start) as usize;
        absmax.resize(len.div_ceil(self.rounding.block_len as usize), 0.0);
        codes.resize(self.rounding.scheme.codes_len(len), 0);
        let encoded = self.rounding.scheme.encode(words, &bytes, self.rounding.block_len as usize, codes, absmax);
        encoded.map_err(|error| SourceError::Shape { tensor: info.name.clone(), what: error.to_string() })
    }

    /// What the scales of a tensor share; reads the whole tensor the first time.
    fn nested(&self, info: &TensorInfo) -> Result<Arc<Nested>, SourceError> {
        let known = |nested: &HashMap<String, Arc<Nested>>| nested.get(&info.name).cloned();
        if let Some(nested) = known(&self.nested.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(nested);
        }
        let (mut all, mut absmax, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        while first < info.elems() {
            let end = info.elems().min(first + PIECE_ELEMS);
            self.encode(info, first..end, &mut absmax, &mut codes)?;
            all.extend_from_slice(&absmax);
            first = end;
        }
        let offset = dynamic8::mean(&all);
        all.iter_mut().for_each(|scale| *scale -= offset);
        let (_, scales) = self.dynamic.encode(&all);
        let nested = Arc::new(Nested { offset, scales });
        self.nested.lock().unwrap_or_else(PoisonError::into_inner).insert(info.name.clone(), nested.clone());
        Ok(nested)
    }

    /// Replace scales, of which the first is that of block `first`, by what is left of them when they are quantized.
    fn quantize_scales(&self, nested: &Nested, first: u64, absmax: &mut [f32], values: &[f32; 256]) {
        for (block, scale) in (first..).zip(absmax) {
            let group = nested.scales[(block / dynamic8::BLOCK_LEN as u64) as usize];
            let code = self.dynamic.code(*scale - nested.offset, group);
            *scale = values[usize::from(code)] * group + nested.offset;
        }
    }
}

impl std::fmt::Debug for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rounded").field("rounding", &self.rounding).finish_non_exhaustive()
    }
}

impl TensorSource for Rounded {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&(at, _)| &self.tensors[at])
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let (info, true) = (self.raw.info(name), self.rounds(name)) else { return self.raw.read(name, offset, out) };
        let Some(info) = info else { return Err(SourceError::NoTensor { tensor: name.to_owned() }) };
        let (end, bytes) = (offset.saturating_add(out.len() as u64), info.elems() * 4);
        if end > bytes {
            return Err(SourceError::Range { tensor: name.to_owned(), start: offset, end, bytes });
        }
        let (words, []) = out.as_chunks_mut::<4>() else {
            let what = format!("bytes {offset}..{end} are no whole elements of 4 bytes");
            return Err(SourceError::Shape { tensor: name.to_owned(), what });
        };
        if !offset.is_multiple_of(4) {
            let what = format!("bytes {offset}..{end} are no whole elements of 4 bytes");
            return Err(SourceError::Shape { tensor: name.to_owned(), what });
        }
        let nested = if self.rounding.double && !words.is_empty() { Some(self.nested(info)?) } else { None };
        let values = dynamic8::values();
        let (block_len, elems) = (self.rounding.block_len, offset / 4..end / 4);
        let (mut absmax, mut codes, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
        let mut words = words.iter_mut();
        let mut at = elems.start;
        while at < elems.end {
            let first = at / block_len * block_len;
            let last = elems.end.min(first + PIECE_ELEMS).next_multiple_of(block_len).min(info.elems());
            self.encode(info, first..last, &mut absmax, &mut codes)?;
            if let Some(nested) = &nested {
                self.quantize_scales(nested, first / block_len, &mut absmax, &values);
            }
            decoded.resize((last - first) as usize, 0.0);
            let result = self.rounding.scheme.decode(&codes, &absmax, block_len as usize, &mut decoded);
            result.map_err(|error| SourceError::Shape { tensor: name.to_owned(), what: error.to_string() })?;
            let until = elems.end.min(last);
            for (value, word) in decoded[(at - first) as usize..(until - first) as usize].iter().zip(words.by_ref()) {
                *word = value.to_le_bytes();
            }
            at = until;
        }
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.raw.check_unchanged()
    }
}
