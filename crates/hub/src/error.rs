//! What can go wrong between us and the Hub.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A request that something went wrong with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct At {
    /// `GET https://host/path`; never with a query, which of presigned addresses is a secret.
    pub request: String,
    /// What the server calls the request, for a report to its operators.
    pub id: Option<String>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.request)?;
        match &self.id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

/// The Hub could not be read from or written to. [`HubError::advice`] says what to do. No text holds a token.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HubError {
    #[error("{at}: the Hub shows this to nobody without a token: there is no such repository, or it is private or gated")]
    NoToken { at: At },
    #[error("{at}: the Hub does not know the token that was sent, or it may not do this: {message}")]
    BadToken { at: At, message: String },
    #[error("{at}: the token may not do this: {message}")]
    Forbidden { at: At, message: String },
    #[error("{repo} is gated: its authors give access on request")]
    Gated { repo: String, url: String, at: At },
    #[error("{at}: no such repository, or a private one that the token does not open")]
    RepoNotFound { at: At },
    #[error("{at}: the repository has no such revision")]
    RevisionNotFound { at: At },
    #[error("{at}: the repository has no such file at this revision")]
    EntryNotFound { at: At },
    #[error("{at}: somebody else changed the repository meanwhile, or it exists already ({status}): {message}")]
    Conflict { at: At, status: u16, message: String },
    #[error("{at}: more than the server takes (413): {message}")]
    TooLarge { at: At, message: String },
    #[error("{at}: too many requests (429){}", wait(retry_after))]
    RateLimited { at: At, retry_after: Option<Duration> },
    #[error("{at}: the server failed with status {status} ({attempts} attempts): {message}")]
    Server { at: At, status: u16, attempts: u32, retry_after: Option<Duration>, message: String },
    #[error("{at}: refused with status {status}: {message}")]
    Refused { at: At, status: u16, message: String },
    #[error("{at}: no connection ({attempts} attempts): {why}")]
    Unreachable { at: At, attempts: u32, why: String },
    #[error("{at}: the connection was cut after {got} bytes: {why}")]
    Cut { at: At, got: u64, why: String },
    #[error("{at}: the answer is {kind}, not JSON: {why}; it begins with {head:?}")]
    NotJson { at: At, kind: &'static str, why: String, head: String },
    #[error("{at}: {what}")]
    Protocol { at: At, what: String },
    #[error("{at}: redirected to {to}, {why}")]
    Redirect { at: At, to: String, why: &'static str },
    #[error("{file}: the Hub says that its {kind} is {expected}, what arrived has {got}")]
    BadHash { file: String, kind: &'static str, expected: String, got: String },
    #[error("{file}: the Hub says {expected} bytes, {got} arrived")]
    BadSize { file: String, expected: u64, got: u64 },
    #[error("{file} changed while it was read; nothing was published")]
    Changed { file: String },
    #[error("{what} {name:?} cannot be used: {why}")]
    BadName { what: &'static str, name: String, why: &'static str },
    #[error("{} has room for {have} bytes, {need} are needed", path.display())]
    NoSpace { need: u64, have: u64, path: PathBuf },
    #[error("{what} is not in the cache {}, and the Hub is not to be asked", cache.display())]
    Offline { what: String, cache: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("setting up the connection: {0}")]
    Setup(String),
    #[error("{repo} {what}")]
    NotAModel { repo: String, what: &'static str },
    #[error("interrupted")]
    Interrupted,
    /// Xet's own client failed; it `passes` where the same may succeed later.
    #[error("uploading by Xet: {why}")]
    Xet { passes: bool, why: String },
    /// A step failed whose details are not ours.
    #[error("{what}: {why}")]
    Client { what: String, why: String },
}

fn wait(retry_after: &Option<Duration>) -> String {
    retry_after.map(|after| format!("; it asks to wait {} s", after.as_secs())).unwrap_or_default()
}

impl HubError {
    /// What to do about it, where the error does not say so itself.
    pub fn advice(&self) -> Option<String> {
        let text = match self {
            HubError::NoToken { .. } => {
                "check the name; a private or gated repository wants a token: `hf auth login`, or set HF_TOKEN (https://huggingface.co/settings/tokens)"
            }
            HubError::BadToken { .. } => {
                "the token is wrong, expired or revoked: a login by the browser ends after a while, `hf auth whoami` renews it; otherwise make a new token at https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN"
            }
            HubError::Forbidden { at, .. } if at.request.starts_with("GET") || at.request.starts_with("HEAD") => {
                "the token may not read this: look at its permissions at https://huggingface.co/settings/tokens"
            }
            HubError::Forbidden { .. } => {
                "publishing wants a token with write access to this repository: https://huggingface.co/settings/tokens"
            }
            HubError::Gated { url, .. } => {
                return Some(format!(
                    "ask for access at {url}, then `hf auth login` or set HF_TOKEN with a token of that account"
                ));
            }
            HubError::RepoNotFound { .. } => "check the name; a private repository wants a token of an account that sees it",
            HubError::RevisionNotFound { .. } => "a revision is a branch, a tag or a commit: org/name@revision",
            HubError::Conflict { .. } => "look at the repository, then run the command again",
            HubError::RateLimited { .. } => "wait, or log in (`hf auth login`): the Hub allows more to those that it knows",
            HubError::Xet { passes: false, .. } => {
                "run the command again: what has arrived is kept; HF_HUB_DISABLE_XET=1 uploads without Xet"
            }
            HubError::Xet { .. } | HubError::Server { .. } | HubError::Unreachable { .. } | HubError::Cut { .. } => {
                "run the command again: what has arrived is kept"
            }
            HubError::NotJson { .. } => {
                "something between here and the Hub answers in its place: a proxy, a login page, or HF_ENDPOINT"
            }
            HubError::BadHash { .. } | HubError::BadSize { .. } => {
                "run the command again; if it stays, the repository or a proxy is broken"
            }
            HubError::NoSpace { .. } => "make room, or set HF_HUB_CACHE to a folder on a larger disk",
            HubError::Offline { .. } => "unset HF_HUB_OFFLINE",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the same request may succeed later, without anything changed here.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            HubError::RateLimited { .. }
                | HubError::Server { .. }
                | HubError::Unreachable { .. }
                | HubError::Cut { .. }
                | HubError::Xet { passes: true, .. }
        )
    }

    /// An error of the file system.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> HubError {
        let path = path.into();
        move |source| HubError::Io { path, source }
    }
}

/// Text of a server, short enough for one line and without characters that steer a terminal.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(limit).is_some() {
        short.push('…');
    }
    short.trim().to_owned()
}
