//! Outputs that cannot be written: for each way in which a system refuses, and each command that writes, an error that says so, and
//! nothing under a final name that is not complete.
//!
//! Most faults are injected into system calls by strace. Tests that need root, or a tool that is not there, are reported as ignored.

use crate::refused;
use ggufsmith_tests::binary::{Run, binary, finish, ggufsmith};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::{Completion, Failed, Trial};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Two files from one read.
    Convert,
    /// One file, cut into shards.
    Split,
    Quantize,
    Export,
}

const WRITERS: [(&str, Writer); 4] =
    [("convert", Writer::Convert), ("split", Writer::Split), ("quantize", Writer::Quantize), ("export", Writer::Export)];

/// Name, system call and how it fails, what is said.
const CALLS: &[(&str, &str, &str)] = &[
    ("no_space_when_it_is_reserved", "fallocate:error=ENOSPC", "No space left"),
    ("no_space_at_the_first_byte", "pwrite64:error=ENOSPC:when=1+", "No space left"),
    ("no_space_in_the_middle", "pwrite64:error=ENOSPC:when=2+", "No space left"),
    ("quota_exceeded_in_the_middle", "pwrite64:error=EDQUOT:when=2+", "quota exceeded"),
    ("input_output_error_in_the_middle", "pwrite64:error=EIO:when=2+", "Input/output error"),
    ("a_failing_fsync", "fsync:error=EIO:when=1+", "Input/output error"),
    ("no_space_at_fsync", "fsync:error=ENOSPC:when=1+", "No space left"),
    ("no_space_at_rename", "rename,renameat,renameat2:error=ENOSPC:when=1+", "No space left"),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (command, writer) in WRITERS {
        for (name, fault, said) in CALLS {
            trials.push(trial(&format!("matrix::{command}::{name}"), move || injected(writer, fault, said)));
        }
        trials.push(trial(&format!("matrix::{command}::a_read_only_file_system"), move || read_only(writer)));
        trials.push(trial(&format!("matrix::{command}::no_permission"), move || no_permission(writer)));
        trials.push(trial(&format!("matrix::{command}::too_many_open_files"), move || {
            limited(writer, "-n 4", "Too many open files")
        }));
        trials.push(trial(&format!("matrix::{command}::too_little_memory"), move || limited(writer, "-v 60000", "")));
        trials.push(trial(&format!("matrix::{command}::a_limit_on_file_sizes"), move || {
            limited(writer, "-f 200", "File too large")
        }));
        trials.push(trial(&format!("matrix::{command}::a_full_disk"), move || full_disk(writer)));
    }
    trials.push(trial("matrix::the_second_of_two_renames", second_rename));
    trials.push(trial("matrix::standard_output_is_closed", closed_output));
    trials.push(trial("matrix::standard_output_is_full", full_output));
    trials.push(trial("matrix::standard_error_is_closed", closed_errors));
    trials.push(trial("matrix::two_processes_and_one_output", two_processes));
    trials.push(trial("matrix::the_output_is_the_source", output_is_source));
    trials
}

fn trial(name: &str, test: impl FnOnce() -> Result<Completion, String> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || test().map_err(Failed::from))
}

/// What a writer reads, and an empty folder for what it writes.
struct Stage {
    folder: tempfile::TempDir,
    writer: Writer,
    out: PathBuf,
}

impl Stage {
    fn new(writer: Writer) -> Result<Self, String> {
        let folder = scratch();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).map_err(|e| e.to_string())?;
        let stage = Stage { folder, writer, out };
        let source = fixture("bard");
        ggufsmith(&["convert", text(&source)?, "--type", "BF16", "--out", text(&stage.input())?, "--quiet", "--no-manifest"])
            .ok()?;
        Ok(stage)
    }

    fn input(&self) -> PathBuf {
        self.folder.path().join("in.gguf")
    }

    fn args(&self, out: &Path) -> Vec<OsString> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let convert = |types: &str| {
            [words(&["convert"]), vec![fixture("bard").into()], words(&["--type", types, "--device", "cpu", "--threads", "1"])]
                .concat()
        };
        match self.writer {
            Writer::Convert => [convert("Q8_0,Q4_0"), words(&["--out"]), vec![out.into()]].concat(),
            Writer::Split => [convert("F16"), words(&["--split-max-size", "2M", "--out"]), vec![out.into()]].concat(),
            Writer::Quantize => [
                words(&["quantize", "--device", "cpu"]),
                vec![self.input().into(), out.join("out.gguf").into(), "Q4_0".into(), "1".into()],
            ]
            .concat(),
            Writer::Export => {
                [words(&["export"]), vec![self.input().into()], words(&["--threads", "1", "--out"]), vec![out.join("hf").into()]]
                    .concat()
            }
        }
    }

    /// Under something that starts with these words.
    fn under(&self, before: &[&str], out: &Path) -> Run {
        let mut command = match before.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.args(self.args(out)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command)
    }

    /// Refused, nothing left, and no obstacle to the next run.
    fn check(&self, run: &Run, said: &str) -> Result<Completion, String> {
        refused(run, &[said])?;
        let left = all(&self.out);
        if !left.is_empty() {
            return Err(run.describe(&format!("nothing in the folder, there is {left:?}")));
        }
        self.again()
    }

    fn again(&self) -> Result<Completion, String> {
        let run = self.under(&[], &self.out);
        run.ok()?;
        let fresh = Stage::new(self.writer)?;
        fresh.under(&[], &fresh.out).ok()?;
        match (hashes(&self.out), hashes(&fresh.out)) {
            (found, expected) if found == expected && !found.is_empty() => Ok(Completion::Completed),
            (found, expected) => Err(format!("a run afterwards gave {found:?}, a fresh one {expected:?}")),
        }
    }
}

