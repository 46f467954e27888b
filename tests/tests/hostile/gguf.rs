//! GGUF files with one defect each: every one that llama.cpp, gguf-py or the Hugging Face viewer refuse, and some that all of them read.
//! (crates/gguf/tests/defects.rs has more of them, and compares the errors themselves.)

use crate::{Verdict, bad, inspect, trial};
use Verdict::Good;
use ggufsmith_tests::bytes::kind::{ARRAY, BOOL, I32, STRING, U32};
use ggufsmith_tests::bytes::{MINUS_ONE, RawFile};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let named = |(name, file, verdict): (&str, RawFile, Verdict)| {
        trial(format!("gguf::{name}"), move || inspect("file.gguf", &file.0, &verdict))
    };
    let all = [head(), keys(), tensors(), data()];
    all.into_iter().flatten().map(named).collect()
}

type Case = (&'static str, RawFile, Verdict);

/// Bytes of the fixed part at the start; the first key or tensor begins there.
const HEAD: usize = 24;

/// The message for `defect` at a byte.
fn at(byte: usize, defect: &str) -> Verdict {
    bad(&[format!("byte {byte}: {defect}")])
}

fn head() -> Vec<Case> {
    vec![
        ("magic", RawFile::default().raw(b"FUGG").u32(3).u64(0).u64(0), at(0, "not a GGUF file: it starts with \"FUGG\"")),
        ("v0", RawFile::versioned(0, 0, 0), at(4, "GGUF version 0")),
        ("v1", RawFile::versioned(1, 0, 0), at(4, "GGUF version 1")),
        ("v4", RawFile::versioned(4, 0, 0), at(4, "GGUF version 4")),
        ("bigendian_v3", RawFile::default().raw(b"GGUF\0\0\0\x03").zeros(16), at(4, "a big-endian GGUF file")),
        ("n_tensors=-1", RawFile::head(MINUS_ONE, 0), at(8, "the header announces 18446744073709551615 tensors")),
        ("n_kv=-1", RawFile::head(0, MINUS_ONE), at(16, "the header announces 18446744073709551615 keys")),
        ("n_kv=2^40", RawFile::head(0, 1 << 40), at(16, "the header announces 1099511627776 keys")),
        ("empty", RawFile::default(), at(0, "the file ends inside the magic number")),
        ("header_only", RawFile::head(0, 0), Good),
        ("header_and_padding", RawFile::head(0, 0).pad(), Good),
        ("keys_only", RawFile::head(0, 1).u32_key("a", 1), Good),
    ]
}

fn keys() -> Vec<Case> {
    let key = || RawFile::head(0, 1);
    let (value, element) = (HEAD + 9, HEAD + 9 + 4);
    vec![
        ("keylen=-1", key().u64(MINUS_ONE), at(HEAD, "a key of 18446744073709551615 bytes")),
        ("empty_key", key().u32_key("", 1), at(HEAD, "a key is empty")),
        ("kvtype=13", key().key("a", 13).zeros(8), at(value, "key \"a\" has the value type 13")),
        ("dup_key", RawFile::head(0, 2).u32_key("a", 0).u32_key("a", 0), at(HEAD + 17, "key \"a\" occurs twice")),
        ("nested_array", key().array("a", ARRAY, 1).u32(U32).u64(1).u32(0), at(element, "key \"a\" holds an array of arrays")),
        ("array_2^60", key().array("a", U32, 1 << 60), at(element + 4, "key \"a\" announces an array of 1152921504606846976")),
        ("strarr_2^30", key().array("a", STRING, 1 << 30), at(element + 4, "key \"a\" announces an array of 1073741824")),
        ("align=0", alignment(0), at(49, "general.alignment is 0")),
        ("align=13", alignment(13), at(49, "general.alignment is 13")),
        ("align_i32", key().key("general.alignment", I32).u32(32), at(49, "general.alignment is of type i32, it must be u32")),
        ("align=2^31", alignment(1 << 31).tensor("a", &[8], 0).zeros(64), at(49, "general.alignment is 2147483648")),
        ("bool=2", key().key("a", BOOL).raw(&[2]), at(element, "key \"a\" holds a bool stored as 2")),
        (
            "non_utf8_str",
            key().key("a", STRING).text(b"\xff\xfe"),
            at(element + 8, "a string in the value of \"a\" is not UTF-8"),
        ),
    ]
}

fn alignment(value: u32) -> RawFile {
    RawFile::head(0, 1).u32_key("general.alignment", value)
}

/// One F32 tensor `a` with these dimensions and this much data.
fn one(dims: &[u64], data: usize) -> RawFile {
    RawFile::head(1, 0).tensor("a", dims, 0).pad().zeros(data)
}

/// One tensor `a` of a row.
fn typed(row: u64, ggml_type: u32) -> RawFile {
    RawFile::head(1, 0).tensor_of("a", &[row], ggml_type, 0).pad().zeros(32)
}

/// Two tensors, the second of which is said to start at `offset`.
fn two(second: &str, offset: u64) -> RawFile {
    RawFile::head(2, 0).tensor("a", &[8], 0).tensor(second, &[8], offset).pad()
}

fn tensors() -> Vec<Case> {
    // Of the first tensor: its number of dimensions, its dimensions, its type, its offset; the second tensor; its offset.
    let (count, dims, kind, offset, next) = (HEAD + 9, HEAD + 13, HEAD + 21, HEAD + 25, HEAD + 33);
    let next_offset = next + 25;
    let long = "n".repeat(64);
    vec![
        ("name64", RawFile::head(1, 0).tensor(long, &[8], 0).pad().zeros(32), at(HEAD, "a tensor name of 64 bytes")),
        ("name_nul", RawFile::head(1, 0).tensor("a\0b", &[8], 0).pad().zeros(32), at(HEAD, "tensor name \"a\\0b\" holds a NUL")),
        ("dup_name", two("a", 32).zeros(64), at(next, "tensor \"a\" occurs twice")),
        ("ndims=5", one(&[1; 5], 32), at(count, "tensor \"a\" has 5 dimensions")),
        ("dim=-1", one(&[MINUS_ONE], 32), at(dims, "tensor \"a\" has a dimension of -1")),
        ("dim=0", one(&[8, 0], 0), at(dims, "tensor \"a\" has a dimension of 0")),
        (
            "ne_overflow",
            one(&[1 << 33, 1 << 33], 32),
            at(dims, "tensor \"a\" of shape [8589934592, 8589934592] has more than 2^63"),
        ),
        // 2^64 - 16 bytes, which padding makes 0.
        ("nbytes_padwrap", one(&[4, (1 << 30) - 1, (1 << 30) + 1], 32), bad(&["tensor \"a\" makes the file larger than 2^63"])),
        ("type=99", typed(32, 99), at(kind, "tensor \"a\" has the type 99")),
        ("type=4(removed)", typed(32, 4), at(kind, "tensor \"a\" has the type 4, which was removed")),
        ("q4_0 row 33", typed(33, 2), bad(&["tensor \"a\" has rows of 33 elements, no whole number of Q4_0 blocks"])),
        (
            "offset=-1",
            RawFile::head(1, 0).tensor("a", &[8], MINUS_ONE).pad().zeros(32),
            at(offset, "tensor \"a\" is said to start"),
        ),
        (
            "offset=7",
            RawFile::head(1, 0).tensor("a", &[8], 7).pad().zeros(64),
            at(offset, "tensor \"a\" is said to start at byte 7"),
        ),
        (
            "overlap",
            two("b", 0).zeros(32),
            at(next_offset, "tensor \"b\" is said to start at byte 0 of the data, it must start at 32"),
        ),
        (
            "gap",
            two("b", 64).zeros(96),
            at(next_offset, "tensor \"b\" is said to start at byte 64 of the data, it must start at 32"),
        ),
    ]
}

fn data() -> Vec<Case> {
    let minimal = RawFile::head(1, 1).key("general.architecture", STRING).text("llama").tensor("a", &[8], 0).pad().zeros(32);
    vec![
        ("ok_min", minimal, Good),
        ("truncated_data", one(&[8], 31), at(95, "the file has 95 bytes, its header asks for 96: it is truncated")),
        ("no_padding_last", one(&[7], 28), at(92, "the padding after the last tensor is missing")),
        ("trailing", one(&[8], 64), at(96, "32 bytes follow the end of the last tensor")),
    ]
}
