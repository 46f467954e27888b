//! Reading what was written, by us, by gguf-py and by ggml.

mod common;

use common::{ARRAY, Bytes, STRING, U32, fixture, read};
use ggufsmith_core::formats::{bf16, f16, f32};
use ggufsmith_core::{FORMATS, LAYOUTS};
use ggufsmith_gguf::{Array, GgufError, Header, Layout, Limits, Metadata, SplitLimits, TensorSpec, Value, plan_shards};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::io::Cursor;
use std::path::Path;

fn specs(header: &Header) -> Vec<TensorSpec> {
    header.tensors().iter().map(|t| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), format: t.format }).collect()
}

/// Plan the file anew from what was read.
fn again(header: &Header) -> Layout {
    Layout::plan(header.metadata(), specs(header)).unwrap()
}

#[test]
fn version_2_reads_like_version_3() {
    let file = |version| {
        let head = Bytes::versioned(version, 2, 2).u32_key("n", 7).key("t", ARRAY).u32(STRING).u64(2).text("x").text("yz");
        head.tensor("a.weight", &[4, 3, 2], 0).tensor("b", &[2], 96).pad().zeros(128)
    };
    let header = read(file(2).bytes()).unwrap();
    assert_eq!(header.version(), 2);
    assert_eq!(header.metadata().require::<u32>("n"), Ok(7));
    assert_eq!(header.metadata().require::<&[String]>("t").unwrap(), ["x", "yz"]);
    let a = header.tensor("a.weight").unwrap();
    assert_eq!((a.shape.as_slice(), a.offset, a.bytes), ([2, 3, 4].as_slice(), header.data_offset(), 96));
    assert_eq!((a.cols(), a.rows(), a.row_bytes(), a.elems()), (4, 6, 16, 24));
    assert_eq!(header.tensor("b").unwrap().offset, header.data_offset() + 96);
    assert_eq!(header.tensor("c"), None);
    assert_eq!(again(&header).header(), &file(3).bytes()[..header.data_offset() as usize]);
}

/// The converter's own files, from their bytes to values and back to the same bytes.
#[test]
fn headers_of_the_converter_are_written_again_byte_for_byte() {
    for name in ["llama", "llama-256", "llama-spm", "llama3-rope", "mistral"] {
        let bytes = std::fs::read(fixture(&format!("tiny/{name}/f32.gguf"))).unwrap();
        let header = read(&bytes).unwrap();
        let layout = again(&header);
        assert_eq!(layout.header(), &bytes[..header.data_offset() as usize], "{name}");
        assert_eq!(layout.file_size(), bytes.len() as u64);
        assert_eq!(layout.tensors(), header.tensors());
        for (start, len) in layout.paddings() {
            assert!(bytes[start as usize..(start + len) as usize].iter().all(|&b| b == 0), "{name}: {start}");
        }
    }
}

#[test]
fn a_header_of_llama_quantize_is_written_again_byte_for_byte() {
    let mut bytes = std::fs::read(fixture("gguf/llama-spm.bf16.quantize.header")).unwrap();
    let data_offset = bytes.len();
    bytes.resize(292_704, 0); // the size of the whole file
    let header = read(&bytes).unwrap();
    assert_eq!(header.data_offset(), data_offset as u64);
    assert_eq!(header.tensor("token_embd.weight").unwrap().format, &bf16::FORMAT);
    assert_eq!(again(&header).header(), &bytes[..data_offset]);
}

#[test]
fn shards_have_the_headers_that_the_converter_gives_them() {
    let whole = read(&std::fs::read(fixture("tiny/llama-spm/f32.gguf")).unwrap()).unwrap();
    let cases = [
        ("split-max-size-200K", SplitLimits { max_bytes: 200_000, ..SplitLimits::default() }),
        ("split-max-tensors-10-first-empty", SplitLimits { max_tensors: 10, no_tensor_first: true, ..SplitLimits::default() }),
    ];
    for (name, limits) in cases {
        let shards = plan_shards(whole.metadata(), specs(&whole), &limits).unwrap();
        assert_eq!(shards.len(), 4);
        for (no, shard) in (1..).zip(shards) {
            let expected = std::fs::read(fixture(&format!("gguf/llama-spm.{name}.{no:05}.header"))).unwrap();
            assert_eq!(shard.header(), expected, "{name} {no}");
        }
    }
}

#[test]
fn tensors_of_every_type_have_their_place() {
    for format in FORMATS.iter().copied().chain(LAYOUTS) {
        let (id, row) = (format.ggml_id, format.block_len as u64);
        let padded = format.block_bytes.next_multiple_of(32);
        let file =
            Bytes::head(2, 0).tensor_of("a", &[row], id, 0).tensor_of("b", &[row], id, padded as u64).pad().zeros(2 * padded);
        let header = read(file.bytes()).unwrap();
        let [a, b] = header.tensors() else { panic!("{}", format.name) };
        assert_eq!((a.format.name, a.bytes, b.offset - a.offset), (format.name, format.block_bytes as u64, padded as u64));
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = common::valid().bytes().to_vec();
    read(&bytes).unwrap();
    for len in 0..bytes.len() {
        assert!(matches!(read(&bytes[..len]), Err(GgufError::Format { .. })), "{len}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    /// Promises twice the bytes it has.
    struct Shrinking(Cursor<Vec<u8>>);
    impl std::io::Read for Shrinking {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(out)
        }
    }
    impl std::io::Seek for Shrinking {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to).map(|at| at * 2)
        }
    }
    for array in [false, true] {
        let file = Bytes::head(0, 1);
        let file = if array { file.key("a", ARRAY).u32(U32).u64(5) } else { file.key("a", STRING).u64(20) };
        let len = file.len();
        let result = Header::read(Shrinking(Cursor::new(file.bytes().to_vec())), Path::new("t"), &Limits::default());
        assert!(matches!(result, Err(GgufError::Shrunk { offset, .. }) if offset == len), "{result:?}");
    }
}

