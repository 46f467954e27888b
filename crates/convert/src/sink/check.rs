//! What is looked at before a file is made.

use super::SinkError;
use super::os::free_bytes;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its final name.
    pub path: &'a Path,
    /// Its exact size.
    pub bytes: u64,
}

/// Whether files could be written here and now. `inputs` must not be overwritten.
///
/// # Errors
/// [`SinkError`] where one exists (without `force`), is an input, has no directory, or does not fit on the disk.
pub fn check(files: &[Wanted<'_>], force: bool, inputs: &[PathBuf]) -> Result<(), SinkError> {
    check_names(files, force, inputs)?;
    check_space(files)
}

pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn directories<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut directories: Vec<_> = paths.map(parent).collect();
    directories.sort();
    directories.dedup();
    directories
}

pub(super) fn check_names(files: &[Wanted<'_>], force: bool, inputs: &[PathBuf]) -> Result<(), SinkError> {
    let inputs: Vec<PathBuf> = inputs.iter().filter_map(|p| p.canonicalize().ok()).collect();
    for (index, file) in files.iter().enumerate() {
        let path = file.path.to_owned();
        if files[..index].iter().any(|other| other.path == path) {
            return Err(SinkError::Twice { path });
        }
        if !parent(&path).is_dir() {
            return Err(SinkError::NoDirectory { path: parent(&path) });
        }
        if path.canonicalize().is_ok_and(|resolved| inputs.contains(&resolved)) {
            return Err(SinkError::IsInput { path });
        }
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(SinkError::IsDirectory { path }),
            // Renaming a file over it would take, say, /dev/null away from everybody.
            Ok(found) if !found.is_file() && !found.is_symlink() => return Err(SinkError::NotAFile { path }),
            Ok(_) if !force => return Err(SinkError::Exists { path }),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SinkError::Io { path, doing: "looking at", source }),
        }
    }
    Ok(())
}

/// Compare what each directory needs with what its file system has free. Two directories on one file system are told apart only
/// by the reservation that follows.
pub(super) fn check_space(files: &[Wanted<'_>]) -> Result<(), SinkError> {
    for directory in directories(files.iter().map(|file| file.path)) {
        let needed = files.iter().filter(|file| parent(file.path) == directory).map(|file| file.bytes).sum();
        if let Some(available) = free_bytes(&directory)
            && available < needed
        {
            return Err(SinkError::NoSpace { directory, needed, available });
        }
    }
    Ok(())
}
