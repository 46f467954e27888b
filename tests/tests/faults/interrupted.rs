//! Runs that are killed at random moments, and runs that are asked to stop.

use crate::plain;
use ggufsmith_tests::binary::command;
use ggufsmith_tests::outputs;
use ggufsmith_tests::random_model::{Shape, SplitMix};
use ggufsmith_tests::scratch;
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const TYPES: &str = "F32,Q8_0,Q4_0,Q5_1";
/// How often each kind of run is killed: 200 times in all.
const MOMENTS: [(Kind, u32); 3] = [(Kind::Types, 100), (Kind::Shards, 50), (Kind::Quantize, 50)];
const SEED: u64 = 0x6b_69_6c_6c;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("interrupted::killed_at_random_moments_leaves_only_complete_files", || killed(MOMENTS[0])),
        plain("interrupted::killed_while_it_writes_shards_leaves_only_complete_files", || killed(MOMENTS[1])),
        plain("interrupted::killed_while_it_quantizes_leaves_only_complete_files", || killed(MOMENTS[2])),
        plain("interrupted::an_incomplete_file_is_noticed", noticed),
        plain("interrupted::killed_as_files_appear_leaves_only_complete_files", killed_at_the_end),
        #[cfg(unix)]
        plain("interrupted::ctrl_c_removes_everything", || stopped(rustix::process::Signal::INT)),
        #[cfg(unix)]
        plain("interrupted::terminate_removes_everything", || stopped(rustix::process::Signal::TERM)),
        #[cfg(unix)]
        plain("interrupted::a_directory_of_codes_leaves_nothing", directory_stopped),
    ]
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Four files from one read.
    Types,
    /// One output in shards.
    Shards,
    /// From GGUF to GGUF.
    Quantize,
}

/// A model, a folder for its outputs, and what an undisturbed run makes of it.
struct Stage {
    _folder: tempfile::TempDir,
    kind: Kind,
    model: PathBuf,
    out: PathBuf,
    expected: BTreeMap<String, String>,
    duration: Duration,
}

impl Stage {
    fn new(kind: Kind, mebibytes: u64) -> Result<Self, String> {
        let folder = scratch();
        let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
        Shape::of_bytes(mebibytes << 20, 512, 2).write(&model).map_err(|e| e.to_string())?;
        std::fs::create_dir(&out).map_err(|e| e.to_string())?;
        if kind == Kind::Quantize {
            let (source, file) = (model.to_string_lossy(), folder.path().join("in.gguf"));
            let convert = ["convert", &source, "--type", "BF16", "--out", &file.to_string_lossy(), "--quiet", "--no-manifest"];
            ggufsmith_tests::binary::ggufsmith(&convert).ok()?;
        }
        let mut stage = Stage { _folder: folder, kind, model, out, expected: BTreeMap::new(), duration: Duration::ZERO };
        // The first run warms the caches.
        for _ in 0..2 {
            stage.clear()?;
            let start = Instant::now();
            stage.complete()?;
            stage.duration = start.elapsed();
        }
        stage.expected = outputs::hashes(&stage.out);
        let files = match kind {
            Kind::Types => TYPES.split(',').count()..=TYPES.split(',').count(),
            Kind::Shards => 3..=usize::MAX,
            Kind::Quantize => 1..=1,
        };
        if files.contains(&stage.expected.len()) { Ok(stage) } else { Err(format!("{:?}", stage.expected)) }
    }

