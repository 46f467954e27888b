//! A model's directory in memory-backed storage, rewritten for every input.

use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::TensorSource;
use std::cell::RefCell;
use std::path::Path;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Run with a directory that holds these files and no others; an empty file is left out.
pub(crate) fn with_files<T>(files: &[(&str, &[u8])], run: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with_borrow_mut(|folder| {
        let memory = Path::new("/dev/shm");
        let made = || if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let folder = folder.get_or_insert_with(|| made().expect("a temporary directory can be made")).path();
        for (name, bytes) in files {
            let path = folder.join(name);
            if bytes.is_empty() {
                // Not there is fine.
                let _ = std::fs::remove_file(path);
            } else {
                std::fs::write(path, bytes).expect("a temporary directory can be written to");
            }
        }
        run(folder)
    })
}

/// The input is an index (see `split`; none where it is empty) and a safetensors file. Every tensor that is accepted can be
/// read to its last byte.
pub fn safetensors(data: &[u8]) {
    let (index, file) = crate::split(data);
    let files = [("config.json", &b"{}"[..]), ("model.safetensors.index.json", index), ("model.safetensors", file)];
    with_files(&files, |folder| {
        let dir = ModelDir::open(folder).expect("config.json is good");
        let Ok(checkpoint) = Checkpoint::open(&dir) else { return };
        for info in checkpoint.tensors() {
            // Quantized ones read as what they decode to, which may be many times their size.
            let last = info.bytes().saturating_sub(64);
            let mut bytes = vec![0; (info.bytes() - last) as usize];
            let _ = checkpoint.read(&info.name, last, &mut bytes);
        }
        let stored = checkpoint.stored();
        for info in stored.tensors() {
            let mut bytes = vec![0; info.bytes() as usize];
            stored.read(&info.name, 0, &mut bytes).expect("what was accepted can be read");
        }
    });
}
