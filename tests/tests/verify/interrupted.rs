//! Signals, and memory.

use libtest_mimic::Trial;

#[cfg(not(target_os = "linux"))]
pub fn trials() -> Vec<Trial> {
    Vec::new()
}

#[cfg(target_os = "linux")]
pub use linux::trials;

#[cfg(target_os = "linux")]
mod linux {
    use super::Trial;
    use crate::{bard, convert, demand, plain, report, text};
    use ggufsmith_tests::binary::{command, finish_with_peak_memory, ggufsmith};
    use ggufsmith_tests::random_model::{Shape, SplitMix};
    use ggufsmith_tests::{fixture, outputs, scratch};
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader, Read};
    use std::path::Path;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    pub fn trials() -> Vec<Trial> {
        vec![
            plain("interrupted::generate", generate),
            plain("interrupted::verify_and_perplexity", verify),
            plain("interrupted::killed_runs_leave_no_partial_report", killed),
            plain("interrupted::memory_stays_within_bounds", memory),
        ]
    }

    /// Send SIGINT; exit code 130 soon after.
    fn stop(mut child: Child) -> Result<(), String> {
        kill_process(Pid::from_child(&child), Signal::INT).map_err(|e| format!("it had ended already: {e}"))?;
        let asked = Instant::now();
        let status = child.wait().map_err(|e| e.to_string())?;
        demand(status.code() == Some(130), || format!("ended with {status}"))?;
        demand(asked.elapsed() < Duration::from_secs(20), || format!("it took {:?} to stop", asked.elapsed()))
    }

    fn generate() -> Result<(), String> {
        let model = bard("BF16")?;
        let args = ["generate", text(&model)?, "ROMEO. What light", "-n", "100000", "-c", "100000", "--temp", "1", "--quiet"];
        let mut child = command(&args).spawn().map_err(|e| e.to_string())?;
        // Text comes as it is made.
        let mut out = child.stdout.take().ok_or("no standard output")?;
        out.read_exact(&mut [0; 8]).map_err(|e| e.to_string())?;
        let rest = std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
        stop(child)?;
        rest.join().map_err(|_| "the reader panicked")?.map(|_| ()).map_err(|e| e.to_string())
    }

    fn verify() -> Result<(), String> {
        let (folder, model, source) = (scratch(), bard("Q4_0")?, fixture("bard"));
        let saved = folder.path().join("l.bin");
        let endless = ["--n-ctx", "2048", "--save-logits", text(&saved)?];
        let verify =
            ["verify", text(&model)?, "--against", text(&source)?, "--chunks", "0", "--report-dir", text(folder.path())?];
        for args in [&verify[..], &["perplexity", text(&source)?]] {
            let mut command = command(&[args, &endless].concat());
            let mut child = command.stdout(Stdio::null()).spawn().map_err(|e| e.to_string())?;
            // Its first word about the forward pass, or for a run that says nothing yet its file.
            let patience = Instant::now() + Duration::from_secs(60);
            while !outputs::names(folder.path()).iter().any(|name| name.starts_with(".l.bin")) {
                if Instant::now() > patience || child.try_wait().map_err(|e| e.to_string())?.is_some() {
                    return Err("no temporary file appears".to_owned());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut stderr = BufReader::new(child.stderr.take().ok_or("no standard error")?);
            stop(child)?;
            let mut said = Vec::new();
            stderr.read_to_end(&mut said).map_err(|e| e.to_string())?;
            let last = said.lines().map_while(Result::ok).last().unwrap_or_default();
            demand(last.contains("interrupted"), || format!("its last words are {last:?}"))?;
            demand(outputs::names(folder.path()).is_empty(), || format!("{:?} were left", outputs::names(folder.path())))?;
        }
        Ok(())
    }

    /// Reports under their final names are whole, whenever the run dies.
    fn killed() -> Result<(), String> {
        let (folder, model, source) = (scratch(), bard("Q4_0")?, fixture("bard"));
        let args =
            ["verify", text(&model)?, "--against", text(&source)?, "--chunks", "1", "--n-ctx", "256", "--no-latency", "--quiet"];
        let args = [&args[..], &["--report-dir", text(folder.path())?]].concat();
        let started = Instant::now();
        ggufsmith(&args).ok()?;
        let (duration, complete) = (started.elapsed(), outputs::names(folder.path()));
        let mut random = SplitMix(0x6b_69_6c_6c);
        let mut cut_short = 0;
        for moment in 0..20 {
            for name in outputs::names(folder.path()) {
                std::fs::remove_file(folder.path().join(name)).map_err(|e| e.to_string())?;
            }
            let mut child = command(&args).spawn().map_err(|e| e.to_string())?;
            // The later part: reports are written at the end.
            let fraction = 0.5 + (random.next() % 60) as f64 / 100.0;
            std::thread::sleep(duration.mul_f64(fraction));
            let _ = child.kill();
            child.wait().map_err(|e| e.to_string())?;
            let left: Vec<_> = outputs::names(folder.path()).into_iter().filter(|name| !name.starts_with('.')).collect();
            cut_short += u32::from(left != complete);
            for name in &left {
                whole(&folder.path().join(name)).map_err(|e| format!("moment {moment}: {name}: {e}"))?;
            }
        }
        demand(cut_short > 0, || "no run was cut short".to_owned())
    }

    fn whole(path: &Path) -> Result<(), String> {
        let content = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let fine = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => serde_json::from_str::<serde_json::Value>(&content).is_ok(),
            Some("html") => content.trim_end().ends_with("</html>"),
            Some("md") => content.ends_with('\n') && content.len() > 200,
            _ => false,
        };
        demand(fine, || format!("incomplete: {} bytes", content.len()))
    }

    /// A model of 570 MB, its file of 289 MB, checked in much less.
    fn memory() -> Result<(), String> {
        let here = scratch();
        let source = here.path().join("hf");
        Shape::of_bytes(600 << 20, 2048, 2).write(&source).map_err(|e| e.to_string())?;
        convert(&source, here.path(), "Q8_0")?;
        let file = outputs::of_type(here.path(), "Q8_0")?;
        let eval = fixture("bard/eval.txt");
        let args =
            ["verify", text(&file)?, "--against", text(&source)?, "--text", text(&eval)?, "--chunks", "1", "--n-ctx", "64"];
        let (run, peak) = finish_with_peak_memory(command(
            &[&args[..], &["--memory", "100M", "--threads", "2", "--no-report", "--quiet", "--json", "--no-latency"]].concat(),
        ));
        let report = report(&run, 0)?;
        demand(report["faithful"] == true, || format!("{}", report["verdict"]))?;
        demand(peak < 150_000_000, || format!("{peak} bytes of memory at the peak"))
    }
}
