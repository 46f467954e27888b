//! Encoders beside memcpy: GB/s of source words read, one thread. Of many interleaved passes every piece's best counts, and the sum of
//! these is given: other work on the machine then costs little.
//!
//! `cargo bench -p ggufsmith-core [-- [FILTER] [--level baseline|avx2|avx512] [--importance | --decode | --textbook]]`;
//! FILTER is part of `FORMAT/WORDS`, e.g. `/BF16`.
#![allow(clippy::print_stdout)]

use ggufsmith_core::blocks::simd::Level;
use ggufsmith_core::{ENCODERS, FourBit, Rows, SCHEMES, Words, float};
use std::hint::black_box;
use std::time::Instant;

/// 32 Mi weights: 64 MiB of BF16, more than the caches hold.
const ROWS: usize = 8192;
const COLS: usize = 4096;
const PASSES: usize = 9;
/// Weights that are timed together. What they are decoded to stays in the second-level cache, as in the product.
const PIECE: usize = 16 * COLS;
const PIECES: usize = ROWS * COLS / PIECE;

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

/// What is timed.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Encode,
    Importance,
    Decode,
    Textbook,
}

struct Options {
    what: What,
    filter: String,
    levels: Vec<Level>,
    ones: Vec<f32>,
}

impl Options {
    fn parse() -> Options {
        let mut options =
            Options { what: What::Encode, filter: String::new(), levels: Level::available(), ones: vec![1.0; COLS] };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {}
                "--importance" => options.what = What::Importance,
                "--decode" => options.what = What::Decode,
                "--textbook" => options.what = What::Textbook,
                "--level" => {
                    let name = args.next().unwrap_or_default();
                    options.levels.retain(|level| format!("{level:?}").to_lowercase() == name);
                    assert!(!options.levels.is_empty(), "no level {name:?} here; there are {:?}", Level::available());
                }
                other => options.filter = other.into(),
            }
        }
        options
    }

    fn wants(&self, name: &str, words: Words) -> bool {
        format!("{name}/{words:?}").contains(&self.filter)
    }

    fn importance(&self) -> Option<&[f32]> {
        (self.what == What::Importance).then_some(&self.ones[..])
    }

    /// Time `run`, which does one piece, at every level beside memcpy of its source, and print a line for each level.
    fn compare(&self, name: &str, words: Words, bytes: &[u8], run: &mut dyn FnMut(usize)) {
        let mut copy = vec![0; bytes.len()];
        let piece_bytes = bytes.len() / PIECES;
        let (mut memcpy, mut best) = ([f64::MAX; PIECES], vec![[f64::MAX; PIECES]; self.levels.len()]);
        let keep = |best: &mut f64, seconds: f64| *best = best.min(seconds);
        for _ in 0..PASSES {
            for (piece, (from, to)) in bytes.chunks_exact(piece_bytes).zip(copy.chunks_exact_mut(piece_bytes)).enumerate() {
                keep(&mut memcpy[piece], seconds(&mut || black_box(&mut *to).copy_from_slice(black_box(from))));
            }
            for (level, best) in self.levels.iter().zip(&mut best) {
                level.limit(|| (0..PIECES).for_each(|piece| keep(&mut best[piece], seconds(&mut || run(piece)))));
            }
        }
        let memcpy: f64 = memcpy.iter().sum();
        let rate = |time: f64| bytes.len() as f64 / time / 1e9;
        for (level, best) in self.levels.iter().zip(best) {
            let (words, level, best) = (format!("{words:?}"), format!("{level:?}"), best.iter().sum::<f64>());
            let weights = (ROWS * COLS) as f64 / best / 1e6;
            println!(
                "{name:<8} {words:<5} {level:<9} {:>9.2} {:>9.2} {:>7.3} {weights:>12.0}",
                rate(best),
                rate(memcpy),
                memcpy / best
            );
        }
    }
}

/// The piece's part of a buffer.
fn part<T>(buffer: &[T], piece: usize) -> &[T] {
    let len = buffer.len() / PIECES;
    &buffer[piece * len..][..len]
}

fn part_mut<T>(buffer: &mut [T], piece: usize) -> &mut [T] {
    let len = buffer.len() / PIECES;
    &mut buffer[piece * len..][..len]
}

fn main() {
    let options = Options::parse();
    let values = gaussian(ROWS * COLS);
    println!("{:<8} {:<5} {:<9} {:>9} {:>9} {:>7} {:>12}", "format", "words", "level", "GB/s", "memcpy", "ratio", "Mweights/s");
    for encoder in ENCODERS {
        let format = encoder.format;
        for words in [Words::BF16, Words::F16, Words::F32].into_iter().filter(|words| options.wants(format.name, *words)) {
            let bytes = words_of(&values, words);
            let rows = Rows { words, cols: COLS, bytes: &bytes };
            let mut out = vec![0; format.bytes_for(rows.elems() as u64).expect("whole blocks") as usize];
            let mut decoded = vec![0f32; PIECE];
            encoder.encode(rows, options.importance(), &mut out).expect("lengths fit");
            options.compare(format.name, words, &bytes, &mut |piece| {
                let rows = Rows { bytes: part(&bytes, piece), ..rows };
                let out = part_mut(&mut out, piece);
                match options.what {
                    What::Decode => format.decode(black_box(out), black_box(&mut decoded)).expect("lengths fit"),
                    What::Textbook => (encoder.textbook)(black_box(rows), options.importance(), black_box(out)),
                    _ => (encoder.fast)(black_box(rows), options.importance(), black_box(out)),
                }
            });
        }
    }
    for scheme in SCHEMES {
        for words in [Words::BF16, Words::F16, Words::F32].into_iter().filter(|words| options.wants(scheme.name, *words)) {
            let bytes = words_of(&values, words);
            let block_len = FourBit::DEFAULT_BLOCK_LEN;
            let (mut codes, mut absmax) = (vec![0; values.len() / 2], vec![0f32; values.len() / block_len]);
            let mut decoded = vec![0f32; PIECE];
            options.compare(scheme.name, words, &bytes, &mut |piece| {
                let (bytes, codes, absmax) = (part(&bytes, piece), part_mut(&mut codes, piece), part_mut(&mut absmax, piece));
                match options.what {
                    What::Decode => scheme.decode(black_box(codes), absmax, block_len, black_box(&mut decoded)),
                    What::Textbook => scheme.encode_textbook(words, black_box(bytes), block_len, codes, absmax),
                    _ => scheme.encode(words, black_box(bytes), block_len, codes, absmax),
                }
                .expect("lengths fit");
            });
        }
    }
}
