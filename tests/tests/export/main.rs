//! The way back: GGUF files to model directories, with the real binary.

mod interrupted;
mod round_trip;
mod usage;

use ggufsmith_tests::reference;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;

/// A test of this suite; it fails with what differs.
type Test = fn() -> Result<(), String>;

fn plain(name: &str, test: Test) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

/// A test that needs reference data which `scripts/test` fetches: ignored where it is missing, except on CI.
fn with_reference<T, F>(name: &str, found: Option<T>, test: F) -> Trial
where
    T: Send + 'static,
    F: FnOnce(&T) -> Result<(), String> + Send + 'static,
{
    Trial::ignorable_test(name, move || match found {
        Some(found) => test(&found).map(|()| Completion::Completed).map_err(Failed::from),
        None if reference::required() => Err(format!("reference data is missing: {}", reference::REASON).into()),
        None => Ok(Completion::ignored_with(reference::REASON)),
    })
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{path:?} is not UTF-8"))
}

fn main() -> ExitCode {
    let mut trials = round_trip::trials();
    trials.extend(usage::trials());
    trials.extend(interrupted::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
