//! Which chunks go to the device, and chunks of awkward shape.
use crate::Test;
use crate::common::{bare, by_textbook, differing, kernel_named, on_gpu};
use ggufsmith_core::formats::{bf16, q4_0, q4_k, q8_0};
use ggufsmith_core::{Encoder, Rows, Words, Worker};
use ggufsmith_gpu::testing::Testing;
use ggufsmith_gpu::{Auto, Gpu, GpuError, KERNELS, Options, Selection, WORDS, WhyNot, adapters, adversarial, auto, examine};
use std::time::Duration;

pub fn trials() -> Vec<Test> {
    let tests: [(&str, fn()); 7] = [
        ("unaligned sources and odd numbers of blocks", awkward_sizes),
        ("many pieces in flight", many_pieces),
        ("importance and encoders without a kernel stay on the CPU", what_stays_on_the_cpu),
        ("wrong lengths are the encoder's error", wrong_lengths),
        ("every hundredth chunk of a kernel is compared", compared_chunks),
        ("every adapter is examined and calibrated", examined),
        ("a GPU joins unasked only if it is one and adds enough", decided),
    ];
    tests.into_iter().map(|(name, test)| -> Test { (format!("chunks::{name}"), Box::new(test)) }).collect()
}

fn awkward_sizes() {
    let gpu = bare(Testing { poison: Some(0xffff_ffff), ..Testing::default() });
    let mut worker = gpu.worker().unwrap();
    for kernel in KERNELS {
        let block_len = kernel.block_len();
        for words in WORDS {
            let source = adversarial::data(words, block_len, 64 * block_len, 3);
            for blocks in [1, 2, 3, 63, 64] {
                for shift in [0, 1, 3] {
                    let mut bytes = vec![0xaa; shift];
                    bytes.extend(&source[..blocks * block_len * words.bytes()]);
                    let source = &bytes[shift..];
                    let found = on_gpu(&mut worker, kernel, words, source);
                    assert_eq!(
                        differing(&found, &by_textbook(kernel, words, source)),
                        (0, None),
                        "{} {words:?} {blocks}",
                        kernel.name()
                    );
                }
            }
            assert!(on_gpu(&mut worker, kernel, words, &[]).is_empty());
        }
    }
}

fn many_pieces() {
    for slots in [1, 2, 3] {
        let options = Options { slot_bytes: 16 << 10, slots, check_every: 0, ..Options::default() };
        let gpu = Gpu::open(Selection::Any, options).unwrap();
        let mut worker = gpu.worker().unwrap();
        for kernel in KERNELS {
            let source = adversarial::data(Words::F16, 64, 100_032, 5);
            let found = on_gpu(&mut worker, kernel, Words::F16, &source);
            assert_eq!(
                differing(&found, &by_textbook(kernel, Words::F16, &source)),
                (0, None),
                "{} with {slots} slots",
                kernel.name()
            );
        }
        assert_eq!(gpu.summary().gpu_chunks, KERNELS.len() as u64);
    }
}

fn what_stays_on_the_cpu() {
    let gpu = bare(Testing::default());
    let mut worker = gpu.worker().unwrap();
    let source = adversarial::data(Words::BF16, 32, 2048, 1);
    let rows = Rows { words: Words::BF16, cols: 256, bytes: &source };
    let importance: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let mut encode = |encoder: &'static Encoder, importance: Option<&[f32]>| {
        let mut out = vec![0; encoder.format.bytes_for(rows.elems() as u64).unwrap() as usize];
        let mut expected = out.clone();
        worker.encode(encoder, rows, importance, &mut out).unwrap();
        encoder.encode(rows, importance, &mut expected).unwrap();
        assert_eq!(out, expected);
        (gpu.summary().gpu_chunks, gpu.summary().cpu_chunks)
    };
    assert_eq!(encode(&q4_0::ENCODER, None), (1, 0));
    assert_eq!(encode(&q4_0::ENCODER, Some(&importance)), (1, 1));
    assert_eq!(encode(&q8_0::ENCODER, Some(&importance)), (2, 1), "importance changes nothing there");
    assert_eq!(encode(&bf16::ENCODER, None), (2, 2));
    assert_eq!(encode(&q4_k::ENCODER, None), (3, 2));
    assert_eq!(encode(&q4_k::ENCODER, Some(&importance)), (3, 3));
    let bytes = source.len() as u64;
    assert_eq!((gpu.summary().gpu_bytes, gpu.summary().cpu_bytes), (3 * bytes, 3 * bytes));
}

