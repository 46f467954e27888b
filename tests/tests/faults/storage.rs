//! Disks that are full or refuse.

use crate::{plain, refused};
use ggufsmith_tests::binary::{binary, finish, ggufsmith};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    vec![
        #[cfg(target_os = "linux")]
        Trial::ignorable_test("storage::full_disk_is_seen_before_the_work", || full_disk().map_err(Failed::from)),
        #[cfg(unix)]
        plain("storage::a_limit_on_file_sizes_leaves_nothing", file_size_limit),
    ]
}

/// A file system of 64 KiB, unmounted at the end.
struct SmallDisk {
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let parent = scratch();
        let folder = parent.path().to_owned();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&folder).output();
        match mount {
            Ok(output) if output.status.success() => Ok(SmallDisk { folder, _parent: parent }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort: what stays mounted is 64 KiB in the build directory.
        let _ = Command::new("umount").arg(&self.folder).status();
    }
}

#[cfg(target_os = "linux")]
fn full_disk() -> Result<Completion, String> {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(e) => return Ok(Completion::ignored_with(format!("needs the right to mount a tmpfs: {e}"))),
    };
    let (source, target) = (fixture("bard").to_string_lossy().into_owned(), disk.folder.to_string_lossy().into_owned());
    let run = ggufsmith(&["convert", &source, "--out", &target, "--type", "Q8_0,Q4_0"]);
    refused(&run, &[&target, "65536", "free"])?;
    match outputs::names(&disk.folder) {
        names if names.is_empty() => Ok(Completion::Completed),
        names => Err(format!("{names:?} was left behind")),
    }
}

/// Writing fails in the middle, whatever was checked before.
#[cfg(unix)]
fn file_size_limit() -> Result<(), String> {
    let out = scratch();
    let mut shell = Command::new("bash");
    // In units of 1 KiB; without the trap the system would end the process with a signal.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "bash"]).arg(binary());
    shell.arg("convert").arg(fixture("bard")).arg("--out").arg(out.path()).args(["--type", "Q8_0,Q4_0"]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    refused(&finish(shell), &["gguf"])?;
    match outputs::names(out.path()) {
        names if names.is_empty() => Ok(()),
        names => Err(format!("{names:?} was left behind")),
    }
}
