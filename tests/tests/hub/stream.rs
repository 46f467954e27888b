//! `convert --stream`.

use crate::case::{Case, expected, files};
use crate::{Test, ensure, plain};
use ggufsmith_tests::fixture;
use ggufsmith_tests::hub::{Action, Fault};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("stream::weights_pass_once_and_are_not_stored", passes_once),
        ("stream::a_cut_stream_goes_on", goes_on),
        ("stream::a_wrong_hash_leaves_nothing", wrong_hash),
        ("stream::what_it_does_not_go_with", does_not_go_with),
    ];
    tests.iter().map(|(name, test)| plain(name, *test)).collect()
}

fn weights_bytes() -> Result<u64, String> {
    Ok(std::fs::metadata(fixture("bard/model.safetensors")).map_err(|e| e.to_string())?.len())
}

fn not_stored(case: &Case) -> Result<(), String> {
    let large: Vec<_> = files(&case.home.path().join("hf"))
        .into_iter()
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 1_000_000))
        .collect();
    ensure(large.is_empty(), || format!("stored: {large:?}"))
}

fn passes_once() -> Result<(), String> {
    let case = Case::new();
    case.convert(&["--stream"])?.ok()?;
    not_stored(&case)?;
    let (sent, size) = (case.weights_sent(), weights_bytes()?);
    ensure(sent >= size && sent < size + 300_000, || format!("{sent} bytes for {size}"))?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn goes_on() -> Result<(), String> {
    let case = Case::new();
    for bytes in [700_000, 900_000] {
        case.server.fail(Fault::new("GET", "model.safetensors", Action::CutAfter(bytes)).after(1));
    }
    case.convert(&["--stream"])?.ok()?;
    ensure(case.log_of("model.safetensors").len() >= 3, || format!("{:?}", case.log_of("model.safetensors")))?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn wrong_hash() -> Result<(), String> {
    let case = Case::new();
    // The first request is for the header.
    case.server.fail(Fault::new("GET", "model.safetensors", Action::ChangedBytes).after(1).always());
    let run = case.convert(&["--stream"])?;
    ensure(run.code == Some(2), || run.describe("exit code 2"))?;
    ensure(run.stderr.contains("sha256") || run.stderr.contains("differ"), || run.describe("what is wrong"))?;
    ensure(files(&case.out()).is_empty(), || format!("{:?}", files(&case.out())))?;
    not_stored(&case)
}

fn does_not_go_with() -> Result<(), String> {
    let case = Case::new();
    let run = case.convert(&["--stream", "--verify"])?;
    ensure(run.code == Some(2) && run.stderr.contains("--verify"), || run.describe("--stream and --verify exclude each other"))
}
