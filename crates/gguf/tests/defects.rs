//! Files with one defect each: the reader names the defect and its offset. The list covers every file that llama.cpp's own tests,
//! gguf-py or the Hugging Face viewer refuse, and those that all of them accept although they are broken.

mod common;

use common::{ARRAY, BOOL, Bytes, I32, MINUS_ONE, STRING, U32, defect, read};
use ggufsmith_core::{FORMATS, LAYOUTS};
use ggufsmith_gguf::ErrorKind;

/// Bytes of the fixed part at the start.
const HEAD: u64 = 24;
/// Bytes of a one-character string.
const CHAR: u64 = 9;

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident: $file:expr => $offset:expr, $kind:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            let file: Bytes = $file;
            assert_eq!(defect(&file), ($offset, $kind));
        }
    )*};
}

macro_rules! accepted {
    ($($name:ident: $file:expr;)*) => {$(
        #[test]
        fn $name() {
            let file: Bytes = $file;
            read(file.bytes()).unwrap();
        }
    )*};
}

fn alignment(value: u32) -> Bytes {
    Bytes::head(0, 1).u32_key("general.alignment", value)
}
/// Offset of the value that [`alignment`] writes (its type in front of it included).
const ALIGNMENT_AT: u64 = HEAD + 8 + 17;

fn a() -> String {
    "a".to_owned()
}

/// One F32 tensor `a` with these dimensions and this much data.
fn one(dims: &[u64], data: usize) -> Bytes {
    Bytes::head(1, 0).tensor("a", dims, 0).pad().zeros(data)
}
/// Offset of its dimensions.
const DIMS: u64 = HEAD + CHAR + 4;

// The head.
defects! {
    bad_magic: Bytes::default().raw(b"FUGG").u32(3).u64(0).u64(0) => 0, ErrorKind::BadMagic { found: *b"FUGG" };
    an_empty_file: Bytes::default() => 0, ErrorKind::Truncated { what: "the magic number", needed: 4, left: 0 };
    only_a_magic_number: Bytes::default().raw(b"GGUF") => 4, ErrorKind::Truncated { what: "the version", needed: 4, left: 0 };
    bad_version_0: Bytes::versioned(0, 0, 0) => 4, ErrorKind::UnsupportedVersion { version: 0 };
    bad_version_1: Bytes::versioned(1, 0, 0) => 4, ErrorKind::UnsupportedVersion { version: 1 };
    bad_version_future: Bytes::versioned(4, 0, 0) => 4, ErrorKind::UnsupportedVersion { version: 4 };
    big_endian: Bytes::default().raw(b"GGUF\0\0\0\x03").zeros(16) => 4, ErrorKind::BigEndian;
    bad_n_tensors: Bytes::head(MINUS_ONE, 0) => 8, ErrorKind::TensorCount { found: MINUS_ONE, possible: 0 };
    more_keys_than_there_are: Bytes::head(0, 2).u32_key("a", 1) => HEAD + CHAR + 8,
        ErrorKind::Truncated { what: "the length of a string", needed: 8, left: 0 };
    bad_n_kv: Bytes::head(0, MINUS_ONE) => 16, ErrorKind::KeyCount { found: MINUS_ONE, possible: 0 };
    n_kv_of_2_to_the_40: Bytes::head(0, 1 << 40).zeros(100) => 16, ErrorKind::KeyCount { found: 1 << 40, possible: 12 };
}

