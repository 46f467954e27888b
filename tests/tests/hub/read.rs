//! Models from the Hub.

use crate::case::{Case, MODEL, expected, files};
use crate::{Test, ensure, plain};
use ggufsmith_tests::hub::{Action, Fault, File, Settings};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("read::a_model_converts_as_from_a_directory_of_its_name", converts),
        ("read::a_second_run_transfers_nothing", second_run),
        ("read::offline_takes_the_cache_alone", offline),
        ("read::a_cut_download_goes_on_where_it_ended", resumes),
        ("read::weights_from_another_host_come_without_the_token", elsewhere),
        ("read::a_dry_run_reads_headers_alone", dry_run),
        ("read::only_what_is_needed_is_fetched", only_needed),
        ("read::a_revision_is_named_behind_an_at", revision),
        ("read::what_stops_a_conversion_is_said_before_the_download", early),
    ];
    tests.iter().map(|(name, test)| plain(name, *test)).collect()
}

fn converts() -> Result<(), String> {
    let case = Case::new();
    case.convert(&[])?.ok()?;
    let (found, expected) = (case.sha256()?, expected(case.home.path())?);
    ensure(found == expected, || format!("{found}, a directory gives {expected}"))?;
    let manifest = files(&case.out()).into_iter().find(|path| path.to_string_lossy().ends_with(".manifest.json"));
    let manifest = ggufsmith_tests::json(&manifest.ok_or("there is no manifest")?).to_string();
    let commit = case.server.repo("org/bard").map(|repo| repo.head().id.clone()).unwrap_or_default();
    ensure(manifest.contains(&commit) && manifest.contains("org/bard"), || manifest.clone())
}

fn second_run() -> Result<(), String> {
    let case = Case::new();
    case.convert(&[])?.ok()?;
    case.server.forget();
    case.convert(&["--force"])?.ok()?;
    let sent = case.server.log().iter().filter(|entry| entry.path.contains("/resolve/") && entry.method == "GET").count();
    ensure(sent == 0, || format!("{sent} files were fetched again: {:?}", case.server.log()))
}

fn offline() -> Result<(), String> {
    let mut case = Case::new();
    let first = {
        case.variables.push(("HF_HUB_OFFLINE".into(), "1".into()));
        case.convert(&[])?
    };
    ensure(first.code == Some(2) && first.stderr.contains("HF_HUB_OFFLINE"), || first.describe("nothing in the cache"))?;
    ensure(case.server.log().is_empty(), || "the server was asked".into())?;
    case.variables.clear();
    case.convert(&[])?.ok()?;
    case.server.forget();
    case.variables.push(("HF_HUB_OFFLINE".into(), "1".into()));
    case.convert(&["--force"])?.ok()?;
    ensure(case.server.log().is_empty(), || "the server was asked".into())
}

fn resumes() -> Result<(), String> {
    let case = Case::new();
    case.server.fail(Fault::new("GET", "model.safetensors", Action::CutAfter(1_500_000)));
    case.convert(&[])?.ok()?;
    let size = std::fs::metadata(ggufsmith_tests::fixture("bard/model.safetensors")).map_err(|e| e.to_string())?.len();
    let sent = case.weights_sent();
    // What was on its way when the connection ended may have been lost.
    ensure(sent >= size && sent < size + 1_000_000, || {
        format!("{sent} bytes for {size}: {:?}", case.log_of("model.safetensors"))
    })?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn elsewhere() -> Result<(), String> {
    let case = Case::with(Settings { elsewhere: true, ..Settings::default() });
    case.convert(&[])?.ok()?;
    let there: Vec<_> = case.server.log().into_iter().filter(|entry| entry.elsewhere).collect();
    ensure(!there.is_empty() && there.iter().all(|entry| !entry.authorized), || format!("{there:?}"))?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

fn dry_run() -> Result<(), String> {
    let case = Case::new();
    let run = case.convert(&["--dry-run"])?;
    let shown = run.ok()?;
    ensure(shown.contains("bits per weight") || shown.contains("BPW") || shown.contains("bpw"), || {
        run.describe("bits per weight")
    })?;
    let sent = case.weights_sent();
    ensure(sent > 0 && sent <= 300_000, || format!("{sent} bytes of the weights were fetched"))?;
    ensure(files(&case.out()).is_empty(), || "something was written".into())
}

fn only_needed() -> Result<(), String> {
    let case = Case::new();
    let mut repo = case.server.repo("org/bard").ok_or("it is there")?;
    let mut more = repo.head().files.clone();
    for name in ["pytorch_model.bin", "onnx/model.onnx", "bard.Q8_0.gguf", "training.log"] {
        more.insert(name.into(), ggufsmith_tests::hub::File::new(name, vec![1; 100].into()));
    }
    let commit = repo.commit_of(more, "more");
    repo.commits.push(commit);
    case.server.add(repo);
    case.convert(&[])?.ok()?;
    let fetched: Vec<_> = case.log_of("/resolve/").into_iter().map(|entry| entry.path).collect();
    let unwanted = fetched.iter().find(|path| [".bin", ".onnx", ".gguf", ".log"].iter().any(|end| path.ends_with(end)));
    ensure(unwanted.is_none(), || format!("{unwanted:?} was fetched"))
}

fn revision() -> Result<(), String> {
    let case = Case::new();
    let repo = case.server.repo("org/bard").ok_or("it is there")?;
    let out = format!("{}/x.gguf", case.home.path().display());
    let commit = format!("org/bard@{}", repo.head().id);
    case.run(&["convert", &commit, "--type", "Q8_0", "--out", &out])?.ok()?;
    let run = case.run(&["convert", "org/bard@v9", "--type", "Q8_0", "--out", &out, "--force"])?;
    ensure(run.code == Some(2) && run.stderr.contains("no such revision"), || run.describe("an unknown revision"))
}

fn early() -> Result<(), String> {
    let model = |config: &str| {
        let case = Case::new();
        let mut repo = case.server.repo(MODEL).ok_or("it is there")?;
        let mut files = repo.head().files.clone();
        files.insert("config.json".into(), File::new("config.json", config.as_bytes().to_vec().into()));
        let commit = repo.commit_of(files, "another one");
        repo.commits.push(commit);
        case.server.add(repo);
        Ok::<_, String>(case)
    };
    let no_folder = Case::new();
    let lost = format!("{}/nowhere/x.gguf", no_folder.home.path().display());
    let exists = Case::new();
    std::fs::write(exists.home.path().join("x.gguf"), "mine").map_err(|e| e.to_string())?;
    let cases = [
        (no_folder, lost.as_str(), "create it first"),
        (exists, "x.gguf", "--force"),
        (model(r#"{"architectures": ["NobodyKnowsForCausalLM"], "model_type": "nobody"}"#)?, "new.gguf", "NobodyKnows"),
    ];
    for (case, out, said) in cases {
        let run = case.run(&["convert", MODEL, "--type", "Q8_0", "--out", out])?;
        ensure(run.code == Some(2) && run.stderr.contains(said), || run.describe(said))?;
        let sent = case.weights_sent();
        ensure(sent < 300_000, || run.describe(&format!("no download, {sent} bytes were sent")))?;
    }
    Ok(())
}
