//! What a user may want of a push, and what a repository may hold already.

use crate::case::{Case, MODEL, files};
use crate::push::{TARGET, head, made, push};
use crate::{Test, ensure, plain};
use ggufsmith_tests::hub::{Action, Fault, File, Repo};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("push_wishes::a_pull_request_without_the_right_to_write", read_only),
        ("push_wishes::private_is_not_for_a_public_repository", public),
        ("push_wishes::a_branch_that_is_new", branch),
        ("push_wishes::what_proved_other_bytes_goes", stale),
        ("push_wishes::a_card_that_cannot_be_edited_is_left_alone", odd_cards),
        ("push_wishes::a_card_with_spellings_of_its_own_is_kept", spellings),
        ("push_wishes::files_with_strange_names_do_not_matter", strange_names),
        ("push_wishes::what_goes_beside_a_model_is_no_model", beside),
        ("push_wishes::a_limit_that_is_announced_is_waited_for", rate_limit),
        ("push_wishes::an_endpoint_with_a_password_is_refused", password),
        ("push_wishes::a_cached_file_that_was_changed_is_seen", tampered),
    ];
    tests.iter().map(|(name, test)| plain(name, *test)).collect()
}

/// A repository that holds these files beside the first.
fn with(case: &Case, files: &[(&str, &[u8])]) {
    let mut repo = Repo::new(TARGET);
    let mut all = repo.head().files.clone();
    all.extend(files.iter().map(|(name, bytes)| ((*name).to_owned(), File::new(name, bytes.to_vec().into()))));
    let commit = repo.commit_of(all, "theirs");
    repo.commits.push(commit);
    case.server.add(repo);
}

fn card(case: &Case) -> String {
    let card = head(case).and_then(|commit| commit.files.get("README.md").map(|file| file.body.bytes()));
    String::from_utf8_lossy(&card.unwrap_or_default()).into_owned()
}

fn read_only() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let mut repo = Repo::new(TARGET);
    repo.read_only = true;
    case.server.add(repo);
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(2), || run.describe("no right to write"))?;
    push(&case, &[&file], &["--create-pr"])?.ok()?;
    let pulls = case.server.repo(TARGET).map_or(0, |repo| repo.pulls.len());
    ensure(pulls == 1, || format!("{pulls} pull requests"))
}

fn public() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    with(&case, &[]);
    let run = push(&case, &[&file], &["--private"])?;
    ensure(run.code == Some(2) && run.stderr.contains("is public"), || run.describe("exit code 2, it is public"))?;
    ensure(head(&case).is_some_and(|commit| commit.files.len() == 1), || "it was published".into())
}

fn branch() -> Result<(), String> {
    for exists in [true, false] {
        let case = Case::new();
        let [file, _] = made(&case)?;
        if exists {
            with(&case, &[]);
        }
        push(&case, &[&file], &["--revision", "v2"])?.ok()?;
        let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
        ensure(repo.branches == ["v2"], || format!("{:?}", repo.branches))?;
    }
    let case = Case::new();
    let [file, _] = made(&case)?;
    let run = push(&case, &[&file], &["--revision", &"0a".repeat(20)])?;
    ensure(run.code == Some(2) && run.stderr.contains("name a branch"), || run.describe("a commit is no branch"))
}

fn stale() -> Result<(), String> {
    let case = Case::new();
    let [first, second] = made(&case)?;
    push(&case, &[&first], &[])?.ok()?;
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::fs::copy(&second, &first).map_err(|e| e.to_string())?;
    for path in files(&case.out()) {
        if path.to_string_lossy().contains(&format!("{name}.")) {
            std::fs::remove_file(path).map_err(|e| e.to_string())?;
        }
    }
    push(&case, &[&first], &["--allow-unverified"])?.ok()?;
    let commit = head(&case).ok_or("there is no repository")?;
    let proof: Vec<_> = commit.files.keys().filter(|file| file.starts_with(&format!("{name}."))).collect();
    ensure(proof.is_empty(), || format!("{proof:?} are about other bytes"))
}

fn odd_cards() -> Result<(), String> {
    for text in [
        "---\n{license: mit, tags: [a]}\n---\nMine\n",
        "---\nlicense: mit\n...\n---\nMine\n",
        "---\ntags: [a]\ntags: [b]\n---\nMine\n",
        "# Mine\n<!-- ggufsmith:end -->\n",
    ] {
        let case = Case::new();
        let [file, _] = made(&case)?;
        with(&case, &[("README.md", text.as_bytes())]);
        let run = push(&case, &[&file], &[])?;
        ensure(run.code == Some(2) && run.stderr.contains("README.md"), || run.describe(&format!("exit code 2 for {text:?}")))?;
        ensure(card(&case) == text, || card(&case))?;
    }
    Ok(())
}

