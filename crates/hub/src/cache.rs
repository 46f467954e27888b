//! The Hub cache on disk, shared with Python's huggingface_hub and with llama.cpp.
//!
//! `models--org--name/` holds `blobs/HASH` (contents), `refs/REVISION` (a commit's name) and `snapshots/COMMIT/FILE`, links to blobs;
//! `.locks/models--org--name/HASH.lock` is held by whoever writes a blob. Every name in a path made here has been checked.

use crate::error::HubError;
use crate::names::{BlobName, FileName, RepoId, Revision, is_hex};
use crate::settings::Cancel;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lock that another process holds is tried.
const LOOK: Duration = Duration::from_millis(50);

/// The folder of one repository in a cache.
#[derive(Debug, Clone)]
pub struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Held {
    _file: Option<File>,
}

impl RepoCache {
    /// The folder of `repo` in the cache `cache`; nothing is created yet.
    pub fn new(cache: &Path, repo: &RepoId) -> RepoCache {
        // No part of an id holds `--`: this cannot be another repository's folder.
        let folder = format!("models--{}--{}", repo.owner(), repo.name());
        RepoCache { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// `models--org--name`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the content of that hash lies.
    pub fn blob(&self, blob: &BlobName) -> PathBuf {
        self.root.join("blobs").join(blob.as_str())
    }

    /// Where that content lies as long as it is not complete.
    pub fn incomplete(&self, blob: &BlobName) -> PathBuf {
        self.root.join("blobs").join(format!("{blob}.incomplete"))
    }

    /// The files of a commit, which is 40 hex digits.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit that a revision stood for when it was last asked for.
    pub fn commit_of(&self, revision: &Revision) -> Option<String> {
        if revision.is_commit() {
            return Some(revision.as_str().to_owned());
        }
        let text = std::fs::read_to_string(self.reference(revision)).ok()?;
        let commit = text.trim();
        (commit.len() == 40 && is_hex(commit)).then(|| commit.to_owned())
    }

    /// Remember what a revision stands for.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn set_commit(&self, revision: &Revision, commit: &str) -> Result<(), HubError> {
        if revision.is_commit() || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        make_parent(&path)?;
        replace(&path, |temporary| std::fs::write(temporary, commit))
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.root.join("refs").join(revision.as_str().split('/').collect::<PathBuf>())
    }

    /// Make `snapshots/COMMIT/NAME` lead to a blob.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn link(&self, commit: &str, name: &FileName, blob: &BlobName) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(name.path());
        make_parent(&path)?;
        let target = self.blob(blob);
        #[cfg(unix)]
        {
            let up = "../".repeat(name.as_str().split('/').count() + 1);
            let relative = PathBuf::from(format!("{up}blobs/{blob}"));
            if std::fs::read_link(&path).is_ok_and(|old| old == relative) {
                return Ok(());
            }
            let _ = target;
            replace(&path, |temporary| std::os::unix::fs::symlink(&relative, temporary))
        }
        #[cfg(not(unix))]
        {
            let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
            if size(&path).is_some() && size(&path) == size(&target) {
                return Ok(());
            }
            // Links want privileges there that users rarely have.
            replace(&path, |temporary| {
                std::fs::hard_link(&target, temporary).or_else(|_| std::fs::copy(&target, temporary).map(drop))
            })
        }
    }

    /// Wait until nobody else writes the blob. `waiting` is called once if somebody does.
    ///
    /// # Errors
    /// [`HubError::Interrupted`], [`HubError::Io`].
    pub fn lock(&self, blob: &BlobName, cancel: &Cancel, waiting: &dyn Fn()) -> Result<Held, HubError> {
        let path = self.locks.join(format!("{blob}.lock"));
        make_parent(&path)?;
        let mut told = false;
        loop {
            if cancel.asked() {
                return Err(HubError::Interrupted);
            }
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(HubError::io(&path))?;
            match file.try_lock() {
                // Python's filelock may remove the file that it held: a lock on what nobody else finds is none.
                Ok(()) if is_at(&file, &path) => return Ok(Held { _file: Some(file) }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                // A file system without locks: two writers still append to a file whose hash is checked.
                Err(TryLockError::Error(e)) if matches!(e.kind(), io::ErrorKind::Unsupported) => return Ok(Held { _file: None }),
                Err(TryLockError::Error(e)) => return Err(HubError::Io { path, source: e }),
            }
            if !told {
                told = true;
                waiting();
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Create `blobs`.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn create(&self) -> Result<(), HubError> {
        let blobs = self.root.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(HubError::io(blobs))
    }

    /// Give a finished blob its name, so that it stays after a crash of the machine.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn publish(&self, blob: &BlobName) -> Result<(), HubError> {
        let (from, to) = (self.incomplete(blob), self.blob(blob));
        std::fs::rename(&from, &to).map_err(HubError::io(&to))?;
        sync_directory(&self.root.join("blobs"))
    }
}

/// Make something under a temporary name beside `path`, then give it its name.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // Left by a process of the same number that was killed.
    let _ = std::fs::remove_file(&temporary);
    let made = make(&temporary).and_then(|()| std::fs::rename(&temporary, path));
    made.map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        HubError::Io { path: path.to_owned(), source }
    })
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(HubError::io(parent))
}

