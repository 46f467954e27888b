//! What happens when something is wrong: bad input, signals, crashes, a full disk. No file under a final name may be incomplete.

mod input;
mod interrupted;
#[cfg(target_os = "linux")]
mod matrix;
mod storage;

use ggufsmith_tests::binary::Run;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A test of this suite; it fails with what differs.
type Test = fn() -> Result<(), String>;

fn plain(name: &str, test: Test) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

/// A run that could not do what was asked: exit code 2, nothing on standard output, every word in its message.
fn refused(run: &Run, words: &[&str]) -> Result<(), String> {
    let quiet = run.code == Some(2) && run.stdout.is_empty() && run.stderr.contains("error: ");
    if !quiet || run.stderr.contains("panicked") {
        return Err(run.describe("exit code 2, nothing on standard output, an error on standard error"));
    }
    match words.iter().find(|word| !run.stderr.contains(**word)) {
        Some(word) => Err(run.describe(&format!("a message with {word:?}"))),
        None => Ok(()),
    }
}

fn main() -> ExitCode {
    let mut trials = input::trials();
    trials.extend(interrupted::trials());
    trials.extend(storage::trials());
    #[cfg(target_os = "linux")]
    trials.extend(matrix::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
