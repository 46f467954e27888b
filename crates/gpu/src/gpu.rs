//! One opened adapter, its kernels and what is known of their work.

use crate::adapter::{AdapterInfo, Selection, select};
use crate::device::Device;
use crate::error::GpuError;
use crate::job::{Difference, Job};
use crate::kernel::{KERNELS, Kernel, WORDS, shader_words};
use crate::ring::{Capacity, Dispatch, Faults, Ring};
use crate::selftest::{self, SelfTest};
use crate::testing::Testing;
use crate::worker::GpuWorker;
use ggufsmith_core::Words;
use ggufsmith_shaders as shaders;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// How to use a GPU. The default is what the program uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// Source bytes per slot; less where the adapter's limits ask for it.
    pub slot_bytes: usize,
    /// Slots per worker: one is filled while another one is computed.
    pub slots: usize,
    /// Of each kernel's chunks, every so many is encoded on the CPU too and compared, the first one included. 0: none.
    pub check_every: u64,
    /// How long one dispatch may take.
    pub timeout: Duration,
    /// For tests.
    pub testing: Testing,
}

impl Default for Options {
    fn default() -> Self {
        Options { slot_bytes: 8 << 20, slots: 2, check_every: 100, timeout: Duration::from_secs(30), testing: Testing::default() }
    }
}

/// An opened adapter. Clones share it.
#[derive(Clone)]
pub struct Gpu {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub device: Arc<Device>,
    pub options: Options,
    pub faults: Faults,
    pub counters: Counters,
    capacity: Capacity,
    /// By kernel and word type.
    prepared: Vec<OnceLock<Prepared>>,
    mismatch: Mutex<Option<Mismatch>>,
    checked_at_the_end: OnceLock<()>,
}

/// A compiled kernel with what its self-test said.
pub(crate) struct Prepared {
    pub pipeline: Option<wgpu::ComputePipeline>,
    pub self_test: SelfTest,
    /// Chunks encoded so far.
    pub chunks: AtomicU64,
}

impl Prepared {
    /// The pipeline, if its results are to be trusted.
    pub fn trusted(&self) -> Option<&wgpu::ComputePipeline> {
        self.pipeline.as_ref().filter(|_| self.self_test.passed())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub gpu_chunks: AtomicU64,
    pub gpu_bytes: AtomicU64,
    pub cpu_chunks: AtomicU64,
    pub cpu_bytes: AtomicU64,
    pub redone_blocks: AtomicU64,
    pub checked_chunks: AtomicU64,
}

/// A chunk came back from the GPU with other bytes than the CPU's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The kernel that wrote it, e.g. by its format's name.
    pub kernel: &'static str,
    /// The source's word type.
    pub words: Words,
    /// Where the chunk's first wrong byte is.
    pub offset: usize,
    /// The CPU's byte.
    pub expected: u8,
    /// The GPU's.
    pub found: u8,
}

/// What all workers of a GPU did. Valid at any time, final when they are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The adapter.
    pub adapter: AdapterInfo,
    /// Chunks encoded on the GPU, and their source bytes.
    pub gpu_chunks: u64,
    /// Source bytes of those chunks.
    pub gpu_bytes: u64,
    /// Chunks that its workers encoded on the CPU: no kernel, importance, a failure.
    pub cpu_chunks: u64,
    /// Source bytes of those chunks.
    pub cpu_bytes: u64,
    /// Blocks that kernels left to the CPU (infinite, NaN, denormal or huge scales).
    pub redone_blocks: u64,
    /// Chunks of the GPU that were encoded on the CPU too and compared.
    pub checked_chunks: u64,
    /// Why the GPU stopped being used, if it did.
    pub failure: Option<GpuError>,
    /// The comparison that failed, if one did. Then all chunks of the GPU are to be redone: see
    /// [`Worker::retracted`](ggufsmith_core::Worker::retracted).
    pub mismatch: Option<Mismatch>,
    /// Kernels that were not used because they failed their self-test.
    pub rejected: Vec<KernelState>,
}

/// A kernel on an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelState {
    /// What it writes.
    pub kernel: &'static str,
    /// The source's word type.
    pub words: Words,
    /// How its self-test went.
    pub self_test: SelfTest,
}

