//! The 34 handcrafted files of llama.cpp's tests/test-gguf.cpp, by its names: keys of every type, tensors of many, one defect. What
//! llama.cpp refuses is refused here, and so is the tensor without elements (TENSORS_ZERO_DIM), which it reads. Its KV and HEADER files
//! are padded behind their keys although they have no tensors, which is accepted.

use crate::{Verdict, bad, inspect, trial};
use Verdict::Good;
use ggufsmith_tests::bytes::kind::{ARRAY, I32, STRING, U32};
use ggufsmith_tests::bytes::{MINUS_ONE, RawFile};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let all: Vec<Case> = [header(), keys(), tensors(), data()].into_iter().flatten().collect();
    assert_eq!(all.len(), 34, "as many as llama.cpp has");
    let named =
        |(name, file, verdict): Case| trial(format!("handcrafted::{name}"), move || inspect("file.gguf", &file.0, &verdict));
    all.into_iter().map(named).collect()
}

type Case = (&'static str, RawFile, Verdict);

/// Scalar types of values and their width in bytes.
const SCALARS: [(u32, usize); 11] = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)];
/// Keys of a file: each scalar type, an array of it, a string, strings.
const KEYS: usize = 2 * SCALARS.len() + 2;

/// What is wrong with the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Right,
    Size,
    Empty,
    Type,
    Twice,
}

/// Key number `at`, without its value.
fn key(file: RawFile, at: usize, value_type: u32, fault: Key) -> RawFile {
    let name = match fault {
        Key::Empty => String::new(),
        Key::Twice => format!("my_key_{}", at / 2),
        _ => format!("my_key_{at}"),
    };
    let file = if fault == Key::Size { file.u64(MINUS_ONE).raw(name.as_bytes()) } else { file.text(name) };
    file.u32(if fault == Key::Type { 13 } else { value_type })
}

/// [`KEYS`] keys.
fn some_keys(mut file: RawFile, fault: Key) -> RawFile {
    for (i, (value_type, width)) in SCALARS.into_iter().enumerate() {
        file = key(file, 2 * i, value_type, fault).raw(&[1; 8][..width]);
        file = key(file, 2 * i + 1, ARRAY, fault).u32(value_type).u64(3).raw(&[1; 24][..3 * width]);
    }
    file = key(file, KEYS - 2, STRING, fault).text("a value");
    key(file, KEYS - 1, ARRAY, fault).u32(STRING).u64(2).text("").text("one")
}

const ALIGNMENT: &str = "general.alignment";

/// Types of tensors, with the elements and bytes of a block: F32, F16, Q4_0, Q8_0, Q6_K, I8, I64, BF16.
const TYPES: [(u32, u64, u64); 8] =
    [(0, 1, 4), (1, 1, 2), (2, 32, 18), (8, 32, 34), (14, 256, 210), (24, 1, 1), (27, 1, 8), (30, 1, 2)];

/// What is wrong with the tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NameSize,
    Dims,
    Shape,
    ZeroDim,
    Elements,
    Bytes,
    Type,
    Offset,
    Twice,
}

/// A tensor of each of [`TYPES`] behind the keys, laid out for `align`; then zeros up to a multiple of that. Also the bytes of the data.
fn some_tensors(mut file: RawFile, fault: Fault, align: u64) -> (RawFile, usize) {
    let mut offset = 0;
    for (i, (ggml_type, block, bytes)) in TYPES.into_iter().enumerate() {
        let name = match fault {
            Fault::Twice => "my_tensor".to_owned(),
            Fault::NameSize => format!("my_tensor_{i}_with_a_name_that_is_much_longer_than_what_ggml_allows_for_one"),
            _ => format!("my_tensor_{i}"),
        };
        // Uneven numbers of elements, so that padding matters.
        let row = block * (i as u64 + 3);
        let dims = match fault {
            Fault::Dims => vec![row, 1, 1, 1, 1],
            Fault::Shape => vec![MINUS_ONE],
            Fault::ZeroDim => vec![row, 0],
            Fault::Elements => vec![4 * 0x7fff_ffff; 2],
            Fault::Bytes => vec![1_533_916_928; 2],
            _ => vec![row, 3],
        };
        let ggml_type = match fault {
            Fault::Bytes => 27,
            Fault::Type => 43,
            _ => ggml_type,
        };
        file = file.tensor_of(name, &dims, ggml_type, if fault == Fault::Offset { MINUS_ONE } else { offset });
        offset += (3 * row / block * bytes).next_multiple_of(align);
    }
    let len = file.0.len();
    (file.zeros(len.next_multiple_of(align as usize) - len), offset as usize)
}

