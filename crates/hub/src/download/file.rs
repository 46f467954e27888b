//! One file, from its first byte or from where an earlier attempt ended.

use super::{Job, is_there};
use crate::error::{At, HubError};
use crate::http::{Answer, Range, Request};
use crate::info::{Entry, Hash};
use crate::names::hex;
use reqwest::header::CONTENT_LENGTH;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

const PIECE: usize = 256 << 10;

impl Job<'_> {
    /// Bring one file into the cache.
    pub(super) fn one(&self, entry: &Entry) -> Result<(), HubError> {
        let blob = entry.blob();
        let waiting = || self.watch.waiting(entry.name.as_str());
        let _held = self.cache.lock(&blob, self.client.cancel(), &waiting)?;
        if is_there(self.cache, entry) {
            // Another process was faster.
            self.watch.advance(entry.size);
            return Ok(());
        }
        let path = self.cache.incomplete(&blob);
        let resumed = std::fs::metadata(&path).is_ok_and(|found| found.len() > 0);
        let mut shown = 0;
        match self.transfer(entry, &path, &mut shown) {
            // Perhaps the earlier part is to blame: of another process that was cut off while it wrote in another order.
            Err(HubError::BadHash { .. } | HubError::BadSize { .. }) if resumed => self.transfer(entry, &path, &mut shown)?,
            result => result?,
        }
        self.cache.publish(&blob)
    }

    /// Fill the incomplete file and check it. `shown` is how much of the file was told as done.
    fn transfer(&self, entry: &Entry, path: &Path, shown: &mut u64) -> Result<(), HubError> {
        let mut part = Part::open(entry, path)?;
        self.show(shown, part.at);
        let url = self.client.file_url(&self.listing.repo, &self.listing.commit, &entry.name)?;
        let mut faults = 0;
        while part.at < entry.size {
            let before = part.at;
            let fault = match self.client.range(Request::get(url.clone()), part.at, None)? {
                Range::Beyond if part.at > 0 => {
                    // What is here is longer than what is there: not the same file.
                    part.restart()?;
                    None
                }
                Range::Beyond => return Err(part.refuse(HubError::BadSize { file: part.label(), expected: entry.size, got: 0 })),
                Range::Part { total: Some(total), .. } if total != entry.size => {
                    return Err(part.refuse(HubError::BadSize { file: part.label(), expected: entry.size, got: total }));
                }
                Range::Part { answer, .. } => self.receive(&mut part, answer, shown)?,
                Range::Whole(answer) => {
                    let length = answer.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
                    if let Some(got) = length.filter(|length| *length != entry.size) {
                        return Err(part.refuse(HubError::BadSize { file: part.label(), expected: entry.size, got }));
                    }
                    if part.at > 0 {
                        part.restart()?;
                    }
                    self.receive(&mut part, answer, shown)?
                }
            };
            // A connection that is cut again and again is good enough as long as something arrives.
            faults = if part.at > before { 0 } else { faults + 1 };
            if faults >= self.client.settings().attempts {
                let at = At { request: format!("GET {}", part.label()), id: None };
                return Err(fault.unwrap_or(HubError::Protocol { at, what: "nothing arrives".to_owned() }));
            }
            if let (Some(fault), 1..) = (fault, faults) {
                self.client.wait(self.client.backoff(faults, &fault))?;
            }
        }
        part.finish()
    }

    /// Append a body to the file. The fault that ended it early, if one did that may pass.
    fn receive(&self, part: &mut Part<'_>, mut answer: Answer, shown: &mut u64) -> Result<Option<HubError>, HubError> {
        let mut piece = vec![0; PIECE];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(HubError::Interrupted);
            }
            let read = match answer.read_some(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(read) => read,
                Err(error) if error.is_transient() => return Ok(Some(error)),
                Err(error) => return Err(error),
            };
            part.append(&piece[..read])?;
            self.received.fetch_add(read as u64, Ordering::Relaxed);
            self.show(shown, part.at);
        }
    }

    /// Tell of bytes that were not told of yet.
    fn show(&self, shown: &mut u64, at: u64) {
        if at > *shown {
            self.watch.advance(at - *shown);
            *shown = at;
        }
    }
}

/// Whether bytes are those of a file.
pub(super) fn hashes_to(entry: &Entry, bytes: &[u8]) -> bool {
    let mut hash = Running::new(entry);
    hash.update(bytes);
    hash.digits() == *entry.hash.hex()
}

/// A file that is being written, and the hash of what is there.
struct Part<'a> {
    entry: &'a Entry,
    path: PathBuf,
    file: File,
    at: u64,
    hash: Running,
}

enum Running {
    Sha256(Sha256),
    Git(Sha1),
}

impl Running {
    fn new(entry: &Entry) -> Running {
        match &entry.hash {
            Hash::Sha256(_) => Running::Sha256(Sha256::new()),
            Hash::Git(_) => Running::Git(Sha1::new_with_prefix(format!("blob {}\0", entry.size))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Sha256(hash) => hash.update(bytes),
            Running::Git(hash) => hash.update(bytes),
        }
    }

    fn digits(self) -> String {
        match self {
            Running::Sha256(hash) => hex(&hash.finalize()),
            Running::Git(hash) => hex(&hash.finalize()),
        }
    }
}

impl<'a> Part<'a> {
    /// Open what an earlier attempt left, and hash it.
    fn open(entry: &'a Entry, path: &Path) -> Result<Part<'a>, HubError> {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(HubError::io(path))?;
        let mut part = Part { entry, path: path.to_owned(), file, at: 0, hash: Running::new(entry) };
        let mut piece = vec![0; PIECE];
        loop {
            let read = part.file.read(&mut piece).map_err(HubError::io(path))?;
            if read == 0 {
                return Ok(part);
            }
            part.at += read as u64;
            if part.at > entry.size {
                // Longer than the file: nothing of it can be trusted.
                part.restart()?;
                return Ok(part);
            }
            part.hash.update(&piece[..read]);
        }
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubError::io(&self.path))?;
        self.at = 0;
        self.hash = Running::new(self.entry);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let end = self.at + bytes.len() as u64;
        if end > self.entry.size {
            return Err(self.refuse(HubError::BadSize { file: self.label(), expected: self.entry.size, got: end }));
        }
        self.file.write_all(bytes).map_err(HubError::io(&self.path))?;
        self.hash.update(bytes);
        self.at = end;
        Ok(())
    }

    /// All bytes are there: are they the right ones, and are they on the disk?
    fn finish(mut self) -> Result<(), HubError> {
        let (kind, expected) = match &self.entry.hash {
            Hash::Sha256(hex) => ("sha256", hex),
            Hash::Git(hex) => ("git hash", hex),
        };
        let got = std::mem::replace(&mut self.hash, Running::new(self.entry)).digits();
        if got != *expected {
            let error = HubError::BadHash { file: self.label(), kind, expected: expected.clone(), got };
            return Err(self.refuse(error));
        }
        self.file.sync_all().map_err(HubError::io(&self.path))
    }

    /// What is here is not the file: it must not be taken for a beginning of it.
    fn refuse(&self, error: HubError) -> HubError {
        // Best effort: the error that led here is the one to report, and what stays is checked again.
        let _ = std::fs::remove_file(&self.path);
        error
    }

    fn label(&self) -> String {
        self.entry.name.to_string()
    }
}
