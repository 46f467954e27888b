//! Writing: every thread takes the next tensor and quantizes it piece by piece.

use super::encode::{Shared, Work};
use super::{Quantization, QuantizeError, manifest};
use crate::export::directory;
use crate::manifest::{HashedFile, InputHasher};
use crate::sink::{FileSink, FinishedFile, Sink, temporary_name};
use ggufsmith_checkpoint::{keeps_promise, promised_sha256};
use ggufsmith_core::TensorSource;
use ggufsmith_core::schemes::dynamic8::Dynamic8;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How to run.
pub struct QuantizeRun<'a> {
    /// Worker threads.
    pub threads: usize,
    /// Overwrite files that exist.
    pub force: bool,
    /// Write [`super::MANIFEST`] into the directory; the arguments to note in it.
    pub manifest: Option<Vec<String>>,
    /// Set from outside to stop.
    pub cancel: &'a AtomicBool,
    /// Told source bytes as they are done; called from the workers' threads, must not block.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Told the temporary files, once they are this run's.
    pub begun: &'a (dyn Fn(&[PathBuf]) + Sync),
}

impl Quantization {
    /// Write all files; they appear under their names when all of them are complete.
    ///
    /// # Errors
    /// [`QuantizeError`]; what was written is removed then, the directory too where it was made for it.
    pub fn run(&self, run: &QuantizeRun<'_>) -> Result<Vec<FinishedFile>, QuantizeError> {
        let out = &self.options.out;
        let canonical = |path: &Path| std::fs::canonicalize(path).ok();
        if canonical(out).is_some() && canonical(out) == canonical(self.dir.path()) {
            return Err(QuantizeError::SameDirectory { path: out.clone() });
        }
        let shared = self.all_shared(run)?;
        let mut layout = self.layout(&shared)?;
        let names: Vec<String> = layout.files.iter().map(|file| file.path.to_string_lossy().into_owned()).collect();
        let made = directory::prepare(out, &names.iter().map(String::as_str).collect::<BTreeSet<_>>())
            .map_err(QuantizeError::Directory)?;
        for file in &mut layout.files {
            file.path = out.join(&file.path);
        }
        let inputs: Vec<PathBuf> = self.checkpoint.files().map(|(path, _)| path.to_owned()).collect();
        let temporary: Vec<PathBuf> = layout.files.iter().map(|file| temporary_name(&file.path)).collect();
        let sink = FileSink::create(std::mem::take(&mut layout.files), run.force, &inputs)?;
        (run.begun)(&temporary);
        let hasher = InputHasher::new(self.unread(&inputs));
        // As in conversions to GGUF: what the Hub's cache promises is kept, or nothing is written.
        let wanted = run.manifest.is_some() || inputs.iter().any(|path| promised_sha256(path).is_some());
        let dynamic = Dynamic8::new();
        let put = |tensor: usize, offset: u64, bytes: &[u8]| {
            let (file, start) = layout.written[tensor].place;
            Ok(sink.put(file, start + offset, bytes)?)
        };
        let (result, hashes) = std::thread::scope(|scope| {
            let hashes = wanted.then(|| scope.spawn(|| hasher.run()));
            let result = parallel(run, layout.jobs.len(), |index| {
                let job = &layout.jobs[index];
                Work { quantization: self, run, dynamic: &dynamic, put: &put }.write(job)?;
                let info = &self.checkpoint.tensors()[job.source];
                hasher.mark(&info.file, info.offset..info.offset + info.bytes());
                Ok(())
            });
            if result.is_ok() {
                hasher.complete()
            } else {
                hasher.abort()
            }
            let hashes = hashes.map(|thread| thread.join().unwrap_or(Err(io::Error::other("the hashing thread ended early"))));
            (result, hashes)
        });
        result?;
        let hashes = hashes.transpose().map_err(QuantizeError::Hash)?.flatten();
        self.checkpoint.check_unchanged()?;
        for (path, (_, sha256)) in inputs.iter().zip(hashes.iter().flatten()) {
            keeps_promise(path, sha256)?;
        }
        let finished = sink.finish()?;
        made.keep();
        if let (Some(command), Some(hashes)) = (&run.manifest, hashes) {
            let hashed = |(path, (bytes, sha256)): (&PathBuf, _)| HashedFile { name: file_name(path), bytes, sha256 };
            manifest::write(self, command, inputs.iter().zip(hashes).map(hashed).collect(), &finished)?;
        }
        Ok(finished)
    }

    /// What all elements of each tensor decide together.
    pub(super) fn all_shared(&self, run: &QuantizeRun<'_>) -> Result<Vec<Option<Shared>>, QuantizeError> {
        let tensors = self.checkpoint.tensors();
        let shared = Mutex::new(vec![None; tensors.len()]);
        if self.options.method.reads_twice() {
            parallel(run, tensors.len(), |index| {
                if self.kept[index].is_none() {
                    let found = self.shared(run, &tensors[index])?;
                    shared.lock().unwrap_or_else(PoisonError::into_inner)[index] = found;
                }
                Ok(())
            })?;
        }
        Ok(shared.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Per weight file the ranges that will be read.
    fn unread(&self, files: &[PathBuf]) -> Vec<(PathBuf, Vec<Range<u64>>)> {
        let mut ranges: BTreeMap<&Path, Vec<Range<u64>>> = BTreeMap::new();
        for info in self.checkpoint.tensors() {
            ranges.entry(&info.file).or_default().push(info.offset..info.offset + info.bytes());
        }
        let of = |file: &PathBuf| (file.clone(), ranges.get(file.as_path()).cloned().unwrap_or_default());
        files.iter().map(of).collect()
    }
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Do `count` pieces of work in all threads; the error of the earliest one that failed.
pub(super) fn parallel(
    run: &QuantizeRun<'_>,
    count: usize,
    work: impl Fn(usize) -> Result<(), QuantizeError> + Sync,
) -> Result<(), QuantizeError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first: Mutex<Option<(usize, QuantizeError)>> = Mutex::new(None);
    let thread = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Err(error) = work(index) {
                failed.store(true, Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                    *first = Some((index, error));
                }
            }
        }
    };
    let whole = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..run.threads.max(1)).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().map(|thread| thread.join()).all(|ended| ended.is_ok())
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None if !whole => Err(QuantizeError::WorkerPanicked),
        None => Ok(()),
    }
}
