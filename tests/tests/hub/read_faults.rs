//! Every fault at every step of a download: it recovers, or ends with a clear error and without a file under a final name.

use crate::case::{Case, expected, files};
use crate::{Test, ensure, plain};
use ggufsmith_tests::hub::{Action, Fault, Settings};
use libtest_mimic::{Failed, Trial};

/// Steps of a download, by what their path contains.
const STEPS: &[(&str, &str)] =
    &[("info", "/revision/main"), ("tree", "/tree/"), ("small_file", "config.json"), ("weights", "model.safetensors")];

/// Faults, and what is said where one stays. Transient ones pass when they happen once.
fn faults() -> Vec<(&'static str, Action, bool, &'static [&'static str])> {
    let wait = Action::Status(429, vec![("Retry-After".into(), "0".into())]);
    vec![
        ("cut", Action::Cut, true, &["no connection", "the connection was cut"]),
        ("401", Action::status(401), false, &["token"]),
        ("403", Action::status(403), false, &["token may not", "gated"]),
        ("404", Action::status(404), false, &["no such", "404"]),
        ("408", Action::status(408), true, &["408"]),
        ("409", Action::status(409), false, &["409"]),
        ("412", Action::status(412), false, &["412"]),
        ("413", Action::status(413), false, &["413"]),
        ("429", wait, true, &["too many requests (429)"]),
        ("500", Action::status(500), true, &["500"]),
        ("503", Action::status(503), true, &["503"]),
        ("html", Action::Html, false, &["HTML", "bytes arrived", "bytes, ", "not JSON"]),
        ("truncated_json", Action::TruncatedJson, false, &["not JSON", "bytes arrived", "bytes, "]),
    ]
}

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (step, path) in STEPS {
        for (name, action, transient, said) in faults() {
            let (once, always) = (Fault::new("GET", path, action.clone()), Fault::new("GET", path, action).always());
            trials.push(Trial::test(format!("read_faults::{step}::{name}"), move || {
                check(once, always, transient, said).map_err(Failed::from)
            }));
        }
    }
    let tests: &[(&str, Test)] = &[
        ("read_faults::changed_bytes", changed_bytes),
        ("read_faults::wrong_etag", wrong_etag),
        ("read_faults::wrong_content_range", wrong_content_range),
        ("read_faults::a_server_without_ranges", no_ranges),
        ("read_faults::names_that_lead_out", evil_names),
        ("read_faults::a_redirect_to_another_host", redirect),
        ("read_faults::no_token", no_token),
        ("read_faults::a_wrong_token", wrong_token),
        ("read_faults::a_gated_model", gated),
        ("read_faults::a_model_that_is_not_there", missing),
    ];
    trials.extend(tests.iter().map(|(name, test)| plain(name, *test)));
    trials
}

/// No output, and nothing unfinished that looks finished.
fn nothing_written(case: &Case) -> Result<(), String> {
    let out = files(&case.out());
    ensure(out.is_empty(), || format!("outputs: {out:?}"))?;
    for path in files(&case.cached().join("blobs")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".incomplete") && name.len() == 64 {
            let found = ggufsmith_tests::hub::sha256_hex(&std::fs::read(&path).map_err(|e| e.to_string())?);
            ensure(found == name, || format!("{} is not what its name says", path.display()))?;
        }
    }
    Ok(())
}

fn check(once: Fault, always: Fault, transient: bool, said: &[&str]) -> Result<(), String> {
    let case = Case::new();
    let odd = once.path.contains("safetensors") && matches!(once.action, Action::Html | Action::TruncatedJson);
    case.server.fail(once);
    let run = case.convert(&[])?;
    if transient {
        run.ok()?;
        ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())?;
    } else if run.code == Some(0) {
        // Headers are read before weights are downloaded: what is odd about those is left to the download.
        ensure(odd && case.sha256()? == expected(case.home.path())?, || run.describe("exit code 2"))?;
    } else {
        ensure(run.code == Some(2), || run.describe("exit code 2"))?;
        ensure(said.iter().any(|words| run.stderr.contains(words)), || run.describe(&format!("one of {said:?}")))?;
        nothing_written(&case)?;
    }
    // A fault that stays, and what comes after it.
    let case = Case::new();
    case.server.fail(always);
    let run = case.convert(&[])?;
    ensure(run.code == Some(2), || run.describe("exit code 2"))?;
    ensure(said.iter().any(|words| run.stderr.contains(words)), || run.describe(&format!("one of {said:?}")))?;
    nothing_written(&case)?;
    case.server.forget();
    case.convert(&[])?.ok()?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes afterwards".into())
}

