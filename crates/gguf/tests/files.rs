//! Files on disk: opening, positioned reads, shards.

use ggufsmith_core::formats::f32;
use ggufsmith_gguf::{
    Gguf, GgufError, Layout, Limits, LookupError, Metadata, ShardError, Shards, SplitLimits, TensorSpec, plan_shards, shard_path,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TENSORS: u64 = 5;

/// Tensor `i` holds `i + 1` words of value `i`.
fn tensors() -> Vec<TensorSpec> {
    (0..TENSORS).map(|i| TensorSpec { name: format!("t{i}"), shape: vec![i + 1], format: &f32::FORMAT }).collect()
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata
}

fn write(path: &Path, layout: &Layout) {
    let mut bytes = layout.header().to_vec();
    bytes.resize(layout.file_size() as usize, 0);
    for tensor in layout.tensors() {
        bytes[tensor.offset as usize..][..tensor.bytes as usize].fill(tensor.name.as_bytes()[1]);
    }
    fs::write(path, bytes).unwrap();
}

/// Three shards of two, two and one tensors: the folder and the shards' paths.
fn sharded() -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let layouts = plan_shards(&metadata(), tensors(), &SplitLimits { max_tensors: 2, ..SplitLimits::default() }).unwrap();
    let paths: Vec<_> = (0..3).map(|no| shard_path(&dir.path().join("m-1.5B.gguf"), no, 3)).collect();
    for (path, layout) in paths.iter().zip(&layouts) {
        write(path, layout);
    }
    (dir, paths)
}

fn open(path: &Path) -> Result<Shards, GgufError> {
    Shards::open(path, &Limits::default())
}

#[test]
fn tensors_are_read_at_any_position_from_any_thread() {
    let (_dir, paths) = sharded();
    let model = open(&paths[0]).unwrap();
    std::thread::scope(|scope| {
        for i in 0..TENSORS {
            let model = &model;
            scope.spawn(move || {
                let mut out = vec![0; i as usize * 4 + 1];
                model.read_at(&format!("t{i}"), 3, &mut out).unwrap();
                assert_eq!(out, vec![b'0' + i as u8; out.len()]);
            });
        }
    });
}

#[test]
fn any_shard_opens_the_whole_model() {
    let (_dir, paths) = sharded();
    for path in &paths {
        let model = open(path).unwrap();
        assert_eq!(model.files().iter().map(|f| f.path().to_owned()).collect::<Vec<_>>(), paths);
        assert_eq!(model.tensors().map(|t| t.name.clone()).collect::<Vec<_>>(), ["t0", "t1", "t2", "t3", "t4"]);
        assert_eq!(model.metadata().require::<&str>("general.architecture"), Ok("llama"));
        assert_eq!(model.tensor("t4").unwrap().shape, [5]);
        assert_eq!(model.tensor("t5"), None);
    }
}

#[test]
fn a_single_file_is_a_model_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("any name");
    write(&path, &Layout::plan(&metadata(), tensors()).unwrap());
    assert_eq!(open(&path).unwrap().files().len(), 1);
}

#[test]
fn reads_outside_a_tensor_are_refused() {
    let (_dir, paths) = sharded();
    let model = open(&paths[0]).unwrap();
    for (offset, len) in [(0, 9), (8, 1), (9, 0), (u64::MAX, 1)] {
        let error = model.read_at("t1", offset, &mut vec![0; len]).unwrap_err();
        assert!(matches!(error, GgufError::Range { bytes: 8, .. }), "{error}");
    }
    model.read_at("t1", 8, &mut []).unwrap();
    assert!(matches!(model.read_at("t9", 0, &mut []), Err(GgufError::NoTensor { .. })));
    // A tensor of another, larger file.
    let mut foreign = model.files()[0].tensors()[0].clone();
    foreign.offset = 1 << 40;
    assert!(matches!(model.files()[0].read_at(&foreign, 0, &mut [0]), Err(GgufError::Range { .. })));
}

#[test]
fn a_file_that_shrank_is_an_error() {
    let (_dir, paths) = sharded();
    let file = Gguf::open(&paths[0], &Limits::default()).unwrap();
    let tensor = file.tensor("t1").unwrap();
    fs::OpenOptions::new().write(true).open(&paths[0]).unwrap().set_len(tensor.offset + 5).unwrap();
    let error = file.read_at(tensor, 4, &mut [0; 4]).unwrap_err();
    assert!(matches!(error, GgufError::Shrunk { .. }), "{error}");
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(open(dir.path()), Err(GgufError::NotAFile { .. })));
    assert!(matches!(open(&dir.path().join("none")), Err(GgufError::Io { .. })));
    #[cfg(unix)]
    assert!(matches!(open(Path::new("/dev/zero")), Err(GgufError::NotAFile { .. })));
}

