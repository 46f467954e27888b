//! A GGUF file on disk.

use crate::error::GgufError;
use crate::header::Header;
use crate::layout::GgufTensor;
use crate::limits::Limits;
use crate::value::Metadata;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An open GGUF file: its header, and its tensors' data by positioned reads from any thread. Nothing is mapped into memory, so
/// that a file which shrinks meanwhile is an error and no crash.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Gguf {
    /// Open a file and read its header.
    ///
    /// # Errors
    /// [`GgufError`] where the file cannot be opened, is no regular file, or is not valid.
    pub fn open(path: &Path, limits: &Limits) -> Result<Gguf, GgufError> {
        let io = |source| GgufError::Io { file: path.to_owned(), offset: 0, source };
        // Asked before opening: opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(GgufError::NotAFile { file: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        let header = Header::read(&file, path, limits)?;
        Ok(Gguf { path: path.to_owned(), file, header })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Keys and values in file order.
    pub fn metadata(&self) -> &Metadata {
        self.header.metadata()
    }

    /// Tensors in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        self.header.tensors()
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.header.tensor(name)
    }

    /// Fill `out` with the bytes of one of this file's tensors, from `offset` (in bytes, inside the tensor) on.
    ///
    /// # Errors
    /// [`GgufError`] where the range leaves the tensor or the file cannot be read.
    pub fn read_at(&self, tensor: &GgufTensor, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= tensor.bytes);
        let inside = tensor.offset.checked_add(tensor.bytes).is_some_and(|end| end <= self.header.file_size());
        if end.is_none() || !inside {
            let (file, tensor, bytes) = (self.path.clone(), tensor.name.clone(), tensor.bytes);
            return Err(GgufError::Range { file, tensor, start: offset, end: offset.saturating_add(out.len() as u64), bytes });
        }
        let offset = tensor.offset + offset;
        read_exact_at(&self.file, out, offset).map_err(|source| {
            let file = self.path.clone();
            match source.kind() {
                io::ErrorKind::UnexpectedEof => GgufError::Shrunk { file, offset },
                _ => GgufError::Io { file, offset, source },
            }
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    // `seek_read` takes its position with each call, so that the shared cursor it moves does not matter.
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