fn wrong_lengths() {
    let gpu = bare(Testing::default());
    let mut worker = gpu.worker().unwrap();
    let encoder = kernel_named("Q8_0").encoder().unwrap();
    for (cols, bytes, out) in [(33, 132, 34), (32, 100, 34), (32, 128, 33), (0, 128, 34)] {
        let (source, mut out) = (vec![0; bytes], vec![0; out]);
        let rows = Rows { words: Words::F32, cols, bytes: &source };
        let error = worker.encode(encoder, rows, None, &mut out).unwrap_err();
        assert_eq!(Err(error), encoder.encode(rows, None, &mut out));
    }
    assert_eq!(gpu.summary().gpu_chunks, 0);
}

fn compared_chunks() {
    let gpu = Gpu::open(Selection::Any, Options::default()).unwrap();
    let mut worker = gpu.worker().unwrap();
    let source = adversarial::data(Words::BF16, 32, 2048, 1);
    for _ in 0..101 {
        on_gpu(&mut worker, kernel_named("Q8_0"), Words::BF16, &source);
    }
    on_gpu(&mut worker, kernel_named("Q4_0"), Words::BF16, &source);
    let summary = gpu.summary();
    assert_eq!((summary.gpu_chunks, summary.cpu_chunks, summary.checked_chunks), (102, 0, 3));
    assert!(summary.redone_blocks > 0);
    assert_eq!((summary.failure, summary.mismatch, summary.rejected), (None, None, vec![]));
}

fn examined() {
    let reports = examine(Duration::from_millis(1)).unwrap();
    assert_eq!(reports.iter().map(|r| r.adapter.clone()).collect::<Vec<_>>(), adapters());
    for report in &reports {
        let kernels = report.kernels.as_ref().unwrap();
        assert_eq!(kernels.len(), KERNELS.len() * WORDS.len());
        for kernel in kernels {
            assert!(kernel.self_test.passed(), "{kernel:?}");
            assert!(kernel.gpu_bytes_per_second.unwrap() > 0.0 && kernel.cpu_bytes_per_second > 0.0);
        }
    }
    let gpu = Gpu::open(Selection::Any, Options::default()).unwrap();
    let time = Duration::from_millis(40);
    let calibration = gpu.calibrate(&[(&q8_0::ENCODER, Words::BF16), (&bf16::ENCODER, Words::BF16)], 1, time).unwrap().unwrap();
    assert!(calibration.cpu > 0.0 && calibration.with_gpu > 0.0);
    assert_eq!(calibration.is_worth_it(), calibration.with_gpu >= 1.2 * calibration.cpu);
    assert_eq!(gpu.calibrate(&[(&bf16::ENCODER, Words::BF16)], 1, time).unwrap(), None, "no kernel, no gain");
}

fn decided() {
    let decide = |selection, encoder| auto(selection, Options::default(), &[(encoder, Words::BF16)], 1);
    match decide(Selection::Any, &q8_0::ENCODER) {
        Auto::Joins(gpu, calibration) => assert!(calibration.gain() >= 0.2, "{} {calibration:?}", gpu.adapter()),
        Auto::StaysAway(WhyNot::TooSlow(_, calibration)) => assert!(calibration.gain() < 0.2, "{calibration:?}"),
        Auto::StaysAway(why) => panic!("{why}"),
    }
    assert!(matches!(decide(Selection::Any, &bf16::ENCODER), Auto::StaysAway(WhyNot::NothingToDo(_))));
    // Software is no GPU.
    if adapters().iter().all(|adapter| !adapter.kind.is_gpu()) {
        let Auto::StaysAway(WhyNot::Unusable(GpuError::NoAdapter { found, .. })) = decide(Selection::Gpu, &q8_0::ENCODER) else {
            panic!("a software adapter was taken for a GPU");
        };
        assert_eq!(found, adapters());
    }
}
