//! `--imatrix`: the file, and what of it enters an output.

use crate::manifest::{HashedFile, hex};
use crate::plan::append;
use ggufsmith_gguf::Metadata;
use ggufsmith_gguf::imatrix::{Imatrix, ImatrixError};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// `llama-quantize` keeps this many bytes of a string that it writes as an override of metadata.
const OVERRIDE_BYTES: usize = 127;

/// An importance matrix that was opened.
#[derive(Debug, Clone)]
pub struct ImatrixFile {
    /// What it holds.
    pub imatrix: Arc<Imatrix>,
    /// Its name as it was given, with its hash.
    pub file: HashedFile,
}

impl ImatrixFile {
    /// Read and hash a file; its path, as it stands, enters the outputs' metadata.
    ///
    /// # Errors
    /// [`ImatrixError`].
    pub fn open(path: &Path) -> Result<Self, ImatrixError> {
        let imatrix = Arc::new(Imatrix::open(path)?);
        let file = hash(path).map_err(|source| ImatrixError::Io { file: path.to_owned(), source })?;
        Ok(ImatrixFile { imatrix, file })
    }

    /// `--include-weights` and `--exclude-weights`: forget what is excluded by a part of its name, and, where anything is included,
    /// what is not.
    pub(crate) fn select(&mut self, include: &[String], exclude: &[String]) {
        let has = |name: &str, parts: &[String]| parts.iter().any(|part| name.contains(part.as_str()));
        Arc::make_mut(&mut self.imatrix).retain(|name| !has(name, exclude) && (include.is_empty() || has(name, include)));
    }

    /// Append the keys that `llama-quantize` appends.
    pub(crate) fn write_keys(&self, metadata: &mut Metadata) {
        append(metadata, "quantize.imatrix.file", cut(&self.file.name));
        if let Some(dataset) = self.imatrix.datasets.first() {
            append(metadata, "quantize.imatrix.dataset", cut(dataset));
        }
        let entries = u32::try_from(self.imatrix.names().len()).unwrap_or(u32::MAX);
        append(metadata, "quantize.imatrix.entries_count", entries);
        if self.imatrix.chunks > 0 {
            append(metadata, "quantize.imatrix.chunks_count", self.imatrix.chunks);
        }
    }
}

/// As much of a text as is kept, in whole characters.
fn cut(text: &str) -> &str {
    let end = (0..=OVERRIDE_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

fn hash(path: &Path) -> io::Result<HashedFile> {
    let (mut file, mut hash, mut tile, mut bytes) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let len = file.read(&mut tile)?;
        if len == 0 {
            return Ok(HashedFile { name: path.to_string_lossy().into_owned(), bytes, sha256: hex(&hash.finalize()) });
        }
        hash.update(&tile[..len]);
        bytes += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("abc"), "abc");
        assert_eq!(cut(&"x".repeat(200)).len(), 127);
        assert_eq!(cut(&"é".repeat(100)).len(), 126);
    }
}
