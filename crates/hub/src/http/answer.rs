//! What a server answers, read piece by piece.

use super::Request;
use crate::error::{At, HubError, printable};
use crate::settings::Cancel;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeOwned;
use std::io::{self, Read};

/// JSON of more bytes is not read.
const JSON_BYTES: u64 = 64 << 20;
/// A list page takes less.
const PIECE: usize = 64 << 10;

/// Status, headers and, to be read, the body.
#[derive(Debug)]
pub struct Answer {
    at: At,
    status: u16,
    headers: HeaderMap,
    body: reqwest::blocking::Response,
    got: u64,
    cancel: Cancel,
}

impl Answer {
    pub(super) fn new(body: reqwest::blocking::Response, request: &Request, cancel: Cancel) -> Answer {
        let headers = body.headers().clone();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text("x-request-id").or(text("x-amz-cf-id")).map(|id| printable(id, 100));
        Answer { at: request.at(id), status: body.status().as_u16(), headers, body, got: 0, cancel }
    }

    /// What it answers.
    pub fn at(&self) -> &At {
        &self.at
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next bytes of the body into `out`; 0 at its end.
    ///
    /// # Errors
    /// [`HubError::Cut`] where the connection ended before the body did, [`HubError::Interrupted`].
    pub fn read_some(&mut self, out: &mut [u8]) -> Result<usize, HubError> {
        if self.cancel.asked() {
            return Err(HubError::Interrupted);
        }
        let read = self.body.read(out).map_err(|error| {
            let why = match error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>()) {
                Some(inner) => super::words::causes(inner),
                None => error.to_string(),
            };
            HubError::Cut { at: self.at.clone(), got: self.got, why }
        })?;
        self.got += read as u64;
        Ok(read)
    }

    /// The whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`HubError::Protocol`] where there is more, and those of [`Answer::read_some`].
    pub fn whole(&mut self, limit: u64) -> Result<Vec<u8>, HubError> {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let read = self.read_some(&mut piece)?;
            if read == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece[..read]);
            if bytes.len() as u64 > limit {
                return Err(HubError::Protocol { at: self.at.clone(), what: format!("an answer of more than {limit} bytes") });
            }
        }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`HubError::NotJson`] where it is something else, and those of [`Answer::whole`].
    pub fn json<T: DeserializeOwned>(mut self) -> Result<T, HubError> {
        let html = self.header(CONTENT_TYPE.as_str()).is_some_and(|media| media.contains("html"));
        let bytes = self.whole(JSON_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
            let kind = match html || head.trim_start().starts_with('<') {
                true => "HTML",
                false if error.is_eof() => "cut off",
                false if error.is_data() => "other JSON than expected",
                false => "text",
            };
            HubError::NotJson { at: self.at.clone(), kind, why: error.to_string(), head: printable(&head, 80) }
        })
    }
}

impl Read for Answer {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.read_some(out).map_err(io::Error::other)
    }
}

/// A body to send that ends with an error once the user wants to stop.
pub(super) struct Cancelled {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) cancel: Cancel,
}

impl Read for Cancelled {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.asked() {
            return Err(io::Error::other("interrupted"));
        }
        self.reader.read(out)
    }
}
