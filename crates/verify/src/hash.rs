//! SHA-256 of files.

use crate::report::HashedFile;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Size and hash of a file; `cancel` ends it with [`io::ErrorKind::Interrupted`].
pub(crate) fn file(path: &Path, cancel: &AtomicBool, progress: &dyn Fn(u64)) -> io::Result<HashedFile> {
    let mut file = File::open(path)?;
    let (mut sha256, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                sha256.update(&buffer[..len]);
                bytes += len as u64;
                progress(len as u64);
            }
            // A signal that is none of ours: `cancel` would be set.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(HashedFile { name, bytes, sha256: hex(&sha256.finalize()) })
}

/// Hash of bytes in memory.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The commit of a snapshot in a Hub cache (`models--org--name/snapshots/COMMIT`).
pub(crate) fn revision(dir: &Path) -> Option<String> {
    let dir = std::path::absolute(dir).ok()?;
    let snapshots = dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    repository.starts_with("models--").then(|| dir.file_name()?.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_hashed_and_can_be_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let hashed = file(&path, &AtomicBool::new(false), &|_| ()).unwrap();
        assert_eq!(hashed.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((hashed.bytes, hashed.sha256 == bytes(b"abc")), (3, true));
        let stopped = file(&path, &AtomicBool::new(true), &|_| ()).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn snapshots_have_a_revision() {
        let of = |path: &str| revision(Path::new(path));
        assert_eq!(of("/c/models--a--b/snapshots/12ab").as_deref(), Some("12ab"));
        assert_eq!((of("/c/snapshots/12ab"), of("/c/models--a--b/x/12ab")), (None, None));
    }
}
