//! What can go wrong between us and a GPU. None of it changes the bytes: a run goes on on the CPU.

use crate::adapter::AdapterInfo;
use std::time::Duration;

/// Why a GPU cannot be used, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GpuError {
    /// `found` are the adapters that were looked at and passed over (software ones, where a real GPU was asked for).
    #[error("no usable GPU: {reason}{}. {HOW_TO_GET_ONE}", passed_over(.found))]
    NoAdapter { reason: String, found: Vec<AdapterInfo> },
    #[error("{adapter} cannot be opened: {reason}")]
    Open { adapter: String, reason: String },
    #[error("{adapter} binds at most {bytes} bytes of storage, too few for a buffer of one block row")]
    TooSmall { adapter: String, bytes: u64 },
    #[error("{adapter} was lost: {reason}")]
    Lost { adapter: String, reason: String },
    #[error("{adapter} is out of memory while {doing}: {reason}")]
    OutOfMemory { adapter: String, doing: &'static str, reason: String },
    #[error("{adapter} refused {doing}: {reason}")]
    Refused { adapter: String, doing: &'static str, reason: String },
    #[error("{adapter} did not finish a dispatch within {} s", .after.as_secs())]
    Timeout { adapter: String, after: Duration },
}

/// Said to whoever asked for a GPU and has none.
const HOW_TO_GET_ONE: &str = "On Linux install a Vulkan driver: NVIDIA's own, or Mesa's (Debian and Ubuntu: mesa-vulkan-drivers and \
     libvulkan1, which include a software one; Fedora: mesa-vulkan-drivers and vulkan-loader). Windows (Direct3D 12) and macOS (Metal) \
     bring theirs";

fn passed_over(found: &[AdapterInfo]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let names: Vec<_> = found.iter().map(ToString::to_string).collect();
    format!(" (not counted: {})", names.join("; "))
}
