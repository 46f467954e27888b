//! Input that is broken or made to do harm, one defect each: what the binary makes of it, in little memory and little time.

mod gguf;
mod handcrafted;
mod imatrix;
mod metadata;
mod paths;
mod safetensors;
mod source;
mod tokenizer;

use ggufsmith_tests::binary::{Run, binary, finish_within};
use ggufsmith_tests::outputs;
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Address space in KiB, and seconds of processor time, that a run may take at most.
const LIMITS: &str = "ulimit -v 4194304 && ulimit -t 10 && exec \"$0\" \"$@\"";
/// How long a run may take that does nothing, such as one that waits for a FIFO; on a busy machine 10 seconds of work take longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is to be made of a file.
enum Verdict {
    /// Exit code 0.
    Good,
    /// Exit code 2, with all these words in the message.
    Bad(Vec<String>),
}

/// The words of a refusal.
fn bad<S: AsRef<str>>(words: &[S]) -> Verdict {
    Verdict::Bad(words.iter().map(|word| word.as_ref().to_owned()).collect())
}

/// Run the binary to its end with 4 GiB of address space and 10 seconds of processor time.
fn limited(args: &[&str]) -> Run {
    let mut command = Command::new("sh");
    command.args(["-c", LIMITS]).arg(binary()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish_within(command, PATIENCE)
}

/// Whether a run ended as it should: in its own words, not by a panic, a signal or an allocation that failed.
fn judge(run: &Run, verdict: &Verdict) -> Result<(), String> {
    let code = match verdict {
        Verdict::Good => 0,
        Verdict::Bad(_) => 2,
    };
    if run.code != Some(code) || run.stderr.contains("panicked") {
        return Err(run.describe(&format!("exit code {code}")));
    }
    let Verdict::Bad(words) = verdict else { return Ok(()) };
    if !run.stdout.is_empty() || run.stderr.lines().filter(|line| line.starts_with("error: ")).count() != 1 {
        return Err(run.describe("nothing on standard output and one error"));
    }
    match words.iter().find(|word| !run.stderr.contains(word.as_str())) {
        Some(word) => Err(run.describe(&format!("a message with {word:?}"))),
        None => Ok(()),
    }
}

/// `inspect` on a file of these bytes, whose name a refusal must have.
fn inspect(name: &str, bytes: &[u8], verdict: &Verdict) -> Result<(), String> {
    let folder = ggufsmith_tests::scratch();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
    let run = limited(&["inspect", text(&path)?]);
    judge(&run, verdict)?;
    if matches!(verdict, Verdict::Bad(_)) && !run.stderr.contains(name) {
        return Err(run.describe("the file's name"));
    }
    demand(outputs::names(folder.path()) == [name], || format!("{:?} are there", outputs::names(folder.path())))
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{path:?} is not UTF-8"))
}

fn demand(truth: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if truth { Ok(()) } else { Err(what()) }
}

fn trial(name: String, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

/// The limits themselves: without them no test here would mean much.
fn limits_hold() -> Result<(), String> {
    let run =
        |script: &str| Command::new("sh").args(["-c", &script.replace("exec \"$0\" \"$@\"", "ulimit -v && ulimit -t")]).output();
    let shown = run(LIMITS).map_err(|e| e.to_string())?;
    demand(shown.stdout == b"4194304\n10\n", || format!("{shown:?}"))
}

/// The verdicts themselves: a wrong one must be noticed.
fn wrong_verdicts_are_noticed() -> Result<(), String> {
    use ggufsmith_tests::bytes::RawFile;
    let (good, broken) = (RawFile::head(0, 0).0, RawFile::versioned(9, 0, 0).0);
    inspect("file.gguf", &good, &Verdict::Good)?;
    inspect("file.gguf", &broken, &bad(&["byte 4: GGUF version 9"]))?;
    for (bytes, wrong) in [
        (&good, bad(&["GGUF"])),
        (&broken, Verdict::Good),
        (&broken, bad(&["byte 4: GGUF version 8"])),
        (&broken, bad(&["GGUF version 9", "byte 5"])),
    ] {
        demand(inspect("file.gguf", bytes, &wrong).is_err(), || "a wrong verdict passes".to_owned())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut trials = vec![
        trial("limits_hold".to_owned(), limits_hold),
        trial("wrong_verdicts_are_noticed".to_owned(), wrong_verdicts_are_noticed),
    ];
    trials.extend(gguf::trials());
    trials.extend(handcrafted::trials());
    trials.extend(imatrix::trials());
    trials.extend(metadata::trials());
    trials.extend(paths::trials());
    trials.extend(safetensors::trials());
    trials.extend(source::trials());
    trials.extend(tokenizer::trials());
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    // What is static is not dropped.
    if let Some(Ok(folder)) = metadata::CONVERTED.get() {
        let _ = std::fs::remove_dir_all(folder.path());
    }
    code
}
