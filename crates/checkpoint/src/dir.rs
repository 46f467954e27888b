//! The model directory and its small files.

use crate::CheckpointError;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest small file (JSON, tokenizer, model card) that is read whole.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A directory with a config.json.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    config: serde_json::Value,
}

impl ModelDir {
    /// Open a directory that holds a config.json.
    ///
    /// # Errors
    /// [`CheckpointError`] where the directory or its config.json cannot be read.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut dir = ModelDir { path: path.to_owned(), config: serde_json::Value::Null };
        std::fs::read_dir(path).map_err(|source| CheckpointError::Io { path: path.into(), source })?;
        dir.config =
            dir.json("config.json")?.ok_or_else(|| CheckpointError::NotAModel { path: path.into(), missing: "config.json" })?;
        Ok(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's own name: the reference converter derives `general.name` from it.
    pub fn name(&self) -> String {
        let resolved = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        resolved.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// config.json as it is.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// A small file of the directory; `None` where it does not exist.
    ///
    /// # Errors
    /// [`CheckpointError`] where it exists and cannot be read, or is larger than 256 MiB.
    pub fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let path = self.path.join(file);
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let handle = match std::fs::File::open(&path) {
            Ok(handle) => handle,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut bytes = Vec::new();
        handle.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(CheckpointError::TooLarge { path, bytes: bytes.len() as u64, limit: MAX_FILE_BYTES });
        }
        Ok(Some(bytes))
    }

    /// As [`ModelDir::bytes`], as text.
    ///
    /// # Errors
    /// As [`ModelDir::bytes`], or where it is not UTF-8.
    pub fn text(&self, file: &str) -> Result<Option<String>, CheckpointError> {
        let Some(bytes) = self.bytes(file)? else { return Ok(None) };
        let path = || self.path.join(file);
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|e| CheckpointError::NotUtf8 { path: path(), offset: e.utf8_error().valid_up_to() })
    }

    /// As [`ModelDir::text`], parsed as JSON (key order kept).
    ///
    /// # Errors
    /// As [`ModelDir::text`], or where it is not JSON.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>, CheckpointError> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| CheckpointError::Json { path: self.path.join(file), source })
    }
}
