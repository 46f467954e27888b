//! One chunk for one kernel: on the device, on the CPU, and the comparison of both.

use crate::kernel::{Kernel, Twin};
use crate::ring::Unit;
use ggufsmith_core::scheme::FourBit;
use ggufsmith_core::{Rows, Words};

/// Source bytes of the pieces in which a chunk is compared.
const COMPARED_AT_A_TIME: usize = 1 << 20;

/// The scale that shaders/common/exact.wgsl gives a block which the CPU has to encode.
const SENTINEL_F16: [u8; 2] = 0x7fff_u16.to_le_bytes();
const SENTINEL_F32: [u8; 4] = 0x7fff_ffff_u32.to_le_bytes();

/// Whole blocks to encode.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub kernel: &'static Kernel,
    pub words: Words,
    /// Elements per block.
    pub block_len: usize,
    pub source: &'a [u8],
}

/// Where results go: exactly [`Job::plane_bytes`].
pub(crate) struct Planes<'a> {
    /// ggml blocks, or a scheme's codes.
    pub first: &'a mut [u8],
    /// A scheme's absmax, else empty.
    pub second: &'a mut [u8],
}

impl Planes<'_> {
    pub fn reborrow(&mut self) -> Planes<'_> {
        Planes { first: self.first, second: self.second }
    }
}

/// A byte that is not the CPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference {
    pub offset: usize,
    pub expected: u8,
    pub found: u8,
}

impl<'a> Job<'a> {
    pub fn blocks(&self) -> usize {
        self.source.len() / self.source_block_bytes()
    }

    /// Bytes of a block in the source and in the two planes.
    fn source_block_bytes(&self) -> usize {
        self.block_len * self.words.bytes()
    }

    fn block_bytes(&self) -> (usize, usize) {
        match &self.kernel.twin {
            Twin::Blocks { encoder, .. } => (encoder.format.block_bytes, 0),
            Twin::FourBit(_) => (self.block_len / 2, size_of::<f32>()),
        }
    }

    /// Bytes of the two planes.
    pub fn plane_bytes(&self) -> (usize, usize) {
        let (first, second) = self.block_bytes();
        (self.blocks() * first, self.blocks() * second)
    }

    /// The least that the kernel does.
    pub fn unit(&self) -> Unit {
        let blocks = self.kernel.shader.unit_blocks as usize;
        let (first, second) = self.block_bytes();
        Unit {
            source_bytes: blocks * self.source_block_bytes(),
            result_bytes: blocks * first,
            second_bytes: blocks * second,
            block_elems: self.block_len as u32,
            invocations: self.kernel.shader.unit_invocations,
        }
    }

    /// The CPU's bytes, by the fast implementation, or by the textbook one that defines them.
    pub fn encode_on_cpu(&self, out: Planes<'_>, textbook: bool) {
        match &self.kernel.twin {
            Twin::Blocks { encoder, .. } => {
                let rows = Rows { words: self.words, cols: self.block_len, bytes: self.source };
                let encode = if textbook { encoder.textbook } else { encoder.fast };
                encode(rows, None, out.first);
            }
            Twin::FourBit(scheme) => {
                let mut absmax = vec![0f32; self.blocks()];
                let encode = if textbook { FourBit::encode_textbook } else { FourBit::encode };
                let result = encode(scheme, self.words, self.source, self.block_len, out.first, &mut absmax);
                // `encode_four_bit` makes such jobs, and has asked the scheme; the default block length fits always.
                result.expect("the lengths of a job belong together");
                for (to, from) in out.second.as_chunks_mut::<4>().0.iter_mut().zip(absmax) {
                    *to = from.to_le_bytes();
                }
            }
        }
    }

    /// Encode on the CPU every block that the kernel has marked; returns how many they were.
    pub fn redo_marked(&self, out: Planes<'_>) -> u64 {
        let marked = |first: &[u8], second: &[u8]| match &self.kernel.twin {
            Twin::Blocks { .. } => first[..2] == SENTINEL_F16,
            Twin::FourBit(_) => *second == SENTINEL_F32,
        };
        let mut redone = 0;
        let (first_bytes, second_bytes) = self.block_bytes();
        for (index, source) in self.source.chunks_exact(self.source_block_bytes()).enumerate() {
            let first = &mut out.first[index * first_bytes..][..first_bytes];
            let second = &mut out.second[index * second_bytes..][..second_bytes];
            if marked(first, second) {
                Job { source, ..*self }.encode_on_cpu(Planes { first, second }, true);
                redone += 1;
            }
        }
        redone
    }

    /// The first byte of `out` that the CPU writes differently; offsets of the second plane follow those of the first.
    pub fn first_difference(&self, out: &Planes<'_>) -> Option<Difference> {
        let (first_bytes, second_bytes) = self.block_bytes();
        let blocks = (COMPARED_AT_A_TIME / self.source_block_bytes()).max(1);
        let mut expected = (vec![0; blocks * first_bytes], vec![0; blocks * second_bytes]);
        for (index, source) in self.source.chunks(blocks * self.source_block_bytes()).enumerate() {
            let job = Job { source, ..*self };
            let (first, second) = job.plane_bytes();
            let mut expected = Planes { first: &mut expected.0[..first], second: &mut expected.1[..second] };
            job.encode_on_cpu(expected.reborrow(), false);
            let (first_at, second_at) = (index * blocks * first_bytes, index * blocks * second_bytes);
            let planes = [
                (&out.first[first_at..][..first], &*expected.first, first_at),
                (&out.second[second_at..][..second], &*expected.second, out.first.len() + second_at),
            ];
            for (found, expected, at) in planes {
                if let Some(offset) = (0..found.len()).find(|i| found[*i] != expected[*i]) {
                    return Some(Difference { offset: at + offset, expected: expected[offset], found: found[offset] });
                }
            }
        }
        None
    }

    /// The blocks in which `found` and `expected` differ.
    pub fn wrong_blocks(&self, found: &Planes<'_>, expected: &Planes<'_>) -> Vec<usize> {
        let (first, second) = self.block_bytes();
        let same = |a: &[u8], b: &[u8], size: usize, index: usize| a[index * size..][..size] == b[index * size..][..size];
        (0..self.blocks())
            .filter(|i| !same(found.first, expected.first, first, *i) || !same(found.second, expected.second, second, *i))
            .collect()
    }
}
