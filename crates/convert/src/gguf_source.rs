//! A GGUF model as a source of tensors: what is quantized reads as F32, or as it is stored.

use ggufsmith_checkpoint::Identity;
use ggufsmith_core::{DType, Format, SourceError, TensorInfo, TensorSource, formats};
use ggufsmith_gguf::{GgufError, GgufTensor, Shards};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// The tensors of a model in one file or several, under their GGUF names.
#[derive(Debug)]
pub(crate) struct GgufSource {
    shards: Shards,
    infos: Vec<TensorInfo>,
    by_name: HashMap<String, Entry>,
    /// What each file was when it was opened.
    identities: Vec<Option<Identity>>,
}

/// A tensor.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Position in `infos`.
    index: usize,
    /// How the file stores it.
    format: &'static Format,
    /// Read as it is stored.
    raw: bool,
}

impl GgufSource {
    pub(crate) fn new(shards: Shards) -> Self {
        let mut infos = Vec::new();
        let mut by_name = HashMap::new();
        for file in shards.files() {
            for tensor in file.tensors() {
                by_name.insert(tensor.name.clone(), Entry { index: infos.len(), format: tensor.format, raw: false });
                infos.push(info(tensor, file.path()));
            }
        }
        let identities = shards.files().iter().map(|file| identity(file.path())).collect();
        GgufSource { shards, infos, by_name, identities }
    }

    /// From now on a tensor reads as the bytes that the file stores: a vector of U8.
    pub(crate) fn read_raw(&mut self, name: &str) {
        if let (Some(entry), Some(tensor)) = (self.by_name.get_mut(name), self.shards.tensor(name)) {
            entry.raw = true;
            let info = &mut self.infos[entry.index];
            (info.dtype, info.shape) = (DType::U8, vec![tensor.bytes]);
        }
    }

    /// How the file stores a tensor.
    pub(crate) fn format(&self, name: &str) -> Option<&'static Format> {
        Some(self.by_name.get(name)?.format)
    }

    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// A small F32 tensor as it is.
    pub(crate) fn floats(&self, name: &str, elems: usize) -> Result<Vec<f32>, SourceError> {
        let mut bytes = vec![0; elems * 4];
        self.read(name, 0, &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// Decode the blocks that hold the bytes from `offset` on of the tensor's F32 form.
    fn decode(&self, name: &str, format: &Format, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let shape = |what: String| SourceError::Shape { tensor: name.to_owned(), what };
        if !offset.is_multiple_of(4) || !out.len().is_multiple_of(4) {
            return Err(shape(format!("bytes from {offset} on, {} of them, are no whole elements", out.len())));
        }
        let (first, count) = (offset / 4, out.len() as u64 / 4);
        let block = format.block_len as u64;
        let blocks = first / block..(first + count).div_ceil(block);
        // As many as `out` has room for, and one more: the lengths fit.
        let mut raw = vec![0; (blocks.end - blocks.start) as usize * format.block_bytes];
        self.shards
            .read_at(name, blocks.start * format.block_bytes as u64, &mut raw)
            .map_err(|error| self.fault(name, offset, error))?;
        let mut values = vec![0.0; (blocks.end - blocks.start) as usize * format.block_len];
        format.decode(&raw, &mut values).map_err(|error| shape(error.to_string()))?;
        let skip = (first - blocks.start * block) as usize;
        for (word, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(&values[skip..]) {
            *word = value.to_le_bytes();
        }
        Ok(())
    }

    fn fault(&self, name: &str, offset: u64, error: GgufError) -> SourceError {
        let file = self.info(name).map(|info| info.file.clone()).unwrap_or_default();
        match error {
            GgufError::Io { file, offset, source } => SourceError::Io { file, tensor: name.to_owned(), offset, source },
            other => SourceError::Io { file, tensor: name.to_owned(), offset, source: io::Error::other(other) },
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| Identity::of(&metadata))
}

/// The words that a tensor reads as.
fn info(tensor: &GgufTensor, file: &Path) -> TensorInfo {
    let dtype = plain(tensor.format).unwrap_or(DType::F32);
    let shape = if tensor.shape.is_empty() { vec![1] } else { tensor.shape.clone() };
    TensorInfo { name: tensor.name.clone(), dtype, shape, file: file.to_owned(), offset: tensor.offset }
}

/// The element type of a format that holds plain floats.
pub(crate) fn plain(format: &Format) -> Option<DType> {
    [(&formats::f32::FORMAT, DType::F32), (&formats::f16::FORMAT, DType::F16), (&formats::bf16::FORMAT, DType::BF16)]
        .into_iter()
        .find(|(known, _)| *known == format)
        .map(|(_, dtype)| dtype)
}

impl TensorSource for GgufSource {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.infos.get(self.by_name.get(name)?.index)
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let Some(&Entry { format, raw, .. }) = self.by_name.get(name) else {
            return Err(SourceError::NoTensor { tensor: name.to_owned() });
        };
        if !raw && plain(format).is_none() {
            return self.decode(name, format, offset, out);
        }
        self.shards.read_at(name, offset, out).map_err(|error| self.fault(name, offset, error))
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        for (file, opened) in self.shards.files().iter().zip(&self.identities) {
            if opened.is_none() || identity(file.path()) != *opened {
                return Err(SourceError::Changed { file: file.path().to_owned() });
            }
        }
        Ok(())
    }
}
