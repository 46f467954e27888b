//! Which workers encode: `--device`.

use crate::failure::Failure;
use crate::output::printable;
use crate::units;
use clap::ValueEnum;
use ggufsmith_convert::plan::Plan;
use ggufsmith_core::Worker;
use ggufsmith_core::worker::CpuWorker;
use serde::Serialize;
use std::fmt;

/// `--device`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The CPU, and a GPU beside it where it pays
    #[default]
    Auto,
    /// The CPU alone
    Cpu,
    /// A GPU alone, a software one too
    Gpu,
}

/// The workers of a run.
pub struct Workers {
    /// One thread each.
    pub list: Vec<Box<dyn Worker>>,
    /// The GPU among them.
    pub gpu: Option<Gpu>,
    /// What to tell before the run.
    pub notes: Vec<String>,
}

/// What a GPU did in a run.
#[derive(Debug, Serialize)]
pub struct GpuReport {
    adapter: String,
    /// Source bytes that were encoded on the GPU, counted once for each output.
    gpu_bytes: u64,
    /// Source bytes that its workers encoded on the CPU: no kernel, or a failure.
    cpu_bytes: u64,
    /// Blocks that kernels left to the CPU.
    redone_blocks: u64,
    /// Chunks that were encoded on the CPU too and compared.
    checked_chunks: u64,
    /// What went wrong; the bytes are right all the same.
    pub warnings: Vec<String>,
}

impl fmt::Display for GpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.gpu_bytes as f64 * 100.0 / (self.gpu_bytes + self.cpu_bytes).max(1) as f64;
        let (gpu, blocks) = (units::bytes(self.gpu_bytes), units::grouped(self.redone_blocks));
        let adapter = printable(&self.adapter);
        let checked = units::plural(usize::try_from(self.checked_chunks).unwrap_or(usize::MAX), "chunk");
        write!(f, "{adapter}: {share:.0} % of its work on the GPU ({gpu}), {blocks} blocks left to the CPU, {checked} compared")
    }
}

fn cpu(threads: usize) -> impl Iterator<Item = Box<dyn Worker>> {
    (0..threads).map(|_| Box::new(CpuWorker) as Box<dyn Worker>)
}

/// The workers that `device` asks for.
///
/// # Errors
/// [`Failure`] where a GPU was asked for and there is none that works.
pub fn workers(device: Device, threads: usize, plan: &Plan) -> Result<Workers, Failure> {
    match device {
        Device::Cpu => Ok(Workers { list: cpu(threads).collect(), gpu: None, notes: Vec::new() }),
        Device::Gpu => gpu_alone(),
        Device::Auto => Ok(auto(threads, plan)),
    }
}

#[cfg(feature = "gpu")]
pub use with_gpu::Gpu;
#[cfg(feature = "gpu")]
use with_gpu::{auto, gpu_alone};

#[cfg(feature = "gpu")]
mod with_gpu {
    use super::{GpuReport, Workers, cpu};
    use crate::failure::Failure;
    use ggufsmith_convert::plan::Plan;
    use ggufsmith_core::{Encoder, Words, Worker};
    use ggufsmith_gpu::{Auto, GpuError, Options, Selection, auto as decide};

    /// Below this much source a run is over before a GPU is set up and measured.
    const WORTH_MEASURING_BYTES: u64 = 4_000_000_000;

    /// An opened GPU.
    pub struct Gpu(ggufsmith_gpu::Gpu);

    impl Gpu {
        /// What it did, once the run is over.
        pub fn report(&self) -> GpuReport {
            let summary = self.0.summary();
            let mut warnings = Vec::new();
            if let Some(failure) = &summary.failure {
                warnings.push(format!("the rest of the run was done on the CPU: {failure}"));
            }
            if let Some(mismatch) = &summary.mismatch {
                let (kernel, offset) = (mismatch.kernel, mismatch.offset);
                warnings.push(format!(
                    "{} computed a wrong byte ({kernel}, byte {offset} of a chunk): everything it had encoded was done again on the CPU",
                    summary.adapter
                ));
            }
            for state in &summary.rejected {
                let (kernel, words) = (state.kernel, state.words);
                warnings.push(format!(
                    "{} fails the self-test of {kernel} from {words:?}: that was done on the CPU",
                    summary.adapter
                ));
            }
            GpuReport {
                adapter: summary.adapter.to_string(),
                gpu_bytes: summary.gpu_bytes,
                cpu_bytes: summary.cpu_bytes,
                redone_blocks: summary.redone_blocks,
                checked_chunks: summary.checked_chunks,
                warnings,
            }
        }
    }

    fn boxed(gpu: &ggufsmith_gpu::Gpu) -> Result<Vec<Box<dyn Worker>>, GpuError> {
        Ok(gpu.workers()?.into_iter().map(|worker| Box::new(worker) as Box<dyn Worker>).collect())
    }

    pub fn gpu_alone() -> Result<Workers, Failure> {
        let gpu = ggufsmith_gpu::Gpu::open(Selection::Any, Options::default())?;
        let list = boxed(&gpu)?;
        Ok(Workers { list, notes: vec![format!("encoding on {}", gpu.adapter())], gpu: Some(Gpu(gpu)) })
    }

    pub fn auto(threads: usize, plan: &Plan) -> Workers {
        let stay = |notes| Workers { list: cpu(threads).collect(), gpu: None, notes };
        if plan.source_bytes() < WORTH_MEASURING_BYTES {
            return stay(Vec::new());
        }
        match decide(Selection::Gpu, Options::default(), &encoders(plan), threads) {
            Auto::StaysAway(why) => stay(vec![format!("encoding on the CPU: {why}")]),
            Auto::Joins(gpu, calibration) => match boxed(&gpu) {
                Err(error) => stay(vec![format!("encoding on the CPU: {error}")]),
                Ok(list) => {
                    let gain = 100.0 * calibration.gain();
                    let notes = vec![format!("encoding on the CPU and {} (measured gain {gain:.0} %)", gpu.adapter())];
                    Workers { list: cpu(threads).chain(list).collect(), gpu: Some(Gpu(gpu)), notes }
                }
            },
        }
    }

    /// The encoders of a run with the word types that they get.
    fn encoders(plan: &Plan) -> Vec<(&'static Encoder, Words)> {
        let mut encoders: Vec<(&'static Encoder, Words)> = Vec::new();
        for output in &plan.outputs {
            for (tensor, place) in plan.tensors.iter().zip(&output.places) {
                let words = place.through.unwrap_or(tensor.expr.words());
                let Some(encoder) = place.encoder else { continue };
                if !encoders.iter().any(|(known, w)| std::ptr::eq(*known, encoder) && *w == words) {
                    encoders.push((encoder, words));
                }
            }
        }
        encoders
    }
}

#[cfg(not(feature = "gpu"))]
pub use without_gpu::Gpu;
#[cfg(not(feature = "gpu"))]
use without_gpu::{auto, gpu_alone};

#[cfg(not(feature = "gpu"))]
mod without_gpu {
    use super::{GpuReport, Workers, cpu};
    use crate::failure::Failure;
    use ggufsmith_convert::plan::Plan;

    /// There is none in this build.
    pub enum Gpu {}

    impl Gpu {
        pub fn report(&self) -> GpuReport {
            match *self {}
        }
    }

    pub fn gpu_alone() -> Result<Workers, Failure> {
        Err(Failure::new("this build cannot use a GPU").hint("build it with the feature `gpu`, which is on by default"))
    }

    pub fn auto(threads: usize, _plan: &Plan) -> Workers {
        Workers { list: cpu(threads).collect(), gpu: None, notes: Vec::new() }
    }
}