// Keys and values.
defects! {
    bad_key_size: Bytes::head(0, 1).u64(MINUS_ONE)
        => HEAD, ErrorKind::StringLength { what: "a key".into(), len: MINUS_ONE, left: 0 };
    empty_key: Bytes::head(0, 1).key("", U32).u32(1).zeros(2) => HEAD, ErrorKind::EmptyKey;
    key_of_64_kib: Bytes::head(0, 1).u32_key(&"k".repeat(65536), 1) => HEAD, ErrorKind::KeyLength { len: 65536 };
    key_with_an_accent: Bytes::head(0, 1).u32_key("clé", 1) => HEAD, ErrorKind::KeyCharacters { key: "clé".into() };
    key_with_a_nul: Bytes::head(0, 1).u32_key("a\0", 1) => HEAD, ErrorKind::KeyCharacters { key: "a\0".into() };
    key_not_utf8: Bytes::head(0, 1).key(b"\xff", U32).u32(1) => HEAD + 8, ErrorKind::NotUtf8 { what: "a key".into() };
    bad_type: Bytes::head(0, 1).key("a", 13).zeros(8) => HEAD + CHAR, ErrorKind::ValueType { key: a(), id: 13 };
    bad_type_of_array_elements: Bytes::head(0, 1).key("a", ARRAY).u32(13).u64(0)
        => HEAD + CHAR + 4, ErrorKind::ValueType { key: a(), id: 13 };
    nested_array: Bytes::head(0, 1).key("a", ARRAY).u32(ARRAY).u64(1).u32(U32).u64(1).u32(0)
        => HEAD + CHAR + 4, ErrorKind::NestedArray { key: a() };
    array_of_2_to_the_60: Bytes::head(0, 1).key("a", ARRAY).u32(U32).u64(1 << 60)
        => HEAD + CHAR + 8, ErrorKind::ArrayLength { key: a(), len: 1 << 60, possible: 0 };
    array_whose_bytes_overflow: Bytes::head(0, 1).key("a", ARRAY).u32(U32).u64(1 << 62).zeros(8)
        => HEAD + CHAR + 8, ErrorKind::ArrayLength { key: a(), len: 1 << 62, possible: 2 };
    array_of_2_to_the_30_strings: Bytes::head(0, 1).key("a", ARRAY).u32(STRING).u64(1 << 30)
        => HEAD + CHAR + 8, ErrorKind::ArrayLength { key: a(), len: 1 << 30, possible: 0 };
    string_longer_than_the_file: Bytes::head(0, 1).key("a", STRING).u64(6).zeros(5)
        => HEAD + CHAR + 4, ErrorKind::StringLength { what: "a string in the value of \"a\"".into(), len: 6, left: 5 };
    value_cut_short: Bytes::head(0, 1).key("a", U32).zeros(3)
        => HEAD + CHAR + 4, ErrorKind::Truncated { what: "a value", needed: 4, left: 3 };
    duplicate_key: Bytes::head(0, 3).u32_key("a", 0).u32_key("b", 0).u32_key("a", 0)
        => HEAD + 2 * (CHAR + 8), ErrorKind::DuplicateKey { key: a() };
    bool_of_2: Bytes::head(0, 1).key("a", BOOL).raw(&[2]) => HEAD + CHAR + 4, ErrorKind::BoolByte { key: a(), byte: 2 };
    bool_of_2_in_an_array: Bytes::head(0, 1).key("a", ARRAY).u32(BOOL).u64(3).raw(&[0, 1, 2])
        => HEAD + CHAR + 18, ErrorKind::BoolByte { key: a(), byte: 2 };
    string_not_utf8: Bytes::head(0, 1).key("a", STRING).text(b"\xff\xfe")
        => HEAD + CHAR + 12, ErrorKind::NotUtf8 { what: "a string in the value of \"a\"".into() };
    bad_align_0: alignment(0) => ALIGNMENT_AT, ErrorKind::AlignmentValue { found: 0 };
    bad_align_13: alignment(13) => ALIGNMENT_AT, ErrorKind::AlignmentValue { found: 13 };
    bad_align_2_to_the_31: Bytes::head(1, 1).u32_key("general.alignment", 1 << 31).tensor("a", &[8], 0).zeros(64)
        => ALIGNMENT_AT, ErrorKind::AlignmentValue { found: 1 << 31 };
    wrong_type_align: Bytes::head(0, 1).key("general.alignment", I32).u32(32)
        => ALIGNMENT_AT, ErrorKind::AlignmentType { found: "i32".into() };
}

/// Dimensions whose product is small modulo 2^64: 4 * (2^30 - 1) * (2^30 + 1) floats are 2^64 - 16 bytes, 0 after padding.
const PAD_WRAP: [u64; 3] = [4, (1 << 30) - 1, (1 << 30) + 1];

