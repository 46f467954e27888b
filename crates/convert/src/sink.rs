//! Files that appear complete or not at all.
//!
//! A [`FileSink`] owns every file of a run. Each is written beside its final name, at positions, in any order and from any
//! thread; [`FileSink::finish`] refuses unless every planned byte was written exactly once, flushes to disk, and renames all
//! files together. Dropping a sink that was not finished removes what it wrote.

mod check;
mod os;

pub use check::{Wanted, check};

use crate::intervals::Intervals;
use check::directories;
use os::{is_at, read_exact_at, reserve, sync_directory, write_all_at};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Bytes that the hashing thread reads back at a time.
const HASH_TILE_BYTES: usize = 1 << 20;

/// One file to be written.
#[derive(Debug)]
pub struct SinkFile {
    /// Where it appears when everything is done.
    pub path: PathBuf,
    /// Its exact size.
    pub bytes: u64,
    /// What it starts with.
    pub header: Vec<u8>,
    /// Byte ranges that will be put, ascending and disjoint. Bytes outside them and the header are zero.
    pub data: Vec<std::ops::Range<u64>>,
}

/// A file that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedFile {
    /// Its final name.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its sha256 in lower-case hexadecimal.
    pub sha256: String,
}

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SinkError {
    #[error("{} exists; choose another name or overwrite it with --force", path.display())]
    Exists { path: PathBuf },
    #[error("{} is a directory, a file is to be written there", path.display())]
    IsDirectory { path: PathBuf },
    #[error("{} is a device, a FIFO or a socket, which no file may replace; choose another name", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is an input of this run and would be overwritten", path.display())]
    IsInput { path: PathBuf },
    #[error("two outputs have the name {}", path.display())]
    Twice { path: PathBuf },
    #[error("the directory {} does not exist; create it first", path.display())]
    NoDirectory { path: PathBuf },
    #[error("{} needs {needed} bytes, {available} are free: free {} more or write elsewhere", directory.display(), needed - available)]
    NoSpace { directory: PathBuf, needed: u64, available: u64 },
    #[error("another run is writing {}", path.display())]
    Busy { path: PathBuf },
    #[error("{doing} {}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("bytes {start}..{end} of {} were written twice (a fault of this program)", path.display())]
    Overlap { path: PathBuf, start: u64, end: u64 },
    #[error("bytes {start}..{end} of {} lie outside the plan (a fault of this program)", path.display())]
    Outside { path: PathBuf, start: u64, end: u64 },
    #[error("byte {offset} of {} was never written (a fault of this program)", path.display())]
    Missing { path: PathBuf, offset: u64 },
}

/// Where encoded bytes go.
pub trait Sink: Sync {
    /// Write `bytes` at `offset` of file number `file`.
    ///
    /// # Errors
    /// [`SinkError`] where the bytes are not planned, were written before, or cannot be written.
    fn put(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;

    /// Write bytes again that were put before.
    ///
    /// # Errors
    /// [`SinkError`] where they were not, or cannot be written.
    fn replace(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;
}

/// All files of one run.
#[derive(Debug)]
pub struct FileSink {
    files: Vec<Partial>,
}

/// A file under its temporary name.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    temp: PathBuf,
    bytes: u64,
    file: Arc<File>,
    state: Arc<(Mutex<State>, Condvar)>,
    hasher: Option<JoinHandle<io::Result<String>>>,
    /// The temporary file is still ours to remove.
    armed: bool,
}

#[derive(Debug)]
struct State {
    written: Intervals,
    replaced: bool,
    aborted: bool,
}

impl FileSink {
    /// Reserve every file under a temporary name beside its final one. `inputs` are files that must not be overwritten.
    ///
    /// # Errors
    /// [`SinkError`] where an output exists (without `force`), is an input, has no directory, does not fit on the disk, or is
    /// being written by another process. Nothing is left behind then.
    pub fn create(files: Vec<SinkFile>, force: bool, inputs: &[PathBuf]) -> Result<Self, SinkError> {
        let wanted: Vec<_> = files.iter().map(|file| Wanted { path: &file.path, bytes: file.bytes }).collect();
        check(&wanted, force, inputs)?;
        let mut sink = FileSink { files: Vec::with_capacity(files.len()) };
        for file in files {
            sink.files.push(Partial::create(file)?);
        }
        Ok(sink)
    }

    /// Check that every byte was written, flush, and rename all files to their final names.
    ///
    /// # Errors
    /// [`SinkError`]; then no file has appeared under a final name, except where the renaming itself fails half-way.
    pub fn finish(mut self) -> Result<Vec<FinishedFile>, SinkError> {
        for file in &self.files {
            if let Some(offset) = file.lock().written.first_gap(file.bytes) {
                return Err(SinkError::Missing { path: file.path.clone(), offset });
            }
        }
        let mut finished = Vec::with_capacity(self.files.len());
        for file in &mut self.files {
            file.file.sync_all().map_err(|source| file.io("flushing", source))?;
            finished.push(FinishedFile { path: file.path.clone(), bytes: file.bytes, sha256: file.sha256()? });
        }
        for file in &mut self.files {
            std::fs::rename(&file.temp, &file.path).map_err(|source| file.io("renaming the finished file to", source))?;
            file.armed = false;
        }
        for directory in directories(self.files.iter().map(|f| f.path.as_path())) {
            sync_directory(&directory).map_err(|source| SinkError::Io {
                path: directory.clone(),
                doing: "flushing the directory",
                source,
            })?;
        }
        Ok(finished)
    }
}

impl Sink for FileSink {
    fn put(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.files[file].put(offset, bytes)
    }

