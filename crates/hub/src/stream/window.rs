//! The blocks that are kept while files pass.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 1 << 20;
/// Blocks that are read ahead of the furthest one that was asked for.
pub(super) const AHEAD: usize = 64;
/// Blocks that are kept, those ahead among them: a matrix that is transposed is read as a whole for every run of its columns.
const KEPT: usize = 256;
/// Blocks that are kept of those that were fetched again.
const KEPT_AGAIN: usize = 32;

/// Blocks of all files, numbered through.
pub(super) struct Window {
    /// The number of each file's first block.
    first: Vec<usize>,
    kept: BTreeMap<usize, Arc<Vec<u8>>>,
    again: VecDeque<(usize, Arc<Vec<u8>>)>,
    /// SHA-256 of each block that has passed.
    digests: Vec<Option<[u8; 32]>>,
    wanted: usize,
    over: bool,
}

impl Window {
    /// By the files' lengths in bytes.
    pub(super) fn new(files: impl Iterator<Item = u64>) -> Self {
        let mut blocks = 0;
        let mut first = Vec::new();
        for bytes in files {
            first.push(blocks);
            blocks += bytes.div_ceil(BLOCK) as usize;
        }
        let digests = vec![None; blocks];
        Window { first, kept: BTreeMap::new(), again: VecDeque::new(), digests, wanted: 0, over: false }
    }

    pub(super) fn number(&self, file: usize, block: u64) -> usize {
        self.first[file] + block as usize
    }

    /// Somebody asks for a block; whether it is the furthest so far.
    pub(super) fn want(&mut self, number: usize) -> bool {
        let further = number > self.wanted;
        self.wanted = self.wanted.max(number);
        further
    }

    /// All that is left is to pass.
    pub(super) fn want_all(&mut self) {
        self.wanted = self.digests.len();
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(super) fn get(&self, number: usize) -> Option<Arc<Vec<u8>>> {
        let again = || self.again.iter().find(|(at, _)| *at == number).map(|(_, bytes)| bytes);
        self.kept.get(&number).or_else(again).map(Arc::clone)
    }

    /// The digest of a block that has passed.
    pub(super) fn digest(&self, number: usize) -> Option<[u8; 32]> {
        self.digests[number]
    }

    pub(super) fn put(&mut self, number: usize, bytes: Arc<Vec<u8>>, digest: [u8; 32]) {
        self.digests[number] = Some(digest);
        self.kept.insert(number, bytes);
        if self.kept.len() > KEPT {
            self.kept.pop_first();
        }
    }

    pub(super) fn put_again(&mut self, number: usize, bytes: Arc<Vec<u8>>) {
        if self.again.len() == KEPT_AGAIN {
            self.again.pop_front();
        }
        self.again.push_back((number, bytes));
    }

    /// Everything has passed.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}
