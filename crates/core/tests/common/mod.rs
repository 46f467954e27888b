//! Shared by the tests of the encoders.
#![allow(dead_code)] // not every test uses everything

pub mod inputs;

use ggufsmith_core::Words;
use ggufsmith_core::blocks::simd::Level;

pub const ALL_WORDS: [Words; 3] = [Words::F32, Words::F16, Words::BF16];

/// How two outputs differ: blocks that do and the first of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub blocks: usize,
    pub first: usize,
}

/// Compare block by block. None when equal.
pub fn difference(left: &[u8], right: &[u8], block_bytes: usize) -> Option<Difference> {
    assert_eq!(left.len(), right.len());
    let bad = |&i: &usize| left[i * block_bytes..(i + 1) * block_bytes] != right[i * block_bytes..(i + 1) * block_bytes];
    let first = (0..left.len() / block_bytes).find(bad)?;
    Some(Difference { blocks: (0..left.len() / block_bytes).filter(bad).count(), first })
}

/// Run `f` once with each instruction set that this machine has.
pub fn at_every_level(mut f: impl FnMut(Level)) {
    for level in Level::available() {
        level.limit(|| f(level));
    }
}
