//! Which adapters there are, and which one to take.

use crate::error::GpuError;
use std::fmt;

/// The native interfaces that the kernels run on.
const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// What an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU that a virtual machine is lent.
    Virtual,
    /// A driver does not say.
    Other,
    /// Software: shaders run on the CPU.
    Software,
}

impl AdapterKind {
    /// Whether work given to it is taken off the CPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, AdapterKind::Discrete | AdapterKind::Integrated | AdapterKind::Virtual)
    }

    /// For messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "unknown",
            AdapterKind::Software => "software",
        }
    }
}

/// An adapter as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// The interface it is used through: `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// The driver's name, where it gives one.
    pub driver: String,
    /// The driver's version, where it gives one.
    pub driver_info: String,
    /// PCI vendor, 0 where there is none.
    pub vendor: u32,
    /// The limits that bound a dispatch.
    pub limits: AdapterLimits,
}

/// The limits of an adapter that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterLimits {
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest part of a buffer that a shader sees, in bytes.
    pub max_storage_binding_bytes: u64,
    /// Workgroups per dispatch and dimension.
    pub max_workgroups: u32,
    /// Invocations per workgroup.
    pub max_invocations: u32,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.kind.name(), self.backend)
    }
}

impl AdapterInfo {
    fn of(adapter: &wgpu::Adapter) -> AdapterInfo {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        AdapterInfo {
            name: info.name,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
                wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
                wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
                wgpu::DeviceType::Other => AdapterKind::Other,
                wgpu::DeviceType::Cpu => AdapterKind::Software,
            },
            backend: info.backend.to_str(),
            driver: info.driver,
            driver_info: info.driver_info,
            vendor: info.vendor,
            limits: AdapterLimits {
                max_buffer_bytes: limits.max_buffer_size,
                max_storage_binding_bytes: limits.max_storage_buffer_binding_size,
                max_workgroups: limits.max_compute_workgroups_per_dimension,
                max_invocations: limits.max_compute_invocations_per_workgroup,
            },
        }
    }
}

/// Which adapters may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// A real GPU.
    Gpu,
    /// Any adapter, a real GPU first, else a software one.
    Any,
}

/// Every adapter, the one to prefer first: discrete, integrated, virtual, unknown, software; among equals in the drivers' order.
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate(&instance()).into_iter().map(|(_, info)| info).collect()
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor { backends: BACKENDS, ..wgpu::InstanceDescriptor::new_without_display_handle() })
}

fn enumerate(instance: &wgpu::Instance) -> Vec<(wgpu::Adapter, AdapterInfo)> {
    let mut all: Vec<_> = pollster::block_on(instance.enumerate_adapters(BACKENDS))
        .into_iter()
        .map(|adapter| {
            let info = AdapterInfo::of(&adapter);
            (adapter, info)
        })
        .collect();
    all.sort_by_key(|(_, info)| info.kind);
    all
}

/// All adapters that `selection` allows, the one to prefer first.
///
/// # Errors
/// [`GpuError::NoAdapter`] when there is none.
pub(crate) fn select(selection: Selection) -> Result<Vec<(wgpu::Adapter, AdapterInfo)>, GpuError> {
    let instance = instance();
    let all = enumerate(&instance);
    if all.is_empty() {
        // Asked for one, wgpu says per backend why there is none.
        let reason = match pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())) {
            Err(error) => error.to_string(),
            Ok(_) => "the list of adapters is empty".to_owned(),
        };
        return Err(GpuError::NoAdapter { reason, found: Vec::new() });
    }
    let (allowed, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, info)| selection == Selection::Any || info.kind.is_gpu());
    if allowed.is_empty() {
        let found = others.into_iter().map(|(_, info)| info).collect();
        return Err(GpuError::NoAdapter { reason: "there are only software adapters".to_owned(), found });
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_gpu_comes_before_software() {
        let mut kinds =
            [AdapterKind::Software, AdapterKind::Other, AdapterKind::Virtual, AdapterKind::Integrated, AdapterKind::Discrete];
        kinds.sort();
        assert_eq!(kinds.map(AdapterKind::is_gpu), [true, true, true, false, false]);
    }
}
