//! How much a file may ask for.

/// Caps on what a header may hold, checked before anything is allocated; every length is checked against the bytes left in the
/// file as well. A header takes at most [`Limits::memory_for`] bytes of memory, plus one constant read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most keys. Default 100,000, as in the Hugging Face viewer.
    pub keys: u64,
    /// Most tensors. Default 1,000,000; the largest models published have a few thousand.
    pub tensors: u64,
    /// Longest string value in bytes. Default 1 GiB, as in llama.cpp.
    pub string_bytes: u64,
    /// Most elements of an array value. Default 2^30, as in llama.cpp.
    pub array_len: u64,
    /// Most memory for keys, values and tensor infos together, in bytes. Default 1 GiB; the largest vocabularies take 50 MiB.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys: 100_000, tensors: 1_000_000, string_bytes: 1 << 30, array_len: 1 << 30, memory: 1 << 30 }
    }
}

impl Limits {
    /// Files smaller than this may take this much, since a short string takes more room in memory than in the file.
    const SMALL_FILE: u64 = 64 << 20;

    /// Most memory in bytes for the header of a file of `file_size` bytes: no more than the file itself, or 64 MiB where it is
    /// smaller; and never more than [`Limits::memory`].
    pub fn memory_for(&self, file_size: u64) -> u64 {
        file_size.max(Self::SMALL_FILE).min(self.memory)
    }
}
