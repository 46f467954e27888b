//! The directory that is written: made where it is missing, refused where it holds parts of another model.

use super::ExportError;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Files that loaders look for by name, beside the safetensors.
const READ_BY_NAME: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Directories that were made for a run and go again unless it succeeds.
#[derive(Debug)]
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    /// They are to stay.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // Best effort: another program may have put something there meanwhile.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Make `out` with what leads to it, and look whether anything in it would be read together with `names`.
pub(crate) fn prepare(out: &Path, names: &BTreeSet<&str>) -> Result<Made, ExportError> {
    let mut missing: Vec<PathBuf> =
        out.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).map(Path::to_owned).collect();
    missing.reverse();
    let mut made = Made(Vec::new());
    for path in missing {
        match std::fs::create_dir(&path) {
            Ok(()) => made.0.push(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ExportError::CreateDirectory { path, source }),
        }
    }
    if !out.is_dir() {
        return Err(ExportError::NotADirectory { path: out.to_owned() });
    }
    let fault = |source| ExportError::CreateDirectory { path: out.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(out).map_err(fault)? {
        found.push(entry.map_err(fault)?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    let foreign = |name: &&String| {
        let read = READ_BY_NAME.contains(&name.as_str()) || name.contains(".safetensors") || name.starts_with("pytorch_model");
        read && !name.starts_with('.') && !names.contains(name.as_str())
    };
    match found.iter().find(foreign) {
        Some(name) => Err(ExportError::InTheWay { path: out.join(name) }),
        None => Ok(made),
    }
}
