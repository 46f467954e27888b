//! A server, and a user's home.

use ggufsmith_tests::binary::{self, Run};
use ggufsmith_tests::hub::{HubServer, Logged, Repo, Settings, sha256_hex};
use ggufsmith_tests::{fixture, scratch};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The model that all tests read.
pub const MODEL: &str = "org/bard";

pub struct Case {
    pub server: HubServer,
    pub home: TempDir,
    /// Given to the binary; none: it has no token.
    pub token: Option<String>,
    pub variables: Vec<(String, String)>,
}

impl Case {
    /// A server that has the embedded model.
    pub fn new() -> Case {
        Case::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Case {
        let server = HubServer::start(settings);
        server.add(Repo::of_folder(MODEL, &fixture("bard")));
        let token = Some(server.token().to_owned());
        Case { server, home: scratch(), token, variables: Vec::new() }
    }

    /// The binary, prepared.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = binary::command(args);
        command.current_dir(self.home.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HF_") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", self.server.endpoint()).env("HF_HOME", self.home.path().join("hf"));
        command.env("GGUFSMITH_RETRY_DELAY", "0.01").env("NO_PROXY", "127.0.0.1");
        if let Some(token) = &self.token {
            command.env("HF_TOKEN", token);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Run the binary; it never shows the token.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Run, String> {
        let run = binary::finish(self.command(args));
        let shown = self.token.as_ref().is_some_and(|token| run.stdout.contains(token) || run.stderr.contains(token));
        if shown { Err(run.describe("no token in what it says")) } else { Ok(run) }
    }

    /// Where outputs go.
    pub fn out(&self) -> PathBuf {
        self.home.path().join("out")
    }

    /// `convert MODEL` to Q8_0 into [`Case::out`].
    pub fn convert(&self, more: &[&str]) -> Result<Run, String> {
        let out = format!("{}/", self.out().display());
        std::fs::create_dir_all(&out).map_err(|e| e.to_string())?;
        let mut args = vec!["convert", MODEL, "--type", "Q8_0", "--out", &out, "--device", "cpu"];
        args.extend(more);
        self.run(&args)
    }

    /// The model's folder in the cache.
    pub fn cached(&self) -> PathBuf {
        self.home.path().join("hf/hub/models--org--bard")
    }

    /// The sha256 of the one GGUF file that was written.
    pub fn sha256(&self) -> Result<String, String> {
        let files = files(&self.out());
        let gguf: Vec<_> = files.iter().filter(|path| path.extension() == Some(OsStr::new("gguf"))).collect();
        match gguf.as_slice() {
            [one] => Ok(sha256_hex(&std::fs::read(one).map_err(|e| e.to_string())?)),
            _ => Err(format!("one GGUF file was expected: {files:?}")),
        }
    }

    /// Bytes of weights that the server sent.
    pub fn weights_sent(&self) -> u64 {
        self.log_of("model.safetensors").iter().map(|entry| entry.sent).sum()
    }

    pub fn log_of(&self, path: &str) -> Vec<Logged> {
        self.server.log().into_iter().filter(|entry| entry.path.contains(path)).collect()
    }
}

/// All files below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
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

/// What converting the same files gives from a directory called as the repository is.
pub fn expected(home: &Path) -> Result<String, String> {
    let folder = home.join("local/bard");
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    for entry in std::fs::read_dir(fixture("bard")).map_err(|e| e.to_string())?.flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).map_err(|e| e.to_string())?;
        }
    }
    let out = home.join("local/out.gguf");
    let run = binary::ggufsmith(&["convert", path(&folder), "--type", "Q8_0", "--out", path(&out), "--device", "cpu", "--force"]);
    run.ok()?;
    Ok(sha256_hex(&std::fs::read(out).map_err(|e| e.to_string())?))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("scratch folders have plain names")
}
