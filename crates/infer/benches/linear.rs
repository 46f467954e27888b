//! The linear layer (read, decode, multiply) beside plain gemm on weights that are decoded already: GFLOP/s, best of interleaved passes.
//!
//! `cargo bench -p ggufsmith-infer [-- [FILTER] [--tokens N] [--threads N] [--passes N]]`; FILTER is part of `ROWSxCOLS/TYPE`,
//! e.g. `/Q8_0`. Weights lie in memory as a file's do in the page cache and are copied out of it, as reading does.
#![allow(clippy::print_stdout, unsafe_code)]

use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{Linear, Matrix, Norm};
use ggufsmith_core::{DType, ENCODERS, Rows, Words};
use ggufsmith_infer::{Buffers, Gemm, Model, Storage, Tensor, Tensors, Weights, WeightsError};
use std::hint::black_box;
use std::time::Instant;

/// Rows and columns: two of an 8B model, and SmolLM2-135M's widest.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (14336, 4096), (1536, 576)];
const TYPES: [&str; 4] = ["F32", "BF16", "Q8_0", "Q4_0"];

struct Options {
    filter: String,
    tokens: usize,
    threads: usize,
    passes: usize,
}

impl Options {
    fn parse() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Options { filter: String::new(), tokens: 512, threads, passes: 5 };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|text| text.parse().ok()).filter(|&n| n > 0).expect("a number above 0");
            match arg.as_str() {
                "--bench" => {}
                "--tokens" => options.tokens = number(),
                "--threads" => options.threads = number(),
                "--passes" => options.passes = number(),
                other => options.filter = other.into(),
            }
        }
        options
    }
}

/// One matrix in memory, with the norm that a model needs.
struct Memory {
    rows: usize,
    cols: usize,
    storage: Storage,
    bytes: Vec<u8>,
}

impl Memory {
    fn new(name: &str, rows: usize, cols: usize, values: &[f32]) -> Memory {
        let words: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let encoder = ENCODERS.iter().find(|encoder| encoder.format.name == name).expect("it has an encoder");
        let mut bytes = vec![0; encoder.format.bytes_for(values.len() as u64).expect("whole blocks") as usize];
        encoder.encode(Rows { words: Words::F32, cols, bytes: &words }, None, &mut bytes).expect("lengths fit");
        Memory { rows, cols, storage: Storage::Blocks(encoder.format), bytes }
    }
}

impl Tensors for Memory {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let (rows, cols) = (self.rows as u64, self.cols as u64);
        Some(match name {
            NORM => Tensor { shape: vec![cols], storage: Storage::Plain(DType::F32) },
            _ => Tensor { shape: vec![rows, cols], storage: self.storage },
        })
    }

    fn read(&self, _name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        let at = offset as usize;
        out.copy_from_slice(&self.bytes[at..at + out.len()]);
        Ok(())
    }
}

const NORM: &str = "norm";

/// A model that is one linear layer: its head.
fn linear(memory: Memory) -> Model {
    let (rows, cols) = (memory.rows as u32, memory.cols as u32);
    let embedding = Matrix::whole("matrix", rows, cols);
    let decoder = Decoder::new(embedding, 1, Vec::new(), Norm::rms(NORM, cols, 0.0), Linear::new("matrix", rows, cols));
    Model::new(decoder, Weights::new(Box::new(memory)), Box::new(Gemm), 1).expect("every tensor is there")
}

/// `out = x · wᵀ`, `[tokens, rows]`: one call of gemm on each thread, which take an equal part of the rows.
fn plain(x: &[f32], w: &[f32], (rows, cols): (usize, usize), parts: &mut [Vec<f32>]) {
    let (tokens, step) = (x.len() / cols, rows.div_ceil(parts.len()));
    rayon::scope(|scope| {
        for (w, out) in w.chunks(step * cols).zip(parts) {
            let rows = w.len() / cols;
            out.resize(tokens * rows, 0.0);
            // SAFETY: `w` is `[rows, cols]`, `x` is `[tokens, cols]` and `out`, this part's own, `[tokens, rows]`, all contiguous.
            scope.spawn(move |_| unsafe {
                gemm::gemm(
                    rows,
                    tokens,
                    cols,
                    out.as_mut_ptr(),
                    rows as isize,
                    1,
                    false,
                    w.as_ptr(),
                    1,
                    cols as isize,
                    x.as_ptr(),
                    cols as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            });
        }
    });
}

/// Uniform numbers of standard deviation 0.02.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() * 0.0693).collect()
}

fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn main() {
    let options = Options::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().expect("threads");
    println!("{} tokens, {} threads, best of {} passes\n", options.tokens, options.threads, options.passes);
    println!(
        "| rows x cols | weights | linear layer, GFLOP/s | plain gemm, GFLOP/s | ratio |\n| --- | --- | ---: | ---: | ---: |"
    );
    for (rows, cols) in SHAPES {
        let name = |weights: &str| format!("{rows}x{cols}/{weights}");
        if !TYPES.iter().any(|weights| name(weights).contains(&options.filter)) {
            continue;
        }
        let (x, values) = (numbers(options.tokens * cols), numbers(rows * cols));
        for weights in TYPES.into_iter().filter(|weights| name(weights).contains(&options.filter)) {
            let model = linear(Memory::new(weights, rows, cols, &values));
            let (mut buffers, mut out, mut parts) = (Buffers::default(), Vec::new(), vec![Vec::new(); options.threads]);
            let flops = 2.0 * (options.tokens * rows * cols) as f64;
            // Small shapes several times in a pass, so that the clock can tell.
            let repeats = (2e9 / flops).ceil().max(1.0) as usize;
            let (mut ours, mut peak) = (f64::MAX, f64::MAX);
            // The first pass warms up.
            for pass in 0..=options.passes {
                let gemm = seconds(|| {
                    for _ in 0..repeats {
                        pool.install(|| plain(black_box(&x), black_box(&values), (rows, cols), black_box(&mut parts)));
                    }
                });
                let layer = seconds(|| {
                    for _ in 0..repeats {
                        let done = pool.install(|| model.logits(black_box(&x), 0..rows, black_box(&mut out), &mut buffers));
                        done.expect("the weights are there");
                    }
                });
                if pass > 0 {
                    (ours, peak) = (ours.min(layer), peak.min(gemm));
                }
            }
            let rate = |time: f64| flops * repeats as f64 / time / 1e9;
            println!("| {rows} x {cols} | {weights} | {:.1} | {:.1} | {:.2} |", rate(ours), rate(peak), peak / ours);
        }
    }
}
