//! The CPU's bytes, byte for byte, on ten million adversarial elements per kernel and source type.
use crate::Test;
use crate::common::{CHUNK, bare, by_textbook, differing, on_gpu};
use ggufsmith_core::Words;
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{KERNELS, Kernel, WORDS, adversarial};
use ggufsmith_shaders::ARITHMETIC;

const ELEMS: usize = 10_000_000;

/// Ways in which a device may be worse than lavapipe, each a text in the place of shaders/common/arithmetic.wgsl.
const DEVICES: [(&str, Option<&str>); 3] = [
    ("as it is", None),
    ("flushing, guess too high", Some(include_str!("flushing_high.wgsl"))),
    ("flushing, guess too low", Some(include_str!("flushing_low.wgsl"))),
];

pub fn trials() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for kernel in KERNELS {
        for words in WORDS {
            for (device, arithmetic) in DEVICES {
                let name = format!("exact::{} {words:?}, {device}", kernel.name());
                tests.push((name, Box::new(move || sweep(kernel, words, arithmetic))));
            }
        }
    }
    for kernel in KERNELS {
        tests.push((format!("exact::{} does plain weights by itself", kernel.name()), Box::new(move || by_itself(kernel))));
    }
    tests
}

/// Of bell-shaped weights a kernel leaves hardly a block to the CPU.
fn by_itself(kernel: &'static Kernel) {
    for words in WORDS {
        let gpu = bare(Testing::default());
        let source = adversarial::plain(words, 2 * CHUNK, 7);
        on_gpu(&mut gpu.worker().unwrap(), kernel, words, &source);
        let blocks = 2 * CHUNK / kernel.block_len();
        let left = gpu.summary().redone_blocks;
        assert!(left * 1000 <= blocks as u64, "{words:?}: {left} of {blocks}");
    }
}

fn sweep(kernel: &'static Kernel, words: Words, arithmetic: Option<&str>) {
    let replace = arithmetic.map(|text| (ARITHMETIC, text.to_owned())).into_iter().collect();
    let gpu = bare(Testing { replace, poison: Some(0xffff_ffff), ..Testing::default() });
    let mut worker = gpu.worker().unwrap();
    let mut done = 0;
    for seed in 0.. {
        if done >= ELEMS {
            break;
        }
        let source = adversarial::data(words, kernel.block_len(), CHUNK, seed);
        let (count, first) = differing(&on_gpu(&mut worker, kernel, words, &source), &by_textbook(kernel, words, &source));
        assert_eq!(count, 0, "seed {seed}: first difference at byte {first:?}");
        done += source.len() / words.bytes();
    }
    let summary = gpu.summary();
    assert_eq!(summary.failure, None);
    assert_eq!((summary.cpu_chunks, summary.gpu_chunks as usize), (0, done / CHUNK), "all of it was done on the device");
}
