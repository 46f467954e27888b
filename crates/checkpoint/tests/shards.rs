//! Model directories: shards and their index, what must not be followed, what changes under the reader's hands.

use ggufsmith_checkpoint::{Checkpoint, CheckpointError as E, IndexDefect as I, Limits, ModelDir, NotAFile, OpenOptions};
use ggufsmith_core::{SourceError, TensorSource};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const INDEX: &str = "model.safetensors.index.json";

/// A safetensors file of F32 tensors with two elements each, which are the number of the tensor.
fn shard(names: &[&str]) -> Vec<u8> {
    let entry =
        |(i, name): (usize, &&str)| (name.to_string(), json!({"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]}));
    let header = Value::Object(names.iter().enumerate().map(entry).collect()).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend((0..names.len()).flat_map(|i| [(i as f32).to_le_bytes(); 2]).flatten());
    bytes
}

struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Self {
        let model = Model(tempfile::tempdir().unwrap());
        model.write("config.json", b"{}")
    }
    /// Two shards with an index.
    fn sharded() -> Self {
        let model = Model::new().write("model-1.safetensors", &shard(&["b", "c"])).write("model-2.safetensors", &shard(&["a"]));
        model.index(json!({"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}))
    }
    fn write(self, name: &str, bytes: &[u8]) -> Self {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self
    }
    fn index(self, weight_map: Value) -> Self {
        let index = json!({"metadata": {"total_size": 24}, "weight_map": weight_map}).to_string();
        self.write(INDEX, index.as_bytes())
    }
    fn remove(self, name: &str) -> Self {
        fs::remove_file(self.0.path().join(name)).unwrap();
        self
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn open_with(&self, options: OpenOptions) -> Result<Checkpoint, E> {
        Checkpoint::open(&ModelDir::open_with(self.0.path(), options)?)
    }
    fn open(&self) -> Result<Checkpoint, E> {
        self.open_with(OpenOptions::default())
    }
    fn refused(&self) -> E {
        self.open().map(|_| ()).unwrap_err()
    }
    fn index_defect(&self) -> I {
        match self.refused() {
            E::Index { path, defect } if path.ends_with(INDEX) => defect,
            other => panic!("{other}"),
        }
    }
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().iter().map(|t| t.name.as_str()).collect()
}

#[test]
fn files_by_name_and_tensors_by_name_inside() {
    let checkpoint = Model::sharded().open().unwrap();
    assert_eq!(names(&checkpoint), ["b", "c", "a"]);
    let files: Vec<_> = checkpoint.files().map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, ["model-1.safetensors", "model-2.safetensors"]);
    let mut bytes = [9; 8];
    checkpoint.read("c", 0, &mut bytes).unwrap();
    assert_eq!(bytes, [1f32.to_le_bytes(); 2].concat()[..]);
    // Without an index: every model*.safetensors, and nothing else.
    let unindexed = Model::sharded().remove(INDEX).write("adapter_model.safetensors", b"").write("optimizer.safetensors", b"");
    assert_eq!(names(&unindexed.open().unwrap()), ["b", "c", "a"]);
}

#[test]
fn shards_whose_index_is_in_another_order() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let whole = Checkpoint::open(&ModelDir::open(&dir.join("tiny/llama-spm/hf")).unwrap()).unwrap();
    let shards = dir.join("converter/shards");
    let mut model = Model::new();
    for entry in fs::read_dir(&shards).unwrap() {
        let entry = entry.unwrap();
        model = model.write(entry.file_name().to_str().unwrap(), &fs::read(entry.path()).unwrap());
    }
    let checkpoint = model.open().unwrap();
    assert_eq!((checkpoint.files().len(), checkpoint.tensors().len()), (3, whole.tensors().len()));
    assert!(checkpoint.tensors().is_sorted_by(|a, b| (&a.file, &a.name) < (&b.file, &b.name)));
    for info in whole.tensors() {
        let (mut one, mut other) = (vec![0; info.bytes() as usize], vec![1; info.bytes() as usize]);
        whole.read(&info.name, 0, &mut one).unwrap();
        checkpoint.read(&info.name, 0, &mut other).unwrap();
        assert!(one == other, "{}", info.name);
    }
}

#[test]
fn a_read_outside_a_tensor() {
    let checkpoint = Model::sharded().open().unwrap();
    for (offset, len) in [(0, 9), (8, 1), (9, 0), (u64::MAX, 1)] {
        let error = checkpoint.read("a", offset, &mut vec![0; len]).unwrap_err();
        assert!(matches!(error, SourceError::Range { bytes: 8, .. }), "{offset} {len}");
    }
    checkpoint.read("a", 8, &mut []).unwrap();
    assert!(matches!(checkpoint.read("x", 0, &mut []), Err(SourceError::NoTensor { .. })));
    assert!(checkpoint.info("x").is_none());
}

#[test]
fn a_tensor_in_two_files() {
    let model = Model::new().write("model-1.safetensors", &shard(&["a"])).write("model-2.safetensors", &shard(&["a", "b"]));
    assert!(matches!(model.refused(), E::InTwoFiles { tensor, first, second }
        if tensor == "a" && first == "model-1.safetensors" && second == "model-2.safetensors"));
}

#[test]
fn a_shard_that_is_missing() {
    let defect = Model::sharded().remove("model-1.safetensors").index_defect();
    assert!(matches!(defect, I::MissingShard { shard } if shard == "model-1.safetensors"));
}

#[test]
fn a_shard_that_the_index_does_not_name() {
    let defect = Model::sharded().write("model.safetensors", &shard(&["z"])).index_defect();
    assert!(matches!(defect, I::UnnamedShard { shard } if shard == "model.safetensors"));
}

#[test]
fn a_tensor_that_its_shard_does_not_hold() {
    let defect = Model::sharded().write("model-1.safetensors", &shard(&["b"])).index_defect();
    assert!(matches!(defect, I::MissingTensor { tensor, shard } if tensor == "c" && shard == "model-1.safetensors"));
}

#[test]
fn a_tensor_that_the_index_does_not_name() {
    let defect = Model::sharded().write("model-1.safetensors", &shard(&["b", "c", "d"])).index_defect();
    assert!(matches!(defect, I::ExtraTensor { tensor, .. } if tensor == "d"));
}

#[test]
fn a_tensor_in_another_shard_than_said() {
    let map = json!({"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"});
    let defect = Model::sharded().index(map).index_defect();
    assert!(matches!(defect, I::WrongShard { tensor, .. } if tensor == "c"));
}

#[test]
fn shard_names_that_are_no_plain_names() {
    let long = format!("{}.safetensors", "x".repeat(300));
    for name in [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "a\\b.safetensors",
        "C:x.safetensors",
        "x\0.safetensors",
        "..",
        ".",
        "",
        "model.bin",
        "model.safetensors/",
        &long,
    ] {
        let defect = Model::sharded().index(json!({"a": name})).index_defect();
        assert!(matches!(defect, I::ShardName { name: n, .. } if n == name), "{name:?}");
    }
}

#[test]
fn an_index_of_another_form() {
    for map in [json!(null), json!([]), json!("x"), json!(1)] {
        assert!(matches!(Model::sharded().index(map).index_defect(), I::NoWeightMap));
    }
    assert!(matches!(Model::sharded().index(json!({})).index_defect(), I::Empty));
    assert!(matches!(Model::sharded().index(json!({"a": 7})).index_defect(), I::NotAName { .. }));
    assert!(matches!(Model::sharded().write(INDEX, b"[]").index_defect(), I::NoWeightMap));
    assert!(matches!(Model::sharded().write(INDEX, b"{").refused(), E::Json { .. }));
    assert!(matches!(Model::sharded().write(INDEX, b"\xff").refused(), E::NotUtf8 { .. }));
    let twice = br#"{"weight_map": {"a": "model-1.safetensors", "a": "model-2.safetensors"}}"#;
    assert!(matches!(Model::sharded().write(INDEX, twice).refused(), E::DuplicateKey { key, .. } if key == "a"));
}

#[test]
fn what_is_larger_than_the_limits() {
    let limit =
        |limits: Limits| Model::sharded().open_with(OpenOptions { limits, ..OpenOptions::default() }).map(|_| ()).unwrap_err();
    assert!(matches!(limit(Limits { index_bytes: 10, ..Limits::default() }), E::TooLarge { limit: 10, .. }));
    assert!(matches!(limit(Limits { json_bytes: 1, ..Limits::default() }), E::TooLarge { bytes: 2, .. }));
    let model = Model::sharded().write("config.json", b"{}");
    let options = OpenOptions { limits: Limits { json_values: 5, ..Limits::default() }, ..OpenOptions::default() };
    assert!(matches!(model.open_with(options), Err(E::TooMany { what: "values", limit: 5, path }) if path.ends_with(INDEX)));
    assert!(matches!(limit(Limits { shards: 1, ..Limits::default() }), E::TooMany { what: "shards", limit: 1, .. }));
    assert!(matches!(limit(Limits { tensors: 2, ..Limits::default() }), E::TooMany { what: "tensors", limit: 2, .. }));
    assert!(matches!(limit(Limits { header_bytes: 10, ..Limits::default() }), E::Header { .. }));
}

#[test]
fn a_directory_without_weights() {
    assert!(matches!(Model::new().refused(), E::NoWeights { consolidated: None, .. }));
    let mistral = Model::new().write("consolidated.safetensors", &shard(&["a"]));
    assert!(matches!(mistral.refused(), E::NoWeights { consolidated: Some(_), .. }));
    let pickle = Model::new().write("pytorch_model.bin", b"\x80\x02.");
    assert!(matches!(pickle.refused(), E::Pickle { file, .. } if file == "pytorch_model.bin"));
    // A pickle beside safetensors does not matter.
    Model::sharded().write("pytorch_model.bin", b"").open().unwrap();
}

#[test]
fn a_directory_that_is_no_model() {
    assert!(matches!(Model::new().remove("config.json").refused(), E::NotAModel { missing: "config.json", .. }));
    assert!(matches!(ModelDir::open(Path::new("/no/such/folder")), Err(E::Io { .. })));
    let model = Model::new();
    assert!(matches!(ModelDir::open(&model.path("config.json")), Err(E::Io { .. })));
    assert!(matches!(Model::new().write("config.json", br#"{"a": 1, "a": 2}"#).refused(), E::DuplicateKey { .. }));
    assert!(matches!(Model::new().write("config.json", b"\xff\xfe").refused(), E::NotUtf8 { offset: 0, .. }));
}

#[test]
fn a_checkpoint_that_is_quantized_already() {
    for (file, config, wanted) in [
        ("config.json", json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), "gptq"),
        ("config.json", json!({"quantization_config": {}}), "an unnamed method"),
        ("config.json", json!({"compression_config": {"format": "pack-quantized"}}), "pack-quantized"),
        ("config.json", json!({"quantization": {"group_size": 64, "bits": 4, "mode": "affine"}}), "affine"),
        ("hf_quant_config.json", json!({"quantization": {"quant_algo": "FP8"}}), "FP8"),
    ] {
        let model = Model::sharded().write(file, config.to_string().as_bytes());
        assert!(matches!(model.refused(), E::Prequantized { method, .. } if method == wanted), "{config}");
    }
    Model::sharded().write("config.json", br#"{"quantization_config": null}"#).open().unwrap();
}

#[test]
fn small_files_by_name() {
    let model = Model::new().write("a.txt", "grüße".as_bytes());
    fs::create_dir(model.path("folder")).unwrap();
    fs::write(model.path("folder/b.txt"), b"b").unwrap();
    let dir = ModelDir::open(model.0.path()).unwrap();
    assert_eq!(dir.text("a.txt").unwrap().as_deref(), Some("grüße"));
    assert_eq!(dir.text("folder/b.txt").unwrap().as_deref(), Some("b"));
    assert_eq!(dir.bytes("absent").unwrap(), None);
    assert_eq!(Some(dir.name().as_str()), model.0.path().file_name().unwrap().to_str());
    assert_eq!(dir.list("").unwrap(), ["a.txt", "config.json", "folder"]);
    assert_eq!(dir.list("folder").unwrap(), ["b.txt"]);
    assert_eq!(dir.list("absent").unwrap(), [""; 0]);
    for name in ["../a.txt", "/etc/passwd", "folder/../a.txt", "folder//b.txt", "", "a\0"] {
        assert!(matches!(dir.bytes(name), Err(E::FileName { .. })), "{name:?}");
    }
    assert!(matches!(dir.bytes("folder"), Err(E::NotRegular { found: NotAFile::Directory, .. })));
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_file_of_a_model_may_be_a_fifo_a_device_or_a_directory() {
        for name in ["config.json", "model-1.safetensors", INDEX] {
            let replaced = || {
                let model = Model::sharded().remove(name);
                (model.path(name), model)
            };
            let (path, model) = replaced();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            assert!(matches!(model.refused(), E::NotRegular { found: NotAFile::Fifo, .. }), "{name}");
            let (path, model) = replaced();
            fs::create_dir(&path).unwrap();
            assert!(matches!(model.refused(), E::NotRegular { found: NotAFile::Directory, .. }), "{name}");
            let (path, model) = replaced();
            symlink("/dev/zero", &path).unwrap();
            assert!(matches!(model.refused(), E::NotRegular { found: NotAFile::Device, .. }), "{name}");
        }
    }

    #[test]
    fn links_that_lead_nowhere() {
        let model = Model::sharded().remove("model-1.safetensors");
        symlink("absent", model.path("model-1.safetensors")).unwrap();
        assert!(matches!(model.refused(), E::Io { path, .. } if path.ends_with("model-1.safetensors")));
        let model = Model::sharded().remove("config.json");
        symlink("config.json", model.path("config.json")).unwrap();
        assert!(matches!(model.refused(), E::Io { path, .. } if path.ends_with("config.json")));
    }

    #[test]
    fn links_stay_inside_unless_asked() {
        let outside = Model::sharded();
        for name in ["model-1.safetensors", "config.json", INDEX] {
            let model = Model::sharded().remove(name);
            symlink(outside.path(name), model.path(name)).unwrap();
            assert!(matches!(model.refused(), E::Escapes { path, .. } if path.ends_with(name)), "{name}");
            let options = OpenOptions { follow_symlinks: true, ..OpenOptions::default() };
            assert_eq!(model.open_with(options).unwrap().tensors().len(), 3);
        }
        // Inside the directory, and the directory itself.
        let model = Model::sharded();
        fs::create_dir(model.path("store")).unwrap();
        fs::rename(model.path("model-1.safetensors"), model.path("store/blob")).unwrap();
        symlink("store/blob", model.path("model-1.safetensors")).unwrap();
        assert_eq!(model.open().unwrap().tensors().len(), 3);
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(model.0.path(), elsewhere.path().join("link")).unwrap();
        Checkpoint::open(&ModelDir::open(&elsewhere.path().join("link")).unwrap()).unwrap();
    }

    #[test]
    fn in_a_hub_cache_links_reach_the_blobs_of_their_repository_and_no_further() {
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--org--name");
        let snapshot = repo.join("snapshots/0123");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(repo.join("blobs")).unwrap();
        let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", &shard(&["a"]))];
        for (name, bytes) in files {
            fs::write(repo.join("blobs").join(name), bytes).unwrap();
            symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
        }
        let open = || ModelDir::open(&snapshot).and_then(|dir| Checkpoint::open(&dir));
        assert_eq!(open().unwrap().tensors().len(), 1);
        assert_eq!(ModelDir::open(&snapshot).unwrap().name(), "name");
        let other = cache.path().join("models--org--other");
        fs::create_dir(&other).unwrap();
        fs::rename(repo.join("blobs/model.safetensors"), other.join("secret")).unwrap();
        fs::remove_file(snapshot.join("model.safetensors")).unwrap();
        symlink("../../../models--org--other/secret", snapshot.join("model.safetensors")).unwrap();
        assert!(matches!(open(), Err(E::Escapes { .. })));
    }

    #[test]
    fn a_shard_that_shrinks_is_written_to_or_replaced() {
        let model = Model::sharded();
        let path = model.path("model-1.safetensors");
        let whole = fs::read(&path).unwrap();
        let mut bytes = [0; 8];

        let checkpoint = model.open().unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 - 1).unwrap();
        let error = checkpoint.read("c", 0, &mut bytes).unwrap_err();
        assert!(
            matches!(error, SourceError::Shrunk { expected, found, .. } if expected == whole.len() as u64 && found == expected - 1),
            "{error}"
        );
        assert!(matches!(checkpoint.read("b", 0, &mut bytes), Err(SourceError::Changed { .. })));
        assert!(matches!(checkpoint.check_unchanged(), Err(SourceError::Changed { .. })));

        fs::write(&path, &whole).unwrap();
        let checkpoint = model.open().unwrap();
        fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
        assert!(matches!(checkpoint.read("b", 0, &mut bytes), Err(SourceError::Changed { .. })));

        // Replaced under its name: what is open is still whole, and the end notices.
        fs::write(&path, &whole).unwrap();
        let checkpoint = model.open().unwrap();
        fs::write(model.path("new"), &whole).unwrap();
        fs::rename(model.path("new"), &path).unwrap();
        checkpoint.read("b", 0, &mut bytes).unwrap();
        assert!(matches!(checkpoint.check_unchanged(), Err(SourceError::Changed { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(checkpoint.check_unchanged(), Err(SourceError::Changed { .. })));
    }
}
