//! The `ggufsmith` binary: the only place that knows arguments, terminals and exit codes.

mod cli;
mod commands;
mod failure;
mod hub;
mod interrupt;
mod names;
mod output;
mod panics;
mod progress;
mod steps;
mod table;
mod texts;
mod threads;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
