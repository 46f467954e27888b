//! Reports as files: `FILE.gguf.report.{json,md,html}`.

use super::{Report, SCHEMA, html, markdown};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A report of more bytes is not read. One of a model with 10,000 tensors has 5 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Why a report was not written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("{doing} {}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error("{} has {bytes} bytes, more than a report of {MAX_BYTES} bytes: it is something else", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{} is no report that this version reads: {what}; make it again with `ggufsmith verify`", path.display())]
    Format { path: PathBuf, what: String },
    #[error("{} names no file", path.display())]
    NoName { path: PathBuf },
}

/// The three files of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The report as data.
    pub json: PathBuf,
    /// For a pull request or a model card.
    pub markdown: PathBuf,
    /// One page with plots.
    pub html: PathBuf,
}

impl Written {
    /// Where the reports about `gguf` (of several shards the first) lie: beside it, or in `directory`.
    ///
    /// # Errors
    /// [`FileError::NoName`] for a path without a file name.
    pub fn at(gguf: &Path, directory: Option<&Path>) -> Result<Self, FileError> {
        let name = gguf.file_name().ok_or_else(|| FileError::NoName { path: gguf.to_owned() })?;
        let base = directory.map_or_else(|| gguf.to_owned(), |directory| directory.join(name));
        let with = |ending: &str| {
            let mut path = base.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        Ok(Written { json: with(".report.json"), markdown: with(".report.md"), html: with(".report.html") })
    }

    /// The page and the Markdown about several files of one source, named by it: `SOURCE.report.{json,md,html}`.
    fn together(source: &str, directory: &Path) -> Self {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let name: String = source.rsplit(['/', '\\']).next().unwrap_or_default().chars().take(100).map(safe).collect();
        let name = name.trim_start_matches('.');
        let name = if name.is_empty() { "source" } else { name };
        let with = |ending: &str| directory.join(format!("{name}.report.{ending}"));
        Written { json: with("json"), markdown: with("md"), html: with("html") }
    }
}

/// Whether the reports about a file could be written: looked at before the work, since they come after it.
///
/// # Errors
/// [`FileError`] where the directory cannot be written into.
pub fn check_writable(gguf: &Path, directory: Option<&Path>) -> Result<(), FileError> {
    if let Some(directory) = directory {
        fs::create_dir_all(directory).map_err(io_error(directory, "creating the directory"))?;
    }
    let json = Written::at(gguf, directory)?.json;
    let mut name = json.file_name().unwrap_or_default().to_owned();
    name.push(".probe");
    let probe = json.with_file_name(name);
    match OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => fs::remove_file(&probe).map_err(io_error(&probe, "removing")),
        // Somebody's, or another run's: then files can be made there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error(&probe, "creating")(error)),
    }
}

/// Write the reports about files of one source, each beside its file or all into `directory`, which is created where it is missing.
///
/// Each file has its own three, whose JSON is one [`Report`]. Several files also have `SOURCE.report.{json,md,html}` about all of
/// them, beside the first; its JSON is the list. That entry comes last in what is returned. Every file appears complete or not
/// at all, and none appears before all are on the disk.
///
/// # Errors
/// [`FileError`] where a file cannot be written; what was begun is removed.
pub fn write(reports: &[(&Path, &Report)], directory: Option<&Path>) -> Result<Vec<Written>, FileError> {
    if let Some(directory) = directory {
        fs::create_dir_all(directory).map_err(io_error(directory, "creating the directory"))?;
    }
    let mut written = Vec::with_capacity(reports.len() + 1);
    let mut files = Pending::default();
    for (gguf, report) in reports {
        let paths = Written::at(gguf, directory)?;
        let alone = std::slice::from_ref(*report);
        files.put(&paths.json, &json(*report))?;
        files.put(&paths.markdown, &markdown(alone))?;
        files.put(&paths.html, &html(alone))?;
        written.push(paths);
    }
    if let [(gguf, first), _, ..] = reports {
        let all: Vec<Report> = reports.iter().map(|(_, report)| (*report).clone()).collect();
        let beside = gguf.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let paths = Written::together(&first.source.name, directory.unwrap_or(beside));
        files.put(&paths.json, &json(&all))?;
        files.put(&paths.markdown, &markdown(&all))?;
        files.put(&paths.html, &html(&all))?;
        written.push(paths);
    }
    files.finish()?;
    Ok(written)
}

/// A report that [`write()`] wrote.
///
/// # Errors
/// [`FileError`] where it cannot be read, is no report, or has another schema.
pub fn read(path: &Path) -> Result<Report, FileError> {
    let bytes = fs::metadata(path).map_err(io_error(path, "looking at"))?.len();
    if bytes > MAX_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = fs::read_to_string(path).map_err(io_error(path, "reading"))?;
    let format = |what: String| FileError::Format { path: path.to_owned(), what };
    let report: Report = serde_json::from_str(&text).map_err(|e| format(e.to_string()))?;
    if report.schema != SCHEMA {
        return Err(format(format!("its schema is {:?}, not {SCHEMA:?}", report.schema)));
    }
    Ok(report)
}

/// Indented JSON with a newline at its end.
fn json(value: &impl serde::Serialize) -> String {
    // Cannot fail: the keys are strings, and writing into memory has no errors.
    let mut text = serde_json::to_string_pretty(value).expect("reports are representable in JSON");
    text.push('\n');
    text
}

/// Files under temporary names; dropping removes those that were not renamed.
#[derive(Debug, Default)]
struct Pending {
    files: Vec<(PathBuf, PathBuf)>,
}

impl Pending {
    fn put(&mut self, path: &Path, text: &str) -> Result<(), FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temp = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        // Left by a process of this number that was killed.
        let _ = fs::remove_file(&temp);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temp).map_err(io_error(&temp, "creating"))?;
        self.files.push((temp.clone(), path.to_owned()));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error(&temp, "writing"))
    }

    fn finish(mut self) -> Result<(), FileError> {
        for (temp, path) in &self.files {
            fs::rename(temp, path).map_err(io_error(path, "renaming the finished file to"))?;
        }
        let mut directories: Vec<_> = self.files.drain(..).filter_map(|(_, path)| path.parent().map(Path::to_owned)).collect();
        directories.dedup();
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() { Path::new(".").to_owned() } else { directory };
            sync(&directory).map_err(io_error(&directory, "flushing the directory"))?;
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        for (temp, _) in &self.files {
            // Nothing is left to be done where even this fails.
            let _ = fs::remove_file(temp);
        }
    }
}

/// A renamed file is safe when its directory is. Elsewhere than on Unix a directory cannot be opened as a file.
fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn io_error<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io { path: path.to_owned(), doing, source }
}
