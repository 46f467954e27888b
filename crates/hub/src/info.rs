//! What a repository holds at a revision: its commit, and its files with sizes and hashes.
//!
//! hf-hub's `list_tree` is not used: of the Hub's JSON it drops the sha256 of large files (its fields are spelled otherwise), and it
//! checks no name.

use crate::error::{At, HubError};
use crate::http::{Client, Request};
use crate::names::{BlobName, FileName, RepoId, Revision, is_hex};
use reqwest::Url;
use serde::Deserialize;

/// The hash that the Hub keeps of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    /// Of a large file: sha256 of its bytes, 64 hex digits.
    Sha256(String),
    /// Of a small one: sha1 of git's blob, 40 hex digits.
    Git(String),
}

impl Hash {
    /// The hex digits.
    pub fn hex(&self) -> &str {
        match self {
            Hash::Sha256(hex) | Hash::Git(hex) => hex,
        }
    }
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the repository.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// What its bytes must hash to.
    pub hash: Hash,
}

impl Entry {
    /// Its name among the blobs of a cache, which is the `ETag` that the Hub sends with it.
    pub fn blob(&self) -> BlobName {
        BlobName::from_etag(self.hash.hex())
    }
}

/// The files of a repository at one commit.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Whose files.
    pub repo: RepoId,
    /// The commit, 40 hex digits.
    pub commit: String,
    /// In the Hub's order.
    pub files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
    private: Option<bool>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: Option<u64>,
}

/// No file that is read whole has more bytes.
const SMALL: u64 = 512 << 20;
/// Where model files of the reference converter lie outside the repository's root.
const TEMPLATES: &str = "additional_chat_templates";

impl Client {
    /// The commit that a revision stands for now.
    ///
    /// # Errors
    /// [`HubError`]: no such repository or revision, or the Hub cannot be asked.
    pub fn commit_of(&self, repo: &RepoId, revision: &Revision) -> Result<String, HubError> {
        if revision.is_commit() {
            return Ok(revision.as_str().to_owned());
        }
        Ok(self.head(repo, revision)?.0)
    }

    /// The commit, and whether the repository is private where the Hub says it.
    pub(crate) fn head(&self, repo: &RepoId, revision: &Revision) -> Result<(String, Option<bool>), HubError> {
        let url = self.url(&format!("/api/models/{repo}/revision/{}", revision.segment()))?;
        let request = Request::get(url);
        let info: Info = self.json(&request)?;
        let commit = info.sha.filter(|sha| sha.len() == 40 && is_hex(sha));
        let missing = || HubError::Protocol { at: request.at(None), what: "it names no commit".to_owned() };
        Ok((commit.ok_or_else(missing)?, info.private))
    }

    /// The files of a repository that can belong to a model: those at its root, and chat templates.
    ///
    /// # Errors
    /// As [`Client::commit_of`]; [`HubError::BadName`] where the server names a file that leads out of a folder.
    pub fn listing(&self, repo: &RepoId, revision: &Revision) -> Result<Listing, HubError> {
        let commit = self.commit_of(repo, revision)?;
        let mut nodes = self.tree(repo, &commit, "")?;
        if nodes.iter().any(|node| node.kind == "directory" && node.path == TEMPLATES) {
            nodes.extend(self.tree(repo, &commit, TEMPLATES)?);
        }
        let at = At { request: format!("the file list of {repo}"), id: None };
        let files = entries(nodes, &at)?;
        Ok(Listing { repo: repo.clone(), commit, files })
    }

    /// Every file of a repository at a commit, in whatever folder.
    pub(crate) fn every_file(&self, repo: &RepoId, commit: &str) -> Result<Vec<Entry>, HubError> {
        let nodes: Vec<Node> = self.pages(self.url(&format!("/api/models/{repo}/tree/{commit}?recursive=true"))?)?;
        let at = At { request: format!("the file list of {repo}"), id: None };
        entries(nodes, &at)
    }

