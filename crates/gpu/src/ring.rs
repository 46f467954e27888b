//! Buffers that are made once and used in turn, so that copying in, computing and copying out overlap.
//!
//! ```text
//! slot:   upload --copy--> source --kernel--> result --copy--> download
//!         (host writes)    (device)           (device)         (host reads)
//! ```
//! A slot's submission does all four steps. The host fills the next slot meanwhile and comes back to the oldest one.

use crate::device::Device;
use crate::error::GpuError;
use crate::job::{Job, Planes};
use crate::testing::{Fault, Testing};
use ggufsmith_shaders::{Params, WORKGROUP};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

/// The uniform follows the source bytes in the upload buffer.
const UNIFORM_BYTES: u64 = size_of::<Params>() as u64;

/// The least that a kernel reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    pub source_bytes: usize,
    /// Of the first plane.
    pub result_bytes: usize,
    /// Of the second plane, 0 where there is none.
    pub second_bytes: usize,
    /// For [`Params::block_elems`].
    pub block_elems: u32,
    /// How many invocations it takes.
    pub invocations: u32,
}

/// Sizes of a ring's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub slots: usize,
    pub source_bytes: usize,
    pub result_bytes: usize,
}

impl Capacity {
    /// Host memory of the whole ring (on a device without its own memory, also that of the device).
    pub fn host_bytes(self) -> usize {
        self.slots * (self.source_bytes + self.result_bytes)
    }

    fn units(self, unit: Unit) -> usize {
        (self.source_bytes / unit.source_bytes).min(self.result_bytes / (unit.result_bytes + unit.second_bytes))
    }
}

struct Slot {
    upload: wgpu::Buffer,
    source: wgpu::Buffer,
    uniform: wgpu::Buffer,
    result: wgpu::Buffer,
    download: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
    in_flight: Option<InFlight>,
}

struct InFlight {
    submission: wgpu::SubmissionIndex,
    /// Both mappings report here once the submission is done.
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    units: Range<usize>,
    second_plane: usize,
    wrong_bit: bool,
}

/// The slots of one worker.
pub(crate) struct Ring {
    device: Arc<Device>,
    slots: Vec<Slot>,
    capacity: Capacity,
}

/// Dispatches so far, and what a test wants to go wrong with them. Shared by all workers of a device.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    fault: Option<Fault>,
    dispatches: AtomicU64,
}

impl Faults {
    pub fn new(testing: &Testing) -> Self {
        Faults { fault: testing.fault, dispatches: AtomicU64::new(0) }
    }
}

/// How to run a kernel.
#[derive(Clone, Copy)]
pub(crate) struct Dispatch<'a> {
    pub pipeline: &'a wgpu::ComputePipeline,
    pub poison: Option<u32>,
    /// `None` where nothing is to go wrong.
    pub faults: Option<&'a Faults>,
}

impl Ring {
    pub fn new(device: &Arc<Device>, capacity: Capacity) -> Result<Ring, GpuError> {
        let slots = device.guard(|| {
            device.scoped("allocating buffers", || (0..capacity.slots).map(|_| Slot::new(device, capacity)).collect::<Vec<_>>())
        })?;
        Ok(Ring { device: Arc::clone(device), slots, capacity })
    }

    /// Run a kernel over all of a job. Blocks that it left to the CPU are still marked. On any error the results are worth nothing and
    /// the device is not used again.
    pub fn run(&mut self, job: Job<'_>, dispatch: Dispatch<'_>, mut out: Planes<'_>) -> Result<(), GpuError> {
        let device = Arc::clone(&self.device);
        device.guard(|| self.run_unguarded(job, dispatch, &mut out))
    }

