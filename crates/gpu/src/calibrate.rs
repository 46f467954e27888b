//! How fast kernels are, and whether a GPU is worth its place beside the CPU.

use crate::adapter::{AdapterInfo, Selection, select};
use crate::adversarial;
use crate::error::GpuError;
use crate::gpu::{Gpu, Options};
use crate::job::{Job, Planes};
use crate::kernel::{KERNELS, Kernel, WORDS};
use crate::selftest::SelfTest;
use crate::worker::GpuWorker;
use ggufsmith_core::{Encoder, Rows, Words, Worker};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Source bytes of a measured chunk.
const CHUNK_BYTES: usize = 4 << 20;

/// Source bytes per second of a whole run, without and with the GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// By the CPU's threads alone.
    pub cpu: f64,
    /// By the CPU's threads and the GPU's workers at the same time.
    pub with_gpu: f64,
}

impl Calibration {
    /// What a GPU has to add to be used unasked.
    pub const WORTH_IT: f64 = 0.2;

    /// By what part of the CPU's throughput the GPU adds to it; negative where it gets in the way.
    pub fn gain(&self) -> f64 {
        self.with_gpu / self.cpu - 1.0
    }

    /// Whether the gain is [`Calibration::WORTH_IT`].
    pub fn is_worth_it(&self) -> bool {
        self.gain() >= Self::WORTH_IT
    }
}

/// An adapter with what its kernels do.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// The adapter.
    pub adapter: AdapterInfo,
    /// One per kernel and word type; or why the adapter does not open.
    pub kernels: Result<Vec<KernelReport>, GpuError>,
}

/// A kernel on an adapter, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelReport {
    /// What it writes.
    pub kernel: &'static str,
    /// The source's word type.
    pub words: Words,
    /// How its self-test went.
    pub self_test: SelfTest,
    /// Source bytes per second from host memory to host memory, by one worker; `None` where the self-test was not passed.
    pub gpu_bytes_per_second: Option<f64>,
    /// The same work by one thread of this CPU.
    pub cpu_bytes_per_second: f64,
}

/// Open every adapter, test every kernel and measure it for `time`.
///
/// # Errors
/// [`GpuError::NoAdapter`], with the reason per backend.
pub fn examine(time: Duration) -> Result<Vec<AdapterReport>, GpuError> {
    let adapters = select(Selection::Any)?;
    Ok(adapters
        .into_iter()
        .map(|(adapter, info)| {
            let kernels = Gpu::open_adapter(&adapter, info.clone(), Options::default()).and_then(|gpu| gpu.examine(time));
            AdapterReport { adapter: info, kernels }
        })
        .collect())
}

impl Gpu {
    /// Test every kernel and measure it for `time`.
    ///
    /// # Errors
    /// [`GpuError`] when there is no memory for buffers.
    pub fn examine(&self, time: Duration) -> Result<Vec<KernelReport>, GpuError> {
        let mut worker = self.worker()?;
        let mut reports = Vec::new();
        for kernel in KERNELS {
            for words in WORDS {
                let source = adversarial::plain(words, CHUNK_BYTES / words.bytes(), 0);
                let job = Job { kernel, words, block_len: kernel.block_len(), source: &source };
                let (first, second) = job.plane_bytes();
                let (mut first, mut second) = (vec![0; first], vec![0; second]);
                let self_test = worker.self_test(kernel, words).clone();
                let gpu = self_test.passed().then(|| {
                    rate(time, source.len(), || worker.encode_unchecked(job, Planes { first: &mut first, second: &mut second }))
                });
                let cpu = rate(time, source.len(), || {
                    job.encode_on_cpu(Planes { first: &mut first, second: &mut second }, false);
                    Ok(())
                });
                reports.push(KernelReport {
                    kernel: kernel.name(),
                    words,
                    self_test,
                    gpu_bytes_per_second: gpu.transpose()?,
                    cpu_bytes_per_second: cpu?,
                });
            }
        }
        Ok(reports)
    }

    /// Measure, for about `time` in all, what `cpu_threads` threads encode without and with this GPU's workers beside them.
    ///
    /// `encoders` are those of the run with the word types they get; only those with a kernel are measured. `None` when there are none
    /// of them, or their self-test is not passed: then this GPU adds nothing.
    ///
    /// # Errors
    /// [`GpuError`] when there is no memory for buffers or the device fails.
    pub fn calibrate(
        &self,
        encoders: &[(&'static Encoder, Words)],
        cpu_threads: usize,
        time: Duration,
    ) -> Result<Option<Calibration>, GpuError> {
        let mut workers = self.workers()?;
        let mut work = Vec::new();
        for (encoder, words) in encoders {
            let Some(kernel) = Kernel::of(encoder, false) else { continue };
            // All workers share the result; compiling and testing is not part of the measurement.
            if workers.first_mut().is_some_and(|worker| worker.self_test(kernel, *words).passed()) {
                work.push((*encoder, *words, adversarial::plain(*words, CHUNK_BYTES / words.bytes(), 0)));
            }
        }
        if work.is_empty() {
            return Ok(None);
        }
        let cpu = together(&work, cpu_threads, &mut [], time / 2);
        let with_gpu = together(&work, cpu_threads, &mut workers, time / 2);
        match self.summary().failure {
            Some(failure) => Err(failure),
            None => Ok(Some(Calibration { cpu, with_gpu })),
        }
    }
}

/// Source bytes per second of repeated calls.
fn rate(time: Duration, bytes: usize, mut call: impl FnMut() -> Result<(), GpuError>) -> Result<f64, GpuError> {
    call()?;
    let start = Instant::now();
    let mut calls = 0;
    while calls == 0 || start.elapsed() < time {
        call()?;
        calls += 1;
    }
    Ok(calls as f64 * bytes as f64 / start.elapsed().as_secs_f64())
}

/// Source bytes per second of threads and workers that encode next to each other.
fn together(work: &[(&'static Encoder, Words, Vec<u8>)], threads: usize, workers: &mut [GpuWorker], time: Duration) -> f64 {
    let done = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let run = |worker: &mut dyn Worker| {
            let mut out = Vec::new();
            while start.elapsed() < time {
                for (encoder, words, source) in work {
                    let elems = (source.len() / words.bytes()) as u64;
                    out.resize(encoder.format.bytes_for(elems).unwrap_or(0) as usize, 0);
                    let rows = Rows { words: *words, cols: encoder.format.block_len, bytes: source };
                    // Lengths fit by construction; a chunk that did not would not be counted.
                    if worker.encode(encoder, rows, None, &mut out).is_ok() {
                        done.fetch_add(source.len() as u64, Ordering::Relaxed);
                    }
                }
            }
        };
        for _ in 0..threads {
            scope.spawn(move || run(&mut ggufsmith_core::worker::CpuWorker));
        }
        for worker in workers {
            scope.spawn(move || run(worker));
        }
    });
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}
