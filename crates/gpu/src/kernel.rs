//! Which encoders have a kernel.

use ggufsmith_core::formats::{q4_0, q4_1, q4_k, q5_0, q5_1, q8_0};
use ggufsmith_core::scheme::FourBit;
use ggufsmith_core::schemes::{fp4, nf4};
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
    /// An encoder of ggml blocks that start with an F16 scale.
    Blocks {
        encoder: &'static Encoder,
        /// Importance changes no byte, so that chunks which have some can go to the kernel too.
        ignores_importance: bool,
    },
    /// A scheme of bitsandbytes: codes, and F32 absmax in a second plane.
    FourBit(&'static FourBit),
}

/// `Q8_0`.
pub static Q8_0: Kernel =
    Kernel { shader: &shaders::Q8_0, twin: Twin::Blocks { encoder: &q8_0::ENCODER, ignores_importance: true } };
/// `Q4_0`.
pub static Q4_0: Kernel =
    Kernel { shader: &shaders::Q4_0, twin: Twin::Blocks { encoder: &q4_0::ENCODER, ignores_importance: false } };
/// `Q4_1`.
pub static Q4_1: Kernel =
    Kernel { shader: &shaders::Q4_1, twin: Twin::Blocks { encoder: &q4_1::ENCODER, ignores_importance: false } };
/// `Q5_0`.
pub static Q5_0: Kernel =
    Kernel { shader: &shaders::Q5_0, twin: Twin::Blocks { encoder: &q5_0::ENCODER, ignores_importance: false } };
/// `Q5_1`.
pub static Q5_1: Kernel =
    Kernel { shader: &shaders::Q5_1, twin: Twin::Blocks { encoder: &q5_1::ENCODER, ignores_importance: false } };
/// `Q4_K`.
pub static Q4_K: Kernel =
    Kernel { shader: &shaders::Q4_K, twin: Twin::Blocks { encoder: &q4_k::ENCODER, ignores_importance: false } };
/// bitsandbytes' NF4.
pub static NF4: Kernel = Kernel { shader: &shaders::NF4, twin: Twin::FourBit(&nf4::SCHEME) };
/// bitsandbytes' FP4.
pub static FP4: Kernel = Kernel { shader: &shaders::FP4, twin: Twin::FourBit(&fp4::SCHEME) };

/// Every kernel.
pub static KERNELS: &[&Kernel] = &[&Q8_0, &Q4_0, &Q4_1, &Q5_0, &Q5_1, &Q4_K, &NF4, &FP4];

/// The source types of kernels.
pub const WORDS: [Words; 3] = [Words::F32, Words::F16, Words::BF16];

impl Kernel {
    /// The kernel of an encoder, if it has one that writes its bytes with or without importance.
    pub fn of(encoder: &Encoder, with_importance: bool) -> Option<&'static Kernel> {
        KERNELS.iter().copied().find(|kernel| match &kernel.twin {
            Twin::Blocks { encoder: twin, ignores_importance } => {
                std::ptr::eq(*twin, encoder) && (!with_importance || *ignores_importance)
            }
            Twin::FourBit(_) => false,
        })
    }

    /// The kernel of a scheme, if it has one.
    pub fn of_scheme(scheme: &FourBit) -> Option<&'static Kernel> {
        KERNELS.iter().copied().find(|kernel| kernel.scheme().is_some_and(|twin| std::ptr::eq(twin, scheme)))
    }

    /// What it writes, for messages and reports.
    pub fn name(&self) -> &'static str {
        match &self.twin {
            Twin::Blocks { encoder, .. } => encoder.format.name,
            Twin::FourBit(scheme) => scheme.name,
        }
    }

    /// The encoder whose bytes it writes; `None` for a scheme that is no ggml format.
    pub fn encoder(&self) -> Option<&'static Encoder> {
        match &self.twin {
            Twin::Blocks { encoder, .. } => Some(encoder),
            Twin::FourBit(_) => None,
        }
    }

    /// The scheme whose codes it writes; `None` for a ggml format.
    pub fn scheme(&self) -> Option<&'static FourBit> {
        match &self.twin {
            Twin::Blocks { .. } => None,
            Twin::FourBit(scheme) => Some(scheme),
        }
    }

    /// Elements per block: the format's, or the scheme's default.
    pub fn block_len(&self) -> usize {
        match &self.twin {
            Twin::Blocks { encoder, .. } => encoder.format.block_len,
            Twin::FourBit(_) => FourBit::DEFAULT_BLOCK_LEN,
        }
    }

    /// Its place in [`KERNELS`].
    pub(crate) fn index(&self) -> usize {
        // Kernels exist nowhere else.
        KERNELS.iter().position(|kernel| std::ptr::eq(*kernel, self)).unwrap_or(usize::MAX)
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