    fn run_unguarded(&mut self, job: Job<'_>, dispatch: Dispatch<'_>, out: &mut Planes<'_>) -> Result<(), GpuError> {
        let unit = job.unit();
        // The last unit may be incomplete; it is filled up with zeros, and its result cut off.
        let units = job.source.len().div_ceil(unit.source_bytes);
        let per_dispatch = self.capacity.units(unit);
        if per_dispatch == 0 {
            return Err(GpuError::TooSmall { adapter: self.device.info.name.clone(), bytes: self.capacity.source_bytes as u64 });
        }
        let mut busy = VecDeque::new();
        for (index, first_unit) in (0..units).step_by(per_dispatch).enumerate() {
            let at = index % self.slots.len();
            if busy.len() == self.slots.len() {
                busy.pop_front();
                self.collect(at, unit, out)?;
            }
            self.submit(at, first_unit..units.min(first_unit + per_dispatch), job, dispatch)?;
            busy.push_back(at);
        }
        for at in busy {
            self.collect(at, unit, out)?;
        }
        Ok(())
    }

    fn submit(&mut self, at: usize, range: Range<usize>, job: Job<'_>, dispatch: Dispatch<'_>) -> Result<(), GpuError> {
        let (device, slot, unit, units) = (&self.device, &mut self.slots[at], job.unit(), range.len());
        let fault = dispatch.faults.and_then(|faults| {
            let nth = faults.dispatches.fetch_add(1, Ordering::Relaxed);
            faults.fault.filter(|fault| fault.strikes(nth))
        });
        match fault {
            Some(Fault::DeviceLost { .. }) => device.wgpu.destroy(),
            Some(Fault::OutOfMemory { .. }) => {
                let adapter = device.info.name.clone();
                return Err(GpuError::OutOfMemory { adapter, doing: "a dispatch", reason: "a test said so".to_owned() });
            }
            Some(Fault::Panic { .. }) => std::panic::panic_any("a test said so".to_owned()),
            Some(Fault::TooManyWorkgroups { .. } | Fault::WrongBit { .. }) | None => {}
        }
        let source = &job.source[range.start * unit.source_bytes..];
        let source = &source[..source.len().min(units * unit.source_bytes)];
        let second_plane = units * unit.result_bytes;
        // Both fit u32: they are bounded by the capacity, which is bounded by the limits of a binding.
        let params =
            Params { units: units as u32, zero: 0, block_elems: unit.block_elems, second_plane: (second_plane / 4) as u32 };
        let padded = units * unit.source_bytes;
        slot.fill(source, padded, params).map_err(|error| device.lost(&error))?;
        if let Some(word) = dispatch.poison {
            device.queue.write_buffer(&slot.result, 0, &word.to_le_bytes().repeat(self.capacity.result_bytes / 4));
        }
        let mut groups = (params.units * unit.invocations).div_ceil(WORKGROUP);
        if let Some(Fault::TooManyWorkgroups { .. }) = fault {
            groups = device.info.limits.max_workgroups.saturating_add(1);
        }
        let result_bytes = (second_plane + units * unit.second_bytes) as u64;
        let (submission, mapped) = device.scoped("a dispatch", || {
            let submission = slot.submit(device, dispatch.pipeline, groups, padded as u64, result_bytes);
            (submission, slot.map(result_bytes))
        })?;
        let wrong_bit = matches!(fault, Some(Fault::WrongBit { .. }));
        slot.in_flight = Some(InFlight { submission, mapped, units: range, second_plane, wrong_bit });
        Ok(())
    }

    fn collect(&mut self, at: usize, unit: Unit, out: &mut Planes<'_>) -> Result<(), GpuError> {
        let (device, slot) = (&self.device, &mut self.slots[at]);
        let Some(flight) = slot.in_flight.take() else { return Ok(()) };
        device.wait(flight.submission)?;
        for _ in 0..2 {
            device.receive(&flight.mapped)?.map_err(|error| device.lost(&error))?;
        }
        let read = flight.second_plane + flight.units.len() * unit.second_bytes;
        let view = slot.download.slice(..read as u64).get_mapped_range().map_err(|error| device.lost(&error))?;
        let result = &mut out.first[flight.units.start * unit.result_bytes..];
        let length = result.len().min(flight.second_plane);
        result[..length].copy_from_slice(&view[..length]);
        let second = &mut out.second[flight.units.start * unit.second_bytes..][..flight.units.len() * unit.second_bytes];
        second.copy_from_slice(&view[flight.second_plane..]);
        drop(view);
        slot.download.unmap();
        if flight.wrong_bit {
            // In the middle, where it is a code, not a scale that might be the sentinel.
            result[(length / 2) | 1] ^= 0x10;
        }
        Ok(())
    }
}

