//! Encoders on a GPU, with the CPU's bytes.
//!
//! The model:
//! - a [`Gpu`] is an opened adapter; each [`Kernel`] on it is compiled and self-tested when it is first needed;
//! - a [`GpuWorker`] is one more [`Worker`](ggufsmith_core::Worker) on the chunk queue, with its own ring of buffers;
//! - what a kernel cannot do exactly it marks, block by block, and the CPU does it;
//! - whatever goes wrong with the device, the worker goes on on the CPU and [`Gpu::summary`] says why;
//! - every hundredth chunk is compared with the CPU's, and kernels that were used are tested again at the end; one difference, and the
//!   workers take back all their chunks.
//!
//! ```text
//! open -> self-test per kernel and word type -> chunks: GPU -> marked blocks: CPU -> every 100th: compared
//!              | wrong byte or error              | error                              | difference
//!              v                                  v                                    v
//!         that kernel's chunks: CPU          all chunks from here on: CPU         the same, and all earlier ones redone
//! ```
//! [`auto`] decides whether a GPU joins a run unasked, [`examine`] tells what there is. The crate prints nothing and reads no
//! environment (the Vulkan loader and its drivers do). wgpu reports some losses by panicking; such panics are caught, so a program
//! that uses this crate has to be built with unwinding.
#![forbid(unsafe_code)]

pub mod adversarial;
pub mod testing;

mod adapter;
mod auto;
mod calibrate;
mod device;
mod error;
mod gpu;
mod job;
mod kernel;
mod ring;
mod selftest;
mod worker;

pub use adapter::{AdapterInfo, AdapterKind, AdapterLimits, Selection, adapters};
pub use auto::{Auto, WhyNot, auto};
pub use calibrate::{AdapterReport, Calibration, KernelReport, examine};
pub use error::GpuError;
pub use gpu::{Gpu, KernelState, Mismatch, Options, Summary};
pub use kernel::{FP4, KERNELS, Kernel, NF4, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q8_0, WORDS};
pub use selftest::SelfTest;
pub use worker::GpuWorker;
