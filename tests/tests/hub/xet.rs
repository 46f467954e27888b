//! Uploads by Xet, into Hugging Face's own simulator of its storage.

use crate::case::Case;
use crate::push::{TARGET, arguments, head, made, push};
use crate::python::{client, with_client};
use crate::{Test, ensure};
use ggufsmith_tests::hub::{Action, Cas, Fault, Settings, sha256_hex};
use ggufsmith_tests::reference;
use libtest_mimic::{Completion, Failed, Trial};
use std::path::Path;

/// A server with Xet's storage, and that.
struct Stored {
    case: Case,
    _cas: Cas,
}

impl Stored {
    fn new() -> Result<Stored, String> {
        let cas = Cas::start(&reference::cas_server().ok_or(reference::REASON)?);
        let case = Case::with(Settings { cas: Some(cas.endpoint().to_owned()), ..Settings::default() });
        Ok(Stored { case, _cas: cas })
    }

    /// Bytes of weights that came in, and requests that brought them.
    fn received(&self) -> (u64, usize) {
        let objects: Vec<_> = self.case.log_of("/xorb").into_iter().filter(|entry| entry.received > 1000).collect();
        (objects.iter().map(|entry| entry.received).sum(), objects.len())
    }
}

/// A test that needs the simulator which `scripts/test` builds: ignored where it is missing, except on CI.
pub fn with_cas(name: String, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match reference::cas_server() {
        Some(_) => test().map(|()| Completion::Completed).map_err(Failed::from),
        None if reference::required() => Err(format!("reference data is missing: {}", reference::REASON).into()),
        None => Ok(Completion::ignored_with(reference::REASON)),
    })
}

/// Steps of an upload: method and what the path contains.
const STEPS: &[(&str, &str, &str)] = &[
    ("token", "GET", "/xet-write-token/"),
    ("known_chunks", "GET", "/v1/chunks/"),
    ("grant", "POST", "/v1/xorb-grants/"),
    ("object", "PUT", "/simulation/xorb-uploads/"),
    ("shard", "POST", "/v2/shards"),
    ("commit", "POST", "/commit/"),
];

fn faults() -> Vec<(&'static str, Action)> {
    let status = |name, status| (name, Action::status(status));
    vec![
        ("cut", Action::Cut),
        ("answer_lost", Action::AnswerLost),
        status("401", 401),
        status("403", 403),
        status("404", 404),
        status("409", 409),
        status("413", 413),
        ("429", Action::Status(429, vec![("Retry-After".into(), "0".into())])),
        status("500", 500),
        status("503", 503),
        ("html", Action::Html),
        ("truncated_json", Action::TruncatedJson),
    ]
}

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("arrives_in_one_commit_and_again_in_none", again),
        ("what_changed_is_sent_alone", changed),
        ("plain_storage_where_xet_is_disabled", disabled),
        ("no_telemetry", no_telemetry),
    ];
    let mut trials: Vec<_> = tests.iter().map(|(name, test)| with_cas(format!("xet::{name}"), *test)).collect();
    trials.push(with_client("xet::the_python_client_gets_the_same_bytes", same_bytes));
    for (step, method, path) in STEPS {
        for (name, action) in faults() {
            let fault = Fault::new(method, path, action);
            trials.push(with_cas(format!("xet_faults::{step}::{name}"), move || check(fault)));
        }
    }
    trials
}

fn again() -> Result<(), String> {
    let stored = Stored::new()?;
    let case = &stored.case;
    let [file, _] = made(case)?;
    let run = push(case, &[&file], &[])?;
    let said = run.json()?;
    let commit = head(case).ok_or("there is no repository")?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let there = commit.files.get(&name).ok_or("it is not there")?;
    let here = std::fs::read(&file).map_err(|e| e.to_string())?;
    ensure(there.xet.is_some() && there.body.bytes() == here, || "it is another one".into())?;
    ensure(said["changed"] == true && case.log_of("/_objects/").is_empty(), || run.describe("nothing by plain LFS"))?;
    let (bytes, requests) = stored.received();
    ensure(requests == 1 && bytes < here.len() as u64 * 11 / 10, || format!("{requests} requests of {bytes} bytes"))?;

    case.server.forget();
    let said = push(case, &[&file], &[])?.json()?;
    ensure(said["changed"] == false && stored.received() == (0, 0), || said.to_string())?;
    ensure(head(case).is_some_and(|now| now.id == commit.id), || "a second commit".into())
}

