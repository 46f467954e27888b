//! `FILE.gguf.manifest.json`: what a file was made from and how, so that it can be made again.
//!
//! It lies beside the file, so that the file itself stays byte-identical to the reference tools' output. No clock, no host: the
//! same conversion gives the same manifest.

use crate::ConvertError;
use crate::intervals::Intervals;
use ggufsmith_checkpoint::Rounding;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// The schema's version; raised when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// A file and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HashedFile {
    /// Name relative to the model's directory or the manifest.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// The content of a manifest.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `ggufsmith` and its version.
    pub tool: String,
    /// The llama.cpp whose files this one equals.
    pub reference: &'static str,
    /// The arguments, without the program's name.
    pub command: Vec<String>,
    /// Name of the source directory (it enters the bytes) or file.
    pub source: String,
    /// The repository of the Hub that the source is a snapshot of, `org/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Every file of the source that was read.
    pub inputs: Vec<HashedFile>,
    /// `--type`.
    pub file_type: &'static str,
    /// The values that the tensors of the file's type hold, where a scheme that GGUF does not have decided them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
    /// `--via`: the 16- or 32-bit file that the reference tools would have made in between, where there is one.
    pub via: Option<&'static str>,
    /// `--imatrix`, by its name as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imatrix: Option<HashedFile>,
    /// How the pre-tokenizer's name was found; none where the source is a GGUF file, which says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_tokenizer: Option<String>,
    /// The file, or its shards.
    pub outputs: Vec<HashedFile>,
    /// Config keys that have no meaning to this family, and other notes.
    pub warnings: Vec<String>,
}

/// A scheme whose values a file carries in another type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Values {
    /// Its name.
    pub scheme: &'static str,
    /// Elements per scale.
    pub block_size: u64,
    /// Whether the scales are quantized, too.
    pub double_quant: bool,
    /// Modules of the source that stayed as they are, beside embeddings, norms and head.
    pub skip_modules: Vec<String>,
}

impl Values {
    pub(crate) fn of(rounding: &Rounding) -> Self {
        Values {
            scheme: rounding.scheme.name,
            block_size: rounding.block_len,
            double_quant: rounding.double,
            skip_modules: rounding.skip_modules.clone(),
        }
    }
}

/// Repository and commit of a snapshot in a Hub cache (`models--org--name/snapshots/COMMIT`).
pub(crate) fn origin(dir: &Path) -> Option<(String, String)> {
    let dir = std::path::absolute(dir).ok()?;
    let snapshots = dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    // No organization and no name holds `--`.
    Some((repository.replacen("--", "/", 1), dir.file_name()?.to_str()?.to_owned()))
}

impl Manifest {
    /// Write it beside `file`, atomically; an older one is replaced.
    pub(crate) fn write(&self, file: &Path) -> Result<(), ConvertError> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".manifest.json");
        let path = file.with_file_name(name);
        write_json(&path, self).map_err(|source| ConvertError::Manifest { path, source })
    }
}

/// Write JSON into a file, atomically; an older one is replaced.
pub(crate) fn write_json(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    let temp = crate::sink::temporary_name(path);
    let written =
        std::fs::write(&temp, &text).and_then(|()| File::open(&temp)?.sync_all()).and_then(|()| std::fs::rename(&temp, path));
    written.inspect_err(|_| {
        // Best effort: the error that led here is the one to report.
        let _ = std::fs::remove_file(&temp);
    })
}

/// Hashes source files while the pipeline reads them: each file is hashed as far as its beginning has been read, so that the bytes
/// are still in the page cache and a large model is fetched from the disk once.
pub(crate) struct InputHasher {
    files: Vec<PathBuf>,
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    read: Vec<Intervals>,
    aborted: bool,
}

impl InputHasher {
    /// `unread` are the ranges of each file that the pipeline will mark as read; the rest counts as read.
    pub fn new(files: Vec<(PathBuf, Vec<Range<u64>>)>) -> Self {
        let (files, mut pending): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        for ranges in &mut pending {
            ranges.sort_by_key(|range| range.start);
        }
        let read = pending.iter().map(|ranges| complement(ranges)).collect();
        InputHasher { files, state: Mutex::new(State { read, aborted: false }), grown: Condvar::new() }
    }

