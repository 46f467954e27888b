//! Requests to the Hub and to the stores that it sends us to: repeated where that may help, never with the token on its way to
//! another host.
//!
//! Redirects are followed here and not by reqwest, whose rules for the `Authorization` header and for `https` to `http` are not ours
//! to choose; retries are made here since hf-hub repeats neither a body that was cut nor waits as long as `Retry-After` says.

mod answer;
mod refusal;
mod request;
mod words;

pub use answer::Answer;
pub use request::{Content, Repeat, Request, origin};

use crate::error::{At, HubError, printable};
use crate::settings::{Cancel, Settings};
use request::shown;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LINK, LOCATION, RANGE,
};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use words::{causes, content_range, next_link};

/// More is no chain of redirects but a circle.
const REDIRECTS: usize = 10;
/// A list of more pages is no list.
const PAGES: usize = 10_000;
/// An upload that is slower than this many bytes a second is stuck.
const SLOWEST_UPLOAD: u64 = 32 << 10;
/// How often a wait looks whether the user wants to stop.
const LOOK: Duration = Duration::from_millis(20);

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
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            // It is not shown: it would be a secret on a terminal.
            let name = shown(&endpoint);
            let why = "it holds a user name or a password, which would be published with every address; use a token (HF_TOKEN)";
            return Err(HubError::BadName { what: "the endpoint", name, why });
        }
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

#[cfg(test)]
mod tests;
