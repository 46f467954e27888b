//! From GGUF to GGUF with the real binary: what llama-quantize writes, and what is refused.

mod golden;
mod interrupted;
mod usage;

use ggufsmith_tests::{binary, fixture, reference};
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

/// Run in a folder, as paths enter the bytes.
fn run(folder: &Path, args: &[&str]) -> binary::Run {
    let mut command = binary::command(args);
    command.current_dir(folder);
    binary::finish(command)
}

/// Put a model's conversion to `file_type` into a folder.
fn convert(source: &Path, folder: &Path, file_type: &str, out: &str, extra: &[&str]) -> Result<(), String> {
    let args = ["convert", text(source)?, "--type", file_type, "--out", out, "--quiet", "--no-manifest"];
    run(folder, &[&args[..], extra].concat()).ok().map(|_| ())
}

fn copy(name: &str, to: &Path) -> Result<(), String> {
    std::fs::copy(fixture(name), to).map(|_| ()).map_err(|e| format!("{name}: {e}"))
}

fn main() -> ExitCode {
    let mut trials = golden::trials();
    trials.extend(usage::trials());
    trials.extend(interrupted::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