// Tensor infos.
defects! {
    tensor_without_a_name: Bytes::head(1, 0).tensor("", &[8], 0).pad().zeros(32) => HEAD, ErrorKind::EmptyTensorName;
    bad_name_size: Bytes::head(1, 0).tensor("n".repeat(64), &[8], 0).pad().zeros(32)
        => HEAD, ErrorKind::TensorNameLength { len: 64 };
    name_longer_than_the_file: Bytes::head(1, 0).u64(MINUS_ONE)
        => HEAD, ErrorKind::StringLength { what: "a tensor name".into(), len: MINUS_ONE, left: 0 };
    name_with_a_nul: Bytes::head(1, 0).tensor("a\0b", &[8], 0).pad().zeros(32)
        => HEAD, ErrorKind::TensorNameNul { name: "a\0b".into() };
    name_not_utf8: Bytes::head(1, 0).tensor(b"\xc3", &[8], 0).pad().zeros(32)
        => HEAD + 8, ErrorKind::NotUtf8 { what: "a tensor name".into() };
    duplicate_name: Bytes::head(2, 0).tensor("a", &[8], 0).tensor("a", &[8], 32).pad().zeros(64)
        => HEAD + CHAR + 24, ErrorKind::DuplicateTensor { tensor: a() };
    bad_n_dims: one(&[1; 5], 32) => HEAD + CHAR, ErrorKind::DimensionCount { tensor: a(), found: 5 };
    bad_shape: one(&[MINUS_ONE], 32) => DIMS, ErrorKind::NegativeDimension { tensor: a(), found: MINUS_ONE };
    /// Every other reader accepts it; nothing can be done with such a tensor.
    zero_dim: one(&[8, 0], 0) => DIMS, ErrorKind::ZeroDimension { tensor: a() };
    zero_dim_hides_an_overflow: one(&[1 << 62, 1 << 62, 0], 0) => DIMS, ErrorKind::ZeroDimension { tensor: a() };
    ne_too_big: one(&[1 << 33, 1 << 33], 32) => DIMS, ErrorKind::ElementCount { tensor: a(), shape: vec![1 << 33, 1 << 33] };
    nbytes_too_big: one(&[1 << 31, 1 << 31], 32) => DIMS + 16, ErrorKind::DataSize { tensor: a() };
    nbytes_pad_wrap: one(&PAD_WRAP, 32) => DIMS + 28, ErrorKind::DataSize { tensor: a() };
    mem_size_overflow: Bytes::head(2, 0).tensor("a", &[(1 << 61) - 16], 0).tensor("b", &[(1 << 61) - 16], (1 << 63) - 64).pad()
        => HEAD + 2 * CHAR + 24 + 16, ErrorKind::DataSize { tensor: "b".into() };
    type_99: Bytes::head(1, 0).tensor_of("a", &[32], 99, 0).pad().zeros(32)
        => DIMS + 8, ErrorKind::UnknownType { tensor: a(), id: 99 };
    type_43: Bytes::head(1, 0).tensor_of("a", &[32], 43, 0).pad().zeros(32)
        => DIMS + 8, ErrorKind::UnknownType { tensor: a(), id: 43 };
    type_minus_one: Bytes::head(1, 0).tensor_of("a", &[32], u32::MAX, 0).pad().zeros(32)
        => DIMS + 8, ErrorKind::UnknownType { tensor: a(), id: u32::MAX };
    type_4_removed: Bytes::head(1, 0).tensor_of("a", &[32], 4, 0).pad().zeros(32)
        => DIMS + 8, ErrorKind::RemovedType { tensor: a(), id: 4 };
    bad_offset: Bytes::head(1, 0).tensor("a", &[8], MINUS_ONE).pad().zeros(32)
        => DIMS + 12, ErrorKind::TensorOffset { tensor: a(), expected: 0, found: MINUS_ONE };
    offset_7: Bytes::head(1, 0).tensor("a", &[8], 7).pad().zeros(64)
        => DIMS + 12, ErrorKind::TensorOffset { tensor: a(), expected: 0, found: 7 };
    overlap: Bytes::head(2, 0).tensor("a", &[8], 0).tensor("b", &[8], 0).pad().zeros(32)
        => DIMS + 20 + CHAR + 16, ErrorKind::TensorOffset { tensor: "b".into(), expected: 32, found: 0 };
    gap: Bytes::head(2, 0).tensor("a", &[8], 0).tensor("b", &[8], 64).pad().zeros(96)
        => DIMS + 20 + CHAR + 16, ErrorKind::TensorOffset { tensor: "b".into(), expected: 32, found: 64 };
    inconsistent_align: Bytes::head(2, 0).tensor("a", &[7], 0).tensor("b", &[8], 28).pad().zeros(96)
        => DIMS + 20 + CHAR + 16, ErrorKind::TensorOffset { tensor: "b".into(), expected: 32, found: 28 };
    tensor_info_cut_short: Bytes::head(1, 0).text("n".repeat(20)).u32(1).zeros(7)
        => HEAD + 32, ErrorKind::Truncated { what: "a tensor info", needed: 8, left: 7 };
}