impl Gpu {
    /// Open an adapter: the first one that `selection` allows and that opens.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], or why the last one did not open.
    pub fn open(selection: Selection, options: Options) -> Result<Gpu, GpuError> {
        let mut failure = None;
        for (adapter, info) in select(selection)? {
            match Gpu::open_adapter(&adapter, info, options.clone()) {
                Ok(gpu) => return Ok(gpu),
                Err(error) => failure = Some(error),
            }
        }
        // `select` returns at least one.
        Err(failure.unwrap_or(GpuError::NoAdapter { reason: "the list of adapters is empty".to_owned(), found: Vec::new() }))
    }

    pub(crate) fn open_adapter(adapter: &wgpu::Adapter, info: AdapterInfo, options: Options) -> Result<Gpu, GpuError> {
        let capacity = capacity(&info, &options)?;
        let device = Device::open(adapter, info, options.timeout)?;
        let prepared = KERNELS.iter().flat_map(|_| WORDS).map(|_| OnceLock::new()).collect();
        let shared = Shared {
            device,
            faults: Faults::new(&options.testing),
            options,
            counters: Counters::default(),
            capacity,
            prepared,
            mismatch: Mutex::new(None),
            checked_at_the_end: OnceLock::new(),
        };
        Ok(Gpu { shared: Arc::new(shared) })
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.shared.device.info
    }

    /// Host memory that each worker's buffers take, in bytes.
    pub fn worker_bytes(&self) -> usize {
        self.shared.capacity.host_bytes()
    }

    /// A worker with buffers of its own. Two of them keep a GPU busy while one waits for the pipeline.
    ///
    /// # Errors
    /// [`GpuError`] when the device has no memory for the buffers or has failed already.
    pub fn worker(&self) -> Result<GpuWorker, GpuError> {
        Ok(GpuWorker::new(self.clone(), Ring::new(&self.shared.device, self.shared.capacity)?))
    }

    /// As many workers as keep the adapter busy: two for a GPU, one for software.
    ///
    /// # Errors
    /// As [`Gpu::worker`].
    pub fn workers(&self) -> Result<Vec<GpuWorker>, GpuError> {
        let count = if self.adapter().kind.is_gpu() { 2 } else { 1 };
        (0..count).map(|_| self.worker()).collect()
    }

    /// Run the self-test of a kernel, unless it has been run.
    ///
    /// # Errors
    /// [`GpuError`] when there is no memory for its buffers or the device has failed already.
    pub fn self_test(&self, kernel: &'static Kernel, words: Words) -> Result<SelfTest, GpuError> {
        let mut ring = Ring::new(&self.shared.device, self.shared.capacity)?;
        Ok(self.shared.prepare(kernel, words, &mut ring).self_test.clone())
    }

    /// What the workers did.
    pub fn summary(&self) -> Summary {
        let shared = &self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let states = KERNELS.iter().flat_map(|kernel| WORDS.map(|words| (kernel, words)));
        let rejected = states.zip(&shared.prepared).filter_map(|((kernel, words), prepared)| {
            let self_test = prepared.get()?.self_test.clone();
            (!self_test.passed()).then(|| KernelState { kernel: kernel.name(), words, self_test })
        });
        Summary {
            adapter: shared.device.info.clone(),
            gpu_chunks: read(&shared.counters.gpu_chunks),
            gpu_bytes: read(&shared.counters.gpu_bytes),
            cpu_chunks: read(&shared.counters.cpu_chunks),
            cpu_bytes: read(&shared.counters.cpu_bytes),
            redone_blocks: read(&shared.counters.redone_blocks),
            checked_chunks: read(&shared.counters.checked_chunks),
            failure: shared.device.failure().cloned(),
            mismatch: shared.mismatch(),
            rejected: rejected.collect(),
        }
    }
}

impl Shared {
    /// Whether the GPU is still to be used.
    pub fn is_usable(&self) -> bool {
        self.device.failure().is_none() && self.mismatch().is_none()
    }

    pub fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// From now on no result of this GPU is trusted, nor are those it gave.
    pub fn distrust(&self, mismatch: Mismatch) {
        self.mismatch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(mismatch);
    }