fn refused(case: &Case, said: &str) -> Result<(), String> {
    let run = case.convert(&[])?;
    ensure(run.code == Some(2) && run.stderr.contains(said), || run.describe(&format!("exit code 2 and {said:?}")))?;
    nothing_written(case)
}

fn changed_bytes() -> Result<(), String> {
    let case = Case::new();
    case.server.fail(Fault::new("GET", "model.safetensors", Action::ChangedBytes).always());
    refused(&case, "sha256")?;
    case.server.forget();
    case.convert(&[])?.ok().map(|_| ())
}

/// The list says what a file hashes to; what comes with it later does not count.
fn wrong_etag() -> Result<(), String> {
    let case = Case::new();
    case.server.fail(Fault::new("GET", "model.safetensors", Action::WrongEtag).always());
    let run = case.convert(&[])?;
    match run.code {
        Some(0) => ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into()),
        _ => nothing_written(&case),
    }
}

fn wrong_content_range() -> Result<(), String> {
    let case = Case::new();
    case.server.fail(Fault::new("GET", "model.safetensors", Action::CutAfter(1_500_000)));
    case.server.fail(Fault::new("GET", "model.safetensors", Action::WrongContentRange).always());
    refused(&case, "Content-Range")
}

fn no_ranges() -> Result<(), String> {
    let case = Case::new();
    case.server.fail(Fault::new("GET", "model.safetensors", Action::CutAfter(1_500_000)));
    case.server.fail(Fault::new("GET", "model.safetensors", Action::IgnoreRange).always());
    case.convert(&[])?.ok()?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn evil_names() -> Result<(), String> {
    for name in ["../x", "/etc/x", "a\\b.json", "C:\\x.json", "a/../../x.json"] {
        let case = Case::new();
        case.server.fail(Fault::new("GET", "/tree/", Action::EvilName(name.into())).always());
        let before = files(case.home.path()).len();
        refused(&case, "cannot be used")?;
        ensure(files(case.home.path()).len() == before, || format!("{name}: {:?}", files(case.home.path())))?;
    }
    Ok(())
}

/// To a second server, which must not see the token.
fn redirect() -> Result<(), String> {
    let (case, thief) = (Case::new(), Case::with(Settings::default()));
    let commit = thief.server.repo("org/bard").map(|repo| repo.head().id.clone()).unwrap_or_default();
    let to = format!("{}/org/bard/resolve/{commit}/model.safetensors", thief.server.endpoint());
    case.server.fail(Fault::new("GET", "model.safetensors", Action::RedirectTo(to)).always());
    case.convert(&[])?.ok()?;
    let log = thief.server.log();
    ensure(!log.is_empty() && log.iter().all(|entry| !entry.authorized), || format!("{log:?}"))
}

fn no_token() -> Result<(), String> {
    let mut case = Case::new();
    let mut repo = case.server.repo("org/bard").ok_or("it is there")?;
    repo.private = true;
    case.server.add(repo);
    case.token = None;
    refused(&case, "hf auth login")
}

fn wrong_token() -> Result<(), String> {
    let mut case = Case::new();
    let mut repo = case.server.repo("org/bard").ok_or("it is there")?;
    repo.private = true;
    case.server.add(repo);
    case.token = Some("hf_another".into());
    refused(&case, "token")
}

fn gated() -> Result<(), String> {
    let case = Case::new();
    let mut repo = case.server.repo("org/bard").ok_or("it is there")?;
    repo.gated = true;
    case.server.add(repo);
    refused(&case, "gated")
}

fn missing() -> Result<(), String> {
    let case = Case::new();
    let run = case.run(&["convert", "org/nothing", "--type", "Q8_0"])?;
    ensure(run.code == Some(2) && run.stderr.contains("org/nothing"), || run.describe("no such model"))
}
