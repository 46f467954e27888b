//! Encoding on the adapter, and the comparison with the textbook.
use ggufsmith_core::scheme::{FourBit, SchemeError};
use ggufsmith_core::{Rows, Words, Worker};
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{Gpu, GpuWorker, KERNELS, Kernel, Options, Selection};

/// Elements of one chunk.
pub const CHUNK: usize = 1 << 20;

/// The adapter, without self-test and comparison: what comes back is the kernel's and no one else's.
pub fn bare(testing: Testing) -> Gpu {
    let options = Options { check_every: 0, testing: Testing { skip_self_test: true, ..testing }, ..Options::default() };
    Gpu::open(Selection::Any, options).unwrap()
}

/// Both planes, one after the other.
pub fn on_gpu(worker: &mut GpuWorker, kernel: &Kernel, words: Words, source: &[u8]) -> Vec<u8> {
    match kernel.encoder() {
        Some(encoder) => {
            let mut out = vec![0; encoded_bytes(kernel, words, source)];
            let cols = encoder.format.block_len;
            worker.encode(encoder, Rows { words, cols, bytes: source }, None, &mut out).unwrap();
            out
        }
        None => scheme_bytes(words, source, |codes, absmax| {
            worker.encode_four_bit(kernel.scheme().unwrap(), words, source, kernel.block_len(), codes, absmax)
        }),
    }
}

/// The same by the definition.
pub fn by_textbook(kernel: &Kernel, words: Words, source: &[u8]) -> Vec<u8> {
    match kernel.encoder() {
        Some(encoder) => {
            let mut out = vec![0; encoded_bytes(kernel, words, source)];
            let cols = encoder.format.block_len;
            encoder.encode_textbook(Rows { words, cols, bytes: source }, None, &mut out).unwrap();
            out
        }
        None => scheme_bytes(words, source, |codes, absmax| {
            kernel.scheme().unwrap().encode_textbook(words, source, kernel.block_len(), codes, absmax)
        }),
    }
}

fn encoded_bytes(kernel: &Kernel, words: Words, source: &[u8]) -> usize {
    let format = kernel.encoder().unwrap().format;
    format.bytes_for((source.len() / words.bytes()) as u64).unwrap() as usize
}

fn scheme_bytes(words: Words, source: &[u8], encode: impl FnOnce(&mut [u8], &mut [f32]) -> Result<(), SchemeError>) -> Vec<u8> {
    let elems = source.len() / words.bytes();
    let mut codes = vec![0; elems / 2];
    let mut absmax = vec![0f32; elems / FourBit::DEFAULT_BLOCK_LEN];
    encode(&mut codes, &mut absmax).unwrap();
    codes.extend(absmax.into_iter().flat_map(f32::to_le_bytes));
    codes
}

/// How many bytes differ, and where the first one is.
#[must_use]
pub fn differing(found: &[u8], expected: &[u8]) -> (usize, Option<usize>) {
    assert_eq!(found.len(), expected.len());
    let mut places = (0..found.len()).filter(|i| found[*i] != expected[*i]);
    let first = places.next();
    (first.map_or(0, |_| 1 + places.count()), first)
}

/// The kernel that writes a format of this name.
pub fn kernel_named(name: &str) -> &'static Kernel {
    KERNELS.iter().copied().find(|kernel| kernel.name() == name).unwrap()
}
