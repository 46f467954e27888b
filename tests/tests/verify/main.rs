//! `verify`, `perplexity` and `generate` with the real binary: figures of other tools, damaged files, mistakes, signals and memory.

mod chosen;
mod families;
mod figures;
mod generate;
mod input;
mod interrupted;
mod reports;
mod sabotage;

use ggufsmith_tests::binary::{Run, ggufsmith};
use ggufsmith_tests::{fixture, outputs, reference, scratch};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

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

fn demand(truth: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if truth { Ok(()) } else { Err(what()) }
}

fn convert(model: &Path, out: &Path, types: &str) -> Result<(), String> {
    ggufsmith(&["convert", text(model)?, "--out", text(out)?, "--type", types, "--no-manifest", "--quiet"]).ok().map(|_| ())
}

/// Files of `fixtures/bard`; `main` removes the folder.
static BARD: OnceLock<Result<tempfile::TempDir, String>> = OnceLock::new();

/// A file of `fixtures/bard`, converted once for all tests.
fn bard(file_type: &str) -> Result<PathBuf, String> {
    let make = || {
        let folder = scratch();
        convert(&fixture("bard"), folder.path(), "F32,BF16,Q8_0,Q4_0,Q6_K").map(|()| folder)
    };
    let folder = BARD.get_or_init(make).as_ref().map_err(Clone::clone)?;
    outputs::of_type(folder.path(), file_type)
}

/// A run's JSON, which must be there whatever its exit code is.
fn report(run: &Run, code: i32) -> Result<Value, String> {
    if run.code != Some(code) || run.stderr.contains("panicked") {
        return Err(run.describe(&format!("exit code {code}")));
    }
    serde_json::from_str(&run.stdout).map_err(|e| run.describe(&format!("JSON on standard output ({e})")))
}

/// A check of a report.
fn check<'a>(report: &'a Value, name: &str) -> Result<&'a Value, String> {
    let found = report["checks"].as_array().into_iter().flatten().find(|check| check["name"] == name);
    found.ok_or_else(|| format!("no check {name} in {}", report["checks"]))
}

fn number(value: &Value, key: &str) -> Result<f64, String> {
    value[key].as_f64().ok_or_else(|| format!("{key} is {}", value[key]))
}

/// Within `tolerance` times the expected value.
fn near(what: &str, found: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    let off = (found - expected).abs() / expected.abs();
    demand(off <= tolerance, || format!("{what} is {found}, expected {expected}: off by {off:.1e}, allowed {tolerance:.0e}"))
}

/// A run that could not do what was asked: exit code 2, nothing on standard output, one error with every word.
fn refused(run: &Run, words: &[&str]) -> Result<(), String> {
    let errors: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    if run.code != Some(2) || !run.stdout.is_empty() || run.stderr.contains("panicked") || errors.len() != 1 {
        return Err(run.describe("exit code 2, nothing on standard output, one error on standard error"));
    }
    match words.iter().find(|word| !run.stderr.contains(**word)) {
        Some(word) => Err(run.describe(&format!("a message with {word:?}"))),
        None => Ok(()),
    }
}

fn main() -> ExitCode {
    let mut trials = figures::trials();
    trials.extend(families::trials());
    trials.extend(chosen::trials());
    trials.extend(reports::trials());
    trials.extend(sabotage::trials());
    trials.extend(input::trials());
    trials.extend(generate::trials());
    trials.extend(interrupted::trials());
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    // What is static is not dropped.
    if let Some(Ok(folder)) = BARD.get() {
        let _ = std::fs::remove_dir_all(folder.path());
    }
    code
}
