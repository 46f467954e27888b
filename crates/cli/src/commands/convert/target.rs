//! `--out`.

use crate::failure::Failure;
use ggufsmith_convert::{Options, Target};
use std::path::{Path, PathBuf};

/// A directory that was named as one (`./gguf/`) is made, once nothing else stands in the way.
pub fn create_directory(options: &Options) -> Result<(), Failure> {
    let Target::Directory(directory) = &options.target else { return Ok(()) };
    if directory.as_os_str().is_empty() {
        return Ok(());
    }
    let created = std::fs::create_dir_all(directory);
    created.map_err(|e| Failure::new(format!("creating the directory {}: {e}", directory.display())))
}

/// Where `--out` points to.
pub fn target(out: Option<&Path>, types: usize) -> Result<Target, Failure> {
    let Some(out) = out else { return Ok(Target::Directory(PathBuf::new())) };
    let text = out.as_os_str().to_string_lossy();
    if text.is_empty() {
        return Err(Failure::new("--out is empty"));
    }
    if text == "-" || out == Path::new("/dev/stdout") {
        let message = "a GGUF file is written at many places at once and appears when it is complete: it cannot go into a pipe";
        return Err(Failure::new(message).hint("name a file or a directory with --out (./- is a file called -)"));
    }
    if out.is_dir() || text.ends_with(std::path::is_separator) {
        return Ok(Target::Directory(out.to_owned()));
    }
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    if types > 1 && !["{ftype}", "{FTYPE}", "{outtype}", "{OUTTYPE}"].iter().any(|place| name.contains(place)) {
        let stem = Path::new(&*name).file_stem().unwrap_or_default().to_string_lossy();
        let example = out.with_file_name(format!("{stem}-{{ftype}}.gguf"));
        let message = format!("--out {} names one file, {types} types are to be written", out.display());
        return Err(Failure::new(message).hint(format!("name a directory, or --out '{}'", example.display())));
    }
    Ok(Target::File(out.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_is_a_directory_where_it_looks_like_one() {
        let directory = |out: &str| matches!(target(Some(Path::new(out)), 2), Ok(Target::Directory(path)) if path == Path::new(out));
        assert!(directory("/") && directory(".") && directory("missing/"));
        assert!(matches!(target(None, 2), Ok(Target::Directory(path)) if path == Path::new("")));
    }

    #[test]
    fn several_types_need_several_names() {
        assert!(matches!(target(Some(Path::new("a.gguf")), 1), Ok(Target::File(_))));
        assert!(matches!(target(Some(Path::new("a-{ftype}.gguf")), 2), Ok(Target::File(_))));
        let failure = target(Some(Path::new("x/a.gguf")), 2).unwrap_err();
        assert!(matches!(failure, Failure::Error { hint: Some(hint), .. } if hint.contains("x/a-{ftype}.gguf")));
    }
}
