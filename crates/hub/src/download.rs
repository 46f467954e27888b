//! Files of a repository into the cache: in parallel, resumed where a connection or a process ended, and under their final names only
//! once their bytes hash to what the Hub says.
//!
//! hf-hub's own download is not used: it begins anew after a cut, compares no hash and takes names and `ETag`s as they come.

mod file;
#[cfg(test)]
mod tests;

use crate::cache::{RepoCache, free_bytes};
use crate::error::HubError;
use crate::http::Client;
use crate::info::{Entry, Listing};
use crate::names::{FileName, RepoId, Revision};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Files that are downloaded at once.
const FILES: usize = 4;
/// What a disk keeps free beyond the files themselves.
const RESERVE: u64 = 16 << 20;

/// Told how far a download is. All methods may be called from any thread.
pub trait Watch: Sync {
    /// It begins: so many files of so many bytes are not in the cache.
    fn begin(&self, files: usize, bytes: u64);
    /// So many bytes of them are there, from the network or from an earlier attempt.
    fn advance(&self, bytes: u64);
    /// Another process downloads this file; it is waited for.
    fn waiting(&self, file: &str);
}

/// Nobody is told.
impl Watch for () {
    fn begin(&self, _: usize, _: u64) {}
    fn advance(&self, _: u64) {}
    fn waiting(&self, _: &str) {}
}

/// Files of a commit in the cache.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// `models--org--name/snapshots/COMMIT`.
    pub directory: PathBuf,
    /// The commit, 40 hex digits.
    pub commit: String,
    /// Bytes that came over the network.
    pub received: u64,
}

impl Client {
    /// Bring files of a repository into the cache; those that are there already are not asked for again.
    ///
    /// # Errors
    /// [`HubError`]. What has arrived stays for the next run, under names that nobody takes for complete files.
    pub fn download(
        &self,
        listing: &Listing,
        files: &[&Entry],
        revision: &Revision,
        watch: &dyn Watch,
    ) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.settings().cache, &listing.repo);
        cache.create()?;
        let missing: Vec<&Entry> = files.iter().copied().filter(|entry| !is_there(&cache, entry)).collect();
        if !missing.is_empty() {
            room(&cache, &missing)?;
            watch.begin(missing.len(), missing.iter().map(|entry| entry.size).sum());
        }
        let job = Job { client: self, cache: &cache, listing, watch, stop: AtomicBool::new(false), received: AtomicU64::new(0) };
        job.all(&missing)?;
        for entry in files {
            cache.link(&listing.commit, &entry.name, &entry.blob())?;
        }
        // Last: a reference promises nothing that is not there.
        cache.set_commit(revision, &listing.commit)?;
        let received = job.received.into_inner();
        Ok(Snapshot { directory: cache.snapshot(&listing.commit), commit: listing.commit.clone(), received })
    }

    /// Whether the cache has all of these files.
    pub fn has_all<'a>(&self, listing: &Listing, mut files: impl Iterator<Item = &'a Entry>) -> bool {
        let cache = RepoCache::new(&self.settings().cache, &listing.repo);
        files.all(|entry| is_there(&cache, entry))
    }

    /// Whether the cache has at least a piece of one of these files.
    pub fn has_begun<'a>(&self, listing: &Listing, mut files: impl Iterator<Item = &'a Entry>) -> bool {
        let cache = RepoCache::new(&self.settings().cache, &listing.repo);
        files.any(|entry| cache.blob(&entry.blob()).is_file() || begun(&cache, entry) > 0)
    }

    /// A model as the cache has it, without asking anybody.
    ///
    /// # Errors
    /// [`HubError::Offline`] where it, or a part of it, is not there.
    pub fn cached(&self, repo: &RepoId, revision: &Revision) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.settings().cache, repo);
        let missing = |what: String| HubError::Offline { what, cache: self.settings().cache.clone() };
        let commit = cache.commit_of(revision).ok_or_else(|| missing(format!("{repo}@{revision}")))?;
        let directory = cache.snapshot(&commit);
        let mut names = vec!["config.json".to_owned()];
        names.extend(shards(&directory));
        if let Some(name) = names.iter().find(|name| !directory.join(name).is_file()) {
            return Err(missing(format!("{name} of {repo}@{revision}")));
        }
        Ok(Snapshot { directory, commit, received: 0 })
    }
}

/// The files that hold a model's weights: what the index names, else the one file that needs none.
fn shards(directory: &Path) -> Vec<String> {
    let index = std::fs::read_to_string(directory.join("model.safetensors.index.json")).unwrap_or_default();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap_or_default();
    let mut names: Vec<String> = match index["weight_map"].as_object() {
        Some(map) => map.values().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        None => {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.filter(|name| name.starts_with("model") && name.ends_with(".safetensors")).collect()
        }
    };
    if names.is_empty() {
        names.push("model.safetensors".to_owned());
    }
    names.sort();
    names.dedup();
    // An index may name anything; what is no plain name is refused where the model is opened.
    names.retain(|name| name.parse::<FileName>().is_ok());
    names
}

/// Files up to here are hashed whenever they are looked for.
const HASHED: u64 = 64 << 20;

/// Whether the cache has a file. Its hash was checked when it came; what a disk or a user did to it since, its size tells, and of small ones
/// its bytes. Those of weights are hashed where they are read: by conversion and verification.
fn is_there(cache: &RepoCache, entry: &Entry) -> bool {
    let path = cache.blob(&entry.blob());
    let whole = std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == entry.size);
    whole && (entry.size > HASHED || std::fs::read(&path).is_ok_and(|bytes| file::hashes_to(entry, &bytes)))
}

/// How much of a file has come so far.
fn begun(cache: &RepoCache, entry: &Entry) -> u64 {
    std::fs::metadata(cache.incomplete(&entry.blob())).map_or(0, |found| found.len().min(entry.size))
}

/// Whether the disk has room for what is missing.
fn room(cache: &RepoCache, missing: &[&Entry]) -> Result<(), HubError> {
    let need = missing.iter().map(|entry| entry.size - begun(cache, entry)).fold(RESERVE, u64::saturating_add);
    match free_bytes(cache.root()) {
        Some(have) if have < need => Err(HubError::NoSpace { need, have, path: cache.root().to_owned() }),
        _ => Ok(()),
    }
}

/// The download of some files.
struct Job<'a> {
    client: &'a Client,
    cache: &'a RepoCache,
    listing: &'a Listing,
    watch: &'a dyn Watch,
    /// One file failed: the others need not go on.
    stop: AtomicBool,
    received: AtomicU64,
}

impl Job<'_> {
    fn all(&self, files: &[&Entry]) -> Result<(), HubError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<HubError>> = Mutex::new(None);
        let work = || {
            while let Some(entry) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.one(entry) {
                    // The first is the cause; what follows was told to stop.
                    if !self.stop.swap(true, Ordering::Relaxed) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| (0..FILES.min(files.len())).for_each(|_| _ = scope.spawn(work)));
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