    /// A range of a file has been read.
    pub fn mark(&self, file: &Path, range: Range<u64>) {
        if let Some(index) = self.files.iter().position(|f| f == file) {
            self.lock().read[index].insert(range);
            self.grown.notify_one();
        }
    }

    /// Everything has been read, whether it was marked or not.
    pub fn complete(&self) {
        for read in &mut self.lock().read {
            *read = complement(&[]);
        }
        self.grown.notify_one();
    }

    /// Make [`InputHasher::run`] return early.
    pub fn abort(&self) {
        self.lock().aborted = true;
        self.grown.notify_one();
    }

    /// Hash all files, in order; `None` after [`InputHasher::abort`]. Runs on a thread of its own.
    pub fn run(&self) -> io::Result<Option<Vec<(u64, String)>>> {
        let mut hashes = Vec::with_capacity(self.files.len());
        let mut tile = vec![0; 1 << 20];
        for (index, path) in self.files.iter().enumerate() {
            let mut file = File::open(path)?;
            let mut hash = Sha256::new();
            let mut at = 0;
            loop {
                let Some(frontier) = self.wait_beyond(index, at) else { return Ok(None) };
                let wanted = (frontier - at).min(tile.len() as u64) as usize;
                let len = file.read(&mut tile[..wanted])?;
                if len == 0 {
                    break;
                }
                hash.update(&tile[..len]);
                at += len as u64;
            }
            hashes.push((at, hex(&hash.finalize())));
        }
        Ok(Some(hashes))
    }

    /// Wait until a file has been read beyond `at`.
    fn wait_beyond(&self, index: usize, at: u64) -> Option<u64> {
        let mut guard = self.lock();
        loop {
            let frontier = guard.read[index].prefix();
            if guard.aborted {
                return None;
            }
            if frontier > at {
                return Some(frontier);
            }
            guard = self.grown.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything outside the ranges, to the end of all numbers: the end of the file is found by reading.
fn complement(sorted: &[Range<u64>]) -> Intervals {
    let mut rest = Intervals::default();
    let mut at = 0;
    for range in sorted {
        if range.start > at {
            rest.insert(at..range.start);
        }
        at = at.max(range.end);
    }
    rest.insert(at..u64::MAX);
    rest
}

/// sha256 of bytes in memory.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_say_where_they_are_from() {
        let of = |path: &str| origin(Path::new(path));
        assert_eq!(of("/hub/models--org--a-name/snapshots/abc"), Some(("org/a-name".to_owned(), "abc".to_owned())));
        assert_eq!(of("/hub/models--gpt2/snapshots/abc"), Some(("gpt2".to_owned(), "abc".to_owned())));
        for path in ["/hub/model", "/hub/datasets--a--b/snapshots/abc", "/hub/models--a--b/blobs/abc", "/"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn files_are_hashed_as_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], [1; 3000]).unwrap();
        std::fs::write(&paths[1], []).unwrap();
        let hasher = InputHasher::new(vec![(paths[0].clone(), vec![2000..3000, 100..2000]), (paths[1].clone(), vec![])]);
        std::thread::scope(|scope| {
            let hashes = scope.spawn(|| hasher.run());
            hasher.mark(&paths[0], 2000..3000);
            hasher.mark(&paths[0], 100..1000);
            hasher.complete();
            let hashes = hashes.join().unwrap().unwrap().unwrap();
            assert_eq!(hashes, [(3000, sha256(&[1; 3000])), (0, sha256(&[]))]);
        });
    }

    #[test]
    fn aborting_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, [1; 10]).unwrap();
        let unread = std::iter::once(0..10).collect();
        let hasher = InputHasher::new(vec![(path, unread)]);
        std::thread::scope(|scope| {
            let hashes = scope.spawn(|| hasher.run());
            hasher.abort();
            assert!(hashes.join().unwrap().unwrap().is_none());
        });
    }
}