/// Files and their hashes, the manifests aside: they name folders.
fn hashes(folder: &Path) -> Vec<(String, String)> {
    let files = all(folder).into_iter().filter(|path| !path.to_string_lossy().ends_with(".manifest.json"));
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    files.map(|path| (name(&path), ggufsmith_tests::hub::sha256_hex(&std::fs::read(&path).unwrap_or_default()))).collect()
}

fn all(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{path:?} is not UTF-8"))
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether strace is there and may follow a process.
fn can_inject() -> bool {
    let run = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn injected(writer: Writer, fault: &str, said: &str) -> Result<Completion, String> {
    if !can_inject() {
        return Ok(Completion::ignored_with("strace is not there (apt-get install strace), or may not follow processes"));
    }
    let stage = Stage::new(writer)?;
    let (calls, _) = fault.split_once(':').unwrap_or((fault, ""));
    // Only faults of files below the folder count: `-P` follows what was opened there.
    let before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")];
    let run = stage.under(&before, &stage.out);
    stage.check(&run, said)
}

/// Run with the folder on a small file system that is mounted for this test alone.
fn mounted(stage: &Stage, options: &str, remount: &str) -> Result<Option<Run>, String> {
    let out = text(&stage.out)?;
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs '{out}' && {remount} {{ shift; \"$@\"; code=$?; ls -A '{out}'; exit $code; }}"
    );
    // The words after the script are "$0" and "$1", which is left out, and the command.
    let run = stage.under(&["unshare", "-m", "bash", "-c", &script, "bash", "-"], &stage.out);
    let refused = run.stderr.contains("unshare:") || run.stderr.contains("mount:");
    Ok(if refused { None } else { Some(run) })
}

fn read_only(writer: Writer) -> Result<Completion, String> {
    let stage = Stage::new(writer)?;
    let out = text(&stage.out)?.to_owned();
    match mounted(&stage, "size=64m", &format!("mount -o remount,ro '{out}' &&"))? {
        Some(run) => stage.check(&run, "Read-only file system"),
        None => Ok(Completion::ignored_with("mounting a file system needs root")),
    }
}

/// Space is looked for first, so a disk that is full at the start is refused before any work.
fn full_disk(writer: Writer) -> Result<Completion, String> {
    let stage = Stage::new(writer)?;
    match mounted(&stage, "size=64k", "true &&")? {
        Some(run) => stage.check(&run, "free"),
        None => Ok(Completion::ignored_with("mounting a file system needs root")),
    }
}

/// A mode says nothing to root.
fn no_permission(writer: Writer) -> Result<Completion, String> {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() || !has("setpriv") {
        return Ok(Completion::ignored_with("running as another user needs root and setpriv"));
    }
    let stage = Stage::new(writer)?;
    // As nobody; whose binary and files lie below root's home may not be reached at all.
    if Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .arg(binary())
        .arg("--version")
        .output()
        .is_ok_and(|o| !o.status.success())
    {
        return Ok(Completion::ignored_with("the binary lies where no other user can run it"));
    }
    std::fs::set_permissions(&stage.out, std::fs::Permissions::from_mode(0o555)).map_err(|e| e.to_string())?;
    std::fs::set_permissions(stage.folder.path(), std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let run = stage.under(&["setpriv", "--reuid=65534", "--clear-groups"], &stage.out);
    std::fs::set_permissions(&stage.out, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    stage.check(&run, "Permission denied")
}

fn limited(writer: Writer, limit: &str, said: &str) -> Result<Completion, String> {
    let stage = Stage::new(writer)?;
    let script = format!("trap '' XFSZ; ulimit {limit}; shift; exec \"$@\"");
    let run = stage.under(&["bash", "-c", &script, "bash", "-"], &stage.out);
    // Without memory the allocator may end the process: then by a signal, and with as little left behind.
    if limit.starts_with("-v") {
        let left: Vec<_> = all(&stage.out).into_iter().filter(|path| !is_temporary(path)).collect();
        return match (run.code, left.is_empty()) {
            (Some(0), _) => stage.again_after_success(),
            (_, true) => {
                // Temporary files of a run that was ended are no obstacle.
                stage.again()
            }
            _ => Err(run.describe(&format!("nothing under a final name, there is {left:?}"))),
        };
    }
    stage.check(&run, said)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".partial"))
}

impl Stage {
    fn again_after_success(&self) -> Result<Completion, String> {
        std::fs::remove_dir_all(&self.out).and_then(|()| std::fs::create_dir(&self.out)).map_err(|e| e.to_string())?;
        self.again()
    }
}

/// The first file has its name by then, and is complete.
fn second_rename() -> Result<Completion, String> {
    if !can_inject() {
        return Ok(Completion::ignored_with("strace is not there (apt-get install strace), or may not follow processes"));
    }
    let stage = Stage::new(Writer::Convert)?;
    let before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:error=EIO:when=2"];
    let run = stage.under(&before, &stage.out);
    refused(&run, &["Input/output error"])?;
    let found = hashes(&stage.out);
    std::fs::remove_dir_all(&stage.out).and_then(|()| std::fs::create_dir(&stage.out)).map_err(|e| e.to_string())?;
    stage.under(&[], &stage.out).ok()?;
    let expected = hashes(&stage.out);
    match found.as_slice() {
        [one] if expected.contains(one) => Ok(Completion::Completed),
        _ => Err(format!("{found:?} was left, of {expected:?}")),
    }
}

fn shell(script: &str) -> Run {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(binary()).arg(fixture("bard"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command)
}

fn closed_output() -> Result<Completion, String> {
    for script in ["\"$1\" list types | head -n 1", "\"$1\" list types >&-", "\"$1\" inspect \"$2\" --json | head -c 1"] {
        let run = shell(&format!("set -o pipefail; {script}"));
        if run.stderr.contains("panicked") || run.code.is_none() {
            return Err(run.describe(&format!("no panic from {script}")));
        }
    }
    Ok(Completion::Completed)
}

fn full_output() -> Result<Completion, String> {
    for script in ["\"$1\" list types > /dev/full", "\"$1\" inspect \"$2\" > /dev/full", "\"$1\" --help > /dev/full"] {
        let run = shell(script);
        if run.stderr.contains("panicked") || run.code == Some(0) || run.code.is_none() {
            return Err(run.describe(&format!("a failure without a panic from {script}")));
        }
    }
    Ok(Completion::Completed)
}

fn closed_errors() -> Result<Completion, String> {
    let out = scratch();
    let target = text(out.path())?.to_owned();
    let run = shell(&format!("\"$1\" convert \"$2\" --type Q8_0 --out '{target}' 2>&-"));
    match (run.code, outputs::ggufs(out.path()).len()) {
        (Some(0), 1) => Ok(Completion::Completed),
        (code, files) => Err(format!("without standard error it ended with {code:?} and {files} files")),
    }
}

fn two_processes() -> Result<Completion, String> {
    let stage = Stage::new(Writer::Convert)?;
    let start = || {
        let mut command = Command::new(binary());
        command.args(stage.args(&stage.out)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|e| e.to_string())
    };
    let (first, second) = (start()?, start()?);
    let ends = [first, second].map(|child| child.wait_with_output().map_err(|e| e.to_string()));
    let mut good = 0;
    for end in ends {
        let end = end?;
        let said = String::from_utf8_lossy(&end.stderr).into_owned();
        match end.status.code() {
            Some(0) => good += 1,
            Some(2) if said.contains("exists") || said.contains("another run is writing") => {}
            code => return Err(format!("ended with {code:?}: {said}")),
        }
    }
    let fresh = Stage::new(Writer::Convert)?;
    fresh.under(&[], &fresh.out).ok()?;
    if good == 0 || hashes(&stage.out) != hashes(&fresh.out) {
        return Err(format!("{good} of two succeeded and {:?} is there", hashes(&stage.out)));
    }
    Ok(Completion::Completed)
}

fn output_is_source() -> Result<Completion, String> {
    let stage = Stage::new(Writer::Quantize)?;
    let input = stage.input();
    let before = std::fs::read(&input).map_err(|e| e.to_string())?;
    let model = stage.folder.path().join("hf");
    std::fs::create_dir(&model).map_err(|e| e.to_string())?;
    for entry in std::fs::read_dir(fixture("bard")).map_err(|e| e.to_string())?.flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), model.join(entry.file_name())).map_err(|e| e.to_string())?;
        }
    }
    let weights = model.join("model.safetensors");
    let link = stage.folder.path().join("link.gguf");
    std::os::unix::fs::symlink(&input, &link).map_err(|e| e.to_string())?;
    for args in [
        vec!["quantize", text(&input)?, text(&input)?, "Q4_0", "--force"],
        vec!["quantize", text(&input)?, text(&link)?, "Q4_0", "--force"],
        vec!["convert", text(&model)?, "--type", "Q8_0", "--out", text(&weights)?, "--force"],
    ] {
        refused(&ggufsmith(&args), &[])?;
    }
    let whole = std::fs::read(&input).is_ok_and(|bytes| bytes == before)
        && std::fs::read(&weights).ok() == std::fs::read(fixture("bard/model.safetensors")).ok();
    if whole { Ok(Completion::Completed) } else { Err("a source was damaged".into()) }
}
