//! Large files into the Hub's storage.

use super::storage::{Answer, Order, Target};
use super::{Local, UploadWatch, Wish};
use crate::error::HubError;
use crate::http::{Client, Content, Repeat, Request};
use reqwest::Url;
use serde_json::json;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses that have expired are asked for anew, so often in a row without a part that arrived.
const FRESH_ADDRESSES: u32 = 3;
/// So many files are asked about at once: addresses expire.
const AT_ONCE: usize = 100;

/// What came of storing.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Bytes that were sent.
    pub sent: u64,
    /// Whether any file went by Xet.
    pub by_xet: bool,
}

impl Client {
    /// Every file into the storage that it does not have yet.
    pub(super) fn store(&self, wish: &Wish, files: &[&Local], watch: &Arc<dyn UploadWatch>) -> Result<Stored, HubError> {
        let mut one_each: Vec<&Local> = Vec::new();
        for file in files {
            if !one_each.iter().any(|known| known.sha256 == file.sha256) {
                one_each.push(file);
            }
        }
        let plain = &["basic", "multipart"][..];
        let transfers = if self.settings().disable_xet { plain } else { &["basic", "multipart", "xet"] };
        let mut stored = Stored::default();
        for batch in one_each.chunks(AT_ONCE) {
            let bytes: u64 = batch.iter().map(|file| file.size).sum();
            match self.batch(wish, batch, transfers)? {
                Answer::Plain(orders) => {
                    let there = batch.iter().zip(&orders).filter(|(_, order)| order.is_none()).map(|(file, _)| file.size).sum();
                    watch.begin(batch.len(), bytes, there);
                    for (file, order) in batch.iter().zip(orders) {
                        stored.sent += self.store_one(wish, file, order, watch)?;
                    }
                }
                Answer::Xet => {
                    watch.begin(batch.len(), bytes, 0);
                    stored.sent += self.store_by_xet(wish, batch, watch)?;
                    stored.by_xet = true;
                }
            }
        }
        Ok(stored)
    }

    /// One file. An order is good for a while only; once it is refused, the storage is asked for another, and parts that have
    /// arrived are not sent again as long as they are of the same upload.
    fn store_one(&self, wish: &Wish, file: &Local, order: Option<Order>, watch: &Arc<dyn UploadWatch>) -> Result<u64, HubError> {
        let (mut order, mut sent, mut fresh, mut tags) = (order, 0, 0, Vec::new());
        loop {
            let Some(now) = &order else { return Ok(sent) };
            let had = tags.len();
            match self.carry_out(file, now, &mut tags, &mut sent, watch) {
                Ok(()) => break,
                // 400 and 404 are what stores say of an upload that was given up.
                Err(
                    HubError::Forbidden { .. } | HubError::Refused { status: 400 | 404 | 410, .. } | HubError::BadToken { .. },
                ) if fresh < FRESH_ADDRESSES || tags.len() > had => {
                    fresh = if tags.len() > had { 1 } else { fresh + 1 };
                }
                Err(error) => return Err(error),
            }
            let Answer::Plain(mut orders) = self.batch(wish, &[file], &["basic", "multipart"])? else {
                return Err(HubError::Setup("plain storage was asked for".to_owned()));
            };
            let next = orders.pop().flatten();
            if !next.as_ref().is_some_and(|next| continues(now, next)) {
                tags.clear();
            }
            order = next;
        }
        if let Some(verify) = order.as_ref().and_then(|order| order.verify.as_ref()) {
            self.report(file, verify)?;
        }
        Ok(sent)
    }

    fn carry_out(
        &self,
        file: &Local,
        order: &Order,
        tags: &mut Vec<String>,
        sent: &mut u64,
        watch: &Arc<dyn UploadWatch>,
    ) -> Result<(), HubError> {
        match &order.target {
            Target::Whole(url, headers) => {
                self.send_bytes(url, headers, file, 0..file.size, watch)?;
                *sent += file.size;
                Ok(())
            }
            Target::Parts { done, bytes, parts } => {
                for (index, url) in parts.iter().enumerate().skip(tags.len()) {
                    let from = index as u64 * bytes;
                    let length = (*bytes).min(file.size - from);
                    let tag = self.send_bytes(url, &[], file, from..from + length, watch)?;
                    let missing =
                        || HubError::Protocol { at: Request::get(url.clone()).at(None), what: "a part got no ETag".to_owned() };
                    tags.push(tag.ok_or_else(missing)?);
                    *sent += length;
                }
                let list: Vec<_> =
                    tags.iter().enumerate().map(|(at, tag)| json!({ "partNumber": at + 1, "etag": tag })).collect();
                let body = Content::json(&json!({ "oid": file.sha256, "parts": list }))?;
                self.send(&Request::post(done.clone(), body).repeat(Repeat::Harmless)).map(drop)
            }
        }
    }

    /// A piece of a file; the tag that the storage gives it.
    fn send_bytes(
        &self,
        url: &Url,
        headers: &[(String, String)],
        file: &Local,
        piece: Range<u64>,
        watch: &Arc<dyn UploadWatch>,
    ) -> Result<Option<String>, HubError> {
        let (local, watch, reached) = (file.clone(), watch.clone(), Arc::new(AtomicU64::new(0)));
        let length = piece.end - piece.start;
        let open = move || {
            let reader = local.from(piece.start)?.take(length);
            Ok(Box::new(Watched { reader, at: 0, reached: reached.clone(), watch: watch.clone() }) as Box<dyn Read + Send>)
        };
        let mut request = Request::put(url.clone(), Content::Reader { length, open: Arc::new(open) });
        for (name, value) in headers {
            request = request.header(name, value)?;
        }
        Ok(self.send(&request)?.header("etag").map(str::to_owned))
    }
}

/// Whether parts of one order count for the other: the same upload, split in the same way.
fn continues(old: &Order, new: &Order) -> bool {
    let upload = |url: &Url| url.query_pairs().find(|(name, _)| name == "uploadId").map(|(_, id)| id.into_owned());
    match (&old.target, &new.target) {
        (Target::Parts { done: a, bytes: x, parts: p }, Target::Parts { done: b, bytes: y, parts: q }) => {
            let first = |parts: &[Url]| parts.first().map(|url| (url.path().to_owned(), upload(url)));
            x == y && p.len() == q.len() && a.path() == b.path() && first(p) == first(q)
        }
        _ => false,
    }
}

/// Tells what is read, of a second attempt only what goes beyond the first.
struct Watched<R> {
    reader: R,
    at: u64,
    reached: Arc<AtomicU64>,
    watch: Arc<dyn UploadWatch>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.at += read as u64;
        let before = self.reached.fetch_max(self.at, Ordering::Relaxed);
        self.watch.advance(self.at.saturating_sub(before));
        Ok(read)
    }
}