fn shard_error(path: &Path) -> (PathBuf, ShardError) {
    match open(path) {
        Err(GgufError::Shard { file, kind }) => (file, kind),
        other => panic!("{other:?}"),
    }
}

/// A shard that says of itself what the caller wants.
fn rewrite(path: &Path, no: u16, count: u16, total: i32, tensors: Vec<TensorSpec>) {
    let mut keys = Metadata::new();
    keys.set("split.no", no);
    keys.set("split.count", count);
    keys.set("split.tensors.count", total);
    write(path, &Layout::plan(&keys, tensors).unwrap());
}

#[test]
fn a_missing_shard_is_named() {
    let (_dir, paths) = sharded();
    fs::remove_file(&paths[1]).unwrap();
    let Err(GgufError::Io { file, .. }) = open(&paths[2]) else { panic!() };
    assert_eq!(file, paths[1]);
}

#[test]
fn a_shard_in_another_ones_place_is_refused() {
    let (_dir, paths) = sharded();
    fs::copy(&paths[2], &paths[1]).unwrap();
    let expected = ShardError::Number { name_no: 2, name_count: 3, no: 2, count: 3 };
    assert_eq!(shard_error(&paths[0]), (paths[1].clone(), expected.clone()));
    assert_eq!(shard_error(&paths[1]), (paths[1].clone(), expected));
}

#[test]
fn a_shard_of_another_count_is_refused() {
    let (dir, paths) = sharded();
    let renamed = shard_path(&dir.path().join("m.gguf"), 0, 2);
    fs::copy(&paths[0], &renamed).unwrap();
    let expected = ShardError::Number { name_no: 1, name_count: 2, no: 0, count: 3 };
    assert_eq!(shard_error(&renamed), (renamed, expected));
}

#[test]
fn a_shard_number_beyond_the_count_is_refused() {
    let (dir, _) = sharded();
    let path = dir.path().join("m-00006-of-00003.gguf");
    rewrite(&path, 5, 3, 5, Vec::new());
    assert_eq!(shard_error(&path).1, ShardError::Number { name_no: 6, name_count: 3, no: 5, count: 3 });
}

#[test]
fn a_shard_needs_its_name() {
    let (dir, paths) = sharded();
    for name in
        ["m.gguf", "m-00001-of-00003", "m-1-of-3.gguf", "m-0000a-of-00003.gguf", "m-00001-00003.gguf", "00001-of-00003.gguf"]
    {
        let renamed = dir.path().join(name);
        fs::copy(&paths[0], &renamed).unwrap();
        assert_eq!(shard_error(&renamed), (renamed, ShardError::Name { count: 3 }));
    }
}

#[test]
fn a_file_that_is_said_to_be_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    // llama-gguf-split leaves (0, 0) in what it merges.
    for (no, count) in [(0, 0), (0, 1)] {
        rewrite(&path, no, count, 5, tensors());
        assert_eq!(open(&path).unwrap().tensors().count(), 5);
    }
    for (no, count) in [(1, 0), (1, 1), (7, 1)] {
        rewrite(&path, no, count, 5, tensors());
        assert_eq!(shard_error(&path), (path.clone(), ShardError::NotAlone { no, count }));
    }
}

#[test]
fn split_keys_must_be_there_and_of_their_type() {
    let (_dir, paths) = sharded();
    write(&paths[1], &Layout::plan(&Metadata::new(), Vec::new()).unwrap());
    let missing = LookupError::Missing { key: "split.no".into() };
    assert_eq!(shard_error(&paths[0]), (paths[1].clone(), ShardError::Key(missing)));

    let mut keys = metadata();
    keys.set("split.count", 3_u32);
    write(&paths[0], &Layout::plan(&keys, tensors()).unwrap());
    let wrong = LookupError::WrongType { key: "split.count".into(), expected: "u16", found: "u32".into() };
    assert_eq!(shard_error(&paths[0]), (paths[0].clone(), ShardError::Key(wrong)));
}

#[test]
fn a_wrong_number_of_tensors_is_refused() {
    let (_dir, paths) = sharded();
    rewrite(&paths[2], 2, 3, 5, Vec::new());
    assert_eq!(shard_error(&paths[0]), (paths[0].clone(), ShardError::TensorCount { expected: 5, found: 4 }));
    rewrite(&paths[2], 2, 3, -1, tensors().drain(4..).collect());
    assert_eq!(shard_error(&paths[0]), (paths[2].clone(), ShardError::TensorCount { expected: -1, found: 5 }));
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let (_dir, paths) = sharded();
    rewrite(&paths[2], 2, 3, 5, tensors().drain(1..2).collect());
    let expected = ShardError::DuplicateTensor { tensor: "t1".into() };
    assert_eq!(shard_error(&paths[0]), (paths[2].clone(), expected));
}
