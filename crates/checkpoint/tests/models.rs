//! The real checkpoints of fixtures/, opened and read.

use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::TensorSource;
use std::path::Path;

fn fixture(name: &str) -> ModelDir {
    ModelDir::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)).unwrap()
}

#[test]
fn tensors_come_sorted_and_equal_to_what_the_library_reads() {
    for name in ["bard", "tiny/llama/hf", "tiny/mistral/hf"] {
        let dir = fixture(name);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert!(checkpoint.tensors().is_sorted_by(|a, b| a.name < b.name), "{name}");
        let whole = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let library = safetensors::SafeTensors::deserialize(&whole).unwrap();
        assert_eq!(checkpoint.tensors().len(), library.len());
        for info in checkpoint.tensors() {
            let view = library.tensor(&info.name).unwrap();
            let mut bytes = vec![0; info.bytes() as usize];
            checkpoint.read(&info.name, 0, &mut bytes).unwrap();
            assert!(bytes == view.data(), "{name} {}", info.name);
            assert_eq!(info.dtype.name(), view.dtype().to_string());
            assert_eq!(info.shape, view.shape().iter().map(|&d| d as u64).collect::<Vec<_>>());
            // A run from the middle.
            let mut part = [0; 6];
            checkpoint.read(&info.name, 10, &mut part).unwrap();
            assert_eq!(part, bytes[10..16]);
        }
        checkpoint.check_unchanged().unwrap();
    }
}
