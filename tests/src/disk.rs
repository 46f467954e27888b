//! Disks that are too small.

use crate::scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    /// Mount one of that size, as `mount` takes it.
    ///
    /// # Errors
    /// What `mount` says: it needs root.
    pub fn mount(size: &str) -> Result<Self, String> {
        let parent = scratch();
        let folder = parent.path().to_owned();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&folder).output();
        match mount {
            Ok(output) if output.status.success() => Ok(SmallDisk { folder, _parent: parent }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort: what stays mounted is small and in the build directory.
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}
