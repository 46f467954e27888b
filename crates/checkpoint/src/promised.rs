//! What the Hub's cache says of a file by its name.

use std::path::{Path, PathBuf};

/// A file of the cache that is not what it was when it was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} was changed after its download: its sha256 is {found}, the Hub's is {expected}; delete it and run again",
    path.display()
)]
pub struct Damaged {
    /// Where it lies.
    pub path: PathBuf,
    /// What the Hub says.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Whether a file with this sha256 is what the cache promises; one that lies elsewhere always is.
///
/// # Errors
/// [`Damaged`].
pub fn keeps_promise(path: &Path, sha256: &str) -> Result<(), Damaged> {
    match promised_sha256(path).filter(|expected| expected != sha256) {
        None => Ok(()),
        Some(expected) => {
            let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            Err(Damaged { path: real, expected, found: sha256.to_owned() })
        }
    }
}

/// The sha256 that a file of a Hugging Face cache must have: the large ones lie in `blobs/SHA256`, and snapshots hold links to them. None
/// for a file that lies elsewhere, or a small one (called by git's hash).
///
/// huggingface_hub, `file_download.py`: the name of a blob is its `ETag`.
pub fn promised_sha256(path: &Path) -> Option<String> {
    let real = std::fs::canonicalize(path).ok()?;
    let in_blobs = real.parent()?.file_name()? == "blobs";
    let name = real.file_name()?.to_str()?;
    let digits = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (in_blobs && digits).then(|| name.to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn names_of_blobs_are_promises() {
        let dir = tempfile::tempdir().unwrap();
        let (sha256, blobs) = ("0a".repeat(32), dir.path().join("blobs"));
        std::fs::create_dir(&blobs).unwrap();
        for name in [sha256.as_str(), "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"] {
            std::fs::write(blobs.join(name), "").unwrap();
        }
        let link = dir.path().join("model.safetensors");
        std::os::unix::fs::symlink(blobs.join(&sha256), &link).unwrap();
        assert_eq!(promised_sha256(&link), Some(sha256.clone()));
        assert_eq!(promised_sha256(&blobs.join("0a".repeat(20))), None);
        std::fs::write(dir.path().join(&sha256), "").unwrap();
        assert_eq!(promised_sha256(&dir.path().join(&sha256)), None, "it lies elsewhere");
    }
}
