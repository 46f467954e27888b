//! Weights of either side, decoded to F32 a tile at a time.

mod select;

use ggufsmith_core::format::DecodeError;
use ggufsmith_core::{DType, Format, SourceError, TensorSource, Words, formats};
use ggufsmith_gguf::{GgufError, Shards};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use select::TRANSPOSED_ROWS;

/// Why weights could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WeightsError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("tensor {tensor}: {source}")]
    Decode { tensor: String, source: DecodeError },
    #[error("tensor {tensor} is missing")]
    Missing { tensor: String },
    #[error("tensor {tensor} has the shape {found:?}, the model's sizes make it {expected:?}")]
    Shape { tensor: String, expected: Vec<u64>, found: Vec<u64> },
    #[error("tensor {tensor}: elements {from}..{to} are no whole rows inside it")]
    Range { tensor: String, from: u64, to: u64 },
}

/// How elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A checkpoint's elements.
    Plain(DType),
    /// ggml's blocks.
    Blocks(&'static Format),
}

impl Storage {
    /// Its name, e.g. `BF16` or `Q4_0`.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Plain(dtype) => dtype.name(),
            Storage::Blocks(format) => format.name,
        }
    }

    /// Bytes of `elems` elements; `None` where they are no whole number of blocks.
    pub fn bytes_for(self, elems: u64) -> Option<u64> {
        match self {
            Storage::Plain(dtype) => elems.checked_mul(dtype.bytes() as u64),
            Storage::Blocks(format) => format.bytes_for(elems),
        }
    }

    fn decode(self, raw: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        match self {
            Storage::Blocks(format) => format.decode(raw, out),
            Storage::Plain(DType::F32) => formats::f32::FORMAT.decode(raw, out),
            Storage::Plain(DType::BF16) => formats::bf16::FORMAT.decode(raw, out),
            Storage::Plain(DType::F16) => formats::f16::FORMAT.decode(raw, out),
            Storage::Plain(other) => {
                let mut converted = Vec::with_capacity(out.len() * Words::F32.bytes());
                other.append_words(raw, &mut converted);
                formats::f32::FORMAT.decode(&converted, out)
            }
        }
    }
}

/// What is known of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// How its elements are stored.
    pub storage: Storage,
}

impl Tensor {
    /// Number of elements.
    pub fn elems(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Where raw bytes come from.
pub trait Tensors: Send + Sync {
    /// One tensor by name.
    fn tensor(&self, name: &str) -> Option<Tensor>;

    /// Fill `out` with the tensor's bytes from `offset` on.
    ///
    /// # Errors
    /// [`WeightsError`] where they cannot be read.
    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError>;
}

/// A checkpoint.
pub struct SourceTensors(pub Arc<dyn TensorSource>);

impl Tensors for SourceTensors {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.0.info(name)?;
        Some(Tensor { shape: info.shape.clone(), storage: Storage::Plain(info.dtype) })
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        Ok(self.0.read(name, offset, out)?)
    }
}

/// A GGUF file.
pub struct GgufTensors(pub Arc<Shards>);

impl Tensors for GgufTensors {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let tensor = self.0.tensor(name)?;
        Some(Tensor { shape: tensor.shape.clone(), storage: Storage::Blocks(tensor.format) })
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        Ok(self.0.read_at(name, offset, out)?)
    }
}

/// Weights of one side. What was made resident is decoded from memory, everything else is read each time it is used.
pub struct Weights {
    tensors: Box<dyn Tensors>,
    resident: BTreeMap<String, Vec<u8>>,
}

/// Elements that one thread decodes at a time.
const DECODE_ELEMS: usize = 1 << 18;

impl Weights {
    /// Weights that are read as they are needed.
    pub fn new(tensors: Box<dyn Tensors>) -> Self {
        Weights { tensors, resident: BTreeMap::new() }
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.tensors.tensor(name)
    }

    /// One tensor by name, which has to be there with this shape. Dimensions of 1 in front do not count: GGUF drops them.
    ///
    /// # Errors
    /// [`WeightsError`] where it is missing, has another shape, or cannot be decoded.
    pub fn expect(&self, name: &str, shape: &[u64]) -> Result<Tensor, WeightsError> {
        let tensor = self.tensor(name).ok_or_else(|| WeightsError::Missing { tensor: name.to_owned() })?;
        let trimmed = |shape: &[u64]| shape.iter().copied().skip_while(|&dim| dim == 1).collect::<Vec<_>>();
        if trimmed(&tensor.shape) != trimmed(shape) {
            return Err(WeightsError::Shape { tensor: name.to_owned(), expected: shape.to_vec(), found: tensor.shape });
        }
        if let Storage::Blocks(format) = tensor.storage
            && format.decode.is_none()
        {
            let source = DecodeError::NotYet { format: format.name };
            return Err(WeightsError::Decode { tensor: name.to_owned(), source });
        }
        Ok(tensor)
    }

    /// Keep a tensor's bytes in memory.
    ///
    /// # Errors
    /// [`WeightsError`] where it is missing or cannot be read.
    pub fn make_resident(&mut self, name: &str) -> Result<(), WeightsError> {
        let tensor = self.tensor(name).ok_or_else(|| WeightsError::Missing { tensor: name.to_owned() })?;
        let mut raw = vec![0; bytes(name, &tensor, 0, tensor.elems())?.1 as usize];
        self.tensors.read(name, 0, &mut raw)?;
        self.resident.insert(name.to_owned(), raw);
        Ok(())
    }

    /// Decode elements from `from` on into rows `(cols, stride)`, of which the first `cols` elements are written, on this thread.
    fn decode_here(
        &self,
        name: &str,
        tensor: &Tensor,
        from: u64,
        (cols, stride): (usize, usize),
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let rows = out.len() / stride;
        let (offset, len) = bytes(name, tensor, from, (rows * cols) as u64)?;
        let mut decoded = |raw: &[u8]| {
            let mut rows = out.chunks_exact_mut(stride).zip(raw.chunks_exact(raw.len() / rows));
            rows.try_for_each(|(out, raw)| tensor.storage.decode(raw, &mut out[..cols]))
        };
        let decoded = match self.resident.get(name) {
            Some(raw) => decoded(&raw[offset as usize..(offset + len) as usize]),
            None => {
                let mut raw = vec![0; len as usize];
                self.tensors.read(name, offset, &mut raw)?;
                decoded(&raw)
            }
        };
        decoded.map_err(|source| WeightsError::Decode { tensor: name.to_owned(), source })
    }

    /// A small tensor as a whole.
    ///
    /// # Errors
    /// [`WeightsError`] where it is missing, has another shape, or cannot be read or decoded.
    pub(crate) fn tensor_values(&self, name: &str, shape: &[u64]) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.expect(name, shape)?;
        let mut out = vec![0.0; tensor.elems() as usize];
        if !out.is_empty() {
            let len = out.len();
            self.decode_here(name, &tensor, 0, (len, len), &mut out)?;
        }
        Ok(out)
    }
}

/// Offset and length in bytes of the elements `from..from + len`.
fn bytes(name: &str, tensor: &Tensor, from: u64, len: u64) -> Result<(u64, u64), WeightsError> {
    let to = from.saturating_add(len);
    let range = || WeightsError::Range { tensor: name.to_owned(), from, to };
    if to > tensor.elems() {
        return Err(range());
    }
    let offset = tensor.storage.bytes_for(from).ok_or_else(range)?;
    Ok((offset, tensor.storage.bytes_for(len).ok_or_else(range)?))
}
