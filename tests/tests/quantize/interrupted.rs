//! Runs that are asked to stop, and how much memory they take.

use crate::{convert, plain};
use ggufsmith_tests::random_model::Shape;
use ggufsmith_tests::{binary, outputs, scratch};
use libtest_mimic::Trial;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        #[cfg(unix)]
        plain("interrupted::ctrl_c_removes_everything", stopped),
        #[cfg(target_os = "linux")]
        plain("interrupted::memory_does_not_grow_with_the_model", memory),
    ]
}

/// A GGUF file of about so many mebibytes.
fn file(here: &Path, mebibytes: u64, file_type: &str) -> Result<(), String> {
    let model = here.join("hf");
    Shape::of_bytes(mebibytes << 20, 512, 2).write(&model).map_err(|e| e.to_string())?;
    convert(&model, here, file_type, "in.gguf", &[])?;
    std::fs::remove_dir_all(&model).map_err(|e| e.to_string())
}

#[cfg(unix)]
fn stopped() -> Result<(), String> {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let here = scratch();
    file(here.path(), 96, "BF16")?;
    let (mut stopped, mut attempts) = (0, 0);
    while stopped < 3 {
        let mut command = binary::command(&["quantize", "in.gguf", "out.gguf", "IQ4_NL", "1", "--quiet"]);
        command.current_dir(here.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let patience = Instant::now() + Duration::from_secs(60);
        while !here.path().join(".out.gguf.partial").exists() {
            if Instant::now() > patience || child.try_wait().map_err(|e| e.to_string())?.is_some() {
                return Err("no temporary file appears".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Fails where the run has ended already.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT);
        let status = child.wait().map_err(|e| e.to_string())?;
        attempts += 1;
        let names = outputs::names(here.path());
        match status.code() {
            Some(130) if names == ["in.gguf"] => stopped += 1,
            // It was too late to stop.
            Some(0) if attempts < 20 => {
                for name in names.iter().filter(|name| *name != "in.gguf") {
                    std::fs::remove_file(here.path().join(name)).map_err(|e| e.to_string())?;
                }
            }
            _ => return Err(format!("attempt {attempts} ended with {status} and left {names:?}")),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn memory() -> Result<(), String> {
    let peak = |mebibytes| {
        let here = scratch();
        file(here.path(), mebibytes, "Q8_0")?;
        let args = ["quantize", "in.gguf", "out.gguf", "Q4_0", "2", "--allow-requantize", "--quiet", "--device", "cpu"];
        let mut command = binary::command(&args);
        command.current_dir(here.path());
        let (run, peak) = binary::finish_with_peak_memory(command);
        run.ok()?;
        Ok::<_, String>(peak)
    };
    let (small, large) = (peak(64)?, peak(256)?);
    let allowed = small + (16 << 20);
    if large <= allowed { Ok(()) } else { Err(format!("{small} bytes for 64 MiB, {large} for 256 MiB")) }
}
