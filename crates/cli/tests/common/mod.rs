//! Running the binary and looking at everything it says.
#![allow(dead_code)] // each test crate uses a part

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run left behind.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these arguments, run in `folder`.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ggufsmith"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    // No test here asks the Hub, whatever it names.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "empty-cache").env_remove("HF_HUB_CACHE");
    command
}

/// Run to the end.
pub fn run(folder: &Path, arguments: &[&str]) -> Run {
    let Output { status, stdout, stderr } = command(folder, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Run {
    /// Exit code 0 and nothing on standard error.
    #[track_caller]
    pub fn quiet(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.stdout
    }

    /// Exit code 2, nothing on standard output, and this on standard error.
    #[track_caller]
    pub fn refused(self, message: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: ") && self.stderr.contains(message), "{message:?} is not in {:?}", self.stderr);
    }

    /// Exit code 0 and one JSON value on standard output.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A file or folder under fixtures/.
pub fn fixture(path: &str) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    let full = root.join(path).canonicalize().unwrap();
    full.to_str().unwrap().to_owned()
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
