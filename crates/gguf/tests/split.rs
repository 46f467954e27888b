//! Which tensor goes into which shard, and what the shards' headers hold.

use ggufsmith_core::formats::f32;
use ggufsmith_gguf::{ErrorKind, Metadata, SplitError, SplitLimits, TensorSpec, Value, parse_size, plan_shards, shard_path};
use std::path::Path;

fn limits(max_tensors: u64, max_bytes: u64, no_tensor_first: bool) -> SplitLimits {
    SplitLimits { max_tensors, max_bytes, no_tensor_first }
}

/// Made with `GGUFWriter(split_max_tensors, split_max_size, small_first_shard)` of the pinned gguf-py: limits, sizes of the
/// tensors in bytes, number of tensors in each shard.
type Case<'a> = (u64, u64, bool, &'a [u64], &'a [usize]);
const GGUF_PY: &[Case<'_>] = &[
    (3, 0, true, &[40, 104, 168, 16, 20], &[0, 3, 2]),
    (3, 0, true, &[236], &[0, 1]),
    (0, 0, false, &[108, 20, 64, 24, 144, 112, 16, 212, 148], &[9]),
    (0, 400, true, &[16, 148, 152, 104, 16, 60, 12, 144, 220, 36, 76, 108, 40, 140], &[0, 3, 5, 3, 3]),
    (3, 1, true, &[28, 152], &[0, 1, 1]),
    (0, 1, false, &[56, 128, 176, 140], &[1, 1, 1, 1]),
    (0, 400, false, &[188, 116, 76, 156, 20], &[3, 2]),
    (0, 400, false, &[200, 200, 200, 204, 400, 4], &[2, 1, 1, 1, 1]),
    (4, 0, false, &[40, 240, 128, 108, 12], &[4, 1]),
    (4, 1, true, &[16], &[0, 1]),
    (0, 0, true, &[], &[0, 0]),
    (2, 10, false, &[], &[0]),
];

#[test]
fn shards_are_those_of_gguf_py() {
    for &(max_tensors, max_bytes, first, sizes, expected) in GGUF_PY {
        let shards = limits(max_tensors, max_bytes, first).split(sizes.iter().copied());
        assert_eq!(
            shards.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(),
            expected,
            "{max_tensors} {max_bytes} {first} {sizes:?}"
        );
        let covered: Vec<usize> = shards.into_iter().flatten().collect();
        assert_eq!(covered, (0..sizes.len()).collect::<Vec<_>>());
    }
}

fn tensors(sizes: &[u64]) -> Vec<TensorSpec> {
    let spec = |(i, bytes): (usize, &u64)| TensorSpec { name: format!("t{i}"), shape: vec![bytes / 4], format: &f32::FORMAT };
    sizes.iter().enumerate().map(spec).collect()
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata
}

#[test]
fn the_first_shard_holds_the_metadata_and_all_hold_the_split_keys() {
    let shards = plan_shards(&metadata(), tensors(&[64, 64, 64]), &limits(2, 0, false)).unwrap();
    let mut keys = metadata();
    for (no, shard) in shards.iter().enumerate() {
        keys.set("split.no", no as u16);
        keys.set("split.count", 2_u16);
        keys.set("split.tensors.count", 3_i32);
        let own = tensors(&[64, 64, 64]).drain(if no == 0 { 0..2 } else { 2..3 }).collect();
        assert_eq!(*shard, ggufsmith_gguf::Layout::plan(&keys, own).unwrap());
        keys = Metadata::new();
    }
    assert_eq!(shards.len(), 2);
}

#[test]
fn one_file_gets_no_split_keys() {
    let shards = plan_shards(&metadata(), tensors(&[64, 64]), &limits(0, 1000, false)).unwrap();
    assert_eq!(shards, [ggufsmith_gguf::Layout::plan(&metadata(), tensors(&[64, 64])).unwrap()]);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let mut twice = tensors(&[4, 4]);
    twice[1].name = "t0".into();
    let error = plan_shards(&metadata(), twice, &limits(1, 0, false)).unwrap_err();
    let SplitError::Layout { shard: 1, source } = error else { panic!("{error}") };
    assert_eq!(source.0, ErrorKind::DuplicateTensor { tensor: "t0".into() });
}

#[test]
fn more_shards_than_the_key_can_count_are_refused() {
    let error = plan_shards(&metadata(), tensors(&[4; 65536]), &limits(1, 0, false)).unwrap_err();
    assert_eq!(error, SplitError::TooManyShards { found: 65536 });
}

#[test]
fn sizes_are_counted_in_thousands() {
    assert_eq!(parse_size("0"), Ok(0));
    assert_eq!(parse_size("250"), Ok(250));
    assert_eq!(parse_size("3K"), Ok(3000));
    assert_eq!(parse_size("500M"), Ok(500_000_000));
    assert_eq!(parse_size("2G"), Ok(2_000_000_000));
    for text in ["", "G", "-1", "+1", "2k", "2GB", "1.5G", " 1", "1é", "99999999999G"] {
        assert_eq!(parse_size(text), Err(SplitError::Size { text: text.into() }));
    }
}

#[test]
fn names_of_shards() {
    let file = Path::new("dir/model-1.5B.gguf");
    assert_eq!(shard_path(file, 0, 1), file);
    assert_eq!(shard_path(file, 1, 12), Path::new("dir/model-1.5B-00002-of-00012.gguf"));
}

#[test]
fn values_keep_their_type() {
    let mut keys = Metadata::new();
    keys.set("split.no", 3_u16);
    assert_eq!(keys.get("split.no"), Some(&Value::U16(3)));
    assert_eq!(keys.require::<u16>("split.no"), Ok(3));
    assert!(keys.require::<u32>("split.no").is_err());
    assert_eq!(keys.lookup::<u16>("split.count"), Ok(None));
}
