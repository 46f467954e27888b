//! What headers say, and errors.

/// `bytes 0-99/1000` or `bytes 0-99/*`: first, end (exclusive), total.
pub(super) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
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
pub(super) fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|p| matches!(p.trim().replace(' ', "").as_str(), "rel=\"next\"" | "rel=next"));
        next.then_some(address)
    })
}

/// An error and its causes, without addresses (they may hold secrets in their query).
pub(super) fn causes(error: &reqwest::Error) -> String {
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
