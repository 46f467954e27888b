//! Which encoders have a kernel, and what a kernel and its encoder have in common.

use ggufsmith_core::formats::{q4_0, q4_1, q8_0};
use ggufsmith_core::{Encoder, Words};
use ggufsmith_shaders as shaders;

/// A kernel and the encoder whose bytes it writes.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) shader: &'static shaders::Kernel,
    pub(crate) twin: Twin,
}

/// What a kernel has to equal.
#[derive(Debug)]
pub(crate) enum Twin {
    /// An encoder of ggml blocks of 32 elements that start with an F16 scale.
    Blocks {
        encoder: &'static Encoder,
        /// Importance changes no byte, so that chunks which have some can go to the kernel too.
        ignores_importance: bool,
    },
}

/// Every kernel.
pub static KERNELS: &[Kernel] = &[
    Kernel { shader: &shaders::Q8_0, twin: Twin::Blocks { encoder: &q8_0::ENCODER, ignores_importance: true } },
    Kernel { shader: &shaders::Q4_0, twin: Twin::Blocks { encoder: &q4_0::ENCODER, ignores_importance: false } },
    Kernel { shader: &shaders::Q4_1, twin: Twin::Blocks { encoder: &q4_1::ENCODER, ignores_importance: false } },
];

/// The source types of kernels.
pub const WORDS: [Words; 3] = [Words::F32, Words::F16, Words::BF16];

impl Kernel {
    /// The kernel of an encoder, if it has one that writes its bytes with or without importance.
    pub fn of(encoder: &Encoder, with_importance: bool) -> Option<&'static Kernel> {
        KERNELS.iter().find(|kernel| match &kernel.twin {
            Twin::Blocks { encoder: twin, ignores_importance } => {
                std::ptr::eq(*twin, encoder) && (!with_importance || *ignores_importance)
            }
        })
    }

    /// What it writes, for messages and reports.
    pub fn name(&self) -> &'static str {
        match &self.twin {
            Twin::Blocks { encoder, .. } => encoder.format.name,
        }
    }

    /// The encoder whose bytes it writes; `None` where that is no ggml format.
    pub fn encoder(&self) -> Option<&'static Encoder> {
        match &self.twin {
            Twin::Blocks { encoder, .. } => Some(encoder),
        }
    }

    /// Its place in [`KERNELS`].
    pub(crate) fn index(&self) -> usize {
        // Kernels exist nowhere else.
        KERNELS.iter().position(|kernel| std::ptr::eq(kernel, self)).unwrap_or(usize::MAX)
    }

    /// Elements per block, where the kernel leaves no choice.
    pub(crate) fn block_len(&self) -> usize {
        match &self.twin {
            Twin::Blocks { encoder, .. } => encoder.format.block_len,
        }
    }
}

/// Words as the shaders call them.
pub(crate) fn shader_words(words: Words) -> shaders::Words {
    match words {
        Words::F32 => shaders::Words::F32,
        Words::F16 => shaders::Words::F16,
        Words::BF16 => shaders::Words::Bf16,
    }
}
