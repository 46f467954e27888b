//! The environment variables of Hugging Face's own tools.

use crate::failure::Failure;
use ggufsmith_hub::{Settings, Token};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the environment says.
#[derive(Debug)]
pub struct Environment {
    /// For the client.
    pub settings: Settings,
    /// `HF_HUB_DISABLE_PROGRESS_BARS`.
    pub no_progress: bool,
}

/// That of this process.
///
/// # Errors
/// As [`resolve`].
pub fn read() -> Result<Environment, Failure> {
    resolve(&|name| std::env::var_os(name).and_then(|value| value.into_string().ok()), std::env::home_dir())
}

/// What `get` says of each variable; one that is empty counts as not set.
///
/// # Errors
/// [`Failure`]: no folder for the cache, a token file that cannot be read, a token that no header can hold, a time that is no number.
fn resolve(get: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Environment, Failure> {
    let text = |name: &str| get(name).filter(|value| !value.trim().is_empty());
    let is_on =
        |name: &str| text(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str()));
    let path = |name: &str| text(name).map(|value| expand(&value, home.as_deref()));
    let hf_home = path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")))
        .ok_or_else(|| Failure::new("there is no home directory to keep downloads in").hint("set HF_HOME to a folder"))?;
    let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| hf_home.join("hub"));

    let mut settings = Settings::new(cache);
    if let Some(endpoint) = text("HF_ENDPOINT") {
        settings.endpoint = endpoint.trim().trim_end_matches('/').to_owned();
    }
    if !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        settings.token = token(text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")), &file)?;
    }
    settings.offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
    settings.disable_xet = is_on("HF_HUB_DISABLE_XET");
    if let Some(value) = text("HF_HUB_DOWNLOAD_TIMEOUT") {
        let seconds = value.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        settings.timeout =
            timeout.ok_or_else(|| Failure::new(format!("HF_HUB_DOWNLOAD_TIMEOUT={value} is no number of seconds above 0")))?;
    }
    if let Some(value) = text("GGUFSMITH_RETRY_DELAY") {
        let seconds = value.trim().parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
        let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        settings.backoff = delay.ok_or_else(|| Failure::new(format!("GGUFSMITH_RETRY_DELAY={value} is no number of seconds")))?;
    }
    Ok(Environment { settings, no_progress: is_on("HF_HUB_DISABLE_PROGRESS_BARS") })
}

/// The token that a variable or, without one, a file holds.
fn token(variable: Option<String>, file: &Path) -> Result<Option<Token>, Failure> {
    let (text, from) = match variable {
        Some(text) => (text, "HF_TOKEN".to_owned()),
        None => match std::fs::read_to_string(file) {
            Ok(text) if text.trim().is_empty() => return Ok(None),
            Ok(text) => (text, file.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("the token file {}: {error}", file.display()))),
        },
    };
    match Token::new(&text) {
        Some(token) => Ok(Some(token)),
        // What it holds instead is not shown: it may be half a token.
        None => Err(Failure::new(format!("{from} holds no token: a token is one word of letters, digits and '_'"))
            .hint("`hf auth login` writes a right one")),
    }
}

/// A leading `~` stands for the home directory.
fn expand(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        let home = Path::new("/nowhere/home").to_owned();
        resolve(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()), Some(home))
    }

    #[test]
    fn the_cache_is_where_other_tools_look_for_it() {
        let cache = |variables: &[(&str, &str)]| with(variables).unwrap().settings.cache;
        assert_eq!(cache(&[]), Path::new("/nowhere/home/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), Path::new("/nowhere/home/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "")]), Path::new("/nowhere/home/.cache/huggingface/hub"));
    }

    #[test]
    fn tokens_come_from_a_variable_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other").unwrap();
        let other = format!("{home}/other");
        let token = |variables: &[(&str, &str)]| {
            let mut all = vec![("HF_HOME", home)];
            all.extend(variables);
            with(&all).unwrap().settings.token.map(|token| token.secret().to_owned())
        };
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", &other)]).as_deref(), Some("hf_other"));
        assert_eq!(token(&[("HF_TOKEN_PATH", "/nowhere/token")]), None);
        assert_eq!(token(&[("HF_TOKEN", "hf_variable")]).as_deref(), Some("hf_variable"));
        assert_eq!(token(&[("HF_TOKEN", "hf_variable"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let failure = with(&[("HF_TOKEN", "hf_a hf_b")]).unwrap_err();
        assert!(!format!("{failure:?}").contains("hf_a"), "{failure:?}");
    }

    #[test]
    fn switches_and_numbers() {
        let all = [("HF_ENDPOINT", "http://127.0.0.1:9000/"), ("HF_HUB_OFFLINE", "true"), ("HF_HUB_DISABLE_XET", "1")];
        let settings = with(&[all.as_slice(), &[("HF_HUB_DOWNLOAD_TIMEOUT", "1.5")]].concat()).unwrap().settings;
        assert_eq!((settings.endpoint.as_str(), settings.timeout.as_millis()), ("http://127.0.0.1:9000", 1500));
        assert!(settings.offline && settings.disable_xet);
        let settings = with(&[("HF_HUB_OFFLINE", "0")]).unwrap().settings;
        assert!(!settings.offline && !settings.disable_xet && settings.endpoint == "https://huggingface.co");
        for bad in ["x", "0", "-1", "inf", "1e300"] {
            assert!(with(&[("HF_HUB_DOWNLOAD_TIMEOUT", bad)]).is_err(), "{bad}");
        }
    }
}
