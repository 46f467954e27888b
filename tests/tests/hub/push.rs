//! Publishing: what arrives, in how many commits, and what is refused.

use crate::case::{Case, MODEL, files};
use crate::{Test, ensure, plain};
use ggufsmith_tests::binary::Run;
use ggufsmith_tests::hub::{Action, Commit, Fault, File, Repo, Settings, sha256_hex};
use ggufsmith_tests::scratch;
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Where tests publish.
pub const TARGET: &str = "tester/bard-GGUF";

/// A verified file with everything that lies beside it, made once.
static MADE: LazyLock<Result<TempDir, String>> = LazyLock::new(|| {
    let (case, folder) = (Case::new(), scratch());
    let out = format!("{}/", folder.path().display());
    let args =
        ["convert", MODEL, "--type", "Q8_0,F16", "--out", &out, "--device", "cpu", "--verify", "--chunks", "1", "--no-latency"];
    case.run(&args)?.ok()?;
    Ok(folder)
});

/// Files for one test to spoil: `bard-Q8_0.gguf` and `bard-F16.gguf` with what lies beside them.
pub fn made(case: &Case) -> Result<[PathBuf; 2], String> {
    let from = MADE.as_ref().map_err(Clone::clone)?;
    let out = case.out();
    std::fs::create_dir_all(&out).map_err(|e| e.to_string())?;
    for path in files(from.path()) {
        std::fs::copy(&path, out.join(path.file_name().unwrap_or_default())).map_err(|e| e.to_string())?;
    }
    let named = |part: &str| {
        let mut found = files(&out).into_iter().filter(|path| path.extension().is_some_and(|end| end == "gguf"));
        found.find(|path| path.to_string_lossy().contains(part)).ok_or(format!("no {part} among {:?}", files(&out)))
    };
    Ok([named("Q8_0")?, named("F16")?])
}

/// `push FILES --repo TARGET --yes` and more.
pub fn push(case: &Case, files: &[&Path], more: &[&str]) -> Result<Run, String> {
    let mut args = arguments(files);
    args.extend(more);
    case.run(&args)
}

/// `push FILES --repo TARGET --yes`.
pub fn arguments<'a>(files: &[&'a Path]) -> Vec<&'a str> {
    let mut args = vec!["push"];
    args.extend(files.iter().map(|file| file.to_str().unwrap_or_default()));
    args.extend(["--repo", TARGET, "--yes", "--json"]);
    args
}

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("push::arrives_in_one_commit_and_again_in_none", again),
        ("push::one_command", one_command),
        ("push::a_second_file_joins_the_first", second_file),
        ("push::a_card_is_kept", kept_card),
        ("push::files_that_are_not_verified_are_refused", refused),
        ("push::unverified_files_are_called_so", unverified),
        ("push::a_dry_run_sends_nothing", dry_run),
        ("push::nobody_to_ask", nobody),
        ("push::a_pull_request", pull_request),
        ("push::a_private_repository", private),
        ("push::all_shards_go", shards),
        ("push::what_has_arrived_is_not_sent_again", resumed),
        ("push::a_part_whose_address_expired", expired),
        ("push::what_to_publish_for_is_said_before_a_conversion", early),
    ];
    tests.iter().map(|(name, test)| plain(name, *test)).collect()
}

pub fn head(case: &Case) -> Option<Commit> {
    case.server.repo(TARGET).map(|repo| repo.head().clone())
}

fn text(commit: &Commit, name: &str) -> String {
    commit.files.get(name).map(|file| String::from_utf8_lossy(&file.body.bytes()).into_owned()).unwrap_or_default()
}