/// Keys, `general.alignment` as its value's type and value where that is said, and [`TYPES`] tensors.
fn head(alignment: Option<(u32, u32)>, tensors: usize, fault: Key) -> RawFile {
    let keys = KEYS + usize::from(alignment.is_some());
    let file = some_keys(RawFile::head(tensors as u64, keys as u64), fault);
    match alignment {
        Some((value_type, value)) => file.key(ALIGNMENT, value_type).u32(value),
        None => file,
    }
}

fn header() -> Vec<Case> {
    let magic = RawFile::default().raw(b"FUGG").u32(3).u64(0).u64(0);
    vec![
        ("HEADER_BAD_MAGIC", magic.pad(), bad(&["byte 0: not a GGUF file"])),
        ("HEADER_BAD_VERSION_0", RawFile::versioned(0, 0, 0).pad(), bad(&["byte 4: GGUF version 0"])),
        ("HEADER_BAD_VERSION_1", RawFile::versioned(1, 0, 0).pad(), bad(&["byte 4: GGUF version 1"])),
        ("HEADER_BAD_VERSION_FUTURE", RawFile::versioned(4, 0, 0).pad(), bad(&["byte 4: GGUF version 4"])),
        ("HEADER_BAD_N_TENSORS", RawFile::head(MINUS_ONE, 0).pad(), bad(&["byte 8: the header announces 18446744073709551615"])),
        ("HEADER_BAD_N_KV", RawFile::head(0, MINUS_ONE).pad(), bad(&["byte 16: the header announces 18446744073709551615"])),
        ("HEADER_EMPTY", RawFile::head(0, 0).pad(), Good),
    ]
}

fn keys() -> Vec<Case> {
    let faulty = |fault| head(None, 0, fault).pad();
    // The first key's name ends at byte 40; a second one begins at 45.
    let aligned = |value_type, value| head(Some((value_type, value)), 0, Key::Right);
    vec![
        ("KV_BAD_KEY_SIZE", faulty(Key::Size), bad(&["byte 24: a key of 18446744073709551615 bytes"])),
        ("KV_EMPTY_KEY", faulty(Key::Empty), bad(&["byte 24: a key is empty"])),
        ("KV_BAD_TYPE", faulty(Key::Type), bad(&["byte 40: key \"my_key_0\" has the value type 13"])),
        ("KV_DUPLICATE_KEY", faulty(Key::Twice), bad(&["byte 45: key \"my_key_0\" occurs twice"])),
        ("KV_BAD_ALIGN", aligned(U32, 13), bad(&["general.alignment is 13; it must be a power of two"])),
        ("KV_WRONG_TYPE_ALIGN", aligned(I32, 32), bad(&["general.alignment is of type i32"])),
        ("KV_SUCCESS", faulty(Key::Right), Good),
    ]
}

