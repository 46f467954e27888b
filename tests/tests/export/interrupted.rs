//! Runs that are asked to stop, and how much memory they take.

use crate::{plain, text};
use ggufsmith_tests::binary::{command, finish_with_peak_memory, ggufsmith};
use ggufsmith_tests::random_model::Shape;
use ggufsmith_tests::{outputs, scratch};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    vec![
        #[cfg(unix)]
        plain("interrupted::ctrl_c_removes_everything", stopped),
        #[cfg(target_os = "linux")]
        plain("interrupted::memory_does_not_grow_with_the_model", memory),
    ]
}

/// A GGUF file of about so many bytes.
fn file(here: &Path, mebibytes: u64, file_type: &str) -> Result<PathBuf, String> {
    let (model, gguf) = (here.join("hf"), here.join(format!("{file_type}.gguf")));
    Shape::of_bytes(mebibytes << 20, 512, 2).write(&model).map_err(|e| e.to_string())?;
    ggufsmith(&["convert", text(&model)?, "--type", file_type, "--out", text(&gguf)?, "--quiet", "--no-manifest"]).ok()?;
    Ok(gguf)
}

#[cfg(unix)]
fn stopped() -> Result<(), String> {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let here = scratch();
    let gguf = file(here.path(), 256, "F32")?;
    let (mut stopped, mut attempts) = (0, 0);
    while stopped < 3 {
        let out = here.path().join("out");
        let mut command = command(&["export", text(&gguf)?, "--out", text(&out)?, "--threads", "1", "--quiet"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let patience = Instant::now() + Duration::from_secs(60);
        while !(out.is_dir() && outputs::names(&out).iter().any(|name| name.ends_with(".safetensors.partial"))) {
            if Instant::now() > patience || child.try_wait().map_err(|e| e.to_string())?.is_some() {
                return Err("no temporary file appears".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Fails where the run has ended already.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT);
        let status = child.wait().map_err(|e| e.to_string())?;
        attempts += 1;
        match status.code() {
            Some(130) if !out.exists() => stopped += 1,
            Some(130) => return Err(format!("{:?} was left", outputs::names(&out))),
            // It was too late to stop.
            Some(0) if attempts < 20 => std::fs::remove_dir_all(&out).map_err(|e| e.to_string())?,
            _ => return Err(format!("attempt {attempts} ended with {status}")),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn memory() -> Result<(), String> {
    let here = scratch();
    let gguf = file(here.path(), 256, "Q8_0")?;
    let out = here.path().join("out");
    let (run, peak) =
        finish_with_peak_memory(command(&["export", text(&gguf)?, "--out", text(&out)?, "--threads", "2", "--quiet"]));
    run.ok()?;
    if peak > 64 << 20 { Err(format!("{peak} bytes of memory at the peak")) } else { Ok(()) }
}
