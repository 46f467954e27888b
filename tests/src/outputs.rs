//! Looking at what a run left in a folder.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// sha256 in lower-case hexadecimal.
///
/// # Panics
/// Where the file cannot be read.
pub fn sha256(path: &Path) -> String {
    let mut file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hash = Sha256::new();
    let mut tile = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut tile).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if n == 0 {
            return hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        }
        hash.update(&tile[..n]);
    }
}

/// Names in a folder, sorted, hidden ones too.
///
/// # Panics
/// Where the folder cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = entries.map(|e| e.expect("a readable folder").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The GGUF files of a folder by name.
pub fn ggufs(folder: &Path) -> BTreeMap<String, PathBuf> {
    names(folder).into_iter().filter(|n| n.ends_with(".gguf")).map(|n| (n.clone(), folder.join(n))).collect()
}

/// sha256 of every GGUF file by name.
pub fn hashes(folder: &Path) -> BTreeMap<String, String> {
    ggufs(folder).into_iter().map(|(name, path)| (name, sha256(&path))).collect()
}

/// The one file of a file type, which its name ends with.
///
/// # Errors
/// Where there is none, or several.
pub fn of_type(folder: &Path, file_type: &str) -> Result<PathBuf, String> {
    let ending = format!("-{}.gguf", file_type.to_uppercase());
    let found: Vec<_> = ggufs(folder).into_iter().filter(|(name, _)| name.ends_with(&ending)).collect();
    match found.as_slice() {
        [(_, path)] => Ok(path.clone()),
        _ => Err(format!("{} names end with {ending}: {:?}", found.len(), names(folder))),
    }
}

/// Compare files with their sha256 by file type; every difference is listed.
///
/// # Errors
/// The differences.
pub fn check(folder: &Path, expected: &[(String, String)]) -> Result<(), String> {
    if expected.is_empty() {
        return Err("nothing is expected, so nothing is checked".to_owned());
    }
    let wrong = expected.iter().filter_map(|(file_type, want)| match of_type(folder, file_type) {
        Ok(path) => {
            let got = sha256(&path);
            (got != *want).then(|| format!("{file_type}: {} has sha256 {got}, expected {want}", path.display()))
        }
        Err(e) => Some(format!("{file_type}: {e}")),
    });
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} files equal\n{}", expected.len() - wrong.len(), expected.len(), wrong.join("\n")))
}
