//! What would be written, for `--dry-run`.

use super::encode::{PIECE_ELEMS, Shared};
use super::{Method, NESTED_BLOCK_LEN, Quantization, QuantizeError};
use ggufsmith_core::TensorSource;
use ggufsmith_core::schemes::int8_affine::{Affine, Codes};
use std::path::PathBuf;

/// A number with as many digits as the offsets of double quantization mostly have.
const TYPICAL_OFFSET: f32 = 0.340_415_95;

/// Everything that is decided.
#[derive(Debug, Clone)]
pub struct QuantizePlan {
    /// Every tensor of the source, in its order.
    pub tensors: Vec<PlannedTensor>,
    /// Every file.
    pub files: Vec<PlannedFile>,
    /// Whether sizes are the final ones: with double quantization a number in the files has more or fewer digits.
    pub exact: bool,
    /// Number of weights.
    pub elems: u64,
}

/// A tensor of the source.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Its name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// How the source stores it.
    pub source_type: &'static str,
    /// How it is stored: the scheme, or the source's type.
    pub stored: &'static str,
    /// Bytes of all that is written for it.
    pub bytes: u64,
    /// Why.
    pub rule: String,
}

/// A file.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl QuantizePlan {
    /// Bits of tensor data per weight.
    pub fn bits_per_weight(&self) -> f64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>() as f64 * 8.0 / self.elems.max(1) as f64
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Quantization {
    /// What a run would write. Reads no weights.
    ///
    /// # Errors
    /// [`QuantizeError`] where a small file cannot be read.
    pub fn plan(&self) -> Result<QuantizePlan, QuantizeError> {
        let method = self.options.method;
        let shared = match method {
            Method::FourBit { double: true, .. } => Some(Shared::Offset(TYPICAL_OFFSET)),
            Method::Plain(config) if !config.per_row => Some(Shared::Map(Affine::new(0.0, 1.0, Codes::Signed))),
            _ => None,
        };
        let layout = self.layout(&vec![shared; self.kept.len()])?;
        let bytes = |tensor: usize| layout.written[tensor].bytes();
        let tensors = layout.jobs.iter().map(|job| {
            let info = &self.checkpoint.tensors()[job.source];
            let kept = self.kept[job.source].as_ref();
            PlannedTensor {
                name: info.name.clone(),
                shape: info.shape.clone(),
                source_type: info.dtype.name(),
                stored: if kept.is_some() { info.dtype.name() } else { method.name() },
                bytes: bytes(job.tensor) + job.states.iter().map(|(_, state)| bytes(*state)).sum::<u64>(),
                rule: kept.map_or_else(|| "matrix of a linear layer".to_owned(), |kept| format!("kept: {kept}")),
            }
        });
        let tensors = tensors.collect();
        let file = |file: &crate::sink::SinkFile| PlannedFile { path: self.options.out.join(&file.path), bytes: file.bytes };
        Ok(QuantizePlan {
            tensors,
            files: layout.files.iter().map(file).collect(),
            exact: !matches!(method, Method::FourBit { double: true, .. }),
            elems: self.checkpoint.tensors().iter().map(|info| info.elems()).sum(),
        })
    }

    /// Bytes of buffers that `threads` threads hold at most, beside a tile for hashing each file: a piece of the source, as it is, as
    /// F32 and as codes, and the scales of a tensor.
    pub fn memory_bound(&self, threads: usize) -> u64 {
        let chosen = self.checkpoint.tensors().iter().zip(&self.kept).filter(|(_, kept)| kept.is_none());
        let of = |info: &ggufsmith_core::TensorInfo| {
            let (rows, columns) = (info.shape[0], info.shape[1]);
            let (piece, scales) = match self.options.method {
                Method::FourBit { block_len, .. } => {
                    let blocks = info.elems().div_ceil(block_len);
                    // The scales, their rests, their codes, what is written of them.
                    (PIECE_ELEMS, blocks * 13 + blocks.div_ceil(NESTED_BLOCK_LEN) * 4)
                }
                Method::Plain(config) if !config.per_row => (PIECE_ELEMS, 0),
                Method::Int8 | Method::Plain(_) => (PIECE_ELEMS.max(columns), rows * 32),
            };
            piece.min(info.elems()) * (info.dtype.bytes() as u64 + 4 + 4 + 2) + scales
        };
        let copied = self.checkpoint.tensors().iter().map(|info| info.bytes()).max().unwrap_or(0).min(PIECE_ELEMS * 8);
        let most = chosen.map(|(info, _)| of(info)).max().unwrap_or(0).max(copied);
        threads as u64 * most
    }
}
