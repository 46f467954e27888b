//! Files of a repository that are read once, from front to back, and never stored.
//!
//! One thread reads all files in order and hashes them; readers get their bytes from a window that moves along. Who comes back for
//! what has left the window fetches it again, and it is compared with the digest that was taken when it passed. So every byte that
//! was handed out belongs to a file whose hash [`Stream::finish`] has compared with the Hub's.

mod hub;
mod window;

pub use hub::HubFiles;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use window::{AHEAD, BLOCK, Window};

/// Bytes that are fetched at first to see a file's header.
const PREFIX: u64 = 64 << 10;
/// How often a cut transfer is taken up again without a byte in between.
const ATTEMPTS: u32 = 5;

/// Where bytes come from.
pub trait Fetch: Send + Sync {
    /// The bytes `range` of a file, not empty. An early end is taken up again by the caller.
    ///
    /// # Errors
    /// [`io::Error`] where the request fails for good.
    fn open(&self, name: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>>;

    /// How long to wait before a transfer is taken up for the `attempt`-th time.
    fn pause(&self, attempt: u32) -> Duration {
        Duration::from_millis(250 << attempt.min(6))
    }
}

/// A file, as the Hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFile {
    /// Its name in the repository.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, lower case.
    pub sha256: String,
}

/// What is wrong with a file that passed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StreamError {
    #[error("the repository has no file {name} that can be streamed")]
    NoFile { name: String },
    #[error("bytes {start}..{end} of {name} were asked for, it has {bytes}")]
    Range { name: String, start: u64, end: u64, bytes: u64 },
    #[error(
        "{name} has the sha256 {found}, the Hub says {expected}: what arrived is not what was uploaded. Try again; if it stays, the storage or a proxy in between is broken"
    )]
    BadHash { name: String, expected: String, found: String },
    #[error("{name}: bytes from {offset} on, fetched a second time, differ from the first: the file changed on the way")]
    Changed { name: String, offset: u64 },
    #[error("{name} was cut off at byte {offset} of {bytes}, {attempts} times in a row: {source}")]
    Cut { name: String, offset: u64, bytes: u64, attempts: u32, source: io::Error },
    #[error("the transfer was given up")]
    Stopped,
}

/// Files that are read once. Until [`Stream::begin`] only their beginnings can be read.
pub struct Stream {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    files: Vec<StreamFile>,
    fetch: Box<dyn Fetch>,
    state: Mutex<State>,
    /// The window moved, a reader wants more, or the state ended.
    changed: Condvar,
}

