//! Damaged and hostile headers: no panic, no end, and no more memory than the file deserves.

mod common;

use common::{ARRAY, Bytes, STRING};
use ggufsmith_gguf::{GgufError, Header, Limits};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

/// Counts what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(held: usize) {
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call goes to the system allocator unchanged; the bookkeeping allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(HELD.get().saturating_add(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes held at a time while `f` runs, beyond what was held before.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get() - before)
}

/// The read buffer, and a little for paths and messages.
const CONSTANT: usize = (64 << 10) + (4 << 10);

#[test]
fn the_counter_counts() {
    let (_, bytes) = peak(|| drop(vec![0_u8; 12345]));
    assert_eq!(bytes, 12345);
}

#[test]
fn no_single_damaged_byte_panics_or_takes_much_memory() {
    let good = common::valid();
    for at in 0..good.bytes().len() {
        for value in 0..=255 {
            let mut bytes = good.bytes().to_vec();
            bytes[at] = value;
            let (_, taken) = peak(|| Header::read(Cursor::new(&bytes), Path::new("t"), &Limits::default()));
            // A key of 14 bytes takes 68 bytes and more, an empty string 24 instead of 8.
            assert!(taken < CONSTANT + 10 * bytes.len(), "byte {at} = {value}: {taken}");
        }
    }
}

/// `head`, then zeros up to `len`; so that large files cost nothing here.
struct Zeros<'a> {
    head: &'a [u8],
    at: u64,
    len: u64,
}

impl Read for Zeros<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = (out.len() as u64).min(self.len - self.at) as usize;
        out[..count].fill(0);
        if let Some(rest) = self.head.get(self.at as usize..) {
            let n = rest.len().min(count);
            out[..n].copy_from_slice(&rest[..n]);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Zeros<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(back) => self.len.saturating_add_signed(back),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

fn read_zeros(head: &Bytes, len: u64) -> (Result<Header, GgufError>, usize) {
    peak(|| Header::read(Zeros { head: head.bytes(), at: 0, len }, Path::new("t"), &Limits::default()))
}

const LARGE: u64 = 96 << 20;

#[test]
fn a_file_full_of_empty_strings_does_not_grow_in_memory() {
    let head = Bytes::head(0, 1).key("a", ARRAY).u32(STRING);
    let strings = (LARGE - head.len() - 8) / 8;
    let (result, taken) = read_zeros(&head.u64(strings), LARGE);
    assert!(matches!(result, Err(GgufError::Limit { max: LARGE, .. })), "{result:?}");
    assert!(taken <= CONSTANT, "{taken}");
}

#[test]
fn counts_that_the_file_could_hold_do_not_take_more_than_the_file() {
    for (tensors, keys) in [(1_000_000, 0), (0, 100_000), (1_000_000, 100_000)] {
        let (result, taken) = read_zeros(&Bytes::head(tensors, keys), LARGE);
        assert!(matches!(result, Err(GgufError::Format { .. } | GgufError::Limit { .. })), "{result:?}");
        assert!(taken as u64 <= LARGE, "{tensors} {keys}: {taken}");
    }
}

#[test]
fn a_large_array_takes_its_own_size() {
    let head = Bytes::head(0, 1).key("a", ARRAY).u32(0);
    let len = LARGE / 2;
    let (result, taken) = read_zeros(&head.clone().u64(len - head.len() - 8), len);
    result.unwrap();
    assert!(taken as u64 <= len + CONSTANT as u64, "{taken}");
}

#[test]
fn memory_follows_the_file_above_64_mib() {
    let limits = Limits::default();
    assert_eq!(limits.memory_for(1000), 64 << 20);
    assert_eq!(limits.memory_for(LARGE), LARGE);
    assert_eq!(limits.memory_for(1 << 40), 1 << 30);
    assert_eq!(Limits { memory: 10, ..limits }.memory_for(1000), 10);
}
