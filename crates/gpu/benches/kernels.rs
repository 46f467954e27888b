//! Kernels beside the CPU's encoders: GB/s of source words, from host memory to host memory.
//!
//! `cargo bench -p ggufsmith-gpu [-- SECONDS]`: per adapter, kernel and word type, one worker on the adapter against one thread of the
//! CPU, each for SECONDS (1); then both together against all of the CPU, as `--device auto` decides by.
#![allow(clippy::print_stdout)]

use ggufsmith_core::{Encoder, Words};
use ggufsmith_gpu::{AdapterReport, Gpu, KERNELS, Options, Selection, examine};
use std::time::Duration;

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next_back().unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    match examine(time) {
        Ok(reports) => reports.iter().for_each(print),
        Err(error) => return println!("nothing to measure: {error}"),
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let encoders: Vec<(&'static Encoder, Words)> =
        KERNELS.iter().filter_map(|kernel| kernel.encoder()).map(|encoder| (encoder, Words::BF16)).collect();
    match Gpu::open(Selection::Any, Options::default()).and_then(|gpu| gpu.calibrate(&encoders, threads, 2 * time)) {
        Ok(Some(c)) => {
            let (cpu, both, gain) = (c.cpu / 1e9, c.with_gpu / 1e9, 100.0 * c.gain());
            println!("all block formats, BF16: {threads} CPU threads {cpu:.2}, with the adapter {both:.2} ({gain:+.0} %)");
        }
        Ok(None) => println!("no kernel passed its self-test"),
        Err(error) => println!("{error}"),
    }
}

fn print(report: &AdapterReport) {
    println!("{}, {} {}", report.adapter, report.adapter.driver, report.adapter.driver_info);
    println!("{:<8} {:<5} {:>9} {:>14} {:>7}", "format", "words", "adapter", "one CPU thread", "ratio");
    match &report.kernels {
        Err(error) => println!("{error}"),
        Ok(kernels) => {
            for kernel in kernels {
                let (name, words, cpu) = (kernel.kernel, format!("{:?}", kernel.words), kernel.cpu_bytes_per_second);
                match kernel.gpu_bytes_per_second {
                    Some(gpu) => println!("{name:<8} {words:<5} {:>9.2} {:>14.2} {:>7.2}", gpu / 1e9, cpu / 1e9, gpu / cpu),
                    None => println!("{name:<8} {words:<5} not used: {:?}", kernel.self_test),
                }
            }
        }
    }
}
