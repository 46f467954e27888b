//! Requests to the Hub and to the stores that it sends us to: repeated where that may help, never with the token on its way to
//! another host.
//!
//! Redirects are followed here and not by reqwest, whose rules for the `Authorization` header and for `https` to `http` are not ours
//! to choose; retries are made here since hf-hub repeats neither a body that was cut nor waits as long as `Retry-After` says.

mod answer;
mod refusal;

pub use answer::Answer;

use crate::error::{At, HubError, printable};
use crate::settings::{Cancel, Settings};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LINK, LOCATION, RANGE,
};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More is no chain of redirects but a circle.
const REDIRECTS: usize = 10;
/// A list of more pages is no list.
const PAGES: usize = 10_000;
/// An upload that is slower than this many bytes a second is stuck.
const SLOWEST_UPLOAD: u64 = 32 << 10;
/// How often a wait looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Makes a body anew for every attempt.
type Open = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

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

    fn length(&self) -> u64 {
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
    method: Method,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
    repeat: Repeat,
    stay: bool,
    accepted: Vec<u16>,
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
fn shown(url: &Url) -> String {
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

/// The answer to a request for a part.
#[derive(Debug)]
pub enum Range {
    /// Status 206 with a `Content-Range` that is what was asked for, or its beginning.
    Part {
        /// The part's bytes.
        answer: Answer,
        /// How many they are.
        length: u64,
        /// The size of the whole, where the server says it.
        total: Option<u64>,
    },
    /// The server knows no ranges: everything, from the first byte on.
    Whole(Answer),
    /// Status 416: it begins where nothing is any more.
    Beyond,
}

/// Told of a fault and of the wait before the next attempt.
type Notice = Arc<dyn Fn(&HubError, Duration) + Send + Sync>;

/// A client of one Hub. Cheap to clone; usable from any thread that is not one of an asynchronous runtime.
#[derive(Clone)]
pub struct Client {
    http: reqwest::blocking::Client,
    endpoint: Url,
    settings: Arc<Settings>,
    cancel: Cancel,
    notice: Option<Notice>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::BadName`] for an endpoint that is no http address, [`HubError::Setup`] where TLS cannot be set up.
    pub fn new(settings: Settings, cancel: Cancel) -> Result<Client, HubError> {
        let refuse = |why| HubError::BadName { what: "the endpoint", name: settings.endpoint.clone(), why };
        let endpoint = Url::parse(settings.endpoint.trim_end_matches('/')).map_err(|_| refuse("it is no address"))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(refuse("it does not begin with https:// or http://"));
        }
        let builder = reqwest::blocking::Client::builder()
            .user_agent(&settings.agent)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout);
        let http = builder.build().map_err(|e| HubError::Setup(causes(&e)))?;
        Ok(Client { http, endpoint, settings: Arc::new(settings), cancel, notice: None })
    }

    /// Tell of every wait before another attempt.
    pub fn with_notice(self, notice: impl Fn(&HubError, Duration) + Send + Sync + 'static) -> Client {
        Client { notice: Some(Arc::new(notice)), ..self }
    }

    /// What the client was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the user wants to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// An address of the Hub: `path` begins with `/` and is percent-encoded.
    ///
    /// # Errors
    /// [`HubError::BadName`].
    pub fn url(&self, path: &str) -> Result<Url, HubError> {
        let text = format!("{}{path}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|_| HubError::BadName { what: "the address", name: text, why: "it is no address" })
    }

    /// An address that a server named, absolute or relative to `base`.
    ///
    /// # Errors
    /// [`HubError::BadName`] for what is no http address.
    pub fn named_url(&self, base: &Url, text: &str) -> Result<Url, HubError> {
        let url = base.join(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.ok_or_else(|| HubError::BadName { what: "the address", name: text.to_owned(), why: "it is no http address" })
    }

    /// The answer to a request: a success, or a status that the request accepts.
    ///
    /// # Errors
    /// [`HubError`] once repeating has no sense any more.
    pub fn send(&self, request: &Request) -> Result<Answer, HubError> {
        self.attempts(request.repeat, || self.once(request))
    }

    /// The JSON that answers a request.
    ///
    /// # Errors
    /// [`HubError::NotJson`] where something else does, and those of [`Client::send`].
    pub fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, HubError> {
        self.attempts(request.repeat, || self.once(request)?.json())
    }

    /// A list that comes in pages, each of which names the next in a `Link` header.
    ///
    /// # Errors
    /// Those of [`Client::json`]; [`HubError::Protocol`] where a page leads to another host or to no end.
    pub fn pages<T: DeserializeOwned>(&self, url: Url) -> Result<Vec<T>, HubError> {
        let (mut list, mut next) = (Vec::new(), Some(url));
        for _ in 0..PAGES {
            let Some(url) = next else { return Ok(list) };
            let request = Request::get(url.clone());
            let (page, link): (Vec<T>, _) = self.attempts(Repeat::Harmless, || {
                let answer = self.once(&request)?;
                let link = answer.header(LINK.as_str()).and_then(next_link).map(str::to_owned);
                Ok((answer.json()?, link))
            })?;
            list.extend(page);
            next = link.map(|link| self.named_url(&url, &link)).transpose()?;
            if next.as_ref().is_some_and(|next| origin(next) != origin(&url)) {
                return Err(HubError::Protocol { at: request.at(None), what: "the next page is on another host".to_owned() });
            }
        }
        Err(HubError::Protocol { at: At::default(), what: format!("a list of more than {PAGES} pages") })
    }

    /// The bytes from `from` on, up to `to` (exclusive) if given. The caller reads them from [`Answer`], and asks anew from where it
    /// got to when the connection is cut.
    ///
    /// # Errors
    /// [`HubError::Protocol`] for a `Content-Range` that was not asked for, and those of [`Client::send`].
    pub fn range(&self, request: Request, from: u64, to: Option<u64>) -> Result<Range, HubError> {
        let last = to.map(|to| to.saturating_sub(1).to_string()).unwrap_or_default();
        let request = request.header(RANGE.as_str(), &format!("bytes={from}-{last}"))?.accept(&[416]);
        let answer = self.send(&request)?;
        match answer.status() {
            416 => Ok(Range::Beyond),
            206 => {
                let header = answer.header(CONTENT_RANGE.as_str()).unwrap_or("nothing");
                let wrong = |what: String| HubError::Protocol { at: answer.at().clone(), what };
                let (first, end, total) = content_range(header)
                    .filter(|(first, end, _)| *first == from && end > first && to.is_none_or(|to| *end <= to))
                    .ok_or_else(|| wrong(format!("asked for bytes {from}-{last}, its Content-Range says {:?}", header)))?;
                let length = answer.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
                if length.is_some_and(|length| length != end - first) {
                    return Err(wrong("its Content-Length contradicts its Content-Range".to_owned()));
                }
                Ok(Range::Part { answer, length: end - first, total })
            }
            _ => Ok(Range::Whole(answer)),
        }
    }

    /// Do something until it succeeds, fails for good or was tried often enough.
    ///
    /// # Errors
    /// The last one.
    pub fn attempts<T>(&self, repeat: Repeat, mut attempt: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut made = 0;
        loop {
            if self.cancel.asked() {
                return Err(HubError::Interrupted);
            }
            let mut error = match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            made += 1;
            if let HubError::Server { attempts, .. } | HubError::Unreachable { attempts, .. } = &mut error {
                *attempts = made;
            }
            let unseen = matches!(error, HubError::Unreachable { .. } | HubError::RateLimited { .. });
            if !error.is_transient() || made >= self.settings.attempts || (repeat == Repeat::Harmful && !unseen) {
                return Err(error);
            }
            let wait = self.backoff(made, &error);
            if wait > self.settings.patience {
                return Err(error);
            }
            if let Some(notice) = &self.notice {
                notice(&error, wait);
            }
            self.wait(wait)?;
        }
    }

    /// How long to wait after `made` attempts.
    pub fn backoff(&self, made: u32, error: &HubError) -> Duration {
        let own = self.settings.backoff.saturating_mul(1 << made.saturating_sub(1).min(6));
        match error {
            HubError::RateLimited { retry_after: Some(asked), .. } | HubError::Server { retry_after: Some(asked), .. } => *asked,
            _ => own,
        }
    }

    /// Wait, unless the user wants to stop.
    ///
    /// # Errors
    /// [`HubError::Interrupted`].
    pub fn wait(&self, time: Duration) -> Result<(), HubError> {
        let end = Instant::now() + time;
        loop {
            if self.cancel.asked() {
                return Err(HubError::Interrupted);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// One attempt, with its redirects.
    fn once(&self, request: &Request) -> Result<Answer, HubError> {
        let mut request = request.clone();
        let mut with_token = true;
        for _ in 0..=REDIRECTS {
            with_token &= origin(&request.url) == origin(&self.endpoint);
            let answer = self.exchange(&request, with_token)?;
            let redirect = matches!(answer.status(), 301 | 302 | 303 | 307 | 308) && !request.accepted.contains(&answer.status());
            let Some(location) = answer.header(LOCATION.as_str()).filter(|_| redirect) else {
                return refusal::check(answer, &request, with_token && self.settings.token.is_some());
            };
            let to = printable(location.split('?').next().unwrap_or(location), 200);
            let refuse = |why| HubError::Redirect { at: answer.at().clone(), to: to.clone(), why };
            let next = request.url.join(location).map_err(|_| refuse("which is no address"))?;
            if let Some(why) = no_way(&request.url, &next) {
                return Err(refuse(why));
            }
            let elsewhere = origin(&next) != origin(&request.url);
            if elsewhere && request.stay {
                return Ok(answer);
            }
            let reads = matches!(request.method, Method::GET | Method::HEAD);
            if !reads && (elsewhere || !matches!(answer.status(), 307 | 308)) {
                return Err(refuse("where nothing is sent to"));
            }
            request.url = next;
        }
        Err(HubError::Protocol { at: request.at(None), what: format!("more than {REDIRECTS} redirects") })
    }

    /// One request and what comes back, whatever its status.
    fn exchange(&self, request: &Request, with_token: bool) -> Result<Answer, HubError> {
        let mut builder = self.http.request(request.method.clone(), request.url.clone());
        // Ranges and sizes are those of the file, not of a compressed form of it.
        builder = builder.header(ACCEPT_ENCODING, "identity");
        if let (true, Some(token)) = (with_token, &self.settings.token) {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret()))
                .map_err(|_| HubError::Setup("the token holds what no header may".to_owned()))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        match &request.content {
            Content::None => {}
            Content::Bytes(media, bytes) => builder = builder.header(CONTENT_TYPE, *media).body(bytes.clone()),
            Content::Reader { length, open } => {
                let reader = open().map_err(|source| HubError::Io { path: shown(&request.url).into(), source })?;
                let reader = answer::Cancelled { reader, cancel: self.cancel.clone() };
                builder = builder.body(reqwest::blocking::Body::sized(reader, *length));
            }
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        // reqwest counts this for the whole of a request with its body.
        let patience = self.settings.timeout + Duration::from_secs(request.content.length() / SLOWEST_UPLOAD);
        let sent = builder.timeout(patience).send();
        if self.cancel.asked() {
            return Err(HubError::Interrupted);
        }
        match sent {
            Ok(response) => Ok(Answer::new(response, request, self.cancel.clone())),
            Err(error) if error.is_connect() => {
                Err(HubError::Unreachable { at: request.at(None), attempts: 1, why: causes(&error) })
            }
            Err(error) if error.is_builder() => Err(HubError::Protocol { at: request.at(None), what: causes(&error) }),
            Err(error) => Err(HubError::Cut { at: request.at(None), got: 0, why: causes(&error) }),
        }
    }
}

/// Why a redirect is not followed.
fn no_way(from: &Url, to: &Url) -> Option<&'static str> {
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Some("which is not encrypted any more"),
        (_, "http" | "https") => None,
        _ => Some("which is no http address"),
    }
}

/// `bytes 0-99/1000` or `bytes 0-99/*`: first, end (exclusive), total.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, end) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
    let total = match total {
        "*" => None,
        total => Some(total.parse::<u64>().ok()?),
    };
    total.is_none_or(|total| end <= total).then_some((first, end, total))
}

/// The address with `rel="next"` of a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|p| matches!(p.trim().replace(' ', "").as_str(), "rel=\"next\"" | "rel=next"));
        next.then_some(address)
    })
}

/// An error and its causes, without addresses (they may hold secrets in their query).
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&part);
        }
        cause = error.source();
    }
    if error.is_timeout() && !text.contains("timed out") {
        text.push_str(if text.is_empty() { "timed out" } else { " (timed out)" });
    }
    if text.is_empty() { "it ended without an answer".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
