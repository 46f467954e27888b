//! A model with matrices rounded to sixteen values reads as the checkpoint that bitsandbytes made of it.

use ggufsmith_checkpoint::{Checkpoint, ModelDir, Rounded, Rounding};
use ggufsmith_core::schemes::{fp4, nf4};
use ggufsmith_core::{DType, TensorInfo, TensorSource, float};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(path: &str) -> Arc<Checkpoint> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path);
    Arc::new(Checkpoint::open(&ModelDir::open(&path).unwrap()).unwrap())
}

fn values(source: &dyn TensorSource, info: &TensorInfo) -> Vec<f32> {
    let (mut bytes, mut words) = (vec![0; info.bytes() as usize], Vec::new());
    source.read(&info.name, 0, &mut bytes).unwrap();
    info.dtype.append_words(&bytes, &mut words);
    match info.dtype {
        DType::BF16 => words.as_chunks().0.iter().map(|word| float::bf16_to_f32(u16::from_le_bytes(*word))).collect(),
        _ => words.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
    }
}

#[test]
fn the_values_of_bitsandbytes() {
    for (name, scheme, double) in [
        ("bnb/checkpoint-nf4", &nf4::SCHEME, false),
        ("bnb/checkpoint-nf4-dq", &nf4::SCHEME, true),
        ("bnb/checkpoint-fp4", &fp4::SCHEME, false),
    ] {
        let rounding = Rounding { scheme, block_len: 64, double, skip_modules: Vec::new() };
        let rounded = Rounded::new(open("tiny/llama/hf"), rounding).unwrap();
        let reference = open(name);
        assert_eq!((rounded.tensors().len(), rounded.count()), (20, 14));
        for info in reference.tensors() {
            let own = rounded.info(&info.name).unwrap();
            assert_eq!(own.shape, info.shape);
            let (found, expected) = (values(&rounded, own), values(&*reference, info));
            // The checkpoint's dtype is that of the model, ours is not rounded to it.
            let stored = |value: f32| match info.dtype {
                DType::BF16 => float::bf16_to_f32(float::f32_to_bf16(value)),
                _ => value,
            };
            let found: Vec<f32> = found.into_iter().map(stored).collect();
            assert!(found == expected, "{name} {}", info.name);
        }
    }
}

#[test]
fn any_part_is_that_of_the_whole() {
    for (block_len, double) in [(32, false), (64, true), (4096, false), (4096, true)] {
        let rounding = Rounding { scheme: &nf4::SCHEME, block_len, double, skip_modules: vec!["down_proj".into()] };
        let rounded = Rounded::new(open("bard"), rounding).unwrap();
        let info = rounded.tensors().iter().find(|info| rounded.rounds(&info.name)).unwrap();
        let whole = values(&rounded, info);
        let len = whole.len() as u64;
        for (from, to) in [(0, 1), (1, 63), (63, 65), (100, 5000), (len - 1, len), (len - 4097, len), (7, 7)] {
            let mut part = vec![0; (to - from) as usize * 4];
            rounded.read(&info.name, from * 4, &mut part).unwrap();
            let part: Vec<f32> = part.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            assert!(part == whole[from as usize..to as usize], "{block_len} {double} {from}..{to}");
        }
        for (offset, bytes) in [(2, 4), (0, 6), (len * 4 - 4, 8)] {
            assert!(rounded.read(&info.name, offset, &mut vec![0; bytes]).is_err());
        }
        assert!(rounded.tensors().iter().all(|info| !info.name.contains("down_proj") || !rounded.rounds(&info.name)));
    }
    let rounding = Rounding { scheme: &nf4::SCHEME, block_len: 96, double: false, skip_modules: Vec::new() };
    assert!(Rounded::new(open("bard"), rounding).is_err());
}