    /// Once, when no worker has anything left to do: test every kernel that was used again. A device that began to give wrong bytes
    /// after the last chunk that was compared is found out here.
    pub fn check_at_the_end(&self) {
        self.checked_at_the_end.get_or_init(|| {
            // Without memory for buffers nothing can be tested, and nothing is known against what was given before.
            let Ok(mut ring) = Ring::new(&self.device, self.capacity) else { return };
            let states = KERNELS.iter().flat_map(|kernel| WORDS.map(|words| (kernel, words)));
            for ((kernel, words), prepared) in states.zip(&self.prepared) {
                let Some(prepared) = prepared.get() else { continue };
                let Some(pipeline) = prepared.trusted() else { continue };
                if !self.is_usable() || prepared.chunks.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let dispatch = Dispatch { pipeline, poison: self.options.testing.poison, faults: Some(&self.faults) };
                if let Some(difference) = selftest::first_difference(kernel, words, dispatch, &mut ring) {
                    let Difference { offset, expected, found } = difference;
                    self.distrust(Mismatch { kernel: kernel.name(), words, offset, expected, found });
                }
            }
        });
    }

    /// A kernel, compiled and tested when it is first asked for.
    pub fn prepare(&self, kernel: &'static Kernel, words: Words, ring: &mut Ring) -> &Prepared {
        let at = kernel.index() * WORDS.len() + WORDS.iter().position(|w| *w == words).unwrap_or(0);
        self.prepared[at].get_or_init(|| {
            let (pipeline, self_test) = match self.compile(kernel, words) {
                Err(error) => (None, SelfTest::Error(error)),
                Ok(pipeline) if self.options.testing.skip_self_test => (Some(pipeline), SelfTest::Skipped),
                Ok(pipeline) => {
                    let dispatch = Dispatch { pipeline: &pipeline, poison: self.options.testing.poison, faults: None };
                    let result = selftest::run(kernel, words, dispatch, ring);
                    (Some(pipeline), result)
                }
            };
            Prepared { pipeline, self_test, chunks: AtomicU64::new(0) }
        })
    }

    fn compile(&self, kernel: &Kernel, words: Words) -> Result<wgpu::ComputePipeline, GpuError> {
        let mut parts = shaders::parts(kernel.shader, shader_words(words));
        for (file, text) in &self.options.testing.replace {
            for part in parts.iter_mut().filter(|part| part.file == *file) {
                part.text = text;
            }
        }
        let device = &self.device;
        device.guard(|| {
            device.scoped("compiling a shader", || {
                let module = device.wgpu.create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some(kernel.shader.file),
                    source: wgpu::ShaderSource::Wgsl(shaders::source(&parts).into()),
                });
                device.wgpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(kernel.shader.file),
                    layout: Some(&device.pipeline_layout),
                    module: &module,
                    entry_point: Some(shaders::ENTRY_POINT),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    cache: None,
                })
            })
        })
    }
}

/// Buffer sizes inside the adapter's limits.
fn capacity(info: &AdapterInfo, options: &Options) -> Result<Capacity, GpuError> {
    // A slot's source and result are bindings; the upload buffer is a little larger than the source.
    let limit = info.limits.max_storage_binding_bytes.min(info.limits.max_buffer_bytes / 2);
    // One invocation reads 32 elements of 2 bytes or more.
    let largest = u64::from(info.limits.max_workgroups) * u64::from(shaders::WORKGROUP) * 32 * 2;
    let limit = usize::try_from(limit.min(largest)).unwrap_or(usize::MAX);
    let source_bytes = options.slot_bytes.min(limit) / GRAIN * GRAIN;
    // Per kernel and word type, rounded up; a source of whole `GRAIN`s is a whole number of units.
    let result_bytes = KERNELS.iter().flat_map(|kernel| WORDS.map(|words| (kernel, words))).map(|(kernel, words)| {
        let unit = Job { kernel, words, block_len: kernel.block_len(), source: &[] }.unit();
        source_bytes / unit.source_bytes * (unit.result_bytes + unit.second_bytes)
    });
    let result_bytes = result_bytes.max().unwrap_or(0).next_multiple_of(256).min(limit / 4 * 4);
    if source_bytes == 0 || options.slots == 0 {
        return Err(GpuError::TooSmall { adapter: info.name.clone(), bytes: limit as u64 });
    }
    Ok(Capacity { slots: options.slots, source_bytes, result_bytes })
}

/// Slots are multiples of this: the largest NF4 block as F32.
const GRAIN: usize = 4096 * 4;
