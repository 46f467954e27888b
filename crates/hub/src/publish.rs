//! Files into a repository of the Hub, in one commit.
//!
//! The steps are those of the Hub's own clients: what the repository holds is asked first, and only what differs is sent. Large
//! files go to its storage (plain Git LFS in one piece or in parts, or Xet), where nobody sees them; then one commit, which names its
//! parent, makes everything visible at once. So a run that was cut anywhere leaves the repository as it was, and the next one sends
//! what is missing: the storage knows an object by its sha256.

mod base64;
mod commit;
mod local;
mod pulls;
mod storage;
mod store;
mod xet;

pub use local::Local;

use crate::error::{At, HubError, printable};
use crate::http::{Client, Content, Repeat, Request};
use crate::info::{Entry, Hash};
use crate::names::{FileName, RepoId, Revision};
use serde::Deserialize;
use serde_json::json;
use std::io::Read;
use std::sync::Arc;

/// How many files a question about them may name (huggingface_hub, `UPLOAD_BATCH_MAX_NUM_FILES`).
const BATCH: usize = 256;

/// Where files go.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The repository; it is created where it is missing.
    pub repo: RepoId,
    /// A branch of it.
    pub revision: Revision,
    /// A new repository is seen by its owner only.
    pub private: bool,
    /// The branch is not there yet: it is made, at the commit that the repository has.
    pub new_branch: bool,
    /// Propose the commit instead of making it.
    pub create_pr: bool,
    /// Files of the repository that go with the commit: they belong to bytes that it replaces.
    pub removed: Vec<FileName>,
    /// The commit's first line.
    pub summary: String,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The newest commit, 40 hex digits.
    pub commit: String,
    /// Every file.
    pub files: Vec<Entry>,
    /// Whether it is seen by its owner only, where the Hub says it.
    pub private: Option<bool>,
}

impl State {
    /// The file of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.name.as_str() == name)
    }

    fn has(&self, file: &Local) -> bool {
        self.find(file.name.as_str()).is_some_and(|entry| file.is(entry))
    }
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The commit; where nothing was to be done, the one that is there.
    pub commit: String,
    /// Its page, or that of the pull request.
    pub url: String,
    /// Whether there is a new commit.
    pub changed: bool,
    /// Files that the commit changed.
    pub files: usize,
    /// Bytes that were sent to the storage.
    pub sent: u64,
}

/// Told of an upload.
pub trait UploadWatch: Send + Sync {
    /// So many files with so many bytes go to the storage, of which so many are there already.
    fn begin(&self, files: usize, bytes: u64, there: u64);
    /// So many more bytes are sent.
    fn advance(&self, bytes: u64);
}

#[derive(Deserialize)]
struct Who {
    name: String,
    auth: Option<Auth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    access_token: Option<AccessToken>,
}

#[derive(Deserialize)]
struct AccessToken {
    role: Option<String>,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The account's name.
    pub name: String,
    /// The token's role is `read`.
    pub reads_only: bool,
}

#[derive(Deserialize)]
struct Asked {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

impl Client {
    /// The token's account.
    ///
    /// # Errors
    /// [`HubError::NoToken`], [`HubError::BadToken`], or the Hub cannot be asked.
    pub fn account(&self) -> Result<Account, HubError> {
        let request = Request::get(self.url("/api/whoami-v2")?);
        if self.settings().token.is_none() {
            return Err(HubError::NoToken { at: request.at(None) });
        }
        let who: Who = self.json(&request)?;
        let role = who.auth.and_then(|auth| auth.access_token).and_then(|token| token.role);
        Ok(Account { name: who.name, reads_only: role.as_deref() == Some("read") })
    }

