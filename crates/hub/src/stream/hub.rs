//! The weights of a repository as what a [`Stream`] reads.

use super::{Fetch, Stream, StreamFile};
use crate::error::{At, HubError};
use crate::http::{Client, Range, Request};
use crate::info::{Hash, Listing};
use std::io::{self, Read};
use std::time::Duration;

/// Fetches parts of a repository's files.
#[derive(Debug)]
pub struct HubFiles {
    client: Client,
    listing: Listing,
}

impl Stream {
    /// The weights of a repository, in the order of their names.
    ///
    /// # Errors
    /// [`HubError::Protocol`] for weights of which the Hub keeps no sha256.
    pub fn of_hub(client: Client, listing: Listing) -> Result<Stream, HubError> {
        let mut files = Vec::new();
        for entry in listing.weights() {
            let Hash::Sha256(sha256) = &entry.hash else {
                let at = At { request: format!("the file list of {}", listing.repo), id: None };
                let what = format!("{} is not stored as a large file, so the Hub keeps no sha256 of it: download it", entry.name);
                return Err(HubError::Protocol { at, what });
            };
            files.push(StreamFile { name: entry.name.to_string(), bytes: entry.size, sha256: sha256.clone() });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Stream::new(files, Box::new(HubFiles { client, listing })))
    }
}

impl HubFiles {
    fn request(&self, name: &str, range: &std::ops::Range<u64>) -> Result<Box<dyn Read + Send>, HubError> {
        let at = || At { request: format!("GET {name}"), id: None };
        let missing = || HubError::EntryNotFound { at: at() };
        let entry = self.listing.find(name).ok_or_else(missing)?;
        let url = self.client.file_url(&self.listing.repo, &self.listing.commit, &entry.name)?;
        match self.client.range(Request::get(url), range.start, Some(range.end))? {
            Range::Part { answer, .. } => Ok(Box::new(answer)),
            Range::Whole(answer) if range.start == 0 => Ok(Box::new(answer)),
            Range::Whole(_) | Range::Beyond => {
                let what =
                    format!("the server does not send bytes {} to {} alone: download the model instead", range.start, range.end);
                Err(HubError::Protocol { at: at(), what })
            }
        }
    }
}

impl Fetch for HubFiles {
    fn open(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        self.request(name, &range).map_err(io::Error::other)
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.client.settings().backoff.saturating_mul(1 << attempt.min(6))
    }
}
