//! A device that reports its failures: error scopes, device-lost and uncaptured-error hooks, panics caught.
//!
//! The first failure is final. wgpu asserts and panics in places (waiting on a lost device, dropping its queue), so a device that has
//! failed is never used again and never torn down.

use crate::adapter::AdapterInfo;
use crate::error::GpuError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How often the device is polled while a callback is waited for that another thread should be running.
const CALLBACK_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) struct Device {
    pub wgpu: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: AdapterInfo,
    /// For the three bindings of shaders/common/interface.wgsl.
    pub bind_group_layout: wgpu::BindGroupLayout,
    pub pipeline_layout: wgpu::PipelineLayout,
    timeout: Duration,
    /// What the hooks heard.
    heard: Arc<Mutex<Option<GpuError>>>,
    failure: OnceLock<GpuError>,
}

impl Device {
    pub fn open(adapter: &wgpu::Adapter, info: AdapterInfo, timeout: Duration) -> Result<Arc<Device>, GpuError> {
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (wgpu, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| GpuError::Open { adapter: info.name.clone(), reason: error.to_string() })?;
        let heard = Arc::new(Mutex::new(None));
        let (lost, uncaptured) = (Arc::clone(&heard), Arc::clone(&heard));
        let (lost_name, uncaptured_name) = (info.name.clone(), info.name.clone());
        wgpu.set_device_lost_callback(move |reason, message| {
            let reason = if message.is_empty() { format!("{reason:?}") } else { message };
            note(&lost, GpuError::Lost { adapter: lost_name.clone(), reason });
        });
        wgpu.on_uncaptured_error(Arc::new(move |error| {
            note(&uncaptured, classify(&uncaptured_name, "outside of any scope", error))
        }));
        let (bind_group_layout, pipeline_layout) = layouts(&wgpu);
        Ok(Arc::new(Device { wgpu, queue, info, bind_group_layout, pipeline_layout, timeout, heard, failure: OnceLock::new() }))
    }

    /// Why the device is no longer used.
    pub fn failure(&self) -> Option<&GpuError> {
        self.failure.get()
    }

    /// Use the device for something. Any error, also one that only a hook heard, and any panic of wgpu ends its use.
    pub fn guard<T>(&self, doing: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        let result = match catch_unwind(AssertUnwindSafe(doing)) {
            Ok(result) => result,
            Err(panic) => Err(GpuError::Lost { adapter: self.info.name.clone(), reason: panic_text(panic.as_ref()).to_owned() }),
        };
        // A hook knows better what happened than the operation that stumbled over it.
        let heard = self.heard.lock().map_or_else(|e| e.into_inner().take(), |mut heard| heard.take());
        let result = match heard {
            Some(error) => Err(error),
            None => result,
        };
        result.map_err(|error| self.failure.get_or_init(|| error).clone())
    }

    /// Run `body` with all errors of the device captured.
    pub fn scoped<T>(&self, doing: &'static str, body: impl FnOnce() -> T) -> Result<T, GpuError> {
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| self.wgpu.push_error_scope(filter));
        let value = body();
        let mut found = None;
        for scope in scopes.into_iter().rev() {
            // Native futures of scopes are ready at once.
            found = found.or(pollster::block_on(scope.pop()));
        }
        match found {
            Some(error) => Err(classify(&self.info.name, doing, error)),
            None => Ok(value),
        }
    }

    /// Wait for a submission to be done, and with it for the buffers whose mapping was asked for after it.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), GpuError> {
        let poll = wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(self.timeout) };
        match self.wgpu.poll(poll) {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => Err(GpuError::Timeout { adapter: self.info.name.clone(), after: self.timeout }),
            // The submission was never accepted: the device went away before it.
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// What a callback of a finished submission sends. Callbacks run in whichever thread polls the device: where two workers share it,
    /// the other one may have taken this one's along and not have come to it yet.
    pub fn receive<T>(&self, from: &Receiver<T>) -> Result<T, GpuError> {
        let started = Instant::now();
        loop {
            match from.recv_timeout(CALLBACK_INTERVAL) {
                Ok(sent) => return Ok(sent),
                // Dropped without having been called.
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost(&RecvTimeoutError::Disconnected)),
                Err(RecvTimeoutError::Timeout) if started.elapsed() > self.timeout => {
                    return Err(GpuError::Timeout { adapter: self.info.name.clone(), after: self.timeout });
                }
                Err(RecvTimeoutError::Timeout) => drop(self.wgpu.poll(wgpu::PollType::Poll)),
            }
        }
    }

    pub fn lost(&self, reason: &dyn std::fmt::Display) -> GpuError {
        GpuError::Lost { adapter: self.info.name.clone(), reason: reason.to_string() }
    }
}

impl Drop for Device {
    /// wgpu asserts that a queue which is dropped is idle and well. One that is not is left to the end of the process.
    fn drop(&mut self) {
        let idle = || {
            let poll = wgpu::PollType::Wait { submission_index: None, timeout: Some(self.timeout) };
            self.wgpu.poll(poll).is_ok()
        };
        if self.failure.get().is_some() || !catch_unwind(AssertUnwindSafe(idle)).unwrap_or(false) {
            std::mem::forget((self.wgpu.clone(), self.queue.clone()));
        }
    }
}

/// The first thing heard stays.
fn note(heard: &Mutex<Option<GpuError>>, error: GpuError) {
    let mut heard = heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    heard.get_or_insert(error);
}

fn classify(adapter: &str, doing: &'static str, error: wgpu::Error) -> GpuError {
    let (adapter, reason) = (adapter.to_owned(), full_text(&error));
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { adapter, doing, reason },
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => GpuError::Refused { adapter, doing, reason },
    }
}

/// An error and its sources, on one line.
fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "wgpu panicked",
    }
}

fn layouts(device: &wgpu::Device) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let entries = [
        entry(0, wgpu::BufferBindingType::Uniform),
        entry(1, wgpu::BufferBindingType::Storage { read_only: true }),
        entry(2, wgpu::BufferBindingType::Storage { read_only: false }),
    ];
    let bind_group_layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("encoder"), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("encoder"),
        bind_group_layouts: &[Some(&bind_group_layout)],
        immediate_size: 0,
    });
    (bind_group_layout, pipeline_layout)
}
