//! Running what was planned: workers, progress, interruption.

use super::device::{self, Device, GpuReport};
use super::summary::Times;
use crate::commands::command_line;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Progress;
use ggufsmith_convert::pipeline::PipelineError;
use ggufsmith_convert::plan::Plan;
use ggufsmith_convert::sink::temporary_name;
use ggufsmith_convert::{ConvertError, Finished, RunOptions};
use std::path::PathBuf;
use std::time::Instant;

/// How to run.
pub struct Settings {
    /// When the command began.
    pub started: Instant,
    /// Worker threads.
    pub threads: usize,
    /// `--device`.
    pub device: Device,
    /// `--force`.
    pub force: bool,
    /// `--allow-nonfinite`.
    pub allow_nonfinite: bool,
    /// Unless `--no-manifest`.
    pub manifest: bool,
    /// `--quiet`.
    pub quiet: bool,
}

/// A run that succeeded.
pub struct Outcome {
    /// The files.
    pub finished: Finished,
    /// How long it took.
    pub times: Times,
    /// What a GPU did.
    pub gpu: Option<GpuReport>,
}

/// Carry out a plan by what `execute` does with the options.
///
/// # Errors
/// [`Failure`]; nothing is left behind.
pub fn run(
    plan: &Plan,
    settings: &Settings,
    interrupt: &Interrupt,
    execute: impl FnOnce(RunOptions<'_>) -> Result<Finished, Failure>,
) -> Result<Outcome, Failure> {
    let workers = device::workers(settings.device, settings.threads, plan)?;
    if !settings.quiet {
        workers.notes.iter().for_each(|note| output::note(note));
    }
    let prepare = settings.started.elapsed();
    let progress = Progress::new(plan.source_bytes(), settings.quiet);
    let temporary: Vec<PathBuf> = plan.files().map(|file| temporary_name(&file.path)).collect();
    let add = |bytes| {
        // From the first chunk on the temporary files are ours, not those of another run that is refused.
        interrupt.remove_at_end(&temporary);
        progress.add(bytes);
    };
    let options = RunOptions {
        workers: workers.list,
        force: settings.force,
        allow_nonfinite: settings.allow_nonfinite,
        manifest: settings.manifest.then(command_line),
        cancel: interrupt.flag(),
        progress: &add,
    };
    let result = execute(options);
    let convert = progress.end();
    let finished = result?;
    let gpu = workers.gpu.map(|gpu| gpu.report());
    if let Some(gpu) = &gpu {
        gpu.warnings.iter().for_each(|warning| output::warning(warning));
    }
    Ok(Outcome { finished, times: Times { prepare, convert, total: settings.started.elapsed() }, gpu })
}

/// What became of a run, where the user may have stopped it.
///
/// # Errors
/// [`Failure::Interrupted`], or the run's own error.
pub fn finished(result: Result<Finished, ConvertError>) -> Result<Finished, Failure> {
    match result {
        Err(ConvertError::Pipeline(PipelineError::Cancelled)) => Err(Failure::Interrupted),
        other => Ok(other?),
    }
}
