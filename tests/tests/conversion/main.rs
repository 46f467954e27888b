//! What comes out of a conversion: the reference tools' bytes, for every fixture and on any number of threads.

mod behaviour;
mod concurrent;
mod converter;
mod engine;
mod golden;

use ggufsmith_tests::reference;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;

/// A test of this suite; it fails with what differs.
type Test = fn() -> Result<(), String>;

/// A test that needs nothing but the repository.
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

fn main() -> ExitCode {
    let mut trials = golden::trials();
    trials.extend(converter::trials());
    trials.extend(engine::trials());
    trials.extend(behaviour::trials());
    trials.extend(concurrent::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
