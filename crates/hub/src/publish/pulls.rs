//! Pull requests that are open: what was proposed once is not proposed again.

use super::{Local, State, Wish};
use crate::error::HubError;
use crate::http::{Client, Request};
use crate::names::Revision;
use serde::Deserialize;

/// Of so many pages of pull requests each is looked at.
const PAGES: u64 = 20;

/// An open pull request that holds all files of a wish.
#[derive(Debug)]
pub(super) struct Proposed {
    /// Its newest commit.
    pub commit: String,
    /// Its page.
    pub url: String,
}

#[derive(Deserialize)]
struct Page {
    discussions: Vec<Discussion>,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    start: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discussion {
    num: u64,
    status: String,
    is_pull_request: bool,
}

impl Client {
    /// The open pull request of `user` that holds all these files.
    pub(super) fn proposed(&self, wish: &Wish, user: &str, files: &[&Local]) -> Result<Option<Proposed>, HubError> {
        for number in self.open_pulls(wish, user)? {
            let revision: Revision = format!("refs/pr/{number}").parse()?;
            let state = match self.commit_of(&wish.repo, &revision) {
                Ok(commit) => State { files: self.every_file(&wish.repo, &commit)?, commit, private: None },
                // Closed and tidied up meanwhile.
                Err(HubError::RevisionNotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            if files.iter().all(|file| state.has(file)) {
                let endpoint = self.settings().endpoint.trim_end_matches('/');
                let url = format!("{endpoint}/{}/discussions/{number}", wish.repo);
                return Ok(Some(Proposed { commit: state.commit, url }));
            }
        }
        Ok(None)
    }

    /// Their numbers.
    fn open_pulls(&self, wish: &Wish, user: &str) -> Result<Vec<u64>, HubError> {
        let mut numbers = Vec::new();
        for page in 0..PAGES {
            let mut url = self.url(&format!("/api/models/{}/discussions", wish.repo))?;
            let page = page.to_string();
            url.query_pairs_mut().extend_pairs([("type", "pull_request"), ("status", "open"), ("author", user), ("p", &page)]);
            let found: Page = match self.json(&Request::get(url)) {
                Ok(found) => found,
                // A Hub without a community tab, or a repository whose owner closed it.
                Err(HubError::EntryNotFound { .. } | HubError::Forbidden { .. } | HubError::Refused { status: 404, .. }) => break,
                Err(error) => return Err(error),
            };
            let seen = found.start + found.discussions.len() as u64;
            let (none, all) = (found.discussions.is_empty(), seen >= found.count);
            numbers.extend(found.discussions.iter().filter(|d| d.is_pull_request && d.status == "open").map(|d| d.num));
            if none || all {
                break;
            }
        }
        Ok(numbers)
    }
}