fn again() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let run = push(&case, &[&file], &[])?;
    let said = run.json()?;
    let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
    let (name, commit) = (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), repo.head());
    ensure(repo.commits.len() == 2, || format!("{} commits", repo.commits.len()))?;
    ensure(said["commit"] == commit.id.as_str() && said["changed"] == true, || run.describe("the commit"))?;
    let ours: Vec<_> =
        ["", ".manifest.json", ".report.html", ".report.json", ".report.md"].iter().map(|end| format!("{name}{end}")).collect();
    for name in &ours {
        let here = std::fs::read(file.with_file_name(name)).map_err(|e| format!("{name}: {e}"))?;
        ensure(commit.files.get(name).is_some_and(|file| file.body.bytes() == here), || format!("{name} is another one"))?;
    }
    ensure(commit.files.len() == ours.len() + 3, || format!("{:?}", commit.files.keys()))?;
    let card = text(commit, "README.md");
    let sha256 = sha256_hex(&std::fs::read(&file).map_err(|e| e.to_string())?);
    for words in [
        "base_model: org/bard\n",
        "base_model_relation: quantized\n",
        "library_name: gguf\n",
        &sha256,
        "[faithful]",
        "llama-server -hf tester/bard-GGUF:Q8_0",
    ] {
        ensure(card.contains(words), || format!("no {words:?} in\n{card}"))?;
    }
    ensure(text(commit, "ggufsmith-kl-divergence.svg").starts_with("<svg"), || "no plot".into())?;

    case.server.forget();
    let said = push(&case, &[&file], &[])?.json()?;
    let log = case.server.log();
    ensure(said["changed"] == false, || said.to_string())?;
    ensure(log.iter().all(|entry| entry.method == "GET"), || format!("{log:?}"))?;
    ensure(head(&case).is_some_and(|now| now.id == commit.id), || "a second commit".into())
}

fn one_command() -> Result<(), String> {
    let case = Case::new();
    let more = ["--verify", "--chunks", "1", "--no-latency", "--push", TARGET, "--yes", "--json", "--type", "F16"];
    let run = case.convert(&more)?;
    let said = run.json()?;
    let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
    ensure(repo.commits.len() == 2, || format!("{} commits", repo.commits.len()))?;
    let ggufs = repo.head().files.keys().filter(|name| name.ends_with(".gguf")).count();
    ensure(ggufs == 2 && said["published"]["commit"] == repo.head().id.as_str(), || run.describe("two files"))?;
    ensure(text(repo.head(), "README.md").contains("--push tester/bard-GGUF"), || text(repo.head(), "README.md"))
}

fn second_file() -> Result<(), String> {
    let case = Case::new();
    let [first, second] = made(&case)?;
    push(&case, &[&first], &[])?.ok()?;
    push(&case, &[&second], &[])?.ok()?;
    let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
    let card = text(repo.head(), "README.md");
    ensure(repo.commits.len() == 3 && card.matches("[faithful]").count() == 2, || card.clone())?;
    // Both at once make the same card.
    let both = Case::new();
    let [first, second] = made(&both)?;
    push(&both, &[&second, &first], &[])?.ok()?;
    let table = |card: &str| card.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect::<Vec<_>>();
    let other = head(&both).map(|commit| text(&commit, "README.md")).unwrap_or_default();
    ensure(table(&card) == table(&other) && table(&card).len() == 4, || format!("{card}\n{other}"))?;
    let without = |card: &str, case: &Case| card.replace(case.server.endpoint(), "");
    ensure(without(&card, &case) == without(&other, &both), || format!("{card}\n{other}"))?;
    // Nothing is new any more, in whatever order.
    for file in [&first, &second, &first] {
        let said = push(&both, &[file], &[])?.json()?;
        ensure(said["changed"] == false, || said.to_string())?;
    }
    Ok(())
}

/// A repository that has a card already.
fn with_card(case: &Case, card: &str) {
    let mut repo = Repo::new(TARGET);
    let mut files: BTreeMap<String, File> = repo.head().files.clone();
    files.insert("README.md".into(), File::new("README.md", card.as_bytes().to_vec().into()));
    let commit = repo.commit_of(files, "card");
    repo.commits.push(commit);
    case.server.add(repo);
}