    fn replace(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.files[file].replace(offset, bytes)
    }
}

impl Partial {
    fn create(planned: SinkFile) -> Result<Self, SinkError> {
        let temp = temporary_name(&planned.path);
        let io = |doing: &'static str| {
            let path = temp.clone();
            move |source| SinkError::Io { path, doing, source }
        };
        let file = loop {
            // Not truncated on opening: another process may be writing it. The lock decides, then its old content goes.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&temp)
                .map_err(io("creating the temporary file"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(SinkError::Busy { path: planned.path }),
                Err(std::fs::TryLockError::Error(source)) => return Err(io("locking")(source)),
            }
            // Its writer may have renamed it between our opening and locking: then what we hold is a finished file.
            if is_at(&file, &temp) {
                break file;
            }
        };
        let file = Arc::new(file);
        let mut written = Intervals::default();
        let mut at = planned.header.len() as u64;
        for range in &planned.data {
            // What lies between the planned ranges stays zero, which the reservation has written.
            if range.start > at {
                written.insert(at..range.start);
            }
            at = at.max(range.end);
        }
        if at < planned.bytes {
            written.insert(at..planned.bytes);
        }
        let state = Arc::new((Mutex::new(State { written, replaced: false, aborted: false }), Condvar::new()));
        let mut partial = Partial { path: planned.path, temp, bytes: planned.bytes, file, state, hasher: None, armed: true };
        partial.file.set_len(0).map_err(|source| partial.io("emptying the temporary file of", source))?;
        reserve(&partial.file, planned.bytes).map_err(|source| partial.io("reserving space for", source))?;
        partial.put(0, &planned.header)?;
        let (file, state, bytes) = (partial.file.clone(), partial.state.clone(), partial.bytes);
        partial.hasher = Some(std::thread::spawn(move || hash_as_it_grows(&file, &state, bytes)));
        Ok(partial)
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (start, end) = (offset, offset.saturating_add(bytes.len() as u64));
        if end > self.bytes {
            return Err(SinkError::Outside { path: self.path.clone(), start, end });
        }
        if self.lock().written.overlaps(start..end) {
            return Err(SinkError::Overlap { path: self.path.clone(), start, end });
        }
        write_all_at(&self.file, bytes, offset).map_err(|source| self.io("writing", source))?;
        if !self.lock().written.insert(start..end) {
            return Err(SinkError::Overlap { path: self.path.clone(), start, end });
        }
        self.state.1.notify_one();
        Ok(())
    }

    fn replace(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let (start, end) = (offset, offset.saturating_add(bytes.len() as u64));
        if !self.lock().written.contains(start..end) {
            return Err(SinkError::Outside { path: self.path.clone(), start, end });
        }
        write_all_at(&self.file, bytes, offset).map_err(|source| self.io("writing", source))?;
        self.lock().replaced = true;
        Ok(())
    }

    fn sha256(&mut self) -> Result<String, SinkError> {
        // The thread was started in `create` and is joined once; a panic inside it is a read error to the caller.
        let joined = self.hasher.take().map(JoinHandle::join);
        let result = match joined {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the hashing thread ended early")),
        };
        let result = if self.lock().replaced {
            // What the thread read may not be what is there now.
            hash_as_it_grows(&self.file, &self.state, self.bytes)
        } else {
            result
        };
        result.map_err(|source| self.io("reading back", source))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid after every statement, so a panicking thread leaves it usable.
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, doing: &'static str, source: io::Error) -> SinkError {
        SinkError::Io { path: self.path.clone(), doing, source }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.lock().aborted = true;
        self.state.1.notify_all();
        if let Some(hasher) = self.hasher.take() {
            let _ = hasher.join();
        }
        if self.armed {
            let _ = std::fs::remove_file(&self.temp);
        }
    }
}

/// The contiguous prefix is read back and hashed while the rest is written, so that no pass over the file is needed at the end.
fn hash_as_it_grows(file: &File, state: &(Mutex<State>, Condvar), bytes: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut tile = vec![0; HASH_TILE_BYTES];
    let mut at = 0;
    while at < bytes {
        let frontier = {
            let mut guard = state.0.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if guard.aborted {
                    return Err(io::Error::other("the run was given up"));
                }
                let frontier = guard.written.prefix();
                // Wake up for whole tiles, or for the end.
                if frontier == bytes || frontier >= at + HASH_TILE_BYTES as u64 {
                    break frontier;
                }
                guard = state.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        };
        while at < frontier {
            let len = (frontier - at).min(HASH_TILE_BYTES as u64) as usize;
            read_exact_at(file, &mut tile[..len], at)?;
            hash.update(&tile[..len]);
            at += len as u64;
        }
    }
    Ok(crate::manifest::hex(&hash.finalize()))
}

/// `dir/.name.partial`: hidden, beside the final name, and the same in every run, so that a run after a crash replaces it.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
