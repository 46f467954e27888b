//! Descriptions of forward passes: they ask for tensors that are there, with the shapes that they have, and leave none out.
//! That they compute what transformers and llama.cpp compute is tested where they are run.

use ggufsmith_arch::{Decoder, Options, decoder, decoder_of_gguf, describe};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::TensorSource;
use ggufsmith_gguf::{Gguf, Limits};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Tensors = BTreeMap<String, Vec<u64>>;

fn folders() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let models = ["tiny", "tiny5"].into_iter().flat_map(|folder| std::fs::read_dir(fixtures.join(folder)).unwrap());
    let mut folders: Vec<_> = models.map(|entry| entry.unwrap().path()).filter(|path| path.join("hf").is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 40);
    folders
}

fn of_checkpoint(folder: &Path) -> (Decoder, Tensors) {
    let dir = ModelDir::open(&folder.join("hf")).unwrap();
    let source = Checkpoint::open(&dir).unwrap();
    let made = decoder(dir.config(), &|name| source.info(name).is_some());
    let made = made.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let model = describe(dir.config(), source.tensors(), &Options::default()).unwrap();
    let dropped = |name: &str| model.dropped.iter().any(|(dropped, _)| dropped == name);
    let tensors = source.tensors().iter().filter(|info| !dropped(&info.name)).map(|info| (info.name.clone(), info.shape.clone()));
    (made, tensors.collect())
}

fn of_file(path: &Path) -> (Decoder, Tensors) {
    let file = Gguf::open(path, &Limits::default()).unwrap();
    let tensors: Tensors = file.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let made = decoder_of_gguf(file.metadata(), &|name| tensors.contains_key(name));
    (made.unwrap_or_else(|error| panic!("{}: {error}", path.display())), tensors)
}

/// What a description asks for and is not there, and what is there and not asked for.
fn differences(decoder: &Decoder, tensors: &Tensors) -> Vec<String> {
    let asked: Tensors = decoder.tensors().into_iter().collect();
    let missing = asked.iter().filter(|(name, shape)| tensors.get(*name) != Some(shape));
    let missing = missing.map(|(name, shape)| format!("{name} {shape:?} is not there"));
    let unused = tensors.keys().filter(|name| !asked.contains_key(*name)).map(|name| format!("{name} is not used"));
    missing.chain(unused).collect()
}

#[test]
fn every_tensor_of_a_checkpoint_is_used() {
    for folder in folders() {
        let (decoder, tensors) = of_checkpoint(&folder);
        assert_eq!(differences(&decoder, &tensors), [""; 0], "{}", folder.display());
    }
}

#[test]
fn every_tensor_of_a_file_is_used() {
    let files: Vec<_> = folders().into_iter().map(|folder| folder.join("f32.gguf")).filter(|path| path.exists()).collect();
    assert!(files.len() >= 20);
    for path in files {
        let (decoder, tensors) = of_file(&path);
        assert_eq!(differences(&decoder, &tensors), [""; 0], "{}", path.display());
    }
}

#[test]
fn a_tensor_too_many_and_one_too_few_are_seen() {
    let folder = folders().into_iter().find(|folder| folder.ends_with("tiny/mixtral")).unwrap();
    let (decoder, mut tensors) = of_checkpoint(&folder);
    tensors.insert("model.layers.0.extra.weight".to_owned(), vec![1]);
    assert_eq!(differences(&decoder, &tensors).len(), 1);
    tensors.get_mut("model.layers.1.block_sparse_moe.experts.3.w2.weight").unwrap()[0] += 1;
    assert_eq!(differences(&decoder, &tensors).len(), 2);
}
