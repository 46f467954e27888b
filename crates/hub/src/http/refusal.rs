//! Statuses of failure as errors that say what to do.

use super::request::shown;
use super::{Answer, Request};
use crate::dates;
use crate::error::{HubError, printable};
use reqwest::Url;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// What of a refusal's body is looked at.
const BODY: u64 = 64 << 10;

/// The answer, if it is one.
pub(super) fn check(mut answer: Answer, request: &Request, with_token: bool) -> Result<Answer, HubError> {
    let status = answer.status();
    if (200..300).contains(&status) || request.accepted.contains(&status) {
        return Ok(answer);
    }
    let message = message(&mut answer);
    let at = answer.at().clone();
    let code = answer.header("x-error-code").unwrap_or_default();
    Err(match (status, code) {
        (401 | 403, "GatedRepo") => {
            let (repo, url) = repository(&request.url);
            HubError::Gated { repo, url, at }
        }
        (_, "RevisionNotFound") => HubError::RevisionNotFound { at },
        (_, "EntryNotFound") => HubError::EntryNotFound { at },
        (401, _) if !with_token => HubError::NoToken { at },
        (401, "RepoNotFound") | (404, "RepoNotFound") => HubError::RepoNotFound { at },
        (401, _) => HubError::BadToken { at, message },
        (403, _) => HubError::Forbidden { at, message },
        (409 | 412, _) => HubError::Conflict { at, status, message },
        (413, _) => HubError::TooLarge { at, message },
        (429, _) => HubError::RateLimited { at, retry_after: retry_after(&answer) },
        (408 | 500 | 502 | 503 | 504 | 520..=524, _) => {
            HubError::Server { at, status, attempts: 1, retry_after: retry_after(&answer), message }
        }
        _ => HubError::Refused { at, status, message },
    })
}

/// What the server says about it, on one line.
fn message(answer: &mut Answer) -> String {
    if let Some(text) = answer.header("x-error-message") {
        return printable(text, 300);
    }
    // A body that cannot be read says nothing; the status is known already.
    let body = answer.whole(BODY).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let said = json.as_ref().and_then(|json| json["error"].as_str().or(json["message"].as_str()));
    match said {
        Some(said) => printable(said, 300),
        None if text.trim_start().starts_with('<') => "a page of HTML".to_owned(),
        None if text.trim().is_empty() => "it says nothing more".to_owned(),
        None => printable(&text, 300),
    }
}

/// `Retry-After` in seconds or as a date.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let Some(text) = answer.header(RETRY_AFTER.as_str()).map(str::trim) else {
        return answer.header("ratelimit").and_then(rate_limit);
    };
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(dates::seconds(text)?).saturating_sub(now))
}

/// `RateLimit: "resolvers";r=0;t=55`: nothing is left for 55 seconds (draft-ietf-httpapi-ratelimit-headers; huggingface_hub waits one more).
fn rate_limit(text: &str) -> Option<Duration> {
    let number = |name: &str| text.split([';', ',']).find_map(|part| part.trim().strip_prefix(name)?.trim().parse::<u64>().ok());
    let seconds = number("t=").filter(|_| number("r=") == Some(0))?;
    Some(Duration::from_secs(seconds.saturating_add(1)))
}

/// `org/name` of an address of the Hub, and its page.
fn repository(url: &Url) -> (String, String) {
    let path = url.path().trim_start_matches('/');
    let path = path.strip_prefix("api/models/").unwrap_or(path);
    let id = path.split('/').take(2).collect::<Vec<_>>().join("/");
    let mut page = url.clone();
    page.set_path(&id);
    (id, shown(&page))
}
