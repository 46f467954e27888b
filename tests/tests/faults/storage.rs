//! Disks that are full or refuse.

use crate::{plain, refused};
use ggufsmith_tests::binary::{binary, finish, ggufsmith};
use ggufsmith_tests::disk::SmallDisk;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::{Completion, Failed, Trial};
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    vec![
        #[cfg(target_os = "linux")]
        Trial::ignorable_test("storage::full_disk_is_seen_before_the_work", || full_disk().map_err(Failed::from)),
        #[cfg(unix)]
        plain("storage::a_limit_on_file_sizes_leaves_nothing", file_size_limit),
    ]
}

#[cfg(target_os = "linux")]
fn full_disk() -> Result<Completion, String> {
    let disk = match SmallDisk::mount("64k") {
        Ok(disk) => disk,
        Err(e) => return Ok(Completion::ignored_with(format!("needs the right to mount a tmpfs: {e}"))),
    };
    let (source, target) = (fixture("bard").to_string_lossy().into_owned(), disk.folder().to_string_lossy().into_owned());
    let run = ggufsmith(&["convert", &source, "--out", &target, "--type", "Q8_0,Q4_0"]);
    refused(&run, &[&target, "65536", "free"])?;
    match outputs::names(disk.folder()) {
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
