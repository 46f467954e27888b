//! Parts of large files without the files: headers of weights, read by ranges as they are asked for and kept in memory.

use crate::error::{At, HubError};
use crate::http::{Client, Range, Request};
use crate::info::{Entry, Listing};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How much of a file's beginning is asked for at once: the header of most shards.
const FIRST: u64 = 256 << 10;

/// Reads parts of a repository's weights over the network.
#[derive(Debug)]
pub struct Heads {
    client: Client,
    listing: Listing,
    /// The beginnings that are known.
    known: Mutex<HashMap<String, Vec<u8>>>,
}

impl Heads {
    /// Nothing is asked for yet.
    pub fn new(client: Client, listing: Listing) -> Heads {
        Heads { client, listing, known: Mutex::default() }
    }

    /// Names of the files at the repository's root.
    pub fn names(&self) -> Vec<String> {
        let names = self.listing.files.iter().map(|entry| entry.name.to_string());
        names.filter(|name| !name.contains('/')).collect()
    }

    /// Length of a file; `None` where there is none of that name.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.listing.find(name).map(|entry| entry.size)
    }

    /// Fill `out` with the bytes of a file from `offset` on. What is asked for in a file's first quarter of a MiB brings all of it.
    ///
    /// # Errors
    /// [`HubError`] where the bytes cannot be had.
    pub fn read_exact_at(&self, name: &str, out: &mut [u8], offset: u64) -> Result<(), HubError> {
        let at = || At { request: format!("GET {name}"), id: None };
        let beyond = || HubError::Protocol { at: at(), what: format!("bytes beyond the end of {name} are asked for") };
        let entry = self.listing.find(name).ok_or_else(beyond)?;
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= entry.size).ok_or_else(beyond)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let head = known.entry(name.to_owned()).or_default();
        if end > head.len() as u64 {
            if offset > head.len() as u64 {
                out.copy_from_slice(&self.fetch(entry, offset, end)?);
                return Ok(());
            }
            let from = head.len() as u64;
            head.extend(self.fetch(entry, from, end.max(FIRST).min(entry.size))?);
        }
        out.copy_from_slice(&head[offset as usize..end as usize]);
        Ok(())
    }

    fn fetch(&self, entry: &Entry, from: u64, to: u64) -> Result<Vec<u8>, HubError> {
        let url = self.client.file_url(&self.listing.repo, &self.listing.commit, &entry.name)?;
        let request = Request::get(url);
        let mut cut = 0;
        loop {
            let read = match self.client.range(request.clone(), from, Some(to))? {
                Range::Part { mut answer, length, .. } if length == to - from => answer.whole(length),
                Range::Whole(mut answer) if from == 0 && entry.size == to => answer.whole(to),
                _ => {
                    let what = format!("the server does not send bytes {from} to {to} alone");
                    return Err(HubError::Protocol { at: request.at(None), what });
                }
            };
            match read {
                Ok(bytes) if bytes.len() as u64 == to - from => return Ok(bytes),
                Ok(bytes) => {
                    let (file, got) = (entry.name.to_string(), bytes.len() as u64);
                    return Err(HubError::BadSize { file, expected: to - from, got });
                }
                Err(error) if error.is_transient() && cut + 1 < self.client.settings().attempts => {
                    cut += 1;
                    self.client.wait(self.client.backoff(cut, &error))?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Hash;
    use crate::testing::{Server, reply};
    use std::path::Path;

    #[test]
    fn headers_come_alone() {
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i / 7) as u8).collect();
        let body = data.clone();
        let server = Server::start(move |asked, _| {
            let (from, last) = asked.headers["range"].strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let (from, end) = (from.parse::<usize>().unwrap(), last.parse::<usize>().unwrap() + 1);
            reply(206, &[("Content-Range", &format!("bytes {from}-{last}/1000000"))], &body[from..end])
        });
        let entry = Entry { name: "model.safetensors".parse().unwrap(), size: 1_000_000, hash: Hash::Sha256("a".repeat(64)) };
        let listing = Listing { repo: "a/b".parse().unwrap(), commit: "c".repeat(40), files: vec![entry] };
        let heads = Heads::new(server.client(Path::new("/")), listing);
        for (offset, len) in [(0, 8), (8, 1000), (200_000, 200_000), (999_990, 10)] {
            let mut out = vec![0; len];
            heads.read_exact_at("model.safetensors", &mut out, offset as u64).unwrap();
            assert_eq!(out, data[offset..offset + len]);
        }
        let ranges: Vec<_> = server.asked().iter().map(|asked| asked.headers["range"].clone()).collect();
        assert_eq!(ranges, ["bytes=0-262143", "bytes=262144-399999", "bytes=999990-999999"]);
        assert!(heads.read_exact_at("model.safetensors", &mut [0; 8], 999_999).is_err());
        assert!(heads.read_exact_at("other", &mut [0; 8], 0).is_err());
    }

    #[test]
    fn a_server_without_ranges_is_not_asked_for_everything() {
        let server = Server::start(|_, _| reply(200, &[], vec![0; 1000]));
        let entry = Entry { name: "model.safetensors".parse().unwrap(), size: 1 << 40, hash: Hash::Sha256("a".repeat(64)) };
        let listing = Listing { repo: "a/b".parse().unwrap(), commit: "c".repeat(40), files: vec![entry] };
        let heads = Heads::new(server.client(Path::new("/")), listing);
        assert!(matches!(heads.read_exact_at("model.safetensors", &mut [0; 8], 0), Err(HubError::Protocol { .. })));
    }
}
