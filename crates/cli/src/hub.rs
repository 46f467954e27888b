//! Models on the Hugging Face Hub, wherever a command takes a model's directory: `org/name` or `org/name@revision`.

#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod remote;

#[cfg(feature = "hub")]
#[allow(unused_imports, reason = "publishing takes them")]
pub use remote::{client, failure};

use crate::failure::Failure;
use ggufsmith_checkpoint::RemoteShards;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a command needs of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// All of it.
    Weights,
    /// The weights' names, types and shapes: no weights are downloaded.
    Headers,
    /// What [`Need::Headers`] is, unless weights were downloaded before: then whoever began has looked at them.
    FirstLook,
    /// All of it, read once and never stored; a model on this machine is read as ever.
    Stream,
}

/// Where a model is.
#[derive(Debug)]
pub struct Located {
    /// Its directory: as the user named it, or a snapshot in the Hub's cache.
    pub path: PathBuf,
    /// What reads its weights, if they are not in the directory.
    pub remote: Option<Arc<dyn RemoteShards>>,
}

/// Find a model: what exists on this machine is taken as it is, `org/name` that does not exist is fetched from the Hub.
///
/// # Errors
/// [`Failure`] where the Hub does not have it, cannot be asked, or what it sends is not what it should be.
pub fn locate(source: &Path, need: Need, quiet: bool) -> Result<Located, Failure> {
    let here = || Located { path: source.to_owned(), remote: None };
    if source.symlink_metadata().is_ok() {
        return Ok(here());
    }
    match source.to_str().and_then(repository_id) {
        Some((id, revision)) => fetch(id, revision, need, quiet),
        // What is wrong with it is told where it is opened.
        None => Ok(here()),
    }
}

/// Whether an error comes of the Hub's saying no, or nothing: trying another way would be in vain.
pub fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if refuses(error) {
            return true;
        }
        // What an `io::Error` was made from is not its source, but part of itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

#[cfg(feature = "hub")]
fn refuses(error: &(dyn Error + 'static)) -> bool {
    use ggufsmith_hub::HubError;
    let odd = |error: &HubError| {
        matches!(
            error,
            HubError::Protocol { .. } | HubError::BadSize { .. } | HubError::BadHash { .. } | HubError::NotJson { .. }
        )
    };
    error.downcast_ref::<HubError>().is_some_and(|error| !odd(error))
}

#[cfg(not(feature = "hub"))]
fn refuses(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(feature = "hub")]
use remote::fetch;

#[cfg(not(feature = "hub"))]
fn fetch(id: &str, revision: Option<&str>, _: Need, _: bool) -> Result<Located, Failure> {
    let name = id.rsplit('/').next().unwrap_or(id);
    let revision = revision.map(|revision| format!(" --revision {revision}")).unwrap_or_default();
    Err(Failure::new(format!("there is no directory {id}, and this ggufsmith was built without the Hub (feature `hub`)"))
        .hint(format!("`hf download {id}{revision} --local-dir {name}`, then name the directory {name}")))
}

/// An id as it stands, or from the address of a model's page, as it is copied from a browser.
pub fn pasted(text: &str) -> &str {
    let prefixes = ["https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/", "hf://"];
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).map_or(text, |id| id.trim_end_matches('/'))
}

/// `org/name` or `org/name@revision`: what has the shape of it, and is no name of a file.
fn repository_id(text: &str) -> Option<(&str, Option<&str>)> {
    let text = pasted(text);
    let (id, revision) = match text.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (text, None),
    };
    let (organization, name) = id.split_once('/')?;
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let file = [".gguf", ".safetensors", ".json", ".bin", ".txt", ".dat"].iter().any(|end| name.to_lowercase().ends_with(end));
    (plain(organization) && plain(name) && !file).then_some((id, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_ids_are_told_from_paths() {
        assert_eq!(repository_id("HuggingFaceTB/SmolLM2-135M"), Some(("HuggingFaceTB/SmolLM2-135M", None)));
        assert_eq!(repository_id("a/b@refs/pr/1"), Some(("a/b", Some("refs/pr/1"))));
        assert_eq!(repository_id("https://huggingface.co/a/b/"), Some(("a/b", None)));
        assert_eq!(repository_id("hf.co/a/b@v1"), Some(("a/b", Some("v1"))));
        for path in
            ["./model", "../a", "/a/b", "a/b/c", "model", "a/", "a/b c", "a/$(b)", "~/a", "models/x.gguf", "a/model.Safetensors"]
        {
            assert_eq!(repository_id(path), None, "{path}");
        }
    }

    #[test]
    fn what_exists_is_not_looked_for_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let located = locate(folder.path(), Need::Weights, true).unwrap();
        assert!(located.path == folder.path() && located.remote.is_none());
    }
}
