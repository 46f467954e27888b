//! Importance matrices as `llama-imatrix` writes them, as `llama-quantize` uses them (`load_imatrix` of its tool).
//!
//! In the GGUF form the file holds for each weight `NAME.in_sum2` (sums of squared activations, one per column of each expert) and
//! `NAME.counts` (how many activations were summed, one per expert), both F32. The importance of a column is sum over count; where
//! an expert was never used, 1. The older form (`.dat`, see `legacy`) is recognised by its lack of GGUF's magic number.

mod legacy;

use crate::{GgufError, GgufTensor, Limits, LookupError, Shards};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"GGUF";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// Bytes of an element.
const F32_BYTES: u64 = 4;

/// The importance of every column of every weight that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Imatrix {
    entries: BTreeMap<String, Vec<f32>>,
    /// `imatrix.datasets`: the texts it was measured on.
    pub datasets: Vec<String>,
    /// `imatrix.chunk_count`: how many chunks of text it was measured on, 0 where the file does not say.
    pub chunks: u32,
}

/// Why an importance matrix cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ImatrixError {
    #[error("the importance matrix cannot be read: {0}")]
    Gguf(#[from] GgufError),
    #[error("the importance matrix {}: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error(
        "{}: byte {offset}: {what}; it is neither GGUF nor an importance matrix in llama.cpp's older .dat form, or it is cut short",
        file.display()
    )]
    Legacy { file: PathBuf, offset: u64, what: String },
    #[error("{}: {source}; an importance matrix made by llama-imatrix has it", file.display())]
    Key { file: PathBuf, source: LookupError },
    #[error("{} is a {found:?} file, no importance matrix (general.type must be \"imatrix\")", file.display())]
    NotAnImatrix { file: PathBuf, found: String },
    #[error("{}: tensor {tensor:?} is neither NAME{SUMS} nor NAME{COUNTS}", file.display())]
    UnknownTensor { file: PathBuf, tensor: String },
    #[error("{}: tensor {tensor:?} has no partner {partner:?}", file.display())]
    NoPartner { file: PathBuf, tensor: String, partner: String },
    #[error("{}: tensor {tensor:?} is {found}, it must be F32", file.display())]
    Type { file: PathBuf, tensor: String, found: &'static str },
    #[error("{}: tensor {tensor:?} has {sums} sums for {counts} counts, no whole number each", file.display())]
    Counts { file: PathBuf, tensor: String, sums: u64, counts: u64 },
    #[error("{}: the importance of {tensor:?} is not finite at column {column}", file.display())]
    NotFinite { file: PathBuf, tensor: String, column: usize },
    #[error("{} holds no importance at all", file.display())]
    Empty { file: PathBuf },
    #[error(
        "the importance matrix has {found} values for tensor {tensor:?}, whose rows (of all experts) have {expected}: it was measured on another model"
    )]
    Length { tensor: String, expected: u64, found: u64 },
}

impl Imatrix {
    /// Read a file whole.
    ///
    /// # Errors
    /// [`ImatrixError`]: the file is no importance matrix, or not whole.
    pub fn open(path: &Path) -> Result<Imatrix, ImatrixError> {
        let fault = |source| ImatrixError::Io { file: path.to_owned(), source };
        // Asked before opening: opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(fault)?.is_file() {
            return Err(GgufError::NotAFile { file: path.to_owned() }.into());
        }
        let mut file = File::open(path).map_err(fault)?;
        let mut magic = Vec::with_capacity(MAGIC.len());
        Read::by_ref(&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(fault)?;
        let imatrix = if magic == MAGIC { Imatrix::open_gguf(path)? } else { legacy::read(path)? };
        for (name, values) in &imatrix.entries {
            if let Some(column) = values.iter().position(|value| !value.is_finite()) {
                return Err(ImatrixError::NotFinite { file: path.to_owned(), tensor: name.clone(), column });
            }
        }
        match imatrix.entries.is_empty() {
            true => Err(ImatrixError::Empty { file: path.to_owned() }),
            false => Ok(imatrix),
        }
    }