impl Slot {
    fn new(device: &Device, capacity: Capacity) -> Slot {
        use wgpu::BufferUsages as Usage;
        let buffer = |label, bytes: usize, usage, mapped_at_creation| {
            device.wgpu.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes as u64,
                usage,
                mapped_at_creation,
            })
        };
        let uniform_bytes = size_of::<Params>();
        let upload = buffer("upload", capacity.source_bytes + uniform_bytes, Usage::MAP_WRITE | Usage::COPY_SRC, true);
        let source = buffer("source", capacity.source_bytes, Usage::STORAGE | Usage::COPY_DST, false);
        let uniform = buffer("params", uniform_bytes, Usage::UNIFORM | Usage::COPY_DST, false);
        let result = buffer("result", capacity.result_bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, false);
        let download = buffer("download", capacity.result_bytes, Usage::MAP_READ | Usage::COPY_DST, false);
        let entries: Vec<_> = (0..)
            .zip([&uniform, &source, &result])
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = device.wgpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("encoder"),
            layout: &device.bind_group_layout,
            entries: &entries,
        });
        Slot { upload, source, uniform, result, download, bind_group, in_flight: None }
    }

    /// Write source bytes, zeros up to `padded` bytes, and the uniform into the upload buffer, which is mapped.
    fn fill(&self, source: &[u8], padded: usize, params: Params) -> Result<(), wgpu::MapRangeError> {
        let mut view = self.upload.slice(..).get_mapped_range_mut()?;
        view.slice(..source.len()).copy_from_slice(source);
        view.slice(source.len()..padded).fill(0);
        let at = view.len() - UNIFORM_BYTES as usize;
        view.slice(at..).copy_from_slice(&params.to_bytes());
        drop(view);
        self.upload.unmap();
        Ok(())
    }

    fn submit(
        &self,
        device: &Device,
        pipeline: &wgpu::ComputePipeline,
        groups: u32,
        padded: u64,
        result_bytes: u64,
    ) -> wgpu::SubmissionIndex {
        let mut encoder = device.wgpu.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("chunk") });
        encoder.copy_buffer_to_buffer(&self.upload, 0, &self.source, 0, Some(padded));
        encoder.copy_buffer_to_buffer(&self.upload, self.source.size(), &self.uniform, 0, Some(UNIFORM_BYTES));
        {
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("chunk"), timestamp_writes: None });
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &self.bind_group, &[]);
            pass.dispatch_workgroups(groups, 1, 1);
        }
        encoder.copy_buffer_to_buffer(&self.result, 0, &self.download, 0, Some(result_bytes));
        device.queue.submit([encoder.finish()])
    }

    /// Ask for both host buffers; they are mapped once the submission is done.
    fn map(&self, result_bytes: u64) -> mpsc::Receiver<Result<(), wgpu::BufferAsyncError>> {
        let (sender, receiver) = mpsc::channel();
        for (slice, mode) in
            [(self.upload.slice(..), wgpu::MapMode::Write), (self.download.slice(..result_bytes), wgpu::MapMode::Read)]
        {
            let sender = sender.clone();
            // A receiver that is gone has given the device up.
            slice.map_async(mode, move |result| drop(sender.send(result)));
        }
        receiver
    }
}

impl Fault {
    fn strikes(self, nth: u64) -> bool {
        match self {
            Fault::DeviceLost { after }
            | Fault::OutOfMemory { after }
            | Fault::TooManyWorkgroups { after }
            | Fault::Panic { after } => nth == after,
            Fault::WrongBit { after } => nth >= after,
        }
    }
}
