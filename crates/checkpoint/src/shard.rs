//! One safetensors file of a model, open: on this machine, or read over a network.

use crate::CheckpointError;
use crate::file::{self, Identity};
use crate::{Limits, ModelDir, header};
use ggufsmith_core::{SourceError, TensorInfo};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Safetensors files that are not on this machine. The small files of the model are in its directory all the same.
pub trait RemoteShards: fmt::Debug + Send + Sync {
    /// Names of the files in the model's directory; those that are no weights may be among them.
    fn names(&self) -> Vec<String>;

    /// Length in bytes; `None` where there is no such file.
    fn bytes(&self, name: &str) -> Option<u64>;

    /// Fill `out` with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::Error`] where they cannot be had, or are known not to be the file's.
    fn read_exact_at(&self, name: &str, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Called once every header was read and the weights are about to be.
    fn begin(&self) {}

    /// Called once everything was read, before results are published: whether every one of these files is what it was said to be.
    ///
    /// # Errors
    /// [`io::Error`] where one is not, or the rest of it cannot be had.
    fn finish(&self, names: &[&str]) -> io::Result<Vec<RemoteShard>>;
}

/// A remote file that was read to its end and found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteShard {
    /// Its name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// One safetensors file, open.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    bytes: Bytes,
}

/// What is read.
#[derive(Debug)]
pub(crate) enum Bytes {
    Local { file: File, opened: Identity },
    Remote { shards: Arc<dyn RemoteShards>, name: String, len: u64 },
}

impl Shard {
    /// Open the file `name` of a directory, or of what is read in its place; `None` where there is none.
    pub(crate) fn open(dir: &ModelDir, name: &str) -> Result<Option<Shard>, CheckpointError> {
        if let Some(shards) = &dir.options().remote {
            let path = dir.join(name)?;
            let remote = |len| Bytes::Remote { shards: Arc::clone(shards), name: name.to_owned(), len };
            return Ok(shards.bytes(name).map(|len| Shard { path, bytes: remote(len) }));
        }
        let opened = dir.open_file(name)?;
        Ok(opened.map(|(path, file, metadata)| Shard { path, bytes: Bytes::local(file, Identity::of(&metadata)) }))
    }

    /// Its tensors.
    pub(crate) fn tensors(&self, limits: &Limits) -> Result<Vec<TensorInfo>, CheckpointError> {
        Ok(header::read(&self.path, &self.bytes, limits)?.tensors)
    }

    /// Length in bytes at opening.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// The last part of its path; names are UTF-8, having come from JSON or from a listing that leaves out others.
    pub(crate) fn name(&self) -> &str {
        name_of(&self.path)
    }

    /// Fill `out` with bytes of `tensor` that lie at `offset` in the file.
    pub(crate) fn read(&self, tensor: &str, out: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let result = self.bytes.read_exact_at(out, offset);
        // Looked at after reading: what was read lies inside a file that was still the same.
        self.check(tensor, offset + out.len() as u64)?;
        let fault = |source| SourceError::Io { file: self.path.clone(), tensor: tensor.to_owned(), offset, source };
        result.map_err(fault)
    }

    /// Whether the open file is as it was at opening, after `tensor` was read up to byte `expected` of the file.
    fn check(&self, tensor: &str, expected: u64) -> Result<(), SourceError> {
        let Bytes::Local { file, opened } = &self.bytes else { return Ok(()) };
        let now = match file.metadata() {
            Ok(metadata) => Identity::of(&metadata),
            Err(source) => {
                return Err(SourceError::Io { file: self.path.clone(), tensor: tensor.to_owned(), offset: expected, source });
            }
        };
        if now.len < expected {
            return Err(SourceError::Shrunk { file: self.path.clone(), tensor: tensor.to_owned(), expected, found: now.len });
        }
        if now != *opened {
            return Err(SourceError::Changed { file: self.path.clone() });
        }
        Ok(())
    }

    /// Whether what its path names is still the file that was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), SourceError> {
        let Bytes::Local { opened, .. } = &self.bytes else { return Ok(()) };
        let changed = || SourceError::Changed { file: self.path.clone() };
        match std::fs::metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == *opened => Ok(()),
            Ok(_) => Err(changed()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(changed()),
            Err(source) => Err(SourceError::Io { file: self.path.clone(), tensor: String::new(), offset: 0, source }),
        }
    }
}

impl Bytes {
    pub(crate) fn local(file: File, opened: Identity) -> Self {
        Bytes::Local { file, opened }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Bytes::Local { opened, .. } => opened.len,
            Bytes::Remote { len, .. } => *len,
        }
    }

    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Bytes::Local { file, .. } => file::read_exact_at(file, out, offset),
            Bytes::Remote { shards, name, .. } => shards.read_exact_at(name, out, offset),
        }
    }
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
