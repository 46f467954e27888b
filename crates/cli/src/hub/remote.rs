//! The Hub, asked.

use super::environment::{self, Environment};
use super::{Located, Need};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::{output, units};
use ggufsmith_checkpoint::{RemoteShard, RemoteShards};
use ggufsmith_hub::stream::{Stream, StreamFile};
use ggufsmith_hub::{Cancel, Client, Entry, Heads, HubError, Listing, RepoId, Revision, Watch};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Waits that are shorter than this are not worth a line.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// A client as the environment wants it, which Ctrl-C stops; whether progress may be shown.
///
/// # Errors
/// [`Failure`]: the environment says something impossible.
pub fn client(interrupt: &Interrupt, quiet: bool) -> Result<(Client, bool), Failure> {
    let Environment { settings, no_progress } = environment::read()?;
    let flag = interrupt.clone();
    let client = Client::new(settings, Cancel::new(move || flag.flag().load(Ordering::Relaxed))).map_err(failure)?;
    let client = client.with_notice(move |error, wait| {
        if !quiet && wait >= WORTH_TELLING {
            output::note(&format!("{error}; trying again in {}", units::duration(wait)));
        }
    });
    Ok((client, !quiet && !no_progress))
}

/// An error of the Hub, with what to do about it.
pub fn failure(error: HubError) -> Failure {
    if matches!(error, HubError::Interrupted) {
        return Failure::Interrupted;
    }
    let advice = error.advice();
    let failure = Failure::from(error);
    match advice {
        Some(advice) => failure.hint(advice),
        None => failure,
    }
}

/// A model of the Hub.
pub(super) fn fetch(id: &str, revision: Option<&str>, need: Need, quiet: bool) -> Result<Located, Failure> {
    let repo: RepoId = id.parse().map_err(failure)?;
    let revision: Revision = revision.map_or_else(|| Ok(Revision::main()), str::parse).map_err(failure)?;
    let (client, shows) = client(&Interrupt::listen()?, quiet)?;
    if client.settings().offline {
        let snapshot = client.cached(&repo, &revision).map_err(failure)?;
        return Ok(Located { path: snapshot.directory, remote: None });
    }
    let listing = match client.listing(&repo, &revision) {
        Ok(listing) => listing,
        Err(error) => return cached_instead(&client, &repo, &revision, error),
    };
    listing.check().map_err(failure)?;
    let watch = Shown::new(&listing, shows, quiet);
    if need == Need::FirstLook && client.has_begun(&listing, listing.weights()) {
        return Ok(Located { path: PathBuf::new(), remote: None });
    }
    let elsewhere = need != Need::Weights;
    if elsewhere && !client.has_all(&listing, listing.weights()) {
        let small: Vec<&Entry> = listing.small().collect();
        let snapshot = client.download(&listing, &small, &revision, &watch);
        watch.end(snapshot.as_ref().map_or(0, |snapshot| snapshot.received));
        let path = snapshot.map_err(failure)?.directory;
        if !quiet {
            let bytes = listing.weights().map(|entry| entry.size).sum();
            let (files, bytes) = (units::plural(listing.weights().count(), "file"), units::bytes(bytes));
            let read = if need != Need::Stream { "of which the headers are read" } else { "read once and not stored" };
            output::note(&format!("{}: {files} of weights, {bytes}, {read}", label(&listing)));
        }
        let remote: Arc<dyn RemoteShards> = match need {
            Need::Stream => Arc::new(Streamed(Stream::of_hub(client, listing).map_err(failure)?)),
            _ => Arc::new(Headers(Heads::new(client, listing))),
        };
        return Ok(Located { path, remote: Some(remote) });
    }
    let files: Vec<&Entry> = listing.small().chain(listing.weights()).collect();
    let snapshot = client.download(&listing, &files, &revision, &watch);
    watch.end(snapshot.as_ref().map_or(0, |snapshot| snapshot.received));
    Ok(Located { path: snapshot.map_err(failure)?.directory, remote: None })
}

/// Without a network, what was downloaded before serves as well.
fn cached_instead(client: &Client, repo: &RepoId, revision: &Revision, error: HubError) -> Result<Located, Failure> {
    match (&error, client.cached(repo, revision)) {
        (HubError::Unreachable { .. }, Ok(snapshot)) => {
            output::warning(&format!(
                "{error}; {repo}@{revision} is taken from the cache as it was ({})",
                short(&snapshot.commit)
            ));
            Ok(Located { path: snapshot.directory, remote: None })
        }
        (HubError::NoToken { .. } | HubError::RepoNotFound { .. }, _) => {
            let advice = error.advice().unwrap_or_default();
            Err(Failure::from(error).hint(format!("there is no directory {repo} here, either; {advice}")))
        }
        _ => Err(failure(error)),
    }
}

/// The first digits of a commit's name.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn label(listing: &Listing) -> String {
    format!("{}@{}", listing.repo, short(&listing.commit))
}

/// Shows a download.
struct Shown {
    label: String,
    shows: bool,
    quiet: bool,
    started: Instant,
    progress: OnceLock<Progress>,
}

impl Shown {
    fn new(listing: &Listing, shows: bool, quiet: bool) -> Self {
        Shown { label: label(listing), shows, quiet, started: Instant::now(), progress: OnceLock::new() }
    }

    /// Remove the bar and tell what came over the network.
    fn end(&self, received: u64) {
        let Some(progress) = self.progress.get() else { return };
        let _ = progress.end();
        if !self.quiet && received > 0 {
            let elapsed = self.started.elapsed();
            let rate = units::rate(received, elapsed);
            output::note(&format!(
                "{}: {} downloaded in {}, {rate}",
                self.label,
                units::bytes(received),
                units::duration(elapsed)
            ));
        }
    }
}

impl Watch for Shown {
    fn begin(&self, files: usize, bytes: u64) {
        if !self.quiet {
            output::note(&format!("{}: downloading {}, {}", self.label, units::plural(files, "file"), units::bytes(bytes)));
        }
        // It begins once.
        let _ = self.progress.set(Progress::new(bytes, !self.shows));
    }

    fn advance(&self, bytes: u64) {
        if let Some(progress) = self.progress.get() {
            progress.add(bytes);
        }
    }

    fn waiting(&self, file: &str) {
        if !self.quiet {
            output::note(&format!("{file}: another process downloads it; waiting"));
        }
    }
}

/// Headers of weights that were not downloaded.
#[derive(Debug)]
struct Headers(Heads);

impl RemoteShards for Headers {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.0.bytes(name)
    }

    fn read_exact_at(&self, name: &str, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(name, out, offset).map_err(io::Error::other)
    }

    fn finish(&self, names: &[&str]) -> io::Result<Vec<RemoteShard>> {
        // Nobody asks: what reads headers alone converts nothing.
        Err(io::Error::other(format!("{} were not read to their end", names.join(", "))))
    }
}

/// Weights that are hashed as they pass.
#[derive(Debug)]
struct Streamed(Stream);

impl RemoteShards for Streamed {
    fn names(&self) -> Vec<String> {
        self.0.files().iter().map(|file| file.name.clone()).collect()
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.0.files().iter().find(|file| file.name == name).map(|file| file.bytes)
    }

    fn read_exact_at(&self, name: &str, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(name, out, offset)
    }

    fn begin(&self) {
        self.0.begin();
    }

    fn finish(&self, _: &[&str]) -> io::Result<Vec<RemoteShard>> {
        let shard = |file: StreamFile| RemoteShard { name: file.name, bytes: file.bytes, sha256: file.sha256 };
        Ok(self.0.finish()?.into_iter().map(shard).collect())
    }
}
