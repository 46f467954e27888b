//! Encoders beside memcpy: GB/s of source words read, one thread, best of many interleaved passes.
//!
//! `cargo bench -p ggufsmith-core [-- [FILTER] [--level baseline|avx2|avx512] [--textbook] [--importance | --decode]]`; FILTER is part of `FORMAT/WORDS`, e.g. `/BF16`.
#![allow(clippy::print_stdout)]

use ggufsmith_core::blocks::simd::Level;
use ggufsmith_core::{ENCODERS, Rows, Words, float};
use std::hint::black_box;
use std::time::Instant;

/// 32 Mi weights: 64 MiB of BF16, more than the caches hold.
const ROWS: usize = 8192;
const COLS: usize = 4096;
const PASSES: usize = 9;

/// Gaussian weights of standard deviation 0.02: the sum of twelve uniform numbers.
fn gaussian(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f32 / (1u64 << 31) as f32
    };
    (0..n).map(|_| ((0..12).map(|_| next()).sum::<f32>() - 6.0) * 0.02).collect()
}

fn words_of(values: &[f32], words: Words) -> Vec<u8> {
    match words {
        Words::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Words::F16 => values.iter().flat_map(|v| float::f32_to_f16(*v).to_le_bytes()).collect(),
        Words::BF16 => values.iter().flat_map(|v| float::f32_to_bf16(*v).to_le_bytes()).collect(),
    }
}

fn seconds(f: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn main() {
    let (mut filter, mut level, mut textbook, mut importance, mut decode) = (String::new(), None, false, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--textbook" => textbook = true,
            "--decode" => decode = true,
            "--importance" => importance = Some(vec![1.0; COLS]),
            "--level" => {
                let name = args.next().unwrap_or_default();
                level = Level::available().into_iter().find(|l| format!("{l:?}").to_lowercase() == name);
                assert!(level.is_some(), "no level {name:?} here; there are {:?}", Level::available());
            }
            other => filter = other.into(),
        }
    }
    let levels = level.map_or_else(Level::available, |l| vec![l]);
    let values = gaussian(ROWS * COLS);
    println!("{:<8} {:<5} {:<9} {:>9} {:>9} {:>7} {:>12}", "format", "words", "level", "GB/s", "memcpy", "ratio", "Mweights/s");
    for encoder in ENCODERS {
        for words in [Words::BF16, Words::F16, Words::F32] {
            if !format!("{}/{words:?}", encoder.format.name).contains(&filter) {
                continue;
            }
            let bytes = words_of(&values, words);
            let rows = Rows { words, cols: COLS, bytes: &bytes };
            let size = encoder.format.bytes_for(rows.elems() as u64).expect("whole blocks") as usize;
            let (mut out, mut copy, mut decoded) = (vec![0; size], vec![0; bytes.len()], vec![0f32; values.len()]);
            encoder.encode(rows, importance.as_deref(), &mut out).expect("lengths fit");
            let mut memcpy = f64::MAX;
            let mut best = vec![f64::MAX; levels.len()];
            for _ in 0..PASSES {
                memcpy = memcpy.min(seconds(&mut || black_box(&mut copy).copy_from_slice(black_box(&bytes))));
                for (level, best) in levels.iter().zip(&mut best) {
                    let run = if textbook { encoder.textbook } else { encoder.fast };
                    let time = level.limit(|| match decode {
                        false => seconds(&mut || run(black_box(rows), importance.as_deref(), black_box(&mut out))),
                        true => seconds(&mut || (encoder.format.decode)(black_box(&out), black_box(&mut decoded))),
                    });
                    *best = best.min(time);
                }
            }
            for (level, best) in levels.iter().zip(best) {
                let rate = |time: f64| bytes.len() as f64 / time / 1e9;
                let name = format!("{level:?}");
                println!(
                    "{:<8} {:<5} {:<9} {:>9.2} {:>9.2} {:>7.3} {:>12.0}",
                    encoder.format.name,
                    format!("{words:?}"),
                    name,
                    rate(best),
                    rate(memcpy),
                    memcpy / best,
                    values.len() as f64 / best / 1e6
                );
            }
        }
    }
}