    fn open_gguf(path: &Path) -> Result<Imatrix, ImatrixError> {
        let shards = Shards::open(path, &Limits::default())?;
        let file = || path.to_owned();
        let kind: &str =
            shards.metadata().require("general.type").map_err(|source| ImatrixError::Key { file: file(), source })?;
        if kind != "imatrix" {
            return Err(ImatrixError::NotAnImatrix { file: file(), found: kind.to_owned() });
        }
        let datasets = shards.metadata().lookup::<&[String]>("imatrix.datasets");
        let datasets = datasets.map_err(|source| ImatrixError::Key { file: file(), source })?.unwrap_or_default().to_vec();
        let chunks = shards.metadata().lookup::<u32>("imatrix.chunk_count");
        let chunks = chunks.map_err(|source| ImatrixError::Key { file: file(), source })?.unwrap_or(0);
        let mut entries = BTreeMap::new();
        for tensor in shards.tensors() {
            let (name, partner) = if let Some(name) = tensor.name.strip_suffix(SUMS) {
                (name, format!("{name}{COUNTS}"))
            } else if let Some(name) = tensor.name.strip_suffix(COUNTS) {
                (name, format!("{name}{SUMS}"))
            } else {
                return Err(ImatrixError::UnknownTensor { file: file(), tensor: tensor.name.clone() });
            };
            let Some(other) = shards.tensor(&partner) else {
                return Err(ImatrixError::NoPartner { file: file(), tensor: tensor.name.clone(), partner });
            };
            if tensor.name.ends_with(SUMS) {
                entries.insert(name.to_owned(), importance(path, &shards, tensor, other)?);
            }
        }
        Ok(Imatrix { entries, datasets, chunks })
    }

    /// The importance of a tensor's columns, `[experts * columns]`; `shape` (outermost first) is the tensor's. None where it was
    /// not measured, or, for token embeddings alone, where its length does not fit: `llama-quantize` ignores it there.
    ///
    /// # Errors
    /// [`ImatrixError::Length`] where the length does not fit.
    pub fn of(&self, tensor: &str, shape: &[u64]) -> Result<Option<&[f32]>, ImatrixError> {
        let Some(values) = self.entries.get(tensor) else { return Ok(None) };
        let columns = shape.last().copied().unwrap_or(1);
        let experts = if shape.len() > 2 { shape[shape.len() - 3] } else { 1 };
        let (expected, found) = (columns.saturating_mul(experts), values.len() as u64);
        match found == expected {
            true => Ok(Some(values)),
            false if matches!(tensor, "token_embd.weight" | "per_layer_token_embd.weight") => Ok(None),
            false => Err(ImatrixError::Length { tensor: tensor.to_owned(), expected, found }),
        }
    }

    /// Keep the importance of some weights alone.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|name, _| keep(name));
    }

    /// The same values under other names. Where two get the same name the one that sorts last counts.
    pub fn renamed(&self, name: impl Fn(&str) -> String) -> Imatrix {
        let entries = self.entries.iter().map(|(old, values)| (name(old), values.clone())).collect();
        Imatrix { entries, datasets: self.datasets.clone(), chunks: self.chunks }
    }

    /// Names of the measured weights.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

/// Sums over counts, in F32 as `llama-quantize` divides.
fn importance(path: &Path, shards: &Shards, sums: &GgufTensor, counts: &GgufTensor) -> Result<Vec<f32>, ImatrixError> {
    let file = || path.to_owned();
    if !sums.elems().is_multiple_of(counts.elems()) {
        let (tensor, sums, counts) = (sums.name.clone(), sums.elems(), counts.elems());
        return Err(ImatrixError::Counts { file: file(), tensor, sums, counts });
    }
    let mut values = read(path, shards, sums)?;
    let counts = read(path, shards, counts)?;
    let columns = values.len() / counts.len();
    for (values, count) in values.chunks_exact_mut(columns).zip(&counts) {
        let count = count.round(); // llama.cpp takes it as an integer
        for value in values {
            *value = if count > 0.0 { *value / count } else { 1.0 };
        }
    }
    Ok(values)
}

fn read(path: &Path, shards: &Shards, tensor: &GgufTensor) -> Result<Vec<f32>, ImatrixError> {
    if *tensor.format != ggufsmith_core::formats::f32::FORMAT {
        let (file, tensor, found) = (path.to_owned(), tensor.name.clone(), tensor.format.name);
        return Err(ImatrixError::Type { file, tensor, found });
    }
    // The header was checked against the file's size, so this is no more than the file.
    let mut bytes = vec![0; (tensor.elems() * F32_BYTES) as usize];
    shards.read_at(&tensor.name, 0, &mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
}
