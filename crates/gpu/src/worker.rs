//! A worker of the pipeline whose encoders run on a GPU.

use crate::error::GpuError;
use crate::gpu::{Gpu, Mismatch};
use crate::job::{Job, Planes};
use crate::kernel::Kernel;
use crate::ring::{Dispatch, Ring};
use crate::selftest::SelfTest;
use ggufsmith_core::scheme::{FourBit, SchemeError};
use ggufsmith_core::{EncodeError, Encoder, Rows, Words, Worker};
use std::sync::atomic::Ordering;

/// Encodes chunks on a GPU, and on the calling thread what the GPU cannot do: encoders without a kernel, blocks that a kernel leaves
/// out, and everything once the device has failed or given a wrong byte. The bytes are the CPU's in any case; should a wrong one have
/// slipped through before it was noticed, [`Worker::retracted`] names the chunks.
pub struct GpuWorker {
    gpu: Gpu,
    ring: Ring,
    calls: u64,
    /// The calls whose bytes came from the GPU and were not compared.
    unchecked: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Cpu,
    Gpu,
    Both,
}

impl GpuWorker {
    pub(crate) fn new(gpu: Gpu, ring: Ring) -> Self {
        GpuWorker { gpu, ring, calls: 0, unchecked: Vec::new() }
    }

    /// Encode elements as [`FourBit::encode`] of a scheme does, with what [`Worker::encode`] says about failures and retractions; it
    /// counts as a call of it. A shorter last block is the CPU's, as is everything of a scheme without a kernel.
    ///
    /// # Errors
    /// [`SchemeError`] where lengths do not belong together.
    pub fn encode_four_bit(
        &mut self,
        scheme: &FourBit,
        words: Words,
        source: &[u8],
        block_len: usize,
        codes: &mut [u8],
        absmax: &mut [f32],
    ) -> Result<(), SchemeError> {
        let done = self.encode_four_bit_uncounted(scheme, words, source, block_len, codes, absmax);
        match done {
            Ok(done) => self.count(done, source.len()),
            Err(_) => self.calls += 1,
        }
        done.map(|_| ())
    }

    fn encode_four_bit_uncounted(
        &mut self,
        scheme: &FourBit,
        words: Words,
        source: &[u8],
        block_len: usize,
        codes: &mut [u8],
        absmax: &mut [f32],
    ) -> Result<Done, SchemeError> {
        scheme.check_source(words, source, block_len, codes.len(), absmax.len())?;
        let Some(kernel) = Kernel::of_scheme(scheme) else {
            return scheme.encode(words, source, block_len, codes, absmax).map(|()| Done::Cpu);
        };
        let whole = source.len() / (block_len * words.bytes());
        let (blocks, tail) = source.split_at(whole * block_len * words.bytes());
        let (block_codes, tail_codes) = codes.split_at_mut(whole * block_len / 2);
        let (block_absmax, tail_absmax) = absmax.split_at_mut(whole);
        let job = Job { kernel, words, block_len, source: blocks };
        let mut second = vec![0; whole * size_of::<f32>()];
        let done = self.encode_blocks(job, Planes { first: block_codes, second: &mut second });
        for (to, from) in block_absmax.iter_mut().zip(second.as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
        scheme.encode(words, tail, block_len, tail_codes, tail_absmax)?;
        Ok(done)
    }

    /// The kernel's self-test, run now unless it has been.
    pub(crate) fn self_test(&mut self, kernel: &'static Kernel, words: Words) -> &SelfTest {
        &self.gpu.shared.prepare(kernel, words, &mut self.ring).self_test
    }

    /// On the GPU and nowhere else, for measuring.
    pub(crate) fn encode_unchecked(&mut self, job: Job<'_>, mut out: Planes<'_>) -> Result<(), GpuError> {
        let prepared = self.gpu.shared.prepare(job.kernel, job.words, &mut self.ring);
        let Some(pipeline) = &prepared.pipeline else { return Ok(()) };
        self.ring.run(job, Dispatch { pipeline, poison: None, faults: None }, out.reborrow())?;
        job.redo_marked(out);
        Ok(())
    }

    fn encode_blocks(&mut self, job: Job<'_>, mut out: Planes<'_>) -> Done {
        let done = self.try_gpu(job, out.reborrow());
        if let Done::Cpu = done {
            job.encode_on_cpu(out, false);
        }
        done
    }

    /// `Cpu`: nothing of worth is in `out`.
    fn try_gpu(&mut self, job: Job<'_>, mut out: Planes<'_>) -> Done {
        let shared = &self.gpu.shared;
        if !shared.is_usable() || job.source.is_empty() {
            return Done::Cpu;
        }
        let prepared = shared.prepare(job.kernel, job.words, &mut self.ring);
        let Some(pipeline) = prepared.trusted() else { return Done::Cpu };
        let dispatch = Dispatch { pipeline, poison: shared.options.testing.poison, faults: Some(&shared.faults) };
        // The device keeps its failure, for the summary.
        if self.ring.run(job, dispatch, out.reborrow()).is_err() {
            return Done::Cpu;
        }
        let redone = job.redo_marked(out.reborrow());
        shared.counters.redone_blocks.fetch_add(redone, Ordering::Relaxed);
        let nth = prepared.chunks.fetch_add(1, Ordering::Relaxed);
        if shared.options.check_every == 0 || !nth.is_multiple_of(shared.options.check_every) {
            return Done::Gpu;
        }
        shared.counters.checked_chunks.fetch_add(1, Ordering::Relaxed);
        match job.first_difference(&out) {
            None => Done::Both,
            Some(difference) => {
                shared.distrust(Mismatch {
                    kernel: job.kernel.name(),
                    words: job.words,
                    offset: difference.offset,
                    expected: difference.expected,
                    found: difference.found,
                });
                Done::Cpu
            }
        }
    }

    fn count(&mut self, done: Done, source_bytes: usize) {
        let counters = &self.gpu.shared.counters;
        let (chunks, bytes) = match done {
            Done::Cpu => (&counters.cpu_chunks, &counters.cpu_bytes),
            Done::Gpu | Done::Both => (&counters.gpu_chunks, &counters.gpu_bytes),
        };
        chunks.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(source_bytes as u64, Ordering::Relaxed);
        if let Done::Gpu = done {
            self.unchecked.push(self.calls);
        }
        self.calls += 1;
    }
}

impl Worker for GpuWorker {
    fn name(&self) -> &str {
        &self.gpu.adapter().name
    }

    fn encode(
        &mut self,
        encoder: &'static Encoder,
        rows: Rows<'_>,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        if let Err(error) = encoder.check(rows, importance, out) {
            self.calls += 1;
            return Err(error);
        }
        let done = match Kernel::of(encoder, importance.is_some()) {
            Some(kernel) => {
                // Blocks do not cross rows, so the rows are one run of blocks.
                let job = Job { kernel, words: rows.words, block_len: encoder.format.block_len, source: rows.bytes };
                self.encode_blocks(job, Planes { first: out, second: &mut [] })
            }
            None => {
                (encoder.fast)(rows, importance, out);
                Done::Cpu
            }
        };
        self.count(done, rows.bytes.len());
        Ok(())
    }

    fn retracted(&self) -> Vec<u64> {
        self.gpu.shared.check_at_the_end();
        match self.gpu.shared.mismatch() {
            Some(_) => self.unchecked.clone(),
            None => Vec::new(),
        }
    }
}
