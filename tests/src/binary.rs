//! Running the real binary.

use crate::root;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longer than any test lets the binary run; a hang fails instead of blocking the suite.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The folder of the build profile: `target/release`.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().expect("a program lies in a folder");
    // Tests lie in PROFILE/deps, programs of this package in PROFILE.
    if folder.ends_with("deps") { folder.parent().expect("deps lies in the profile's folder") } else { folder }.to_owned()
}

/// The binary under test: the one that `GGUFSMITH_BINARY` names (scripts/test has just built it), else that of the sources as they
/// are now. To build it alone cargo compiles many dependencies a second time, with fewer features than the tests' own.
///
/// # Panics
/// Where it is missing or does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("GGUFSMITH_BINARY") {
            let built = root().join(built);
            assert!(built.is_file(), "GGUFSMITH_BINARY names {}, which is no file", built.display());
            return built;
        }
        let profile = match target_dir().file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev".to_owned(),
            Some(name) => name.to_owned(),
        };
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--workspace", "--bin", "ggufsmith", "--message-format", "json-render-diagnostics"])
            .args(["--profile", &profile])
            .current_dir(root())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "the binary under test does not build");
        let executable = String::from_utf8_lossy(&output.stdout).lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message.get("executable")?.as_str()?))
        });
        executable.expect("cargo names the executable that it built")
    })
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The arguments, for messages.
    pub args: String,
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Run {
    fn new(args: String, output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { args, code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Standard output of a run that succeeded.
    ///
    /// # Errors
    /// What it said, where it failed.
    pub fn ok(&self) -> Result<&str, String> {
        if self.code == Some(0) { Ok(&self.stdout) } else { Err(self.describe("exit code 0")) }
    }

    /// Standard output of a run that succeeded, as JSON.
    ///
    /// # Errors
    /// Where the run failed, or its output is not one JSON value.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_str(self.ok()?).map_err(|e| self.describe(&format!("JSON on standard output ({e})")))
    }

    /// What happened instead of `expected`.
    pub fn describe(&self, expected: &str) -> String {
        let Run { args, code, stdout, stderr } = self;
        format!("ggufsmith {args}\nexpected {expected}, ended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A command for the binary, with a clean environment as far as it matters.
pub fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Run the binary to its end.
///
/// # Panics
/// Where it cannot be started, or takes longer than [`PATIENCE`].
pub fn ggufsmith<S: AsRef<OsStr>>(args: &[S]) -> Run {
    finish(command(args))
}

/// Run a prepared command to its end.
///
/// # Panics
/// As [`ggufsmith`].
pub fn finish(command: Command) -> Run {
    finish_within(command, PATIENCE)
}

/// Run a prepared command to its end.
///
/// # Panics
/// Where it cannot be started, or takes longer than `patience`; it is killed then.
pub fn finish_within(mut command: Command, patience: Duration) -> Run {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args = args.join(" ");
    let child = command.spawn().unwrap_or_else(|e| panic!("starting {:?}: {e}", command.get_program()));
    Run::new(args.clone(), wait(child, &args, patience))
}

/// Wait for the end of a process that was started, whose outputs are pipes; `args` are for messages.
///
/// # Panics
/// Where it takes longer than [`PATIENCE`].
pub fn wait_for(child: Child, args: &str) -> Run {
    Run::new(args.to_owned(), wait(child, args, PATIENCE))
}

fn wait(child: Child, args: &str, patience: Duration) -> Output {
    let process = Pid::from_child(&child);
    let (done, finished) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || done.send(child.wait_with_output()));
    match finished.recv_timeout(patience) {
        Ok(output) => {
            // The thread has sent its result and ends.
            let _ = reader.join();
            output.expect("a child can be waited for")
        }
        Err(_) => {
            // It may have ended this moment.
            let _ = kill_process(process, Signal::KILL);
            panic!("it still ran after {patience:?}: ggufsmith {args}")
        }
    }
}

/// Run `command` and return its largest resident set in bytes too: the kernel's high-water mark, sampled until the end.
///
/// # Panics
/// As [`ggufsmith`], and where the process ends before its first sample.
pub fn finish_with_peak_memory(mut command: Command) -> (Run, u64) {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args = args.join(" ");
    let child = command.spawn().expect("the binary starts");
    let status = format!("/proc/{}/status", child.id());
    let sampler = std::thread::spawn(move || {
        let mut peak = 0;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // A process that has ended has no such line, even before it was waited for.
            let Some(now) = std::fs::read_to_string(&status).ok().and_then(|text| high_water_mark(&text)) else { break };
            peak = peak.max(now);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let run = Run::new(args.clone(), wait(child, &args, PATIENCE));
    let peak = sampler.join().expect("the sampler does not panic");
    assert!(peak > 0, "no sample of the resident set: {run:?}");
    (run, peak)
}

fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