    /// Where the bytes of a file are.
    ///
    /// # Errors
    /// [`HubError::BadName`] for an endpoint that no address can be made of.
    pub fn file_url(&self, repo: &RepoId, commit: &str, name: &FileName) -> Result<Url, HubError> {
        self.url(&format!("/{repo}/resolve/{commit}/{}", name.encoded()))
    }

    fn tree(&self, repo: &RepoId, commit: &str, folder: &str) -> Result<Vec<Node>, HubError> {
        let slash = if folder.is_empty() { "" } else { "/" };
        self.pages(self.url(&format!("/api/models/{repo}/tree/{commit}{slash}{folder}"))?)
    }
}

/// The files among nodes. One whose name Windows could not have (`run 12:30.txt`) is not there for us, unless a model could need it; one
/// that leads out of its folder is refused.
fn entries(nodes: Vec<Node>, at: &At) -> Result<Vec<Entry>, HubError> {
    let strange = |path: &str| {
        let leads_out = path.starts_with('/') || path.split(['/', '\\']).any(|part| matches!(part, "" | "." | ".."));
        let needed = [".json", ".safetensors", ".model", ".jinja", ".gguf"].iter().any(|end| path.ends_with(end));
        let could_matter = needed && !path.contains('/');
        path.contains([':', '\\']) && !leads_out && !could_matter
    };
    nodes.into_iter().filter(|node| node.kind == "file" && !strange(&node.path)).map(|node| entry(node, at)).collect()
}

fn entry(node: Node, at: &At) -> Result<Entry, HubError> {
    let name: FileName = node.path.parse()?;
    let (hash, size) = match node.lfs {
        // Older servers write `sha256:` in front.
        Some(lfs) => (Hash::Sha256(lfs.oid.trim_start_matches("sha256:").to_owned()), lfs.size.unwrap_or(node.size)),
        None => (Hash::Git(node.oid), node.size),
    };
    let expected = if matches!(hash, Hash::Sha256(_)) { 64 } else { 40 };
    match hash.hex().len() == expected && is_hex(hash.hex()) {
        true => Ok(Entry { name, size, hash }),
        false => Err(HubError::Protocol { at: at.clone(), what: format!("{name} has no hash") }),
    }
}

impl Listing {
    /// The file of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.name.as_str() == name)
    }

    /// The small files of a model: configuration, tokenizer, chat templates, model card, the index of the weights.
    pub fn small(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter(|entry| entry.size <= SMALL && is_small_file(entry.name.as_str()))
    }

    /// The weights: what the reference converter reads, `model*.safetensors`.
    pub fn weights(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter(|entry| is_weights(entry.name.as_str()))
    }

    /// # Errors
    /// [`HubError::NotAModel`] where there is no config.json or nothing that weights can be read from.
    pub fn check(&self) -> Result<(), HubError> {
        let at = format!("{}@{}", self.repo, self.commit);
        let has =
            |end: &str| self.files.iter().find(|entry| entry.name.as_str().ends_with(end)).map(|entry| entry.name.to_string());
        let what = match (self.find("config.json"), self.weights().next()) {
            (Some(_), Some(_)) => return Ok(()),
            (_, None) if has(".gguf").is_some() => "holds GGUF files already, and no safetensors: `hf download` fetches them",
            (_, None) if has(".bin").is_some() => {
                "has its weights only as pickles (.bin), and reading one means running it; its pull requests may hold safetensors: org/name@refs/pr/1"
            }
            (_, None) => "has no weights: no model*.safetensors",
            (None, _) => "has no config.json: it is no transformers model",
        };
        Err(HubError::NotAModel { repo: at, what })
    }
}

fn is_weights(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/')
}

