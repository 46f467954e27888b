//! What tests need: faults on demand, a sloppy device, visible unwritten words.
//!
//! All of it is off in [`Testing::default`], which is what [`Options`](crate::Options) holds unless a test says otherwise.

/// How to misbehave.
#[derive(Debug, Clone, Default)]
pub struct Testing {
    /// Something that goes wrong.
    pub fault: Option<Fault>,
    /// Fill output buffers with this word before each dispatch, so that a word which the kernel does not write is seen.
    pub poison: Option<u32>,
    /// Texts that take the place of a shader's part of that file name (see [`ggufsmith_shaders::parts`]).
    pub replace: Vec<(&'static str, String)>,
    /// Trust every kernel without its self-test.
    pub skip_self_test: bool,
}

/// Something that goes wrong once this many dispatches have gone well; those of the self-test before the first chunk do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device is destroyed.
    DeviceLost {
        /// Dispatches before it.
        after: u64,
    },
    /// The driver reports that it is out of memory.
    OutOfMemory {
        /// Dispatches before it.
        after: u64,
    },
    /// A dispatch of one more workgroup than the device takes.
    TooManyWorkgroups {
        /// Dispatches before it.
        after: u64,
    },
    /// wgpu panics, as it does when a driver reports a lost device while it is waited for.
    Panic {
        /// Dispatches before it.
        after: u64,
    },
    /// From here on one bit of every result is wrong.
    WrongBit {
        /// Dispatches before it.
        after: u64,
    },
}