fn kept_card() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    with_card(&case, "---\nlicense: mit\nmine: [1, 2]\n---\n# My words\n");
    push(&case, &[&file], &[])?.ok()?;
    let card = head(&case).map(|commit| text(&commit, "README.md")).unwrap_or_default();
    ensure(card.starts_with("---\nlicense: mit\nmine: [1, 2]\n") && card.contains("\n# My words\n"), || card.clone())?;
    ensure(card.contains("base_model: org/bard\n"), || card)
}

fn refused() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let report = PathBuf::from(format!("{}.report.json", file.display()));
    let right = std::fs::read_to_string(&report).map_err(|e| e.to_string())?;
    let check = |said: &str| {
        let run = push(&case, &[&file], &[])?;
        let fine = run.code == Some(1) && run.stderr.contains(said) && case.server.repo(TARGET).is_none();
        ensure(fine, || run.describe(&format!("exit code 1 and {said:?}, no repository")))
    };
    let wrong = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_str(&right).map_err(|e| e.to_string())?;
        change(&mut json);
        std::fs::write(&report, json.to_string()).map_err(|e| e.to_string())
    };
    wrong(&|json| json["faithful"] = false.into())?;
    check("its report says")?;
    wrong(&|json| json["checks"][1]["status"] = "failed".into())?;
    check("its report says")?;
    wrong(&|json| json["gate"]["failures"] = vec!["perplexity"].into())?;
    check("its report says")?;
    wrong(&|json| json["windows"] = 0.into())?;
    check("no window of a forward pass")?;
    std::fs::remove_file(&report).map_err(|e| e.to_string())?;
    check("no report beside it")?;
    // One byte of the weights.
    std::fs::write(&report, &right).map_err(|e| e.to_string())?;
    let mut bytes = std::fs::read(&file).map_err(|e| e.to_string())?;
    if let Some(last) = bytes.iter_mut().rev().nth(100) {
        *last ^= 1;
    }
    std::fs::write(&file, bytes).map_err(|e| e.to_string())?;
    check("is about other bytes")
}

fn unverified() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    std::fs::remove_file(format!("{}.report.json", file.display())).map_err(|e| e.to_string())?;
    let run = push(&case, &[&file], &["--allow-unverified"])?;
    run.ok()?;
    let commit = head(&case).ok_or("there is no repository")?;
    let card = text(&commit, "README.md");
    ensure(card.contains("> **Not verified**") && card.contains("| not verified |"), || card.clone())?;
    ensure(!commit.files.keys().any(|name| name.contains(".report.")), || format!("{:?}", commit.files.keys()))
}

fn dry_run() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let args = ["push", file.to_str().unwrap_or_default(), "--repo", TARGET, "--dry-run"];
    let run = case.run(&args)?;
    let fine = run.ok()?.contains("would be created") && run.stdout.contains("library_name: gguf");
    ensure(fine && case.server.repo(TARGET).is_none(), || run.describe("what would be published"))?;
    ensure(case.server.log().iter().all(|entry| entry.method == "GET"), || format!("{:?}", case.server.log()))
}

fn nobody() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let run = case.run(&["push", file.to_str().unwrap_or_default(), "--repo", TARGET])?;
    ensure(run.code == Some(2) && run.stderr.contains("--yes"), || run.describe("exit code 2 and --yes"))?;
    ensure(case.server.repo(TARGET).is_none(), || "a repository".into())
}