#[test]
fn a_row_that_is_no_whole_number_of_blocks() {
    for format in FORMATS.iter().copied().chain(LAYOUTS).filter(|f| f.block_len > 1) {
        let (id, row) = (format.ggml_id, format.block_len as u64 + 1);
        let file = Bytes::head(1, 0).tensor_of("a", &[row, 1], id, 0).pad().zeros(format.block_bytes.next_multiple_of(32));
        let block_len = format.block_len as u64;
        assert_eq!(defect(&file), (DIMS + 16, ErrorKind::RowLength { tensor: a(), format: format.name, row, block_len }));
    }
    assert!(FORMATS.iter().any(|f| f.block_len > 1), "nothing was tested");
}

// The data.
defects! {
    not_enough_data: one(&[8], 31) => 96 - 1, ErrorKind::DataTruncated { expected: 96, found: 95 };
    no_data_at_all: one(&[8], 0) => 64, ErrorKind::DataTruncated { expected: 96, found: 64 };
    not_even_the_padding_of_the_header: Bytes::head(1, 0).tensor("a", &[8], 0)
        => 57, ErrorKind::DataTruncated { expected: 96, found: 57 };
    no_padding_after_the_last_tensor: one(&[7], 28) => 92, ErrorKind::LastPadding { expected: 96, found: 92 };
    trailing_bytes: one(&[8], 64) => 96, ErrorKind::TrailingBytes { expected: 96, found: 128 };
    trailing_bytes_without_tensors: Bytes::head(0, 0).zeros(9) => HEAD, ErrorKind::TrailingBytes { expected: HEAD, found: 33 };
    inconsistent_align_of_data: Bytes::head(1, 1).u32_key("general.alignment", 64).tensor("a", &[8], 0).zeros(38)
        => 128, ErrorKind::DataTruncated { expected: 192, found: 128 };
}

accepted! {
    ok_minimal: Bytes::head(1, 1).key("general.architecture", STRING).text("llama").tensor("a", &[8], 0).pad().zeros(32);
    ok_every_type: common::valid();
    ok_header_only: Bytes::head(0, 0);
    ok_header_only_padded: Bytes::head(0, 0).pad();
    ok_keys_only: Bytes::head(0, 1).u32_key("a", 1);
    ok_keys_only_padded: Bytes::head(0, 1).u32_key("a", 1).pad();
    ok_custom_align_1: Bytes::head(2, 1).u32_key("general.alignment", 1).tensor("a", &[7], 0).tensor("b", &[1], 28).zeros(32);
    ok_name_of_63_bytes: Bytes::head(1, 0).tensor("n".repeat(63), &[8], 0).pad().zeros(32);
    ok_scalar_tensor: one(&[], 32);
    ok_empty_string_and_array: Bytes::head(0, 2).key("a", STRING).text("").key("b", ARRAY).u32(STRING).u64(0);
    ok_version_2: Bytes::versioned(2, 1, 1).u32_key("a", 1).tensor("a", &[8], 0).pad().zeros(32);
}
