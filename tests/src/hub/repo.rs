//! Repositories: files at commits.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes, in memory or in a file.
#[derive(Debug, Clone)]
pub enum Body {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file, which stays as it is.
    File(PathBuf),
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Body::Bytes(bytes)
    }
}

impl Body {
    /// Length in bytes; 0 for a file that is not there.
    pub fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(path) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn open(&self, at: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Body::Bytes(bytes) => {
                let mut cursor = Cursor::new(bytes.as_slice());
                cursor.set_position(at);
                Box::new(cursor)
            }
            Body::File(path) => {
                let mut file = fs::File::open(path)?;
                file.seek(SeekFrom::Start(at))?;
                Box::new(file)
            }
        })
    }

    fn sha256(&self) -> String {
        let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
        let mut body = self.open(0).expect("a file of the server can be read");
        loop {
            match body.read(&mut piece).expect("a file of the server can be read") {
                0 => return hex(&hasher.finalize()),
                read => hasher.update(&piece[..read]),
            }
        }
    }

    /// All of it.
    ///
    /// # Panics
    /// Where its file cannot be read.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.open(0).and_then(|mut body| body.read_to_end(&mut bytes)).expect("a file of the server can be read");
        bytes
    }
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Its bytes.
    pub body: Body,
    /// The sha256 of a large file.
    pub sha256: Option<String>,
    /// Its hash in Xet's storage, where it lies there.
    pub xet: Option<String>,
}

impl File {
    /// Small or large, as the Hub decides by names.
    ///
    /// # Panics
    /// Where its file cannot be read.
    pub fn new(name: &str, body: Body) -> File {
        let sha256 = is_large(name).then(|| body.sha256());
        File { body, sha256, xet: None }
    }

    /// Git's name of it, or of the pointer that stands for it.
    pub fn git(&self) -> String {
        match &self.sha256 {
            Some(sha256) => git_blob(&pointer(sha256, self.body.len())),
            None => git_blob(&self.body.bytes()),
        }
    }

    /// What it is served with as `ETag`.
    pub fn etag(&self) -> String {
        self.sha256.clone().unwrap_or_else(|| self.git())
    }
}

/// What git stores of a large file.
pub(crate) fn pointer(sha256: &str, bytes: u64) -> Vec<u8> {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {bytes}\n").into_bytes()
}

/// The files at one moment.
#[derive(Debug, Clone)]
pub struct Commit {
    /// 40 hex digits.
    pub id: String,
    /// Its message's first line.
    pub summary: String,
    /// By path.
    pub files: BTreeMap<String, File>,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// `org/name`.
    pub id: String,
    /// Seen with the token only.
    pub private: bool,
    /// Seen by all, read by nobody.
    pub gated: bool,
    /// Written to by pull requests alone.
    pub read_only: bool,
    /// Further branches; all of them are where `main` is.
    pub branches: Vec<String>,
    /// Those of the branch `main`, oldest first.
    pub commits: Vec<Commit>,
    /// Those that were proposed.
    pub pulls: Vec<Commit>,
}

impl Repo {
    /// As the Hub creates it.
    pub fn new(id: &str) -> Repo {
        let mut repo = Repo {
            id: id.to_owned(),
            private: false,
            gated: false,
            read_only: false,
            branches: Vec::new(),
            commits: Vec::new(),
            pulls: Vec::new(),
        };
        let attributes = b"*.gguf filter=lfs diff=lfs merge=lfs -text\n".to_vec();
        let files = BTreeMap::from([(".gitattributes".to_owned(), File::new(".gitattributes", attributes.into()))]);
        let first = repo.commit_of(files, "initial commit");
        repo.commits.push(first);
        repo
    }

    /// With the files of a folder, and of its folders.
    ///
    /// # Panics
    /// Where they cannot be read.
    pub fn of_folder(id: &str, folder: &Path) -> Repo {
        let mut repo = Repo::new(id);
        let mut files = repo.commits[0].files.clone();
        let mut open = vec![folder.to_owned()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(next).expect("a folder can be read").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder).expect("it lies in it").to_string_lossy().into_owned();
                files.insert(name.clone(), File::new(&name, Body::File(path)));
            }
        }
        let commit = repo.commit_of(files, "files");
        repo.commits.push(commit);
        repo
    }

    /// A commit of these files, not yet part of it.
    pub fn commit_of(&self, files: BTreeMap<String, File>, summary: &str) -> Commit {
        let names: Vec<_> = files.iter().map(|(name, file)| format!("{name} {}", file.etag())).collect();
        let (number, pulls) = (self.commits.len(), self.pulls.len());
        let id = hex(&Sha1::digest(format!("{} {number} {pulls} {summary} {}", self.id, names.join("\n"))));
        Commit { id, summary: summary.to_owned(), files }
    }

    /// The newest commit.
    ///
    /// # Panics
    /// Never: there is always one.
    pub fn head(&self) -> &Commit {
        self.commits.last().expect("there is always one")
    }

    pub(crate) fn at(&self, revision: &str) -> Option<&Commit> {
        match revision {
            "main" | "HEAD" | "refs/heads/main" => self.commits.last(),
            branch if self.branches.iter().any(|known| known == branch) => self.commits.last(),
            _ => match revision.strip_prefix("refs/pr/") {
                Some(number) => self.pulls.get(number.parse::<usize>().ok()?.checked_sub(1)?),
                None => self.commits.iter().chain(&self.pulls).find(|commit| commit.id == revision),
            },
        }
    }
}

/// Whether the Hub keeps a file outside git.
pub(crate) fn is_large(name: &str) -> bool {
    [".gguf", ".safetensors", ".bin", ".model", ".png", ".imatrix", ".dat"].iter().any(|end| name.ends_with(end))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sha256 of bytes, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn git_blob(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}
