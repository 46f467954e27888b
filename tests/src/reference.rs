//! Reference data that `scripts/test` puts into `target/reference`.

use crate::root;
use std::path::PathBuf;

/// Why a test that needs reference data cannot run.
pub const REASON: &str = "run scripts/test";

/// SmolLM2-135M-Instruct as a Hugging Face checkpoint, where it was fetched.
pub fn smollm2() -> Option<PathBuf> {
    existing("SmolLM2-135M-Instruct", "model.safetensors")
}

/// A Python whose environment holds a real llama.cpp (`fixtures/engine/fetch.py`), where it was fetched.
pub fn engine_python() -> Option<PathBuf> {
    python_with("xllamacpp")
}

fn python_with(package: &str) -> Option<PathBuf> {
    let python = existing("python", "bin/python")?.join("bin/python");
    let library = existing("python", "lib")?.join("lib");
    let versions = std::fs::read_dir(library).ok()?.filter_map(Result::ok);
    versions.map(|version| version.path().join("site-packages").join(package)).any(|path| path.is_dir()).then_some(python)
}

/// A Python whose environment holds Hugging Face's own client (`fixtures/hub/fetch.py`), where it was fetched.
pub fn hub_python() -> Option<PathBuf> {
    python_with("huggingface_hub")
}

/// Hugging Face's simulator of Xet's storage (`fixtures/hub/fetch.py`), where it was built.
pub fn cas_server() -> Option<PathBuf> {
    Some(existing("cas", "bin/local_cas_server")?.join("bin/local_cas_server"))
}

/// Whether missing reference data is a failure: on CI nothing may be left out.
pub fn required() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

fn existing(folder: &str, proof: &str) -> Option<PathBuf> {
    let folder = root().join("target/reference").join(folder);
    folder.join(proof).exists().then_some(folder)
}
