//! WGSL compute kernels that write, bit for bit, what the encoders of `ggufsmith-core` write.
//!
//! A kernel is one file named as its Rust twin. A complete shader is its text after that of five common files:
//!
//! ```text
//! common/interface.wgsl   Params, bindings                       the same for all
//! common/words_*.wgsl     quad(): four elements as F32 bits      one per source type
//! common/arithmetic.wgsl  multiply, add, subtract, ...           all floating-point arithmetic there is
//! common/exact.wgsl       divide, reciprocal, to_f16, ...        integer operations
//! common/blocks.wgsl      signed_scale, range_over, ...          what kernels of ggml's blocks share
//! q8_0.wgsl               the kernel, entry point `main`
//! ```
//!
//! [`parts`] gives the six texts, [`source`] joins them; whoever wants a variant (a test that plays a sloppy device) replaces one of
//! the parts before joining. This crate knows no graphics API, depends on nothing and does no work: it holds texts.
//!
//! ```
//! use ggufsmith_shaders::{KERNELS, Words, parts, source};
//! let wgsl = source(&parts(KERNELS[0], Words::Bf16));
//! assert!(wgsl.contains("fn main("));
//! ```
#![forbid(unsafe_code)]

/// The source types that shaders read. All elements of a dispatch have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Words {
    /// One element per 32-bit word.
    F32,
    /// Two elements per 32-bit word, the first one in the low half.
    F16,
    /// Two elements per 32-bit word, the first one in the low half.
    Bf16,
}

impl Words {
    /// Every source type.
    pub const ALL: [Words; 3] = [Words::F32, Words::F16, Words::Bf16];
}

/// A kernel: one file of this package.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its path in this package.
    pub file: &'static str,
    /// The Rust file with the encoder of the same bytes, in `crates/core/src`.
    pub twin: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Blocks of a unit: a whole number of words of every plane.
    pub unit_blocks: u32,
    /// Neighbouring invocations that encode a unit; a divisor of [`WORKGROUP`].
    pub unit_invocations: u32,
}

/// Q8_0 blocks, two per invocation.
pub static Q8_0: Kernel = Kernel {
    file: "q8_0.wgsl",
    twin: "formats/q8_0.rs",
    text: include_str!("../q8_0.wgsl"),
    unit_blocks: 2,
    unit_invocations: 1,
};
/// Q4_0 blocks, two per invocation.
pub static Q4_0: Kernel = Kernel {
    file: "q4_0.wgsl",
    twin: "formats/q4_0.rs",
    text: include_str!("../q4_0.wgsl"),
    unit_blocks: 2,
    unit_invocations: 1,
};
/// Q4_1 blocks, two per invocation.
pub static Q4_1: Kernel = Kernel {
    file: "q4_1.wgsl",
    twin: "formats/q4_1.rs",
    text: include_str!("../q4_1.wgsl"),
    unit_blocks: 2,
    unit_invocations: 1,
};
/// Q5_0 blocks, two per invocation.
pub static Q5_0: Kernel = Kernel {
    file: "q5_0.wgsl",
    twin: "formats/q5_0.rs",
    text: include_str!("../q5_0.wgsl"),
    unit_blocks: 2,
    unit_invocations: 1,
};
/// Q5_1 blocks, two per invocation.
pub static Q5_1: Kernel = Kernel {
    file: "q5_1.wgsl",
    twin: "formats/q5_1.rs",
    text: include_str!("../q5_1.wgsl"),
    unit_blocks: 2,
    unit_invocations: 1,
};
/// Q4_K blocks, without importance, one per eight invocations.
pub static Q4_K: Kernel = Kernel {
    file: "q4_k.wgsl",
    twin: "formats/q4_k.rs",
    text: include_str!("../q4_k.wgsl"),
    unit_blocks: 1,
    unit_invocations: 8,
};
/// bitsandbytes' NF4 codes and absmax, one block per invocation.
pub static NF4: Kernel =
    Kernel { file: "nf4.wgsl", twin: "schemes/nf4.rs", text: include_str!("../nf4.wgsl"), unit_blocks: 1, unit_invocations: 1 };
/// bitsandbytes' FP4 codes and absmax, one block per invocation.
pub static FP4: Kernel =
    Kernel { file: "fp4.wgsl", twin: "schemes/fp4.rs", text: include_str!("../fp4.wgsl"), unit_blocks: 1, unit_invocations: 1 };

/// Every kernel.
pub static KERNELS: &[&Kernel] = &[&Q8_0, &Q4_0, &Q4_1, &Q5_0, &Q5_1, &Q4_K, &NF4, &FP4];

/// Invocations per workgroup of every kernel (`WORKGROUP` in common/interface.wgsl).
pub const WORKGROUP: u32 = 64;

/// The name of every kernel's entry point.
pub const ENTRY_POINT: &str = "main";

/// The uniform of every kernel, binding 0 (`Params` in common/interface.wgsl).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Units to encode, each by one invocation or by some neighbours.
    pub units: u32,
    /// Always 0; hides products from compilers that would fuse them into sums.
    pub zero: u32,
    /// Elements per block, where a kernel takes it.
    pub block_elems: u32,
    /// First word of the output's second plane, where a kernel has one.
    pub second_plane: u32,
}

impl Params {
    /// The bytes of the uniform.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let fields = [self.units, self.zero, self.block_elems, self.second_plane];
        for (to, field) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
        bytes
    }
}

/// One text of a shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its path in this package.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// The texts of the shader for one kernel and source type, in their order.
pub fn parts(kernel: &Kernel, words: Words) -> [Part<'_>; 6] {
    let words = match words {
        Words::F32 => Part { file: "common/words_f32.wgsl", text: include_str!("../common/words_f32.wgsl") },
        Words::F16 => Part { file: "common/words_f16.wgsl", text: include_str!("../common/words_f16.wgsl") },
        Words::Bf16 => Part { file: "common/words_bf16.wgsl", text: include_str!("../common/words_bf16.wgsl") },
    };
    [
        Part { file: "common/interface.wgsl", text: include_str!("../common/interface.wgsl") },
        words,
        Part { file: ARITHMETIC, text: include_str!("../common/arithmetic.wgsl") },
        Part { file: EXACT, text: include_str!("../common/exact.wgsl") },
        Part { file: BLOCKS, text: include_str!("../common/blocks.wgsl") },
        Part { file: kernel.file, text: kernel.text },
    ]
}

/// The part with all floating-point arithmetic, which a test replaces to play a sloppy device.
pub const ARITHMETIC: &str = "common/arithmetic.wgsl";

/// The part with the exact integer operations, which a test replaces to see that their absence is noticed.
pub const EXACT: &str = "common/exact.wgsl";

/// The part that kernels of ggml's blocks share, for tests to replace as well.
pub const BLOCKS: &str = "common/blocks.wgsl";

/// The whole shader.
pub fn source(parts: &[Part<'_>]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.text.len() + 1).sum());
    for part in parts {
        text.push_str(part.text);
        text.push('\n');
    }
    text
}
