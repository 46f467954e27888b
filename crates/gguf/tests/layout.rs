//! What the writer side produces, byte for byte, and what it refuses.

use ggufsmith_core::Format;
use ggufsmith_core::formats::{f16, f32};
use ggufsmith_gguf::{Array, ErrorKind, Layout, Metadata, TensorSpec, Value, ggml_shape};

fn spec(name: &str, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), format: &f32::FORMAT }
}

#[test]
fn a_small_file_is_written_as_the_specification_says() {
    let mut metadata = Metadata::new();
    metadata.set("a", 7_u32);
    metadata.set("b", vec![true, false]);
    metadata.set("c", "é");
    metadata.set("d", Value::Array(Array::String(vec![String::new(), "x".into()])));
    let tensors = vec![TensorSpec { name: "t".into(), shape: vec![2, 3], format: &f16::FORMAT }, spec("u", &[8])];
    let layout = Layout::plan(&metadata, tensors).unwrap();

    let mut expected = Vec::new();
    let mut put = |bytes: &[u8]| expected.extend_from_slice(bytes);
    put(b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
    put(b"\x01\0\0\0\0\0\0\0a\x04\0\0\0\x07\0\0\0");
    put(b"\x01\0\0\0\0\0\0\0b\x09\0\0\0\x07\0\0\0\x02\0\0\0\0\0\0\0\x01\0");
    put(b"\x01\0\0\0\0\0\0\0c\x08\0\0\0\x02\0\0\0\0\0\0\0\xc3\xa9");
    put(b"\x01\0\0\0\0\0\0\0d\x09\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x");
    // The innermost dimension comes first.
    put(b"\x01\0\0\0\0\0\0\0t\x02\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
    put(b"\x01\0\0\0\0\0\0\0u\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0");
    let unpadded = expected.len();
    expected.resize(unpadded.next_multiple_of(32), 0);

    assert_eq!(layout.header(), expected);
    assert_eq!(layout.data_offset(), expected.len() as u64);
    let places: Vec<_> = layout.tensors().iter().map(|t| (t.offset - layout.data_offset(), t.bytes)).collect();
    assert_eq!(places, [(0, 12), (32, 32)]);
    assert_eq!(layout.file_size(), layout.data_offset() + 64);
    assert_eq!(layout.paddings().collect::<Vec<_>>(), [(layout.data_offset() + 12, 20)]);
}

#[test]
fn the_alignment_key_moves_everything() {
    let mut metadata = Metadata::new();
    metadata.set("general.alignment", 64_u32);
    let layout = Layout::plan(&metadata, vec![spec("a", &[1]), spec("b", &[17])]).unwrap();
    assert_eq!(layout.data_offset() % 64, 0);
    assert_eq!(layout.tensors()[1].offset, layout.data_offset() + 64);
    assert_eq!(layout.file_size(), layout.data_offset() + 64 + 128);
    assert_eq!(layout.paddings().map(|(_, len)| len).collect::<Vec<_>>(), [60, 60]);
}

#[test]
fn a_file_without_tensors_ends_at_its_padded_header() {
    let layout = Layout::plan(&Metadata::new(), Vec::new()).unwrap();
    assert_eq!((layout.header().len(), layout.file_size()), (32, 32));
}

fn refused(metadata: Metadata, tensors: Vec<TensorSpec>) -> ErrorKind {
    Layout::plan(&metadata, tensors).unwrap_err().0
}

fn with_key(key: &str, value: impl Into<Value>) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set(key, value);
    metadata
}

#[test]
fn what_some_reader_refuses_is_not_written() {
    let none = Metadata::new;
    assert_eq!(refused(with_key("", 1_u8), vec![]), ErrorKind::EmptyKey);
    assert_eq!(refused(with_key(&"k".repeat(65536), 1_u8), vec![]), ErrorKind::KeyLength { len: 65536 });
    assert_eq!(refused(with_key("clé", 1_u8), vec![]), ErrorKind::KeyCharacters { key: "clé".into() });
    assert_eq!(refused(with_key("general.alignment", 48_u32), vec![]), ErrorKind::AlignmentValue { found: 48 });
    assert_eq!(refused(with_key("general.alignment", 32_i32), vec![]), ErrorKind::AlignmentType { found: "i32".into() });
    assert_eq!(refused(none(), vec![spec("", &[1])]), ErrorKind::EmptyTensorName);
    assert_eq!(refused(none(), vec![spec(&"n".repeat(64), &[1])]), ErrorKind::TensorNameLength { len: 64 });
    assert_eq!(refused(none(), vec![spec("a\0", &[1])]), ErrorKind::TensorNameNul { name: "a\0".into() });
    assert_eq!(refused(none(), vec![spec("a", &[1]), spec("a", &[1])]), ErrorKind::DuplicateTensor { tensor: "a".into() });
    assert_eq!(refused(none(), vec![spec("a", &[1; 5])]), ErrorKind::DimensionCount { tensor: "a".into(), found: 5 });
    assert_eq!(refused(none(), vec![spec("a", &[4, 0])]), ErrorKind::ZeroDimension { tensor: "a".into() });
    let shape = vec![1 << 33, 1 << 33];
    assert_eq!(refused(none(), vec![spec("a", &shape)]), ErrorKind::ElementCount { tensor: "a".into(), shape });
    assert_eq!(refused(none(), vec![spec("a", &[1 << 61])]), ErrorKind::DataSize { tensor: "a".into() });
    let two = vec![spec("a", &[1 << 60]), spec("b", &[1 << 60])];
    assert_eq!(refused(none(), two), ErrorKind::DataSize { tensor: "b".into() });
}

/// A format with blocks, whatever the registry holds.
static BLOCKS: Format = Format { ggml_id: 2, name: "BLOCKS", block_len: 32, block_bytes: 18, decode: None };

#[test]
fn rows_hold_whole_blocks() {
    let spec = |shape: &[u64]| TensorSpec { name: "a".into(), shape: shape.to_vec(), format: &BLOCKS };
    // 2 x 33 elements would not even be whole blocks, 32 x 33 would be, but its rows are not.
    for shape in [[2, 33], [32, 33]] {
        let expected = ErrorKind::RowLength { tensor: "a".into(), format: "BLOCKS", row: 33, block_len: 32 };
        assert_eq!(refused(Metadata::new(), vec![spec(&shape)]), expected);
    }
    let layout = Layout::plan(&Metadata::new(), vec![spec(&[3, 64])]).unwrap();
    let tensor = &layout.tensors()[0];
    assert_eq!((tensor.bytes, tensor.row_bytes()), (3 * 36, 36));
    assert_eq!(layout.paddings().collect::<Vec<_>>(), [(tensor.offset + 108, 20)]);
}

#[test]
fn names_of_63_bytes_and_four_dimensions_are_fine() {
    Layout::plan(&Metadata::new(), vec![spec(&"n".repeat(63), &[1, 2, 3, 4])]).unwrap();
}

#[test]
fn ggml_drops_outer_dimensions_of_one() {
    assert_eq!(ggml_shape(&[1, 1, 4, 8]), [4, 8]);
    assert_eq!(ggml_shape(&[1, 8]), [8]);
    assert_eq!(ggml_shape(&[8, 1]), [8, 1]);
    assert_eq!(ggml_shape(&[1, 1]), [1]);
    assert_eq!(ggml_shape(&[]), [0_u64; 0]);
}