    fn start(&self) -> Result<Child, String> {
        let (source, target) = (self.model.to_string_lossy(), self.out.to_string_lossy());
        let (input, output) = (self.model.with_file_name("in.gguf"), self.out.join("out.gguf"));
        let mut command = match self.kind {
            Kind::Types => command(&["convert", &source, "--out", &target, "--type", TYPES, "--quiet"]),
            Kind::Shards => {
                command(&["convert", &source, "--out", &target, "--type", "BF16", "--split-max-size", "8M", "--quiet"])
            }
            Kind::Quantize => command(&[
                "quantize",
                &input.to_string_lossy(),
                &output.to_string_lossy(),
                "Q4_K_M",
                "--device",
                "cpu",
                "--quiet",
            ]),
        };
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())
    }

    fn complete(&self) -> Result<(), String> {
        let status = self.start()?.wait().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("an undisturbed run ended with {status}")) }
    }

    fn clear(&self) -> Result<(), String> {
        for name in outputs::names(&self.out) {
            std::fs::remove_file(self.out.join(name)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Every file under a final name is complete; how many there are.
    fn check(&self) -> Result<usize, String> {
        let found = outputs::hashes(&self.out);
        for (name, sha256) in &found {
            if self.expected.get(name) != Some(sha256) {
                return Err(format!("{name} has sha256 {sha256}, expected {:?}", self.expected.get(name)));
            }
        }
        for name in outputs::names(&self.out).iter().filter(|name| !name.starts_with('.') && name.ends_with(".json")) {
            let text = std::fs::read(self.out.join(name)).map_err(|e| e.to_string())?;
            serde_json::from_slice::<serde_json::Value>(&text).map_err(|e| format!("{name} is incomplete: {e}"))?;
        }
        Ok(found.len())
    }

    /// What the last run left is no obstacle to the next one. Files under final names go first: they would need --force.
    fn run_again(&self) -> Result<(), String> {
        for name in outputs::names(&self.out).iter().filter(|name| !name.starts_with('.')) {
            std::fs::remove_file(self.out.join(name)).map_err(|e| e.to_string())?;
        }
        self.complete()?;
        if outputs::hashes(&self.out) != self.expected {
            return Err("a run after a killed one gave other bytes".to_owned());
        }
        match outputs::names(&self.out).into_iter().find(|name| name.starts_with('.')) {
            Some(name) => Err(format!("{name} is left after a complete run")),
            None => self.clear(),
        }
    }
}

fn kill(mut child: Child) -> Result<ExitStatus, String> {
    // Fails where it has ended already, which is one of the moments.
    let _ = child.kill();
    child.wait().map_err(|e| e.to_string())
}

fn killed((kind, moments): (Kind, u32)) -> Result<(), String> {
    let stage = Stage::new(kind, 48)?;
    let mut random = SplitMix(SEED);
    let (mut runs, mut killed, mut with_leftovers) = (0, 0, 0);
    while killed < moments {
        stage.clear()?;
        let fraction = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let child = stage.start()?;
        std::thread::sleep(stage.duration.mul_f64(fraction));
        let status = kill(child)?;
        runs += 1;
        killed += u32::from(!status.success());
        with_leftovers += u32::from(outputs::names(&stage.out).iter().any(|name| name.starts_with('.')));
        stage.check().map_err(|e| format!("moment {runs} ({fraction:.3} of the run): {e}"))?;
        if runs % 10 == 0 {
            stage.run_again().map_err(|e| format!("moment {runs}: {e}"))?;
        }
        if runs > 4 * moments {
            return Err(format!("of {runs} runs only {killed} were cut short"));
        }
    }
    // The test itself: it proves something only where files were being written.
    if with_leftovers < moments / 5 {
        return Err(format!("only {with_leftovers} of {killed} runs were killed while they were writing"));
    }
    Ok(())
}

/// The check itself: a file that lacks its end, or a manifest that does, must be reported.
fn noticed() -> Result<(), String> {
    let stage = Stage::new(Kind::Types, 4)?;
    stage.check()?;
    for ending in ["-Q4_0.gguf", "-Q4_0.gguf.manifest.json"] {
        let names = outputs::names(&stage.out);
        let name = names.iter().find(|name| name.ends_with(ending)).ok_or_else(|| format!("no {ending} in {names:?}"))?;
        let path = stage.out.join(name);
        let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
        std::fs::write(&path, &bytes[..bytes.len() - 4]).map_err(|e| e.to_string())?;
        match stage.check() {
            Err(e) if e.starts_with(name.as_str()) => {}
            other => return Err(format!("{name} lacks its end and the check says {other:?}")),
        }
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The narrow moment in which files get their names.
fn killed_at_the_end() -> Result<(), String> {
    let stage = Stage::new(Kind::Types, 8)?;
    for _ in 0..10 {
        let mut child = stage.start()?;
        let patience = Instant::now() + Duration::from_secs(60);
        while outputs::ggufs(&stage.out).is_empty() && child.try_wait().map_err(|e| e.to_string())?.is_none() {
            if Instant::now() > patience {
                return Err("no file appears".to_owned());
            }
        }
        kill(child)?;
        let complete = stage.check()?;
        if complete == 0 {
            return Err("a file had appeared and is gone".to_owned());
        }
        stage.run_again()?;
    }
    Ok(())
}

/// Ask a run to stop while it writes: exit code 130 and an empty folder.
#[cfg(unix)]
fn stopped(signal: rustix::process::Signal) -> Result<(), String> {
    let stage = Stage::new(Kind::Types, 192)?;
    let mut random = SplitMix(SEED);
    let (mut stopped, mut attempts) = (0, 0);
    while stopped < 5 {
        stage.clear()?;
        let mut child = stage.start()?;
        wait_for_temporary_file(&stage.out, &mut child)?;
        // Into the middle of the work.
        std::thread::sleep(stage.duration.mul_f64((random.next() % 20) as f64 / 100.0));
        // Fails where the run has ended already.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
        let asked = Instant::now();
        let status = child.wait().map_err(|e| e.to_string())?;
        attempts += 1;
        if asked.elapsed() > Duration::from_secs(10) {
            return Err(format!("it took {:?} to stop", asked.elapsed()));
        }
        let left = outputs::names(&stage.out);
        match status.code() {
            Some(130) if left.is_empty() => stopped += 1,
            // It was too late to stop: then everything is there.
            Some(0) if attempts < 25 && outputs::hashes(&stage.out) == stage.expected => {}
            _ => return Err(format!("attempt {attempts}: ended with {status}, {left:?} was left; {stopped} runs were stopped")),
        }
    }
    stage.run_again()
}

/// `--format safetensors`, asked to stop once, and twice at once.
#[cfg(unix)]
fn directory_stopped() -> Result<(), String> {
    let stage = Stage::new(Kind::Types, 192)?;
    let out = stage.out.join("codes");
    let (source, target) = (stage.model.to_string_lossy().into_owned(), out.to_string_lossy().into_owned());
    let arguments = ["convert", &source, "--type", "INT8_ABSMAX", "--format", "safetensors", "--out", &target, "--quiet"];
    let (mut stopped, mut attempts) = (0, 0);
    while stopped < 4 {
        // It may be there, empty or complete.
        let _ = std::fs::remove_dir_all(&out);
        stage.clear()?;
        let mut child = command(&arguments).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let found = wait_for_temporary_file(&out, &mut child);
        attempts += 1;
        let signals = 1 + attempts % 2;
        for _ in 0..signals {
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT);
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        let left = if out.exists() { outputs::names(&out) } else { Vec::new() };
        match status.code() {
            // The second signal does not wait, not even for a directory.
            Some(130) if left.is_empty() && (signals == 2 || !out.exists()) => stopped += 1,
            Some(0) if attempts < 25 && left.iter().all(|name| !name.starts_with('.')) => {}
            _ => return Err(format!("attempt {attempts} ({found:?}): ended with {status}, {left:?} was left")),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn wait_for_temporary_file(out: &Path, child: &mut Child) -> Result<(), String> {
    let patience = Instant::now() + Duration::from_secs(60);
    while Instant::now() < patience {
        if out.exists() && outputs::names(out).iter().any(|name| name.starts_with('.')) {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("the run ended with {status} before it could be stopped"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err("no temporary file appears".to_owned())
}