/// A file whose metadata changed is made of the same weights.
fn changed() -> Result<(), String> {
    let stored = Stored::new()?;
    let case = &stored.case;
    let [first, second] = made(case)?;
    push(case, &[&first, &second], &[])?.ok()?;
    case.server.forget();
    let renamed = "--model-name=A longer name than it had";
    let more =
        ["convert", crate::case::MODEL, "--type", "Q8_0", "--device", "cpu", "--force", "--out", first.to_str().unwrap_or("")];
    case.run(&[&more[..], &[renamed]].concat())?.ok()?;
    push(case, &[&first], &["--allow-unverified"])?.ok()?;
    let size = std::fs::metadata(&first).map_err(|e| e.to_string())?.len();
    let (bytes, _) = stored.received();
    ensure(bytes > 0 && bytes < size / 3, || format!("{bytes} of {size} bytes were sent"))
}

fn disabled() -> Result<(), String> {
    let mut stored = Stored::new()?;
    stored.case.variables.push(("HF_HUB_DISABLE_XET".into(), "1".into()));
    let [file, _] = made(&stored.case)?;
    push(&stored.case, &[&file], &[])?.ok()?;
    let plain = stored.case.log_of("/_objects/whole/").len();
    ensure(plain == 1 && stored.received() == (0, 0), || format!("{:?}", stored.case.server.log()))
}

fn no_telemetry() -> Result<(), String> {
    let stored = Stored::new()?;
    let [file, _] = made(&stored.case)?;
    push(&stored.case, &[&file], &[])?.ok()?;
    ensure(stored.case.log_of("telemetry").is_empty(), || "figures of the transfer were sent".into())
}

fn same_bytes(python: &Path) -> Result<(), String> {
    let stored = Stored::new()?;
    let case = &stored.case;
    let files = made(case)?;
    push(case, &[&files[0], &files[1]], &[])?.ok()?;
    case.server.forget();
    let found = client(python, case, &["snapshot", TARGET], &[("HF_HUB_DISABLE_XET", "0")])?;
    ensure(!case.log_of("/reconstructions/").is_empty(), || "it did not ask Xet".into())?;
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let here = sha256_hex(&std::fs::read(file).map_err(|e| e.to_string())?);
        ensure(found[&*name] == here.as_str(), || format!("{name}: {found}"))?;
    }
    Ok(())
}

/// Once, and for good: it recovers or ends with a clear error, the repository has all or nothing, and the next run finishes.
fn check(fault: Fault) -> Result<(), String> {
    let passes = matches!(fault.action, Action::Cut | Action::AnswerLost | Action::Status(429 | 500 | 503, _));
    for fault in [fault.clone(), fault.always()] {
        let stored = Stored::new()?;
        let case = &stored.case;
        let [file, _] = made(case)?;
        case.server.fail(fault.clone());
        let run = push(case, &[&file], &[])?;
        let once = fault.times == 1;
        let ends = run.code == Some(2) && run.stderr.contains("error:") && !run.stderr.contains("fault of ggufsmith");
        ensure(run.code == Some(0) || (ends && !(once && passes)), || run.describe("it recovers, or ends with an error"))?;
        all_or_nothing(case, run.code == Some(0))?;
        case.server.forget();
        let again = push(case, &[&file], &[])?;
        if again.code != Some(0) {
            // A storage that said it has what it lacks is believed: the next run names the way out.
            let lied = fault.path.contains("grant") && matches!(fault.action, Action::Html | Action::TruncatedJson);
            ensure(lied && again.stderr.contains("HF_HUB_DISABLE_XET=1"), || again.describe("exit code 0"))?;
            let mut plain = case.command(&arguments(&[&file]));
            plain.env("HF_HUB_DISABLE_XET", "1");
            ggufsmith_tests::binary::finish(plain).ok()?;
        }
        all_or_nothing(case, true)?;
    }
    Ok(())
}

fn all_or_nothing(case: &Case, published: bool) -> Result<(), String> {
    let Some(repo) = case.server.repo(TARGET) else {
        return ensure(!published, || "there is no repository".into());
    };
    let (commits, files) = (repo.commits.len(), repo.head().files.len());
    ensure((commits == 2 && files == 8) || (commits == 1 && !published), || format!("{commits} commits, {files} files"))
}
