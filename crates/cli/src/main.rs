//! The `ggufsmith` binary: the only place that knows arguments, terminals and exit codes.

mod cli;
mod commands;
mod failure;
mod interrupt;
mod names;
mod output;
mod panics;
mod progress;
mod table;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
