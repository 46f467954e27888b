//! NF4 and FP4 on the device against what bitsandbytes itself wrote, and blocks of every length.
use crate::Test;
use crate::common::{bare, differing};
use ggufsmith_core::scheme::FourBit;
use ggufsmith_core::schemes::{SCHEMES, nf4};
use ggufsmith_core::{SchemeError, Words};
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{GpuWorker, adversarial};
use safetensors::SafeTensors;
use std::path::Path;

pub fn trials() -> Vec<Test> {
    let tests: [(&str, fn()); 4] = [
        ("tensors of bitsandbytes", tensors_of_bitsandbytes),
        ("a tensor shorter than a block", short_tensor),
        ("blocks of every length, and a tail", block_lengths),
        ("wrong lengths are the scheme's error", wrong_lengths),
    ];
    tests.into_iter().map(|(name, test)| -> Test { (format!("schemes::{name}"), Box::new(test)) }).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Codes and absmax, little-endian.
fn on_gpu(worker: &mut GpuWorker, scheme: &FourBit, words: Words, source: &[u8], block_len: usize) -> (Vec<u8>, Vec<u8>) {
    let elems = source.len() / words.bytes();
    let (mut codes, mut absmax) = (vec![0xa5; scheme.codes_len(elems)], vec![f32::MAX; elems.div_ceil(block_len)]);
    worker.encode_four_bit(scheme, words, source, block_len, &mut codes, &mut absmax).unwrap();
    (codes, bytes_of(&absmax))
}

fn tensors_of_bitsandbytes() {
    for scheme in SCHEMES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(scheme.name.to_lowercase());
        let file = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let gpu = bare(Testing::default());
        let mut worker = gpu.worker().unwrap();
        let mut cases = 0;
        for packed in tensors.names() {
            let Some(name) = packed.strip_suffix(".packed") else { continue };
            let (input, block_len) = (name.split('.').next().unwrap(), name.rsplit('.').next().unwrap().parse().unwrap());
            let tensor = |name: String| tensors.tensor(&name).unwrap().data();
            let (codes, absmax) = on_gpu(&mut worker, scheme, Words::F32, tensor(format!("{input}.input")), block_len);
            assert_eq!(differing(&codes, tensor(packed.to_string())), (0, None), "{} {name}", scheme.name);
            assert_eq!(differing(&absmax, tensor(format!("{name}.absmax"))), (0, None), "{} {name}", scheme.name);
            cases += 1;
        }
        assert_eq!((cases, gpu.summary().gpu_chunks), (24, 24), "{}", scheme.name);
    }
}

/// The worked example of 20 weights: less than a block, so it is the CPU that does it.
fn short_tensor() {
    let weights = [
        0.4767, -0.2921, 0.0787, -0.1018, -0.3453, 0.3834, -0.0107, -0.4692, -0.4072, -0.2996, -0.4942, -0.264, 0.0125, 0.2962,
        0.3123, -0.4705, -0.1982, -0.1545, 0.3358, -0.4086,
    ];
    let packed = [242, 149, 30, 112, 18, 2, 125, 208, 52, 225];
    let gpu = bare(Testing::default());
    let (codes, absmax) = on_gpu(&mut gpu.worker().unwrap(), &nf4::SCHEME, Words::F32, &bytes_of(&weights), 64);
    assert_eq!((codes, absmax), (packed.to_vec(), bytes_of(&[0.4942])));
}

fn block_lengths() {
    let gpu = bare(Testing::default());
    let mut worker = gpu.worker().unwrap();
    for scheme in SCHEMES {
        for block_len in [32, 64, 96, 128, 256, 512, 1024, 2048, 4064, 4096] {
            for tail in [0, 20, block_len - 1] {
                let mut source = adversarial::data(Words::F32, block_len, 200_000, 9);
                source.truncate((source.len() / 4 - block_len + tail) * 4);
                let elems = source.len() / 4;
                let (mut codes, mut absmax) = (vec![0; scheme.codes_len(elems)], vec![0f32; elems.div_ceil(block_len)]);
                scheme.encode_textbook(Words::F32, &source, block_len, &mut codes, &mut absmax).unwrap();
                let found = on_gpu(&mut worker, scheme, Words::F32, &source, block_len);
                assert_eq!(differing(&found.0, &codes), (0, None), "{} {block_len} {tail}", scheme.name);
                assert_eq!(differing(&found.1, &bytes_of(&absmax)), (0, None), "{} {block_len} {tail}", scheme.name);
            }
        }
    }
    assert_eq!(gpu.summary().cpu_chunks, 0);
}

fn wrong_lengths() {
    let gpu = bare(Testing::default());
    let mut worker = gpu.worker().unwrap();
    for (bytes, block_len, codes, absmax) in
        [(256, 64, 31, 1), (256, 64, 32, 2), (257, 64, 32, 1), (256, 33, 32, 1), (256, 0, 32, 1)]
    {
        let (source, mut codes, mut absmax) = (vec![0; bytes], vec![0; codes], vec![0f32; absmax]);
        let found: SchemeError =
            worker.encode_four_bit(&nf4::SCHEME, Words::F32, &source, block_len, &mut codes, &mut absmax).unwrap_err();
        assert_eq!(Err(found), nf4::SCHEME.encode(Words::F32, &source, block_len, &mut codes, &mut absmax));
    }
    assert_eq!(gpu.summary().gpu_chunks, 0);
}