/// Whether an open file is the one that a path names.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

fn sync_directory(directory: &Path) -> Result<(), HubError> {
    #[cfg(unix)]
    {
        File::open(directory).and_then(|file| file.sync_all()).map_err(HubError::io(directory))
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        Ok(())
    }
}

/// Bytes that may still be written below a folder; `None` where the system does not say.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, RepoCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), &"org/name".parse().unwrap());
        (folder, cache)
    }

    #[test]
    fn the_layout_is_that_of_huggingface_hub() {
        let (folder, cache) = cache();
        cache.create().unwrap();
        let blob = BlobName::from_etag(&"a".repeat(40));
        std::fs::write(cache.incomplete(&blob), "{}").unwrap();
        cache.publish(&blob).unwrap();
        cache.link(COMMIT, &"config.json".parse().unwrap(), &blob).unwrap();
        cache.link(COMMIT, &"sub/x.json".parse().unwrap(), &blob).unwrap();
        cache.set_commit(&"refs/pr/1".parse().unwrap(), COMMIT).unwrap();
        let root = folder.path().join("models--org--name");
        assert_eq!(std::fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(), COMMIT);
        for (name, target) in [("config.json", "../../blobs/"), ("sub/x.json", "../../../blobs/")] {
            let link = root.join("snapshots").join(COMMIT).join(name);
            assert_eq!(std::fs::read_to_string(&link).unwrap(), "{}");
            #[cfg(unix)]
            assert_eq!(std::fs::read_link(&link).unwrap(), PathBuf::from(format!("{target}{blob}")));
        }
        assert_eq!(cache.commit_of(&"refs/pr/1".parse().unwrap()).as_deref(), Some(COMMIT));
        assert_eq!(cache.commit_of(&Revision::main()), None);
    }

    #[test]
    fn links_follow_a_changed_file() {
        let (_folder, cache) = cache();
        cache.create().unwrap();
        let name: FileName = "config.json".parse().unwrap();
        for (etag, text) in [("a".repeat(40), "old"), ("b".repeat(40), "new")] {
            let blob = BlobName::from_etag(&etag);
            std::fs::write(cache.blob(&blob), text).unwrap();
            cache.link(COMMIT, &name, &blob).unwrap();
            cache.link(COMMIT, &name, &blob).unwrap();
            assert_eq!(std::fs::read_to_string(cache.snapshot(COMMIT).join("config.json")).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(cache.snapshot(COMMIT)).unwrap().count(), 1, "no temporary name is left");
    }

    #[test]
    fn references_that_are_no_commits_are_not_followed() {
        let (_folder, cache) = cache();
        std::fs::create_dir_all(cache.root().join("refs")).unwrap();
        std::fs::write(cache.root().join("refs/main"), "../../../../etc").unwrap();
        assert_eq!(cache.commit_of(&Revision::main()), None);
    }

    #[test]
    fn one_writer_at_a_time() {
        let (_folder, cache) = cache();
        let blob = BlobName::from_etag(&"a".repeat(40));
        let held = cache.lock(&blob, &Cancel::never(), &|| panic!("nobody else is there")).unwrap();
        let asked = std::sync::atomic::AtomicU32::new(0);
        let stop = Cancel::new({
            let started = std::time::Instant::now();
            move || started.elapsed() > Duration::from_millis(200)
        });
        let waiting = || _ = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(cache.lock(&blob, &stop, &waiting), Err(HubError::Interrupted)));
        assert_eq!(asked.into_inner(), 1);
        drop(held);
        cache.lock(&blob, &Cancel::never(), &|| panic!("it was released")).unwrap();
    }
}
