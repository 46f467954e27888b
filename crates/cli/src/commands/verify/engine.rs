//! llama.cpp's own measurement: `llama-perplexity --kl-divergence` against the source's log-probabilities.

use super::Run;
use crate::failure::Failure;
use crate::output;
use ggufsmith_verify::report::Engine;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The file of log-probabilities.
pub enum Saved {
    /// The user wants it.
    Kept(PathBuf),
    /// It goes when the run ends.
    Temporary(PathBuf),
}

impl Saved {
    /// A file in `directory`, which is created, or else in the system's folder for temporary files.
    pub fn temporary(directory: Option<&Path>) -> Result<Self, Failure> {
        let directory = match directory {
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .map_err(|e| io::Error::new(e.kind(), format!("--report-dir {}: {e}", directory.display())))?;
                directory.to_owned()
            }
            None => std::env::temp_dir(),
        };
        Ok(Saved::Temporary(directory.join(format!("ggufsmith-{}.logits", std::process::id()))))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Saved::Kept(path) | Saved::Temporary(path) => path,
        }
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Saved::Temporary(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Let `binary` measure a file.
pub fn measure(binary: &Path, file: &Path, logits: &Path, n_ctx: u32, run: &Run<'_>) -> Result<Engine, Failure> {
    let refuse = |what: &str| Failure::new(format!("--llama-perplexity {}: {what}", binary.display()));
    let version = output_of(Command::new(binary).arg("--version"), run).map_err(|e| refuse(&e.to_string()))?;
    let version = version.lines().find(|line| line.starts_with("version")).unwrap_or("version unknown");
    if !run.quiet {
        output::note(&format!("llama-perplexity measures {}", file.display()));
    }
    let mut command = Command::new(binary);
    command.arg("-m").arg(file).arg("--kl-divergence").arg("--kl-divergence-base").arg(logits);
    command.args(["-c", &n_ctx.to_string(), "-t", &run.threads.to_string(), "-ngl", "0"]);
    let text = output_of(&mut command, run);
    let text = text.map_err(|error| if run.interrupt.check().is_err() { Failure::Interrupted } else { refuse(&error.to_string()) })?;
    parse(&text, version.trim_start_matches("version:").trim())
        .ok_or_else(|| refuse(&format!("its output has no figures; it ends with: {}", tail(&text))))
}

/// Everything that a program prints.
fn output_of(command: &mut Command, run: &Run<'_>) -> io::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let reader = |pipe: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut pipe) = pipe {
                // What was read before an error still says why.
                let _ = pipe.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if run.interrupt.check().is_err() {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = [out, err].map(|thread| thread.join().unwrap_or_default()).concat();
    if status.success() { Ok(text) } else { Err(io::Error::other(format!("it failed ({status}): {}", tail(&text)))) }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// The figures of its last block, each behind its name and a colon.
fn parse(text: &str, version: &str) -> Option<Engine> {
    let figure = |name: &str| {
        let line = text.lines().rev().find(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(name))?;
        line.split_once(':')?.1.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Engine {
        version: version.to_owned(),
        perplexity: figure("Mean PPL(Q) :")?,
        kld_mean: figure("Mean KLD:")?,
        kld_max: figure("Maximum KLD:")?,
        same_top1: figure("Same top p:")? / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block that llama.cpp 0.5.0 prints.
    const OUTPUT: &str = "
====== Perplexity statistics ======
Mean PPL(Q)                   :  31.240913 ±   2.085111
Mean PPL(base)                :  25.314929 ±   1.723847
Cor(ln(PPL(Q)), ln(PPL(base))):  97.21%

====== KL divergence statistics ======
Mean    KLD:   0.291456 ±   0.006021
Maximum KLD:   3.537020
99.9%   KLD:   2.914300

====== Token probability statistics ======
Mean    Δp: -2.733 ± 0.231 %
Same top p: 68.824 ± 1.026 %
";

    #[test]
    fn figures_are_read() {
        let engine = parse(OUTPUT, "5").unwrap();
        assert_eq!((engine.perplexity, engine.kld_mean, engine.kld_max), (31.240913, 0.291456, 3.53702));
        assert!((engine.same_top1 - 0.68824).abs() < 1e-12);
        assert!(parse("no figures", "5").is_none() && parse(&OUTPUT.replace("Maximum", "M"), "5").is_none());
    }
}