fn spellings() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    with(&case, &[("README.md", b"\n---\nlicense : mit\n\"tags\":\n- mine\nlanguage:\n---\n# Mine\n")]);
    push(&case, &[&file], &[])?.ok()?;
    let text = card(&case);
    let once = |words: &str| text.matches(words).count() == 1;
    ensure(
        once("license") && once("tags") && once("- mine\n") && once("- gguf\n") && once("# Mine") && text.starts_with("---\n"),
        || text.clone(),
    )
}

fn strange_names() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    with(&case, &[("logs/run 12:30:01.txt", b"log")]);
    push(&case, &[&file], &[])?.ok()?;
    let commit = head(&case).ok_or("there is no repository")?;
    ensure(commit.files.contains_key("logs/run 12:30:01.txt"), || "it is gone".into())
}

fn beside() -> Result<(), String> {
    let case = Case::new();
    let [file, _] = made(&case)?;
    let shard = |number: u32| format!("big-Q4_0-0000{number}-of-00003.gguf");
    let shards = [shard(1), shard(2), shard(3)];
    let mut held: Vec<(&str, &[u8])> = vec![("mmproj-F16.gguf", b"GGUF"), ("imatrix.gguf", b"GGUF2")];
    held.extend(shards.iter().map(|name| (name.as_str(), name.as_bytes())));
    with(&case, &held);
    push(&case, &[&file], &[])?.ok()?;
    let text = card(&case);
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| [")).collect();
    ensure(rows.len() == 2 && rows.iter().any(|row| row.contains("(3 shards)")), || text.clone())
}

fn rate_limit() -> Result<(), String> {
    let case = Case::new();
    let headers = vec![("RateLimit".to_owned(), "\"resolvers\";r=0;t=1".to_owned())];
    case.server.fail(Fault::new("GET", "config.json", Action::Status(429, headers)));
    let started = std::time::Instant::now();
    case.convert(&[])?.ok()?;
    let waited = started.elapsed();
    ensure(waited.as_secs_f64() >= 2.0, || format!("it waited {waited:?}, two seconds were due"))
}

fn password() -> Result<(), String> {
    let case = Case::new();
    let mut command = case.command(&["convert", MODEL, "--type", "Q8_0"]);
    command.env("HF_ENDPOINT", case.server.endpoint().replace("http://", "http://bob:s3cret@"));
    let run = ggufsmith_tests::binary::finish(command);
    let shown = run.stderr.contains("s3cret") || run.stdout.contains("s3cret");
    ensure(run.code == Some(2) && !shown && run.stderr.contains("HF_TOKEN"), || run.describe("exit code 2, no password"))
}

/// By the Hub's list it is downloaded again; read as a directory it is refused.
fn tampered() -> Result<(), String> {
    let case = Case::new();
    case.convert(&[])?.ok()?;
    let first = case.sha256()?;
    let snapshots = case.cached().join("snapshots");
    let weights =
        files(&snapshots).into_iter().find(|path| path.ends_with("model.safetensors")).ok_or("the weights are there")?;
    let blob = std::fs::canonicalize(&weights).map_err(|e| e.to_string())?;
    let mut bytes = std::fs::read(&blob).map_err(|e| e.to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 1000].fill(0);
    std::fs::write(&blob, &bytes).map_err(|e| e.to_string())?;
    let directory = weights.parent().and_then(|path| path.to_str()).ok_or("a plain path")?.to_owned();
    let out = case.home.path().join("x.gguf");
    let target = out.to_str().ok_or("a plain path")?;
    let other = case.home.path().join("nf4");
    let other = other.to_str().ok_or("a plain path")?;
    let run = case.run(&["convert", &directory, "--type", "NF4", "--format", "safetensors", "--out", other])?;
    let said = run.stderr.contains("was changed after its download");
    ensure(run.code == Some(2) && said && !std::path::Path::new(other).exists(), || run.describe("exit code 2, no directory"))?;
    for more in [&[][..], &["--no-manifest"]] {
        let args = ["convert", &directory, "--type", "Q8_0", "--out", target, "--model-name", "bard", "--device", "cpu"];
        let run = case.run(&[&args[..], more].concat())?;
        let said = run.stderr.contains("was changed after its download");
        ensure(run.code == Some(2) && said && !out.exists(), || run.describe("exit code 2, it was changed"))?;
    }
    let gguf = files(&case.out()).into_iter().find(|path| path.extension().is_some_and(|end| end == "gguf")).ok_or("a file")?;
    let gguf = gguf.to_str().ok_or("a plain path")?.to_owned();
    let run = case.run(&["verify", &gguf, "--against", &directory, "--no-forward"])?;
    ensure(run.code == Some(2) && run.stderr.contains("was changed"), || run.describe("exit code 2"))?;
    case.convert(&["--force"])?.ok()?;
    ensure(case.sha256()? == first, || "other bytes".into())
}