fn pull_request() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    with_card(&case, "# Theirs\n");
    let run = push(&case, &[&file], &["--create-pr"])?;
    let said = run.json()?;
    let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
    ensure(repo.commits.len() == 2 && repo.pulls.len() == 1, || format!("{} pull requests", repo.pulls.len()))?;
    ensure(said["url"].as_str().is_some_and(|url| url.ends_with("/discussions/1")), || run.describe("its address"))?;
    let said = push(&case, &[&file], &["--create-pr"])?.json()?;
    let pulls = case.server.repo(TARGET).map_or(0, |repo| repo.pulls.len());
    let same = said["changed"] == false && said["url"].as_str().is_some_and(|url| url.ends_with("/discussions/1"));
    ensure(same && pulls == 1, || format!("{pulls} pull requests: {said}"))?;
    // A lost answer makes no second one, either.
    let case = Case::new();
    let [file, _] = made(&case)?;
    with_card(&case, "# Theirs\n");
    case.server.fail(Fault::new("POST", "/commit/", Action::AnswerLost));
    push(&case, &[&file], &["--create-pr"])?.ok()?;
    let pulls = case.server.repo(TARGET).map_or(0, |repo| repo.pulls.len());
    ensure(pulls == 1, || format!("{pulls} pull requests"))
}

fn private() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    push(&case, &[&file], &["--private"])?.ok()?;
    ensure(case.server.repo(TARGET).is_some_and(|repo| repo.private), || "it is not private".into())
}

fn shards() -> Result<(), String> {
    let case = Case::new();
    case.convert(&["--split-max-tensors", "10", "--verify", "--chunks", "1", "--no-latency"])?.ok()?;
    let shards: Vec<_> =
        files(&case.out()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect();
    let last = shards.last().ok_or("no shards")?;
    push(&case, &[last], &[])?.ok()?;
    let commit = head(&case).ok_or("there is no repository")?;
    let there = commit.files.keys().filter(|name| name.ends_with(".gguf")).count();
    ensure(there == shards.len() && there > 1, || format!("{there} of {} shards", shards.len()))?;
    ensure(text(&commit, "README.md").contains(&format!("({there} shards)")), || text(&commit, "README.md"))
}

fn resumed() -> Result<(), String> {
    let case = Case::new();
    let [first, second] = made(&case)?;
    case.server.fail(Fault::new("PUT", "/_objects/whole/", Action::Cut).after(1).always());
    let run = push(&case, &[&first, &second], &[])?;
    ensure(run.code == Some(2), || run.describe("exit code 2"))?;
    ensure(head(&case).is_none_or(|commit| commit.files.len() == 1), || "a half-published repository".into())?;
    case.server.forget();
    push(&case, &[&first, &second], &[])?.ok()?;
    let sent: Vec<_> = case.server.log().into_iter().filter(|entry| entry.method == "PUT").collect();
    ensure(sent.len() == 1, || format!("one of two was missing: {sent:?}"))
}

/// Small parts.
pub fn in_parts() -> Settings {
    Settings { multipart_over: 64 << 10, part: 64 << 10, ..Settings::default() }
}

fn expired() -> Result<(), String> {
    let case = Case::with(in_parts());
    let [file, _] = made(&case)?;
    case.server.fail(Fault::new("PUT", "/_objects/part/", Action::status(403)).after(1));
    push(&case, &[&file], &[])?.ok()?;
    let parts = std::fs::metadata(&file).map_err(|e| e.to_string())?.len().div_ceil(64 << 10);
    let puts = case.server.log().iter().filter(|entry| entry.method == "PUT").count() as u64;
    let asked = case.log_of("/objects/batch").len();
    ensure(parts > 2 && puts == parts + 1 && asked == 2, || format!("{puts} for {parts} parts, {asked} times asked"))
}

fn early() -> Result<(), String> {
    let mut case = Case::new();
    let wrong_name = case.convert(&["--verify", "--push", "no-owner", "--yes"])?;
    case.token = Some("hf_wrong".into());
    let wrong_token = case.convert(&["--verify", "--push", TARGET, "--yes"])?;
    for run in [wrong_name, wrong_token] {
        ensure(run.code == Some(2) && files(&case.out()).is_empty(), || run.describe("exit code 2 before a conversion"))?;
    }
    let alone = case.convert(&["--private"])?;
    ensure(alone.code == Some(2) && alone.stderr.contains("--push"), || alone.describe("exit code 2 and --push"))
}
