//! What a client is told: plain data, so that the library need not look at the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A user's access token. It is written into the `Authorization` header and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without the white space around it; none where nothing is left or it holds what no header may (control characters,
    /// other than ASCII).
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Token(text.to_owned()))
    }

    /// The token itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Whether the user wants to stop; asked between any two pieces of a transfer and while waiting.
#[derive(Clone)]
pub struct Cancel(Arc<dyn Fn() -> bool + Send + Sync>);

impl Cancel {
    /// Stop once `asked` is true.
    pub fn new(asked: impl Fn() -> bool + Send + Sync + 'static) -> Cancel {
        Cancel(Arc::new(asked))
    }

    /// Never.
    pub fn never() -> Cancel {
        Cancel::new(|| false)
    }

    /// Whether to stop.
    pub fn asked(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", self.asked())
    }
}

/// How to reach the Hub and where files are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://huggingface.co`, without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint's own origin only.
    pub token: Option<Token>,
    /// The folder of `models--org--name` folders.
    pub cache: PathBuf,
    /// Use the cache alone.
    pub offline: bool,
    /// Upload by the steps of Git LFS even where the server offers Xet.
    pub disable_xet: bool,
    /// To wait for a connection.
    pub connect_timeout: Duration,
    /// To wait for an answer, or for the next piece of one.
    pub timeout: Duration,
    /// How often a request is sent before giving up, at least 1.
    pub attempts: u32,
    /// The wait before the second attempt; doubled before each further one, at most 64-fold.
    pub backoff: Duration,
    /// A server that asks for a longer wait (`Retry-After`) is not waited for.
    pub patience: Duration,
    /// Name and version of the program, for the `User-Agent` header.
    pub agent: String,
}

impl Settings {
    /// The public Hub, nothing secret.
    pub fn new(cache: impl Into<PathBuf>) -> Settings {
        Settings {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            cache: cache.into(),
            offline: false,
            disable_xet: false,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            attempts: 6,
            backoff: Duration::from_millis(500),
            // The Hub counts requests over five minutes.
            patience: Duration::from_secs(310),
            agent: concat!("ggufsmith/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let mut settings = Settings::new("/cache");
        settings.token = Token::new(" hf_secret\n");
        assert_eq!(settings.token.as_ref().map(Token::secret), Some("hf_secret"));
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!([" ", "a\nb", "hf_ü"].map(Token::new), [None, None, None]);
    }
}
