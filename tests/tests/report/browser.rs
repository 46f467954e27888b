//! A page in a real browser: headless Chromium, driven by its command line alone.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a page takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The browser, where one is installed under its usual names.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

/// What a reader prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
}

/// What was found in a page.
#[derive(Debug)]
pub struct Seen {
    /// What `probe.js` found, see there.
    pub probe: Value,
    /// The console's messages.
    pub console: Vec<String>,
}

/// Show `page` as it is in a frame of `width` CSS pixels (a window cannot be as narrow as a telephone) and look at it from outside.
pub fn look(page: &str, width: u32, theme: Theme, folder: &Path) -> Result<Seen, String> {
    let source = page.replace('&', "&amp;").replace('"', "&quot;");
    let scheme = if theme == Theme::Dark { "dark" } else { "light" };
    let host = format!(
        "<!DOCTYPE html><html style=\"color-scheme: {scheme}\"><meta charset=\"utf-8\"><title>host</title><body style=\"margin:0\">\
         <iframe style=\"border:0;color-scheme:{scheme}\" width=\"{width}\" height=\"900\" srcdoc=\"{source}\"></iframe>\
         <pre id=\"probe\"></pre><script>{}</script></body></html>",
        include_str!("probe.js")
    );
    let file = folder.join("host.html");
    std::fs::write(&file, host).map_err(|e| e.to_string())?;
    let dark = if theme == Theme::Dark { 0 } else { 1 };
    let (stdout, stderr) = run(&file, folder, &["--dump-dom", &format!("--blink-settings=preferredColorScheme={dark}")])?;
    let probe = stdout.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let probe = probe.filter(|text| !text.is_empty()).ok_or_else(|| format!("the probe did not run\n{stderr}"))?;
    let probe = serde_json::from_str(probe).map_err(|e| format!("{e}: {probe}"))?;
    let console = stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Ok(Seen { probe, console })
}

/// Standard output and standard error of a run.
fn run(file: &Path, folder: &Path, args: &[&str]) -> Result<(String, String), String> {
    let browser = chromium().ok_or("there is no Chromium")?;
    let profile = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
    // Output goes to files: the browser's own children may keep a pipe open after its end.
    let (out, err) = (folder.join("stdout"), folder.join("stderr"));
    let create = |path: &Path| std::fs::File::create(path).map_err(|e| e.to_string());
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--window-size=1400,1000"])
        .args(["--enable-logging=stderr", "--v=0", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(args)
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .stdout(create(&out)?)
        .stderr(create(&err)?)
        .spawn()
        .map_err(|e| e.to_string())?;
    let start = Instant::now();
    let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => return Ok((read(&out), read(&err))),
            Some(status) => return Err(format!("Chromium ended with {status}\n{}", read(&err))),
            None if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("Chromium still ran after {PATIENCE:?}\n{}", read(&err)));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