fn tensors() -> Vec<Case> {
    // The data are there where the tensors have any: what is wrong is only what the name says.
    let faulty = |fault| {
        let (file, data) = some_tensors(head(None, TYPES.len(), Key::Right), fault, 32);
        file.zeros(data)
    };
    let aligned = |value, align| {
        let (file, data) = some_tensors(head(Some((U32, value)), TYPES.len(), Key::Right), Fault::None, align);
        file.zeros(data)
    };
    let (inconsistent, data) = some_tensors(head(None, TYPES.len(), Key::Right), Fault::None, 1);
    let wrap = head(None, 1, Key::Right).tensor("my_tensor_0", &[4, (1 << 30) - 1, (1 << 30) + 1], 0).pad();
    let first = "tensor \"my_tensor_0\"";
    vec![
        ("TENSORS_BAD_NAME_SIZE", faulty(Fault::NameSize), bad(&["a tensor name of 73 bytes; ggml allows at most 63"])),
        ("TENSORS_BAD_N_DIMS", faulty(Fault::Dims), bad(&[&format!("{first} has 5 dimensions")])),
        ("TENSORS_BAD_SHAPE", faulty(Fault::Shape), bad(&[&format!("{first} has a dimension of -1")])),
        ("TENSORS_ZERO_DIM", faulty(Fault::ZeroDim), bad(&[&format!("{first} has a dimension of 0")])),
        ("TENSORS_NE_TOO_BIG", faulty(Fault::Elements), bad(&[&format!("{first} of shape [8589934588, 8589934588]")])),
        ("TENSORS_NBYTES_TOO_BIG", faulty(Fault::Bytes), bad(&[&format!("{first} makes the file larger than 2^63")])),
        ("TENSORS_NBYTES_PAD_WRAP", wrap, bad(&[&format!("{first} makes the file larger than 2^63")])),
        ("TENSORS_BAD_TYPE", faulty(Fault::Type), bad(&[&format!("{first} has the type 43")])),
        ("TENSORS_BAD_OFFSET", faulty(Fault::Offset), bad(&[&format!("{first} is said to start at byte 18446744073709551615")])),
        ("TENSORS_DUPLICATE_NAME", faulty(Fault::Twice), bad(&["tensor \"my_tensor\" occurs twice"])),
        ("TENSORS_BAD_ALIGN", aligned(13, 1), bad(&["general.alignment is 13; it must be a power of two"])),
        (
            "TENSORS_INCONSISTENT_ALIGN",
            inconsistent.zeros(data),
            bad(&["\"my_tensor_1\" is said to start at byte 36", "start at 64"]),
        ),
        ("TENSORS_SUCCESS", faulty(Fault::None), Good),
        ("TENSORS_CUSTOM_ALIGN", aligned(1, 1), Good),
    ]
}

fn data() -> Vec<Case> {
    let filled = |alignment: Option<u32>, align: u64, missing: usize| {
        let head = head(alignment.map(|value| (U32, value)), TYPES.len(), Key::Right);
        let (file, data) = some_tensors(head, Fault::None, align);
        let bytes: Vec<u8> = (0..data - missing).map(|i| i as u8).collect();
        file.raw(&bytes)
    };
    let huge = 0x7fff_ffff_ffff_ffc0;
    let overflow = head(None, 2, Key::Right).tensor_of("my_tensor_0", &[huge], 24, 0).tensor_of("my_tensor_1", &[huge], 24, huge);
    // The last tensor fills its last 32 bytes but for its padding, so one byte less is padding that lacks.
    vec![
        ("DATA_NOT_ENOUGH_DATA", filled(None, 32, 1), bad(&["the padding after the last tensor is missing"])),
        ("DATA_BAD_ALIGN", filled(Some(13), 1, 0), bad(&["general.alignment is 13; it must be a power of two"])),
        ("DATA_INCONSISTENT_ALIGN", filled(None, 1, 0), bad(&["\"my_tensor_1\" is said to start at byte 36", "start at 64"])),
        ("DATA_MEM_SIZE_OVERFLOW", overflow.pad().zeros(32), bad(&["tensor \"my_tensor_1\" makes the file larger than 2^63"])),
        ("DATA_SUCCESS", filled(None, 32, 0), Good),
        ("DATA_CUSTOM_ALIGN", filled(Some(1), 1, 0), Good),
    ]
}
