//! Running a plan with its sink, and hashing what is read meanwhile: what conversions of every source share.

use crate::conversion::{ConvertError, Finished, RunOptions};
use crate::manifest::{HashedFile, InputHasher};
use crate::pipeline::{self, PipelineError, Run};
use crate::plan::Plan;
use crate::sink::{FileSink, SinkFile};
use ggufsmith_checkpoint::{keeps_promise, promised_sha256};
use ggufsmith_core::TensorSource;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A plan and where its weights are.
pub(crate) struct Job<'a> {
    /// Everything decided.
    pub plan: &'a Plan,
    /// The weights.
    pub source: &'a dyn TensorSource,
    /// The files that hold them: hashed in this order, never overwritten.
    pub inputs: Vec<PathBuf>,
    /// What of which of these files a tensor of the plan is made from.
    pub reads: &'a (dyn Fn(usize) -> Vec<(&'a Path, Range<u64>)> + Sync),
}

/// Run a job. Files appear under their final names only when all of them are complete. The inputs are hashed where a manifest is
/// wanted.
///
/// # Errors
/// [`ConvertError`]; temporary files are removed then.
pub(crate) fn execute(job: &Job<'_>, options: RunOptions<'_>) -> Result<(Finished, Option<Vec<HashedFile>>), ConvertError> {
    let files = job.plan.files().map(|file| SinkFile {
        path: file.path.clone(),
        bytes: file.layout.file_size(),
        header: file.layout.header().to_vec(),
        data: file.layout.tensors().iter().map(|t| t.offset..t.offset + t.bytes).collect(),
    });
    let sink = FileSink::create(files.collect(), options.force, &job.inputs)?;
    let hasher = InputHasher::new(unread(job));
    // The cache says of each file what it must hash to: weights that were changed since must not go on as the model's.
    let wanted = options.manifest.is_some() || job.inputs.iter().any(|path| promised_sha256(path).is_some());
    let tensor_done = |index: usize| {
        for (file, range) in (job.reads)(index) {
            hasher.mark(file, range);
        }
    };
    let run = Run {
        source: job.source,
        sink: &sink,
        allow_nonfinite: options.allow_nonfinite,
        cancel: options.cancel,
        tensor_done: &tensor_done,
        progress: options.progress,
    };
    let (report, hashes) = std::thread::scope(|scope| {
        let hashes = wanted.then(|| scope.spawn(|| hasher.run()));
        let report = pipeline::run(job.plan, &run, options.workers);
        if report.is_ok() {
            hasher.complete()
        } else {
            hasher.abort()
        }
        let hashes = hashes.map(|thread| thread.join().unwrap_or(Err(std::io::Error::other("the hashing thread ended early"))));
        (report, hashes)
    });
    let report = report?;
    // First: a file that is gone is why it could not be hashed, and has a name here.
    job.source.check_unchanged().map_err(PipelineError::Source)?;
    let hashes = hashes.transpose().map_err(ConvertError::Hash)?.flatten();
    for (path, (_, sha256)) in job.inputs.iter().zip(hashes.iter().flatten()) {
        keeps_promise(path, sha256)?;
    }
    let files = sink.finish()?;
    let hashed = |(path, (bytes, sha256)): (&PathBuf, (u64, String))| HashedFile { name: file_name(path), bytes, sha256 };
    let weights = hashes.filter(|_| options.manifest.is_some()).map(|hashes| job.inputs.iter().zip(hashes).map(hashed).collect());
    Ok((Finished { files, report }, weights))
}

/// Per file the ranges that the pipeline will read.
fn unread(job: &Job<'_>) -> Vec<(PathBuf, Vec<Range<u64>>)> {
    let mut ranges: BTreeMap<&Path, BTreeMap<u64, u64>> = BTreeMap::new();
    for (file, range) in (0..job.plan.tensors.len()).flat_map(|index| (job.reads)(index)) {
        // A map, since an expression may read slices of one tensor several times.
        ranges.entry(file).or_default().insert(range.start, range.end);
    }
    let of = |file: &PathBuf| ranges.get(file.as_path()).into_iter().flatten().map(|(&start, &end)| start..end);
    job.inputs.iter().map(|file| (file.clone(), of(file).collect())).collect()
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