struct State {
    window: Window,
    /// What was fetched of each file before the pass began.
    prefixes: Vec<Arc<Vec<u8>>>,
    begun: bool,
    stopped: bool,
    /// Why the pass ended early.
    failed: Option<Arc<io::Error>>,
    /// Bytes that were fetched again.
    again: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

impl Stream {
    /// Files in the order in which they are to pass. No request is made.
    pub fn new(files: Vec<StreamFile>, fetch: Box<dyn Fetch>) -> Self {
        let state = State {
            window: Window::new(files.iter().map(|file| file.bytes)),
            prefixes: vec![Arc::default(); files.len()],
            begun: false,
            stopped: false,
            failed: None,
            again: 0,
        };
        let shared = Shared { files, fetch, state: Mutex::new(state), changed: Condvar::new() };
        Stream { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// The files.
    pub fn files(&self) -> &[StreamFile] {
        &self.shared.files
    }

    /// Let the files pass whose beginning was read.
    pub fn begin(&self) {
        self.shared.lock().begun = true;
        let shared = Arc::clone(&self.shared);
        let pass = std::thread::spawn(move || shared.pass());
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
    }

    /// Fill `out` with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// [`StreamError`] inside an [`io::Error`], or the fault of a request.
    pub fn read_exact_at(&self, name: &str, out: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.shared.file(name)?;
        let bytes = self.shared.files[file].bytes;
        let (start, end) = (offset, offset.saturating_add(out.len() as u64));
        if end > bytes {
            return Err(io::Error::other(StreamError::Range { name: name.to_owned(), start, end, bytes }));
        }
        if self.shared.lock().begun && end > self.shared.lock().prefixes[file].len() as u64 {
            return self.shared.read_passing(file, out, offset);
        }
        let prefix = self.shared.prefix(file, end)?;
        out.copy_from_slice(&prefix[start as usize..end as usize]);
        Ok(())
    }

    /// Wait until all files whose beginning was read have passed.
    ///
    /// # Errors
    /// [`StreamError::BadHash`] inside an [`io::Error`] where one is not what the Hub says, or why the pass ended early.
    pub fn finish(&self) -> io::Result<Vec<StreamFile>> {
        if !self.shared.lock().begun {
            self.begin();
        }
        let mut state = self.shared.lock();
        state.window.want_all();
        self.shared.changed.notify_all();
        while !state.window.is_over() && state.failed.is_none() {
            state = self.shared.wait(state);
        }
        match &state.failed {
            Some(error) => Err(again(error)),
            None => {
                let passed = self.shared.files.iter().zip(&state.prefixes).filter(|(_, prefix)| !prefix.is_empty());
                Ok(passed.map(|(file, _)| file.clone()).collect())
            }
        }
    }

    /// Bytes that had to be fetched a second time.
    pub fn fetched_again(&self) -> u64 {
        self.shared.lock().again
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // It ends with the block that it is reading; a panic there has nothing left to harm.
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        let missing = || io::Error::other(StreamError::NoFile { name: name.to_owned() });
        self.files.iter().position(|file| file.name == name).ok_or_else(missing)
    }

    /// At least the first `end` bytes of a file.
    fn prefix(&self, file: usize, end: u64) -> io::Result<Arc<Vec<u8>>> {
        let known = Arc::clone(&self.lock().prefixes[file]);
        let len = known.len() as u64;
        if len >= end {
            return Ok(known);
        }
        let range = len..end.max(PREFIX).min(self.files[file].bytes);
        let mut bytes = known.to_vec();
        self.read_into(file, range, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let bytes = Arc::new(bytes);
        self.lock().prefixes[file] = Arc::clone(&bytes);
        Ok(bytes)
    }

    /// Read bytes while the files pass.
    fn read_passing(&self, file: usize, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = 0;
        while at < out.len() {
            let position = offset + at as u64;
            let (block, within) = (position / BLOCK, (position % BLOCK) as usize);
            let bytes = self.block(file, block)?;
            let len = (bytes.len() - within).min(out.len() - at);
            out[at..at + len].copy_from_slice(&bytes[within..within + len]);
            at += len;
        }
        Ok(())
    }

    /// One block, once it has passed.
    fn block(&self, file: usize, block: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut state = self.lock();
        let number = state.window.number(file, block);
        if state.window.want(number) {
            self.changed.notify_all();
        }
        loop {
            if let Some(bytes) = state.window.get(number) {
                return Ok(bytes);
            }
            if let Some(digest) = state.window.digest(number) {
                drop(state);
                return self.block_again(file, block, number, digest);
            }
            if let Some(error) = &state.failed {
                return Err(again(error));
            }
            state = self.wait(state);
        }
    }

    fn block_again(&self, file: usize, block: u64, number: usize, digest: [u8; 32]) -> io::Result<Arc<Vec<u8>>> {
        let StreamFile { name, bytes: len, .. } = &self.files[file];
        let range = block * BLOCK..((block + 1) * BLOCK).min(*len);
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        self.read_into(file, range.clone(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != digest {
            return Err(io::Error::other(StreamError::Changed { name: name.clone(), offset: range.start }));
        }
        let bytes = Arc::new(bytes);
        let mut state = self.lock();
        state.again += bytes.len() as u64;
        state.window.put_again(number, Arc::clone(&bytes));
        Ok(bytes)
    }

    /// The thread that lets the files pass.
    fn pass(&self) {
        let opened: Vec<_> = self.lock().prefixes.iter().map(|prefix| !prefix.is_empty()).collect();
        let passing = opened.iter().enumerate().filter(|(_, opened)| **opened).map(|(file, _)| file);
        for file in passing {
            if let Err(error) = self.pass_file(file) {
                self.lock().failed = Some(Arc::new(error));
                self.changed.notify_all();
                return;
            }
        }
        self.lock().window.end();
        self.changed.notify_all();
    }

    fn pass_file(&self, file: usize) -> io::Result<()> {
        let StreamFile { name, bytes: len, sha256 } = &self.files[file];
        let prefix = Arc::clone(&self.lock().prefixes[file]);
        let mut hasher = Sha256::new();
        let mut block = Vec::with_capacity((*len).min(BLOCK) as usize);
        let mut passed = 0;
        self.read_into(file, 0..*len, &mut |mut piece| {
            while !piece.is_empty() {
                let (now, rest) = piece.split_at(piece.len().min(BLOCK as usize - block.len()));
                block.extend_from_slice(now);
                piece = rest;
                let end = passed + block.len() as u64;
                if block.len() as u64 == BLOCK || end == *len {
                    let known = prefix.get(passed as usize..).unwrap_or_default();
                    let both = known.len().min(block.len());
                    if known[..both] != block[..both] {
                        return Err(io::Error::other(StreamError::Changed { name: name.clone(), offset: passed }));
                    }
                    hasher.update(&block);
                    let number = passed / BLOCK;
                    let full = std::mem::replace(&mut block, Vec::with_capacity((*len - end).min(BLOCK) as usize));
                    self.put(file, number, full)?;
                    passed = end;
                }
            }
            Ok(())
        })?;
        let found = hex(&hasher.finalize());
        if found == *sha256 {
            return Ok(());
        }
        Err(io::Error::other(StreamError::BadHash { name: name.clone(), expected: sha256.clone(), found }))
    }

    /// Put a block into the window, once readers have come near enough.
    fn put(&self, file: usize, block: u64, bytes: Vec<u8>) -> io::Result<()> {
        let digest = Sha256::digest(&bytes).into();
        let mut state = self.lock();
        let number = state.window.number(file, block);
        while !state.stopped && number > state.window.wanted() + AHEAD {
            state = self.wait(state);
        }
        if state.stopped {
            return Err(io::Error::other(StreamError::Stopped));
        }
        state.window.put(number, Arc::new(bytes), digest);
        self.changed.notify_all();
        Ok(())
    }

    /// Give a range of a file to `take`, piece by piece; a transfer that ends early is taken up where it ended.
    fn read_into(&self, file: usize, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let StreamFile { name, bytes, .. } = &self.files[file];
        let mut at = range.start;
        let mut attempts = 0;
        let mut buffer = vec![0; 128 << 10];
        while at < range.end {
            let mut body = self.fetch.open(name, at..range.end)?;
            let cut = loop {
                let wanted = (range.end - at).min(buffer.len() as u64) as usize;
                match body.read(&mut buffer[..wanted]) {
                    Ok(0) if wanted == 0 => return Ok(()),
                    Ok(0) => break io::ErrorKind::UnexpectedEof.into(),
                    Ok(n) => {
                        take(&buffer[..n])?;
                        at += n as u64;
                        attempts = 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break error,
                }
                if self.lock().stopped {
                    return Err(io::Error::other(StreamError::Stopped));
                }
            };
            attempts += 1;
            if attempts == ATTEMPTS {
                let (name, offset, bytes) = (name.clone(), at, *bytes);
                return Err(io::Error::other(StreamError::Cut { name, offset, bytes, attempts, source: cut }));
            }
            std::thread::sleep(self.fetch.pause(attempts));
        }
        Ok(())
    }
}

/// An error that several readers are told.
fn again(error: &Arc<io::Error>) -> io::Error {
    io::Error::new(error.kind(), Arc::clone(error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
