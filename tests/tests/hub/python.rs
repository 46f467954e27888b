//! The cache and the repositories, shared with Hugging Face's own client.

use crate::case::{Case, MODEL, expected, files};
use crate::ensure;
use crate::push::{TARGET, head, in_parts, made, push};
use ggufsmith_tests::hub::{Settings, sha256_hex};
use ggufsmith_tests::{fixture, reference, root};
use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

type Test = fn(&Path) -> Result<(), String>;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("python::what_it_downloaded_is_not_fetched_again", theirs),
        ("python::what_we_downloaded_it_finds", ours),
        ("python::what_it_uploaded_converts", uploaded),
        ("python::what_we_published_arrives", published),
    ];
    tests.iter().map(|(name, test)| with_client(name, *test)).collect()
}

/// A test that needs the client which `scripts/test` fetches: ignored where it is missing, except on CI.
pub fn with_client(name: &str, test: Test) -> Trial {
    let found: Option<PathBuf> = reference::hub_python();
    Trial::ignorable_test(name, move || match found {
        Some(python) => test(&python).map(|()| Completion::Completed).map_err(Failed::from),
        None if reference::required() => Err(format!("reference data is missing: {}", reference::REASON).into()),
        None => Ok(Completion::ignored_with(reference::REASON)),
    })
}

/// Without Xet, online.
const PLAIN: &[(&str, &str)] = &[("HF_HUB_DISABLE_XET", "1")];

/// What the client prints, with these variables.
pub fn client(python: &Path, case: &Case, args: &[&str], variables: &[(&str, &str)]) -> Result<Value, String> {
    let mut command = Command::new(python);
    command.arg(root().join("fixtures/hub/client.py")).args(args).current_dir(case.home.path());
    command
        .env("HF_ENDPOINT", case.server.endpoint())
        .env("HF_HOME", case.home.path().join("hf"))
        .env("HF_TOKEN", case.server.token());
    command.env("HF_HUB_DISABLE_TELEMETRY", "1").env("NO_PROXY", "127.0.0.1").envs(variables.iter().copied());
    let output = command.output().map_err(|e| e.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|e| format!("client.py {args:?}: {e}\n{out}\n{err}"))
}

fn theirs(python: &Path) -> Result<(), String> {
    let case = Case::new();
    client(python, &case, &["snapshot", MODEL], PLAIN)?;
    case.server.forget();
    case.convert(&[])?.ok()?;
    let fetched = case.log_of("/resolve/").into_iter().filter(|entry| entry.method == "GET").count();
    ensure(fetched == 0, || format!("{:?}", case.server.log()))?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn ours(python: &Path) -> Result<(), String> {
    let case = Case::new();
    case.convert(&[])?.ok()?;
    case.server.forget();
    let files = client(python, &case, &["snapshot", MODEL], &[("HF_HUB_OFFLINE", "1")])?;
    ensure(case.server.log().is_empty(), || "it asked the server".into())?;
    let weights = std::fs::read(fixture("bard/model.safetensors")).map_err(|e| e.to_string())?;
    ensure(files["model.safetensors"] == sha256_hex(&weights).as_str(), || files.to_string())
}

fn uploaded(python: &Path) -> Result<(), String> {
    let case = Case::new();
    let folder = fixture("bard");
    client(python, &case, &["upload", "tester/bard", folder.to_str().ok_or("a plain path")?], PLAIN)?;
    let out = case.home.path().join("x.gguf");
    let out = out.to_str().ok_or("a plain path")?;
    case.run(&["convert", "tester/bard", "--type", "Q8_0", "--out", out, "--device", "cpu"])?.ok()?;
    let found = sha256_hex(&std::fs::read(out).map_err(|e| e.to_string())?);
    ensure(found == expected(case.home.path())?, || "other bytes".into())
}

fn published(python: &Path) -> Result<(), String> {
    for settings in [Settings::default(), in_parts()] {
        let case = Case::with(settings);
        let [first, second] = made(&case)?;
        push(&case, &[&first, &second], &[])?.ok()?;
        let found = client(python, &case, &["snapshot", TARGET], PLAIN)?;
        // `bard.report.*` is about all files at once.
        for path in files(&case.out()).iter().filter(|path| !path.to_string_lossy().contains("/bard.report.")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let here = sha256_hex(&std::fs::read(path).map_err(|e| e.to_string())?);
            ensure(found[&*name] == here.as_str(), || format!("{name}: {found}"))?;
        }
        let all = head(&case).map_or(0, |commit| commit.files.len());
        ensure(found.as_object().is_some_and(|found| found.len() == all), || format!("{all} files: {found}"))?;
    }
    Ok(())
}
