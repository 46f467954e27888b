//! The one commit.

use super::{Local, State, Wish, base64};
use crate::error::{At, HubError};
use crate::http::{Client, Content, Repeat, Request};
use crate::names::{Revision, is_hex};
use serde::Deserialize;
use serde_json::json;

/// Somebody else was faster so often: enough.
const REBASES: u32 = 3;

/// The answer to a commit, and what is made of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    commit_oid: Option<String>,
    commit_url: Option<String>,
    pull_request_url: Option<String>,
}

/// A commit that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub commit: String,
    pub url: String,
}

impl Client {
    /// Commit files whose large ones are in the storage. Repeated only where that cannot make a second commit.
    pub(super) fn commit(
        &self,
        wish: &Wish,
        user: &str,
        files: &[&Local],
        large: &[&Local],
        before: &State,
    ) -> Result<Made, HubError> {
        let (mut parent, mut made, mut rebases) = (before.commit.clone(), 0, 0);
        loop {
            let error = match self.commit_once(wish, files, large, &parent) {
                Ok(said) => return self.made(wish, said),
                Err(error) => error,
            };
            made += 1;
            match &error {
                HubError::Conflict { .. } if !wish.create_pr => {}
                // It may have been carried out, and only its answer was lost.
                HubError::Cut { .. } | HubError::Server { .. } | HubError::NotJson { .. } if !wish.create_pr => {}
                HubError::Cut { .. } | HubError::NotJson { .. } | HubError::Server { .. } => {
                    if let Some(there) = self.proposed(wish, user, files)? {
                        return Ok(Made { commit: there.commit, url: there.url });
                    }
                    return Err(HubError::Client {
                        what: format!("proposing the commit to {}", wish.repo),
                        why: format!("{error}; the pull request is not there, yet: run the command again, it looks for it first"),
                    });
                }
                _ => return Err(error),
            }
            let now = self.state(&wish.repo, &wish.revision)?;
            let Some(now) = now else { return Err(error) };
            if files.iter().all(|file| now.has(file)) {
                let url = format!("{}/{}/commit/{}", self.settings().endpoint.trim_end_matches('/'), wish.repo, now.commit);
                return Ok(Made { commit: now.commit, url });
            }
            if now.commit != parent {
                // Somebody else's commit: fine, unless it is about the same files.
                let touched = files.iter().find(|file| before.find(file.name.as_str()) != now.find(file.name.as_str()));
                rebases += 1;
                if let (Some(_), _) | (None, REBASES..) = (touched, rebases) {
                    let what =
                        touched.map_or_else(|| "it changes all the time".to_owned(), |file| format!("{} changed", file.name));
                    let at = At { request: format!("the commit to {}", wish.repo), id: None };
                    return Err(HubError::Conflict { at, status: 412, message: what });
                }
                parent = now.commit;
                continue;
            }
            if !error.is_transient() || made >= self.settings().attempts {
                return Err(error);
            }
            let wait = self.backoff(made, &error);
            if wait > self.settings().patience {
                return Err(error);
            }
            self.wait(wait)?;
        }
    }

    fn commit_once(&self, wish: &Wish, files: &[&Local], large: &[&Local], parent: &str) -> Result<Said, HubError> {
        let mut body = Vec::new();
        let mut line = |value: serde_json::Value| {
            body.extend_from_slice(value.to_string().as_bytes());
            body.push(b'\n');
        };
        line(json!({ "key": "header", "value": { "summary": wish.summary, "description": "", "parentCommit": parent } }));
        for file in files {
            let value = if large.iter().any(|known| known.name == file.name) {
                json!({ "key": "lfsFile", "value": {
                    "path": file.name.as_str(), "algo": "sha256", "oid": file.sha256, "size": file.size
                } })
            } else {
                let content = base64::encode(&file.whole()?);
                json!({ "key": "file", "value": { "path": file.name.as_str(), "content": content, "encoding": "base64" } })
            };
            line(value);
        }
        for name in &wish.removed {
            line(json!({ "key": "deletedFile", "value": { "path": name.as_str() } }));
        }
        let url = self.url(&format!("/api/models/{}/commit/{}{}", wish.repo, wish.revision.segment(), wish.query()))?;
        self.json(&Request::post(url, Content::Bytes("application/x-ndjson", body)).repeat(Repeat::Harmful))
    }

    fn made(&self, wish: &Wish, said: Said) -> Result<Made, HubError> {
        let endpoint = self.settings().endpoint.trim_end_matches('/');
        // What the server names is shown to the user: it has to lead to the Hub.
        let ours =
            |url: Option<String>| url.filter(|url| url.starts_with(&format!("{endpoint}/")) && !url.contains(char::is_control));
        let commit = match said.commit_oid.filter(|commit| commit.len() == 40 && is_hex(commit)) {
            Some(commit) => commit,
            None => self.commit_of(&wish.repo, &wish.revision)?,
        };
        let pull = ours(said.pull_request_url).filter(|_| wish.create_pr);
        let url = pull.or_else(|| ours(said.commit_url)).unwrap_or_else(|| format!("{endpoint}/{}/commit/{commit}", wish.repo));
        Ok(Made { commit, url })
    }
}

impl Wish {
    /// A wish for the default branch.
    pub fn new(repo: crate::RepoId, summary: &str) -> Wish {
        Wish {
            repo,
            revision: Revision::main(),
            private: false,
            new_branch: false,
            create_pr: false,
            removed: Vec::new(),
            summary: summary.to_owned(),
        }
    }

    /// What every step says of a pull request: without it, it asks for the right to write.
    pub(super) fn query(&self) -> &'static str {
        if self.create_pr { "?create_pr=1" } else { "" }
    }
}
