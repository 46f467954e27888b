//! Whether a kernel writes the CPU's bytes on this adapter, before any of them is used.

use crate::adversarial;
use crate::error::GpuError;
use crate::job::{Difference, Job, Planes};
use crate::kernel::Kernel;
use crate::ring::{Dispatch, Ring};
use ggufsmith_core::Words;

/// Elements of a self-test.
const ELEMS: usize = 100_000;
/// Any number.
const SEED: u64 = 0x6775_6673;

/// How a self-test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelfTest {
    /// Every byte is that of the textbook implementation.
    Passed {
        /// Blocks that were encoded.
        blocks: usize,
        /// Blocks among them that the kernel left to the CPU; the data are made to have many of them.
        left_to_cpu: u64,
    },
    /// Some bytes are not.
    Failed {
        /// Blocks that were encoded.
        blocks: usize,
        /// Blocks with a wrong byte.
        wrong: usize,
    },
    /// The adapter gave an error instead of bytes.
    Error(GpuError),
    /// A test said not to look.
    Skipped,
}

impl SelfTest {
    /// Whether the kernel may be used.
    pub fn passed(&self) -> bool {
        matches!(self, SelfTest::Passed { .. } | SelfTest::Skipped)
    }
}

/// About a hundred thousand adversarial elements.
pub(crate) fn run(kernel: &'static Kernel, words: Words, dispatch: Dispatch<'_>, ring: &mut Ring) -> SelfTest {
    let block_len = kernel.block_len();
    let source = adversarial::data(words, block_len, ELEMS, SEED);
    let job = Job { kernel, words, block_len, source: &source };
    let blocks = job.blocks();
    match compare(job, dispatch, ring) {
        Err(error) => SelfTest::Error(error),
        Ok((wrong, left_to_cpu)) if wrong.is_empty() => SelfTest::Passed { blocks, left_to_cpu },
        Ok((wrong, _)) => SelfTest::Failed { blocks, wrong: wrong.len() },
    }
}

/// The same data again: the first byte that is not the CPU's. An error of the device says nothing about bytes.
pub(crate) fn first_difference(
    kernel: &'static Kernel,
    words: Words,
    dispatch: Dispatch<'_>,
    ring: &mut Ring,
) -> Option<Difference> {
    let source = adversarial::data(words, kernel.block_len(), ELEMS, SEED);
    let job = Job { kernel, words, block_len: kernel.block_len(), source: &source };
    let (first, second) = job.plane_bytes();
    let (mut first, mut second) = (vec![0; first], vec![0; second]);
    let mut found = Planes { first: &mut first, second: &mut second };
    ring.run(job, dispatch, found.reborrow()).ok()?;
    job.redo_marked(found.reborrow());
    job.first_difference(&found)
}

/// Encode on the device and by the textbook: the blocks that differ, and how many were left to the CPU.
pub(crate) fn compare(job: Job<'_>, dispatch: Dispatch<'_>, ring: &mut Ring) -> Result<(Vec<usize>, u64), GpuError> {
    let (first, second) = job.plane_bytes();
    let (mut found, mut expected) = ((vec![0; first], vec![0; second]), (vec![0; first], vec![0; second]));
    let mut found = Planes { first: &mut found.0, second: &mut found.1 };
    let mut expected = Planes { first: &mut expected.0, second: &mut expected.1 };
    ring.run(job, dispatch, found.reborrow())?;
    let left_to_cpu = job.redo_marked(found.reborrow());
    job.encode_on_cpu(expected.reborrow(), true);
    Ok((job.wrong_blocks(&found, &expected), left_to_cpu))
}
