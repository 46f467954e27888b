//! Every fault at every step of an upload: it recovers, or ends with a clear error and with the repository as it was.

use crate::case::Case;
use crate::push::{TARGET, head, in_parts, made, push};
use crate::{Test, ensure, plain};
use ggufsmith_tests::hub::{Action, Fault, Settings};
use libtest_mimic::{Failed, Trial};

/// Steps of an upload: method, what the path contains, whether the file goes in parts.
const STEPS: &[(&str, &str, &str, bool)] = &[
    ("whoami", "GET", "/api/whoami-v2", false),
    ("create", "POST", "/api/repos/create", false),
    ("preupload", "POST", "/preupload/", false),
    ("batch", "POST", "/objects/batch", false),
    ("whole", "PUT", "/_objects/whole/", false),
    ("part", "PUT", "/_objects/part/", true),
    ("complete", "POST", "/_objects/complete/", true),
    ("verify", "POST", "/info/lfs/verify", false),
    ("commit", "POST", "/commit/", false),
];

/// What a fault that happens once comes to.
#[derive(Clone, Copy, PartialEq)]
enum Once {
    /// It is repeated.
    Passes,
    /// It ends the run.
    Ends,
    /// Whatever: an answer that means nothing here.
    Either,
}

fn faults(step: &str) -> Vec<(&'static str, Action, Once)> {
    let wait = Action::Status(429, vec![("Retry-After".into(), "0".into())]);
    // Of these only the status counts.
    let stores = matches!(step, "whole" | "part" | "complete" | "verify");
    // Stores refuse so what has expired.
    let refusal = if matches!(step, "whole" | "part" | "complete") { Once::Passes } else { Once::Ends };
    let json = if stores || step == "create" { Once::Either } else { Once::Ends };
    vec![
        ("cut", Action::Cut, Once::Passes),
        ("answer_lost", Action::AnswerLost, Once::Passes),
        ("401", Action::status(401), refusal),
        ("403", Action::status(403), refusal),
        ("404", Action::status(404), refusal),
        ("409", Action::status(409), if step == "create" { Once::Either } else { Once::Ends }),
        ("412", Action::status(412), Once::Ends),
        ("413", Action::status(413), Once::Ends),
        ("429", wait, Once::Passes),
        ("500", Action::status(500), Once::Passes),
        ("503", Action::status(503), Once::Passes),
        ("html", Action::Html, json),
        ("truncated_json", Action::TruncatedJson, json),
    ]
}

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (step, method, path, parts) in STEPS {
        for (name, action, once) in faults(step) {
            let fault = Fault::new(method, path, action);
            trials.push(Trial::test(format!("push_faults::{step}::{name}"), move || {
                check(fault, once, *parts).map_err(Failed::from)
            }));
        }
    }
    let tests: &[(&str, Test)] = &[
        ("push_faults::a_commit_that_was_not_made", forgotten),
        ("push_faults::a_redirected_upload", redirected),
        ("push_faults::no_token", no_token),
        ("push_faults::names_that_lead_out", evil),
    ];
    trials.extend(tests.iter().map(|(name, test)| plain(name, *test)));
    trials
}

fn check(fault: Fault, once: Once, parts: bool) -> Result<(), String> {
    let settings = || if parts { in_parts() } else { Settings::default() };
    // Once.
    let case = Case::with(settings());
    let [file, _] = made(&case)?;
    case.server.fail(fault.clone());
    let run = push(&case, &[&file], &[])?;
    match (once, run.code) {
        (Once::Passes, Some(0)) | (Once::Ends, Some(2)) | (Once::Either, Some(0 | 2)) => {}
        (Once::Passes, _) => return Err(run.describe("it recovers")),
        (_, _) => return Err(run.describe("exit code 2")),
    }
    whole_or_not_at_all(&case, run.code == Some(0))?;
    // Whatever it was, the next run finishes, in one commit.
    case.server.forget();
    push(&case, &[&file], &[])?.ok()?;
    whole_or_not_at_all(&case, true)?;
    // For good.
    let case = Case::with(settings());
    let [file, _] = made(&case)?;
    let harmless = matches!(fault.action, Action::AnswerLost) || once == Once::Either;
    case.server.fail(fault.always());
    let run = push(&case, &[&file], &[])?;
    let ends = run.code == Some(2) && run.stderr.contains("error:") && !run.stderr.contains("fault of ggufsmith");
    ensure(ends || (harmless && run.code == Some(0)), || run.describe("a clear error and exit code 2"))?;
    whole_or_not_at_all(&case, run.code == Some(0))
}

/// The repository has one commit with everything, or none of ours.
fn whole_or_not_at_all(case: &Case, published: bool) -> Result<(), String> {
    let Some(repo) = case.server.repo(TARGET) else {
        return ensure(!published, || "there is no repository".into());
    };
    let (commits, files) = (repo.commits.len(), repo.head().files.len());
    let whole = commits == 2 && files == 8;
    let nothing = commits == 1 && files == 1;
    // A commit whose every answer is lost is there all the same.
    ensure(whole || (nothing && !published), || format!("{commits} commits, {files} files"))
}

fn forgotten() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    case.server.fail(Fault::new("POST", "/commit/", Action::CommitForgotten));
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(2), || run.describe("exit code 2"))
}

fn redirected() -> Result<(), String> {
    let (case, other) = (Case::new(), Case::new());
    let [file, _] = made(&case)?;
    case.server.fail(Fault::new("PUT", "/_objects/", Action::RedirectTo(format!("{}/x", other.server.endpoint()))).always());
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(2) && other.server.log().is_empty(), || run.describe("exit code 2, nothing sent elsewhere"))
}

fn no_token() -> Result<(), String> {
    let mut case = Case::new();
    let [file, _] = made(&case)?;
    case.token = None;
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(2) && run.stderr.contains("hf auth login"), || run.describe("what to do"))
}

fn evil() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    push(&case, &[&file], &[])?.ok()?;
    case.server.fail(Fault::new("GET", "/tree/", Action::EvilName("../x".into())));
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(2) && head(&case).is_some(), || run.describe("exit code 2"))
}
