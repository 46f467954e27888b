//! The library's conversion with workers on a GPU to which something happens.

use crate::{TYPES, bard, expected, with_gpu};
use ggufsmith_checkpoint::OpenOptions;
use ggufsmith_convert::plan::Via;
use ggufsmith_convert::{Conversion, Finished, Options, RunOptions, Target, metadata, recipe};
use ggufsmith_core::worker::CpuWorker;
use ggufsmith_core::{Words, Worker};
use ggufsmith_gguf::SplitLimits;
use ggufsmith_gpu::testing::{Fault, Testing};
use ggufsmith_gpu::{Gpu, GpuError, Selection};
use ggufsmith_tests::{reference, scratch};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::atomic::AtomicBool;

pub fn trials() -> Vec<Trial> {
    let smollm2 = reference::smollm2;
    vec![
        with_gpu("workers::alone", bard(), |model| alone(&model, "bard.expected.json")),
        with_gpu("workers::alone_with_a_large_model", smollm2(), |model| alone(&model, "smollm2/expected.json")),
        with_gpu("workers::beside_the_cpu", smollm2(), |model| beside_the_cpu(&model)),
        with_gpu("workers::device_lost", smollm2(), |model| lost(&model)),
        with_gpu("workers::wrong_bits", smollm2(), |model| wrong(&model)),
    ]
}

/// Convert to all types at once; the files have to be the reference's.
fn convert(model: &Path, table: &str, workers: Vec<Box<dyn Worker>>) -> Result<Finished, String> {
    let out = scratch();
    let options = Options {
        types: TYPES.iter().filter_map(|name| recipe::by_name(name)).collect(),
        target: Target::Directory(out.path().to_owned()),
        via: Via::Auto,
        split: SplitLimits::default(),
        choices: Default::default(),
        imatrix: None,
        overrides: metadata::Overrides::default(),
        pre: None,
        strict_config: false,
        open: OpenOptions::default(),
    };
    let conversion = Conversion::prepare(model, &options).map_err(|e| e.to_string())?;
    let run = RunOptions {
        workers,
        force: false,
        allow_nonfinite: false,
        manifest: None,
        cancel: &AtomicBool::new(false),
        progress: &|_| {},
    };
    let finished = conversion.run(run).map_err(|e| e.to_string())?;
    let found: Vec<_> = TYPES.iter().zip(&finished.files).map(|(name, file)| ((*name).to_owned(), file.sha256.clone())).collect();
    assert_eq!(found, expected(table));
    Ok(finished)
}

fn open(options: ggufsmith_gpu::Options) -> Gpu {
    Gpu::open(Selection::Any, options).unwrap()
}

fn worker(gpu: &Gpu) -> Box<dyn Worker> {
    Box::new(gpu.worker().unwrap())
}

/// A GPU on which something happens, with two workers and no CPU beside them: all chunks are theirs, so it does happen.
fn faulty(fault: Fault, check_every: u64, model: &Path) -> Result<(Gpu, Finished), String> {
    let testing = Testing { fault: Some(fault), ..Testing::default() };
    let gpu = open(ggufsmith_gpu::Options { check_every, testing, ..Default::default() });
    let finished = convert(model, "smollm2/expected.json", vec![worker(&gpu), worker(&gpu)])?;
    Ok((gpu, finished))
}

fn alone(model: &Path, table: &str) -> Result<(), String> {
    let gpu = open(Default::default());
    let finished = convert(model, table, vec![worker(&gpu)])?;
    let summary = gpu.summary();
    assert_eq!(summary.failure, None);
    assert!(summary.gpu_chunks > 10 && summary.checked_chunks >= TYPES.len() as u64, "{summary:?}");
    assert_eq!((summary.redone_blocks, finished.report.redone), (0, 0), "these are ordinary weights");
    Ok(())
}

fn beside_the_cpu(model: &Path) -> Result<(), String> {
    let gpu = open(Default::default());
    let finished = convert(model, "smollm2/expected.json", vec![worker(&gpu), Box::new(CpuWorker)])?;
    let summary = gpu.summary();
    assert_eq!((summary.failure, summary.mismatch, finished.report.redone), (None, None, 0));
    let names: Vec<_> = finished.report.shares.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [gpu.adapter().name.as_str(), CpuWorker.name()]);
    Ok(())
}

/// The rest of the file is done on the CPU.
fn lost(model: &Path) -> Result<(), String> {
    let (gpu, finished) = faulty(Fault::DeviceLost { after: 20 }, 100, model)?;
    let summary = gpu.summary();
    assert!(matches!(summary.failure, Some(GpuError::Lost { .. })), "{summary:?}");
    assert!(summary.gpu_chunks > 0 && summary.cpu_chunks > 0, "{summary:?}");
    assert_eq!(finished.report.redone, 0);
    Ok(())
}

/// Wrong chunks get into the file and are made again.
fn wrong(model: &Path) -> Result<(), String> {
    let (gpu, finished) = faulty(Fault::WrongBit { after: 20 }, 10, model)?;
    let summary = gpu.summary();
    assert_eq!(summary.mismatch.as_ref().map(|mismatch| mismatch.words), Some(Words::BF16), "{summary:?}");
    assert!(finished.report.redone > 0);
    Ok(())
}
