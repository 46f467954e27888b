//! What is asked, and what is sent along.

use crate::error::{At, HubError};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// Makes a body anew for every attempt.
pub(super) type Open = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// What a request carries.
#[derive(Clone)]
pub enum Content {
    /// Nothing.
    None,
    /// Bytes of a media type.
    Bytes(&'static str, Vec<u8>),
    /// `length` bytes of a reader, opened anew for every attempt.
    Reader {
        /// Exactly so many.
        length: u64,
        /// Its error ends the request.
        open: Open,
    },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::None => f.write_str("None"),
            Content::Bytes(media, bytes) => write!(f, "Bytes({media}, {})", bytes.len()),
            Content::Reader { length, .. } => write!(f, "Reader({length})"),
        }
    }
}

impl Content {
    /// A value as JSON.
    ///
    /// # Errors
    /// [`HubError::Protocol`] for what JSON cannot say.
    pub fn json(value: &impl serde::Serialize) -> Result<Content, HubError> {
        let bytes = serde_json::to_vec(value);
        let bytes = bytes.map_err(|e| HubError::Protocol { at: At::default(), what: format!("writing JSON: {e}") })?;
        Ok(Content::Bytes("application/json", bytes))
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Content::None => 0,
            Content::Bytes(_, bytes) => bytes.len() as u64,
            Content::Reader { length, .. } => *length,
        }
    }
}

/// What a second attempt would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The same as the first: repeated after every fault that may pass.
    Harmless,
    /// Something a second time if the first was carried out and its answer lost: repeated only where the server did not see it, or
    /// said so (429).
    Harmful,
}

/// A request, made with [`Request::get`] and its like.
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) content: Content,
    pub(super) repeat: Repeat,
    pub(super) stay: bool,
    pub(super) accepted: Vec<u16>,
}

impl Request {
    fn new(method: Method, url: Url) -> Request {
        let (headers, accepted) = (Vec::new(), Vec::new());
        Request { method, url, headers, content: Content::None, repeat: Repeat::Harmless, stay: false, accepted }
    }

    /// Read.
    pub fn get(url: Url) -> Request {
        Request::new(Method::GET, url)
    }

    /// Read the headers alone.
    pub fn head(url: Url) -> Request {
        Request::new(Method::HEAD, url)
    }

    /// Send something that is not to be sent twice, unless [`Request::repeat`] says otherwise.
    pub fn post(url: Url, content: Content) -> Request {
        Request { content, repeat: Repeat::Harmful, ..Request::new(Method::POST, url) }
    }

    /// Store something.
    pub fn put(url: Url, content: Content) -> Request {
        Request { content, ..Request::new(Method::PUT, url) }
    }

    /// Remove something.
    pub fn delete(url: Url, content: Content) -> Request {
        Request { content, repeat: Repeat::Harmful, ..Request::new(Method::DELETE, url) }
    }

    /// With one more header.
    ///
    /// # Errors
    /// [`HubError::Protocol`] where name or value cannot be one.
    pub fn header(mut self, name: &str, value: &str) -> Result<Request, HubError> {
        let bad = || HubError::Protocol { at: self.at(None), what: format!("{name:?} and its value cannot be a header") };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        self.headers.push((name, value));
        Ok(self)
    }

    /// What a second attempt would do.
    pub fn repeat(self, repeat: Repeat) -> Request {
        Request { repeat, ..self }
    }

    /// Do not follow a redirect to another host: its headers are the answer.
    pub fn stay(self) -> Request {
        Request { stay: true, ..self }
    }

    /// Statuses of refusal that are an answer to this request.
    pub fn accept(mut self, statuses: &[u16]) -> Request {
        self.accepted.extend(statuses);
        self
    }

    pub(crate) fn at(&self, id: Option<String>) -> At {
        At { request: format!("{} {}", self.method, shown(&self.url)), id }
    }
}

/// An address without its query (of presigned addresses a secret) and without user and password.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Fails only for addresses that can have no user at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Scheme, host and port: what a token is given to.
pub fn origin(url: &Url) -> (String, String, Option<u16>) {
    (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}
