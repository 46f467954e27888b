//! What may go wrong.

use super::message::{Reply, Request};
use super::{Shared, refusal};

/// Requests that something happens to.
#[derive(Debug, Clone)]
pub struct Fault {
    /// `GET` and the like; empty: any.
    pub method: String,
    /// What the path contains.
    pub path: String,
    /// How many such requests are let through first.
    pub after: usize,
    /// How many something happens to then.
    pub times: usize,
    /// What happens.
    pub action: Action,
}

impl Fault {
    /// One that happens to the first such request.
    pub fn new(method: &str, path: &str, action: Action) -> Fault {
        Fault { method: method.to_owned(), path: path.to_owned(), after: 0, times: 1, action }
    }

    /// One that happens always.
    pub fn always(self) -> Fault {
        Fault { times: usize::MAX, ..self }
    }

    /// Not to the first `after` ones.
    pub fn after(self, after: usize) -> Fault {
        Fault { after, ..self }
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// The connection ends without an answer.
    Cut,
    /// The connection ends after so many bytes of the answer's body.
    CutAfter(u64),
    /// It is carried out, and the answer never arrives.
    AnswerLost,
    /// Another status, with headers.
    Status(u16, Vec<(String, String)>),
    /// A page instead of JSON.
    Html,
    /// JSON that ends early.
    TruncatedJson,
    /// Other bytes than it has.
    ChangedBytes,
    /// An `ETag` that is not that of the file.
    WrongEtag,
    /// A part that begins elsewhere.
    WrongContentRange,
    /// Everything where a part was asked for.
    IgnoreRange,
    /// A file of that name in lists.
    EvilName(String),
    /// Sent on to there.
    RedirectTo(String),
    /// A commit that says it was made and was not.
    CommitForgotten,
}

impl Action {
    /// A status without headers.
    pub fn status(status: u16) -> Action {
        Action::Status(status, Vec::new())
    }
}

/// What happens to this request, if anything.
pub(super) fn take(shared: &Shared, request: &Request<'_, '_>) -> Option<Action> {
    let mut state = shared.lock();
    for fault in &mut state.faults {
        if (fault.method.is_empty() || fault.method == request.method) && request.path.contains(&fault.path) && fault.times > 0 {
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= 1;
            return Some(fault.action.clone());
        }
    }
    None
}

/// The answer in place of the right one.
pub(super) fn instead(action: Option<&Action>) -> Option<Reply> {
    match action? {
        Action::Status(status, headers) => {
            let code = if *status == 403 { "Forbidden" } else { "Injected" };
            let reply = refusal(*status, code, "injected");
            Some(headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value)))
        }
        Action::Html => Some(
            Reply::new(200, b"<!doctype html><title>Log in to the network</title>".to_vec()).with("Content-Type", "text/html"),
        ),
        Action::TruncatedJson => Some(Reply::new(200, b"{\"sha\": \"0123".to_vec()).with("Content-Type", "application/json")),
        Action::RedirectTo(url) => Some(Reply::new(302, Vec::new()).with("Location", url)),
        _ => None,
    }
}

/// After how many bytes of the body the connection is cut.
pub(super) fn limit(action: Option<&Action>) -> Option<u64> {
    match action {
        Some(Action::CutAfter(bytes)) => Some(*bytes),
        _ => None,
    }
}
