//! Opening a file of a model: regular files only, inside the model only; reading at positions.

use crate::CheckpointError;
use crate::error::NotAFile;
use std::fs::{File, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder that links of the model directory `dir` may not leave: the directory itself, or the repository's folder where the
/// directory is a snapshot in a Hub cache, or lies in one.
pub(crate) fn containment_root(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.canonicalize()?;
    Ok(dir.ancestors().find_map(hub_repo).map(Path::to_owned).unwrap_or(dir))
}

/// The repository's folder (`models--org--name`) of a snapshot in a Hub cache (`models--org--name/snapshots/<revision>`).
pub(crate) fn hub_repo(dir: &Path) -> Option<&Path> {
    let snapshots = dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    snapshots.parent().filter(|repo| repo.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--")))
}

/// Open a regular file for reading; `root` is what a link may not leave, where there is one. `None` where it does not exist.
pub(crate) fn open(path: &Path, root: Option<&Path>) -> Result<Option<(File, Metadata)>, CheckpointError> {
    let io_error = |source| CheckpointError::Io { path: path.into(), source };
    // Looked at before it is opened: opening a FIFO waits for a writer, and opening some devices has effects.
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        // A dangling link is there, and broken: that is an error, not an absent file.
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => return Ok(None),
        Err(e) => return Err(io_error(e)),
    };
    if let Some(found) = not_a_file(metadata.file_type()) {
        return Err(CheckpointError::NotRegular { path: path.into(), found });
    }
    if let Some(root) = root {
        let target = path.canonicalize().map_err(io_error)?;
        if !target.starts_with(root) {
            return Err(CheckpointError::Escapes { path: path.into(), target, root: root.into() });
        }
    }
    let file = File::open(path).map_err(io_error)?;
    let metadata = file.metadata().map_err(io_error)?;
    match not_a_file(metadata.file_type()) {
        Some(found) => Err(CheckpointError::NotRegular { path: path.into(), found }),
        None => Ok(Some((file, metadata))),
    }
}

fn not_a_file(file_type: FileType) -> Option<NotAFile> {
    if file_type.is_file() {
        return None;
    }
    if file_type.is_dir() {
        return Some(NotAFile::Directory);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return Some(NotAFile::Fifo);
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return Some(NotAFile::Device);
        }
        if file_type.is_socket() {
            return Some(NotAFile::Socket);
        }
    }
    Some(NotAFile::Other)
}

/// What tells whether a file is still the one that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(crate) len: u64,
    modified: Option<SystemTime>,
    /// Device and inode, where the system has them.
    node: Option<(u64, u64)>,
}

impl Identity {
    /// By what the system says of an open file or a path.
    pub fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let node = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let node = None;
        Identity { len: metadata.len(), modified: metadata.modified().ok(), node }
    }
}

/// Fill `out` from byte `offset` on; the handle's own position is not used, so any number of threads may read at once.
pub(crate) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
    }
    #[cfg(windows)]
    {
        let (mut out, mut offset) = (out, offset);
        while !out.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    out = &mut out[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A plain file name: no folder, no drive, nothing that a path would interpret.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= 255
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':'))
}
