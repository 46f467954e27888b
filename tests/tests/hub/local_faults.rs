//! What goes wrong on this side: disks that are full, files that change.

use crate::case::{Case, MODEL, expected, files};
use crate::push::{TARGET, head, made, push};
use crate::{Test, ensure, plain};
use ggufsmith_tests::binary::{Run, binary, finish};
use ggufsmith_tests::disk::SmallDisk;
use ggufsmith_tests::hub::{Cas, Settings};
use ggufsmith_tests::{fixture, reference};
use libtest_mimic::{Completion, Failed, Trial};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        ("local_faults::a_cache_that_cannot_grow", limited),
        ("local_faults::a_file_that_changes_while_it_is_sent", || changing(None)),
    ];
    let mut trials: Vec<_> = tests.iter().map(|(name, test)| plain(name, *test)).collect();
    trials.push(Trial::ignorable_test("local_faults::a_full_disk_is_seen_before_the_download", || full().map_err(Failed::from)));
    trials.push(crate::xet::with_cas("local_faults::a_file_that_changes_while_it_is_sent_by_xet".into(), || {
        changing(Some(Cas::start(&reference::cas_server().ok_or(reference::REASON)?)))
    }));
    trials
}

fn full() -> Result<Completion, String> {
    let disk = match SmallDisk::mount("20m") {
        Ok(disk) => disk,
        Err(e) => return Ok(Completion::ignored_with(format!("needs the right to mount a tmpfs: {e}"))),
    };
    let mut case = Case::new();
    case.variables.push(("HF_HUB_CACHE".into(), disk.folder().to_string_lossy().into_owned()));
    let run = case.convert(&[])?;
    let said = ["has room for", "HF_HUB_CACHE"].iter().all(|words| run.stderr.contains(words));
    ensure(run.code == Some(2) && said, || run.describe("exit code 2 and what to do"))?;
    ensure(case.weights_sent() < 300_000, || run.describe("no download of weights"))?;
    // Weights that are not stored need no room there.
    case.convert(&["--stream"])?.ok()?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())?;
    Ok(Completion::Completed)
}

/// Writing fails in the middle, whatever was checked before; what has come is kept.
fn limited() -> Result<(), String> {
    let case = Case::new();
    let out = case.home.path().join("x.gguf");
    let mut shell = Command::new("bash");
    // In units of 1 KiB; without the trap the system would end the process with a signal.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 3000; exec \"$@\"", "bash"]).arg(binary());
    shell.args(["convert", MODEL, "--type", "Q8_0", "--device", "cpu", "--out"]).arg(&out);
    shell.env("HF_ENDPOINT", case.server.endpoint()).env("HF_HOME", case.home.path().join("hf")).env("NO_PROXY", "127.0.0.1");
    shell.current_dir(case.home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run: Run = finish(shell);
    ensure(run.code == Some(2) && run.stderr.contains("incomplete"), || run.describe("exit code 2 and the file"))?;
    ensure(!out.exists(), || format!("{:?}", files(case.home.path())))?;
    case.server.forget();
    case.convert(&[])?.ok()?;
    let size = std::fs::metadata(fixture("bard/model.safetensors")).map_err(|e| e.to_string())?.len();
    ensure(case.weights_sent() < size / 2, || format!("{} of {size} bytes were fetched again", case.weights_sent()))?;
    ensure(case.sha256()? == expected(case.home.path())?, || "other bytes".into())
}

/// Nothing is published then.
fn changing(cas: Option<Cas>) -> Result<(), String> {
    let cas_endpoint = cas.as_ref().map(|cas| cas.endpoint().to_owned());
    let case = Case::with(Settings { rate: 2_000_000, cas: cas_endpoint, ..Settings::default() });
    let [file, _] = made(&case)?;
    let meanwhile = || {
        let end = Instant::now() + Duration::from_secs(30);
        while case.log_of("/objects/batch").is_empty() {
            ensure(Instant::now() < end, || "it sends nothing".into())?;
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        flip(&file)
    };
    let (run, flipped) = std::thread::scope(|scope| {
        let flipped = scope.spawn(meanwhile);
        (push(&case, &[&file], &[]), flipped.join())
    });
    flipped.map_err(|_| "the thread panicked")??;
    let run = run?;
    ensure(run.code == Some(2) && run.stderr.contains("changed"), || run.describe("exit code 2, it changed"))?;
    ensure(head(&case).is_none_or(|commit| commit.files.len() == 1), || "it was published".into())?;
    // As it is now it was never verified.
    let run = push(&case, &[&file], &[])?;
    ensure(run.code == Some(1), || run.describe("exit code 1"))?;
    flip(&file)?;
    push(&case, &[&file], &[])?.ok()?;
    let repo = case.server.repo(TARGET).ok_or("there is no repository")?;
    ensure(repo.commits.len() == 2, || format!("{} commits", repo.commits.len()))
}

/// Change the last byte but ten.
fn flip(path: &Path) -> Result<(), String> {
    let change = || {
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        file.seek(SeekFrom::End(-10))?;
        let mut byte = [0];
        std::io::Read::read_exact(&mut file, &mut byte)?;
        file.seek(SeekFrom::End(-10))?;
        file.write_all(&[byte[0] ^ 1])
    };
    change().map_err(|e| e.to_string())
}