fn limited(file: &Bytes, limits: &Limits) -> (&'static str, u64, u64) {
    match Header::read(Cursor::new(file.bytes()), Path::new("t"), limits) {
        Err(GgufError::Limit { what, found, max, .. }) => (what, found, max),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_are_kept() {
    let file = common::valid();
    let d = Limits::default;
    assert_eq!(limited(&file, &Limits { keys: 13, ..d() }), ("keys", 14, 13));
    assert_eq!(limited(&file, &Limits { tensors: 2, ..d() }), ("tensors", 3, 2));
    assert_eq!(limited(&file, &Limits { string_bytes: 19, ..d() }), ("bytes in one string", 20, 19));
    assert_eq!(limited(&file, &Limits { array_len: 2, ..d() }), ("elements in one array", 3, 2));
    assert_eq!(limited(&file, &Limits { memory: 100, ..d() }).0, "bytes of memory for the header");
    let exact = Limits { keys: 14, tensors: 3, string_bytes: 20, array_len: 3, memory: 1 << 20 };
    Header::read(Cursor::new(file.bytes()), Path::new("t"), &exact).unwrap();
}

#[test]
fn values_on_one_line() {
    let long: Vec<u32> = (0..100).collect();
    assert_eq!(Value::from(long).short(20), "[0, 1, 2, 3, 4, 5, 6, … 100 elements]");
    assert_eq!(Value::from(vec![1.5_f32, -2.0]).short(20), "[1.5, -2]");
    assert_eq!(Value::Array(Array::String(vec!["a\u{1b}[31m".into(), "\"".into()])).short(40), r#"["a\u{1b}[31m", "\""]"#);
    assert_eq!(Value::from("it's\n").short(20), r#""it's\n""#);
    assert_eq!(Value::from("αβγδ").short(2), "\"αβ\"… 8 bytes");
    assert_eq!(Value::from(true).short(1), "true");
    assert_eq!(Value::Array(Array::U8(vec![])).short(10), "[]");
    assert_eq!(Value::from(vec![1_u8]).type_name(), "[u8]");
}

fn value() -> impl Strategy<Value = Value> {
    fn of<T: std::fmt::Debug + Clone + 'static>(one: impl Strategy<Value = T> + Clone + 'static) -> BoxedStrategy<Value>
    where
        Value: From<T> + From<Vec<T>>,
    {
        prop_oneof![one.clone().prop_map(Value::from), proptest::collection::vec(one, 0..5).prop_map(Value::from)].boxed()
    }
    let text = "\\PC{0,12}";
    prop_oneof![
        of(any::<u8>()),
        of(any::<i8>()),
        of(any::<u16>()),
        of(any::<i16>()),
        of(any::<u32>()),
        of(any::<i32>()),
        of(any::<u32>().prop_map(f32::from_bits)),
        of(any::<bool>()),
        of(text),
        of(any::<u64>()),
        of(any::<i64>()),
        of(any::<u64>().prop_map(f64::from_bits)),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let alignment = proptest::option::of((0_u32..10).prop_map(|bits| 1_u32 << bits));
    (proptest::collection::vec(("[a-z_.]{1,20}", value()), 0..12), alignment).prop_map(|(pairs, alignment)| {
        let mut metadata = Metadata::new();
        metadata.extend(pairs);
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", alignment);
        }
        metadata
    })
}

fn tensors() -> impl Strategy<Value = Vec<TensorSpec>> {
    let format = prop_oneof![Just(&f32::FORMAT), Just(&f16::FORMAT), Just(&bf16::FORMAT)];
    let spec = (proptest::collection::vec(1_u64..6, 0..5), format);
    proptest::collection::vec(spec, 0..12).prop_map(|specs| {
        let spec = |(i, (shape, format))| TensorSpec { name: format!("blk.{i}.ffn"), shape, format };
        specs.into_iter().enumerate().map(spec).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_planned_is_what_is_read(metadata in metadata(), tensors in tensors()) {
        let layout = Layout::plan(&metadata, tensors.clone()).unwrap();
        let mut file = layout.header().to_vec();
        file.resize(layout.file_size() as usize, 0);
        let header = read(&file).unwrap();

        prop_assert_eq!(header.version(), 3);
        prop_assert_eq!(header.tensors(), layout.tensors());
        prop_assert_eq!(specs(&header), tensors);
        let keys = |m: &Metadata| m.iter().map(|(k, v)| (k.to_owned(), v.type_name())).collect::<Vec<_>>();
        prop_assert_eq!(keys(header.metadata()), keys(&metadata));
        // By bytes, because NaN differs from itself.
        prop_assert_eq!(again(&header), layout);
        for tensor in header.tensors() {
            prop_assert_eq!(header.tensor(&tensor.name), Some(tensor));
        }
    }
}