    /// What a repository holds; none where there is none.
    ///
    /// # Errors
    /// [`HubError::RevisionNotFound`], or the Hub cannot be asked.
    pub fn state(&self, repo: &RepoId, revision: &Revision) -> Result<Option<State>, HubError> {
        let (commit, private) = match self.head(repo, revision) {
            Ok(head) => head,
            Err(HubError::RepoNotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(State { files: self.every_file(repo, &commit)?, commit, private }))
    }

    /// A small file of a repository, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`HubError::Protocol`] where it has more, [`HubError::BadSize`], or the Hub cannot be asked.
    pub fn small_file(&self, repo: &RepoId, commit: &str, entry: &Entry, limit: u64) -> Result<Vec<u8>, HubError> {
        let request = Request::get(self.file_url(repo, commit, &entry.name)?);
        let bytes = self.attempts(Repeat::Harmless, || self.send(&request)?.whole(limit))?;
        if bytes.len() as u64 != entry.size {
            return Err(HubError::BadSize { file: entry.name.to_string(), expected: entry.size, got: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// Create a repository; one that exists is fine.
    ///
    /// # Errors
    /// [`HubError::Forbidden`] and its like.
    pub fn create(&self, repo: &RepoId, private: bool, user: &str) -> Result<(), HubError> {
        let mut wish = json!({
            "name": repo.name(), "type": "model", "private": private, "visibility": if private { "private" } else { "public" }
        });
        if repo.owner() != user {
            wish["organization"] = repo.owner().into();
        }
        let request = Request::post(self.url("/api/repos/create")?, Content::json(&wish)?);
        // A second attempt finds that it exists.
        self.send(&request.repeat(Repeat::Harmless).accept(&[409])).map(drop)
    }

    /// Create a repository and wait until it is there: the Hub answers 409 also while it makes another one.
    fn create_until_there(&self, wish: &Wish, user: &str) -> Result<(), HubError> {
        for made in 1..=self.settings().attempts {
            self.create(&wish.repo, wish.private, user)?;
            match self.state(&wish.repo, &Revision::main()) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(HubError::RevisionNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            let none = HubError::Setup(String::new());
            self.wait(self.backoff(made, &none))?;
        }
        Ok(())
    }

    /// Create the branch of a wish, at the newest commit.
    fn create_branch(&self, wish: &Wish) -> Result<(), HubError> {
        let url = self.url(&format!("/api/models/{}/branch/{}", wish.repo, wish.revision.segment()))?;
        // A second attempt finds that it exists.
        self.send(&Request::post(url, Content::json(&json!({}))?).repeat(Repeat::Harmless).accept(&[409])).map(drop)
    }

    /// Put files into a repository, in one commit, and look whether they are there.
    ///
    /// `before` is what it held when the wish was made ([`Client::state`]); the commit names it as its parent.
    ///
    /// # Errors
    /// [`HubError::Conflict`] where somebody else changed the same files meanwhile, [`HubError::Changed`] where a file changed while
    /// it was read; and what else may go wrong on the way. Whatever it is, the repository has either all files or none of them.
    pub fn publish(
        &self,
        wish: &Wish,
        files: &[Local],
        before: Option<&State>,
        watch: &Arc<dyn UploadWatch>,
    ) -> Result<Published, HubError> {
        let repeated = files.iter().enumerate().find(|(at, file)| files[..*at].iter().any(|other| other.name == file.name));
        if let Some((_, file)) = repeated {
            let name = file.name.to_string();
            return Err(HubError::BadName { what: "the file name", name, why: "two files have it" });
        }
        let user = self.account()?.name;
        let before = match before {
            Some(state) if wish.new_branch => {
                self.create_branch(wish)?;
                state.clone()
            }
            Some(state) => state.clone(),
            None => {
                self.create_until_there(wish, &user)?;
                let missing = HubError::Protocol {
                    at: At { request: format!("creating {}", wish.repo), id: None },
                    what: "it was created and is not there".to_owned(),
                };
                if wish.revision != Revision::main() {
                    self.create_branch(wish)?;
                }
                self.state(&wish.repo, &wish.revision)?.ok_or(missing)?
            }
        };
        let changed: Vec<&Local> = files.iter().filter(|file| !before.has(file)).collect();
        let endpoint = self.settings().endpoint.trim_end_matches('/').to_owned();
        if changed.is_empty() {
            let url = format!("{endpoint}/{}/commit/{}", wish.repo, before.commit);
            return Ok(Published { commit: before.commit, url, changed: false, files: 0, sent: 0 });
        }
        if wish.create_pr
            && let Some(there) = self.proposed(wish, &user, &changed)?
        {
            return Ok(Published { commit: there.commit, url: there.url, changed: false, files: 0, sent: 0 });
        }
        let large = self.large(wish, &changed)?;
        let stored = self.store(wish, &large, watch)?;
        for file in &changed {
            file.check_unchanged(self.cancel())?;
        }
        let made = self.commit(wish, &user, &changed, &large, &before).map_err(|error| match error {
            // Xet believes what it remembers of earlier runs; the Hub may have lost it.
            HubError::Refused { status: 400, .. } if stored.by_xet => HubError::Xet { passes: false, why: error.to_string() },
            error => error,
        })?;
        self.check_arrived(wish, &changed, &made.commit)?;
        Ok(Published { commit: made.commit, url: made.url, changed: true, files: changed.len(), sent: stored.sent })
    }

    /// Which of the files go to the storage.
    fn large<'a>(&self, wish: &Wish, files: &[&'a Local]) -> Result<Vec<&'a Local>, HubError> {
        let mut large = Vec::new();
        for batch in files.chunks(BATCH) {
            let mut asked = Vec::with_capacity(batch.len());
            for file in batch {
                let sample = base64::encode(&file.sample()?);
                asked.push(json!({ "path": file.name.as_str(), "size": file.size, "sample": sample }));
            }
            let url = self.url(&format!("/api/models/{}/preupload/{}{}", wish.repo, wish.revision.segment(), wish.query()))?;
            let request = Request::post(url, Content::json(&json!({ "files": asked }))?).repeat(Repeat::Harmless);
            let answer: Asked = self.json(&request)?;
            for file in batch {
                let wrong = |what: String| HubError::Protocol { at: request.at(None), what };
                let mode = answer.files.iter().find(|mode| mode.path == file.name.as_str());
                let mode = mode.ok_or_else(|| wrong(format!("it says nothing of {}", file.name)))?;
                match (mode.should_ignore, mode.upload_mode.as_str()) {
                    (true, _) => return Err(wrong(format!("{} is named in the repository's .gitignore", file.name))),
                    (false, "regular") => {}
                    (false, "lfs") if file.size > 0 => large.push(*file),
                    // Git LFS knows no empty files.
                    (false, "lfs") => {}
                    (false, other) => {
                        return Err(wrong(format!("{} is to be uploaded by {:?}", file.name, printable(other, 40))));
                    }
                }
            }
        }
        Ok(large)
    }

    /// Whether a commit holds what was sent.
    fn check_arrived(&self, wish: &Wish, files: &[&Local], commit: &str) -> Result<(), HubError> {
        let found = State { commit: commit.to_owned(), files: self.every_file(&wish.repo, commit)?, private: None };
        for file in files {
            let Some(entry) = found.find(file.name.as_str()) else {
                let at = At { request: format!("commit {commit} of {}", wish.repo), id: None };
                return Err(HubError::Protocol { at, what: format!("{} is not in it", file.name) });
            };
            if !file.is(entry) {
                let (kind, got) = match &entry.hash {
                    Hash::Sha256(hex) => ("sha256", hex.clone()),
                    Hash::Git(hex) => ("git hash", hex.clone()),
                };
                let expected = if kind == "sha256" { file.sha256.clone() } else { file.git.clone().unwrap_or_default() };
                return Err(HubError::BadHash { file: file.name.to_string(), kind, expected: got, got: expected });
            }
        }
        Ok(())
    }
}

/// All bytes of a reader, of at most `limit`.
fn read_up_to(reader: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
