//! Two processes that read one model at the same time and write different files.

use crate::plain;
use ggufsmith_tests::binary::{PATIENCE, command, ggufsmith};
use ggufsmith_tests::random_model::Shape;
use ggufsmith_tests::{outputs, scratch};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What the first and the second process write.
const TYPES: [&str; 2] = ["Q8_0,Q4_0,F32", "BF16,Q4_K_M"];

pub fn trials() -> Vec<Trial> {
    vec![
        plain("concurrent::two_at_once_in_two_folders", || at_once(["one", "two"])),
        plain("concurrent::two_at_once_in_one_folder", || at_once(["both", "both"])),
        #[cfg(unix)]
        plain("concurrent::one_runs_to_its_end_while_the_other_is_halfway", halfway),
    ]
}

/// A model of 100 MB in two shards, and what undisturbed runs make of it.
struct Stage {
    folder: tempfile::TempDir,
    model: String,
    expected: [BTreeMap<String, String>; 2],
}

impl Stage {
    fn new() -> Result<Self, String> {
        let folder = scratch();
        let path = folder.path().join("hf");
        Shape::of_bytes(100 << 20, 1024, 2).write(&path).map_err(|e| e.to_string())?;
        let mut stage = Stage { model: path.to_string_lossy().into_owned(), folder, expected: Default::default() };
        for (number, types) in TYPES.iter().enumerate() {
            let out = stage.place(&format!("alone-{number}"))?;
            ggufsmith(&stage.args(types, &out)).ok()?;
            stage.expected[number] = outputs::hashes(&out);
            if stage.expected[number].len() != types.split(',').count() {
                return Err(format!("{types}: {:?}", stage.expected[number]));
            }
        }
        Ok(stage)
    }

    /// An empty folder.
    fn place(&self, name: &str) -> Result<PathBuf, String> {
        let out = self.folder.path().join(name);
        match std::fs::remove_dir_all(&out) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.to_string()),
            _ => {}
        }
        std::fs::create_dir(&out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn args(&self, types: &str, out: &Path) -> Vec<String> {
        let out = out.to_string_lossy();
        ["convert", &self.model, "--out", &out, "--type", types, "--threads", "2"].map(str::to_owned).to_vec()
    }

    fn start(&self, number: usize, out: &Path) -> Result<Running, String> {
        let mut command = command(&self.args(TYPES[number], out));
        command.arg("--quiet").stdout(Stdio::null());
        Ok(Running(command.spawn().map_err(|e| e.to_string())?))
    }

    /// The folder holds the GGUF files of these processes with the right bytes, their manifests, and nothing else.
    fn check(&self, out: &Path, numbers: &[usize]) -> Result<(), String> {
        let expected: BTreeMap<_, _> = numbers.iter().flat_map(|&number| self.expected[number].clone()).collect();
        let (found, names) = (outputs::hashes(out), outputs::names(out));
        if found != expected {
            return Err(format!("{}:\n{found:?}\nis not\n{expected:?}", out.display()));
        }
        let strays = names.iter().filter(|name| !expected.contains_key(name.trim_end_matches(".manifest.json")));
        match strays.collect::<Vec<_>>() {
            strays if strays.is_empty() => Ok(()),
            strays => Err(format!("{}: {strays:?} beside the outputs", out.display())),
        }
    }
}

/// A process that ends with the test, whatever becomes of that.
struct Running(Child);

impl Running {
    /// Wait for its success.
    fn finish(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.0.try_wait().map_err(|e| e.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let mut said = String::new();
                    self.0.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
                    return Err(format!("a process ended with {status}: {said}"));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(format!("process {} still runs after {PATIENCE:?}", self.0.id()))
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) -> Result<(), String> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).map_err(|e| e.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, except where the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_once(folders: [&str; 2]) -> Result<(), String> {
    let stage = Stage::new()?;
    let shared = folders[0] == folders[1];
    let first = stage.place(folders[0])?;
    let second = if shared { first.clone() } else { stage.place(folders[1])? };
    let (mut one, mut two) = (stage.start(0, &first)?, stage.start(1, &second)?);
    one.finish()?;
    two.finish()?;
    if shared {
        return stage.check(&first, &[0, 1]);
    }
    stage.check(&first, &[0])?;
    stage.check(&second, &[1])?;
    // The check itself: what the other process writes, and a file too many.
    std::fs::write(second.join("stray"), "").map_err(|e| e.to_string())?;
    let passed = [stage.check(&first, &[1]), stage.check(&first, &[0, 1]), stage.check(&second, &[1])].map(|check| check.is_ok());
    if passed == [false; 3] { Ok(()) } else { Err(format!("wrong folders pass: {passed:?}")) }
}

/// However the system schedules them: the first process is held after it has begun to write, the second one runs from its start to
/// its end, then the first goes on.
#[cfg(unix)]
fn halfway() -> Result<(), String> {
    use rustix::process::Signal;
    let stage = Stage::new()?;
    // A process that was too fast to be held proves nothing.
    for _ in 0..20 {
        let (first, second) = (stage.place("held")?, stage.place("through")?);
        let mut held = stage.start(0, &first)?;
        let start = Instant::now();
        while outputs::names(&first).is_empty() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        held.signal(Signal::STOP)?;
        stage.start(1, &second)?.finish()?;
        let halfway = !outputs::names(&first).is_empty() && outputs::ggufs(&first).is_empty();
        held.signal(Signal::CONT)?;
        held.finish()?;
        stage.check(&first, &[0])?;
        stage.check(&second, &[1])?;
        if halfway {
            return Ok(());
        }
    }
    Err("20 processes were through, or had not begun, before they could be held".to_owned())
}
