//! The model directory and its small files.

use crate::file;
use crate::{CheckpointError, OpenOptions};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A directory with a config.json.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    /// What links may not leave; `None`: anything goes.
    root: Option<PathBuf>,
    options: OpenOptions,
    config: serde_json::Value,
    /// Names of the small files that were read, for the manifest.
    read: Arc<Mutex<BTreeSet<String>>>,
}

impl ModelDir {
    /// Open a directory that holds a config.json, with the default [`OpenOptions`].
    ///
    /// # Errors
    /// As [`ModelDir::open_with`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::open_with(path, OpenOptions::default())
    }

    /// Open a directory that holds a config.json.
    ///
    /// # Errors
    /// [`CheckpointError`] where the directory or its config.json cannot be read.
    pub fn open_with(path: &Path, options: OpenOptions) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.into(), source };
        std::fs::read_dir(path).map_err(io)?;
        let root = if options.follow_symlinks { None } else { Some(file::containment_root(path).map_err(io)?) };
        let (config, read) = (serde_json::Value::Null, Arc::default());
        let mut dir = ModelDir { path: path.to_owned(), root, options, config, read };
        let class = dir.options.class.clone();
        dir.config =
            dir.json("config.json")?.ok_or_else(|| CheckpointError::NotAModel { path: path.into(), missing: "config.json" })?;
        if let (Some(class), Some(config)) = (class, dir.config.as_object_mut()) {
            config.insert("architectures".to_owned(), vec![class].into());
        }
        Ok(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    pub fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// The directory's own name, from which the reference converter derives `general.name`; for a snapshot in a Hub cache the
    /// repository's name, since the snapshot's own is a hash.
    pub fn name(&self) -> String {
        let resolved = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let repo = file::hub_repo(&resolved).and_then(Path::file_name).and_then(|folder| folder.to_str());
        if let Some((_, name)) = repo.and_then(|folder| folder.rsplit_once("--")) {
            return name.to_owned();
        }
        resolved.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// config.json as it is, but for the class where [`OpenOptions::class`] names one.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// A small file of the directory; `None` where it does not exist.
    ///
    /// # Errors
    /// [`CheckpointError`] where it exists and cannot be read, is no regular file, leaves the model's directory or is larger
    /// than [`crate::Limits::small_file_bytes`].
    pub fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.bytes_up_to(file, self.options.limits.small_file_bytes)
    }

    pub(crate) fn bytes_up_to(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
        let Some((path, handle, metadata)) = self.open_file(file)? else { return Ok(None) };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned());
        if metadata.len() > limit {
            return Err(CheckpointError::TooLarge { path, bytes: metadata.len(), limit });
        }
        let mut bytes = Vec::new();
        // One byte more than was announced, so that a file that grows meanwhile does not pass for a whole one.
        if let Err(source) = handle.take(metadata.len() + 1).read_to_end(&mut bytes) {
            return Err(CheckpointError::Io { path, source });
        }
        if bytes.len() as u64 > metadata.len() {
            return Err(CheckpointError::TooLarge { path, bytes: bytes.len() as u64, limit: metadata.len() });
        }
        Ok(Some(bytes))
    }

    /// As [`ModelDir::bytes`], as text.
    ///
    /// # Errors
    /// As [`ModelDir::bytes`], or where it is not UTF-8.
    pub fn text(&self, file: &str) -> Result<Option<String>, CheckpointError> {
        self.bytes(file)?.map(|bytes| self.utf8(file, bytes)).transpose()
    }

    pub(crate) fn utf8(&self, file: &str, bytes: Vec<u8>) -> Result<String, CheckpointError> {
        String::from_utf8(bytes)
            .map_err(|e| CheckpointError::NotUtf8 { path: self.path.join(file), offset: e.utf8_error().valid_up_to() })
    }

    /// As [`ModelDir::text`], parsed as JSON (key order kept); at most [`crate::Limits::json_bytes`].
    ///
    /// # Errors
    /// As [`ModelDir::text`], or where it is not JSON, an object has a key twice, or there are more than
    /// [`crate::Limits::json_values`].
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>, CheckpointError> {
        let Some(bytes) = self.bytes_up_to(file, self.options.limits.json_bytes)? else { return Ok(None) };
        crate::json::parse(&self.path.join(file), &self.utf8(file, bytes)?, self.options.limits.json_values).map(Some)
    }

    /// The names of the small files that were read so far, sorted: what a conversion depends on besides the weights.
    pub fn files_read(&self) -> Vec<String> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The names of what lies in a folder of the directory (`""`: in the directory itself), sorted by bytes as Python sorts
    /// them; empty where there is no such folder. Names that are not UTF-8 are left out: nothing of a model has one.
    ///
    /// # Errors
    /// [`CheckpointError`] where the folder cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let path = if folder.is_empty() { self.path.clone() } else { self.join(folder)? };
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !folder.is_empty() => return Ok(Vec::new()),
            Err(e) => return Err(io(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(io)?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    /// Open a file of the directory; `name` is plain, or plain names joined by `/`.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<(PathBuf, File, Metadata)>, CheckpointError> {
        let path = self.join(name)?;
        let opened = file::open(&path, self.root.as_deref())?;
        Ok(opened.map(|(handle, metadata)| (path, handle, metadata)))
    }

    pub(crate) fn join(&self, name: &str) -> Result<PathBuf, CheckpointError> {
        if name.split('/').all(file::is_plain_name) {
            Ok(self.path.join(name))
        } else {
            Err(CheckpointError::FileName { name: name.to_owned() })
        }
    }
}
