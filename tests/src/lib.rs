//! What the end-to-end tests share: the real binary, checkpoints to feed it, and where reference data lies.
//!
//! Everything here is independent of the product's crates on purpose: a fault there must not hide itself.
#![forbid(unsafe_code)]

pub mod binary;
pub mod bytes;
pub mod checkpoint;
pub mod disk;
pub mod gguf;
pub mod hub;
pub mod outputs;
pub mod random_model;
pub mod reference;

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

/// A path under `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    root().join("fixtures").join(path)
}

/// An empty folder for one test, in the build directory since some tests write gigabytes; removed at the end.
pub fn scratch() -> tempfile::TempDir {
    let parent = binary::target_dir().join("e2e");
    std::fs::create_dir_all(&parent).expect("the build directory is writable");
    tempfile::tempdir_in(parent).expect("the build directory is writable")
}

/// A JSON file.
///
/// # Panics
/// Where it cannot be read or is no JSON: it is a fixture, or an output that must be right.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