fn is_small_file(name: &str) -> bool {
    if let Some(template) = name.strip_prefix(TEMPLATES) {
        return template.ends_with(".jinja");
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    // Indexes of other forms of the weights, and what training left behind.
    let other = ends(&[".bin.index.json", ".h5.index.json", ".msgpack.index.json"]) || name == "trainer_state.json";
    !name.contains('/')
        && !other
        && (ends(&[".json", ".jinja", ".model", ".tiktoken"]) || ["README.md", "merges.txt", "vocab.txt"].contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Server, reply};
    use std::path::Path;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn hub(tree: &'static str) -> Server {
        Server::start(move |asked, _| match asked.path.as_str() {
            "/api/models/a/b/revision/refs%2Fpr%2F1" => reply(200, &[], format!("{{\"sha\": \"{COMMIT}\", \"id\": \"a/b\"}}")),
            path if path.starts_with("/api/models/a/b/tree/0123") && path.ends_with("templates") => {
                let oid = "c".repeat(40);
                reply(
                    200,
                    &[],
                    format!(r#"[{{"type":"file","path":"additional_chat_templates/t.jinja","size":1,"oid":"{oid}"}}]"#),
                )
            }
            path if path.starts_with("/api/models/a/b/tree/0123") => reply(200, &[], tree),
            _ => reply(200, &[], "{\"sha\": \"../../x\"}"),
        })
    }

    fn listing(tree: &'static str) -> Result<Listing, HubError> {
        hub(tree).client(Path::new("/")).listing(&"a/b".parse().unwrap(), &"refs/pr/1".parse().unwrap())
    }

    #[test]
    fn files_of_a_model_are_chosen() {
        let tree = r#"[
            {"type":"directory","path":"additional_chat_templates","oid":"x","size":0},
            {"type":"directory","path":"onnx","oid":"x","size":0},
            {"type":"file","path":"config.json","size":2,"oid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
            {"type":"file","path":"pytorch_model.bin","size":2,"oid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
            {"type":"file","path":"pytorch_model.bin.index.json","size":2,"oid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
            {"type":"file","path":"model-00001-of-00001.safetensors","size":134,"oid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
             "lfs":{"oid":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","size":5000000000,"pointerSize":134}},
            {"type":"file","path":"consolidated.safetensors","size":2,"oid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]"#;
        let listing = listing(tree).unwrap();
        let names = |entries: Vec<&Entry>| entries.iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
        assert_eq!(listing.commit, COMMIT);
        assert_eq!(names(listing.small().collect()), ["config.json", "additional_chat_templates/t.jinja"]);
        assert_eq!(names(listing.weights().collect()), ["model-00001-of-00001.safetensors"]);
        let weights = listing.weights().next().unwrap();
        assert_eq!((weights.size, &weights.hash), (5_000_000_000, &Hash::Sha256("b".repeat(64))));
        listing.check().unwrap();
    }

    #[test]
    fn hostile_lists_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a\\u0000", "C:x.json"] {
            let tree = format!(r#"[{{"type":"file","path":"{path}","size":2,"oid":"{}"}}]"#, "a".repeat(40));
            assert!(matches!(listing(tree.leak()), Err(HubError::BadName { .. })), "{path}");
        }
        // What no model needs is left out.
        let log = format!(r#"[{{"type":"file","path":"logs/12:30.txt","size":2,"oid":"{}"}}]"#, "a".repeat(40));
        assert!(listing(log.leak()).unwrap().files.is_empty());
        assert!(matches!(listing(r#"[{"type":"file","path":"x","size":2,"oid":"../x"}]"#), Err(HubError::Protocol { .. })));
        let client = hub("[]");
        let client = client.client(Path::new("/"));
        let error = client.commit_of(&"a/b".parse().unwrap(), &Revision::main()).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error:?}");
    }

    #[test]
    fn what_is_no_model_says_what_it_is() {
        let file = |name: &str| format!(r#"{{"type":"file","path":"{name}","size":2,"oid":"{}"}}"#, "a".repeat(40));
        for (names, expected) in [
            (&["config.json", "x.Q4.gguf"][..], "GGUF files already"),
            (&["config.json", "pytorch_model.bin"], "pickles"),
            (&["config.json"], "no weights"),
            (&["model.safetensors"], "no config.json"),
        ] {
            let tree = format!("[{}]", names.iter().map(|name| file(name)).collect::<Vec<_>>().join(","));
            let error = listing(tree.leak()).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
