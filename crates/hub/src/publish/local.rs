//! What is to be published: bytes with their hashes, taken once before and looked at once more after.

use super::read_up_to;
use crate::error::HubError;
use crate::info::{Entry, Hash};
use crate::names::{FileName, hex};
use crate::settings::Cancel;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Larger files are in git on no Hub.
const LARGEST_SMALL: u64 = 64 << 20;
/// Read at once.
const PIECE: usize = 1 << 20;
/// What the Hub looks at to tell text from other files.
const SAMPLE: u64 = 512;

/// A file to publish.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its name in the repository.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Git's name of its bytes, where they may be small enough for git.
    pub git: Option<String>,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    Memory(Arc<Vec<u8>>),
    File(PathBuf, Stamp),
}

/// What changes when somebody writes into a file, or puts another in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Stamp { size: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

impl Local {
    /// Bytes in memory.
    pub fn of_bytes(name: FileName, bytes: Vec<u8>) -> Local {
        let (sha256, git) = (hex(&Sha256::digest(&bytes)), hex(&git_blob(bytes.len() as u64).chain_update(&bytes).finalize()));
        Local { name, size: bytes.len() as u64, sha256, git: Some(git), bytes: Bytes::Memory(Arc::new(bytes)) }
    }

    /// A file, read once for its hashes. `advance` is told of every piece.
    ///
    /// # Errors
    /// [`HubError::Io`], [`HubError::Interrupted`]; [`HubError::Changed`] where it does not hold still.
    pub fn of_file(name: FileName, path: &Path, cancel: &Cancel, advance: &dyn Fn(u64)) -> Result<Local, HubError> {
        let file = File::open(path).map_err(HubError::io(path))?;
        let metadata = file.metadata().map_err(HubError::io(path))?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
            return Err(HubError::Io { path: path.to_owned(), source });
        }
        let stamp = Stamp::of(&metadata);
        let mut small = (stamp.size <= LARGEST_SMALL).then(|| git_blob(stamp.size));
        let sha256 = hash(file, path, cancel, &mut |piece| {
            if let Some(small) = &mut small {
                small.update(piece);
            }
            advance(piece.len() as u64);
        })?;
        let git = small.map(|small| hex(&small.finalize()));
        let local = Local { name, size: stamp.size, sha256, git, bytes: Bytes::File(path.to_owned(), stamp) };
        local.check_stamp()?;
        Ok(local)
    }

    /// Where it is on this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.bytes {
            Bytes::File(path, _) => Some(path),
            Bytes::Memory(_) => None,
        }
    }

    /// Whether the Hub holds the same bytes.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        let hash = match &entry.hash {
            Hash::Sha256(hex) => *hex == self.sha256,
            Hash::Git(hex) => Some(hex) == self.git.as_ref(),
        };
        hash && entry.size == self.size
    }

    /// Its first bytes.
    pub(super) fn sample(&self) -> Result<Vec<u8>, HubError> {
        self.from(0).and_then(|reader| read_up_to(reader, SAMPLE)).map_err(|source| self.io(source))
    }

    /// All bytes of a small file.
    pub(super) fn whole(&self) -> Result<Vec<u8>, HubError> {
        let bytes = self.from(0).and_then(|reader| read_up_to(reader, self.size + 1)).map_err(|source| self.io(source))?;
        match bytes.len() as u64 == self.size && hex(&Sha256::digest(&bytes)) == self.sha256 {
            true => Ok(bytes),
            false => Err(HubError::Changed { file: self.name.to_string() }),
        }
    }

    /// Its bytes from an offset on.
    pub(super) fn from(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.bytes {
            Bytes::Memory(bytes) => {
                let mut cursor = io::Cursor::new(Shared(bytes.clone()));
                cursor.set_position(offset);
                Box::new(cursor)
            }
            Bytes::File(path, _) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Box::new(file)
            }
        })
    }

    /// Read again: whether it is still what it was.
    pub(super) fn check_unchanged(&self, cancel: &Cancel) -> Result<(), HubError> {
        let Bytes::File(path, _) = &self.bytes else { return Ok(()) };
        self.check_stamp()?;
        let file = File::open(path).map_err(HubError::io(path))?;
        match hash(file, path, cancel, &mut |_| {})? == self.sha256 {
            true => Ok(()),
            false => Err(HubError::Changed { file: path.display().to_string() }),
        }
    }

    fn check_stamp(&self) -> Result<(), HubError> {
        let Bytes::File(path, stamp) = &self.bytes else { return Ok(()) };
        let now = Stamp::of(&path.metadata().map_err(HubError::io(path))?);
        if now == *stamp { Ok(()) } else { Err(HubError::Changed { file: path.display().to_string() }) }
    }

    fn io(&self, source: io::Error) -> HubError {
        HubError::Io { path: self.path().map_or_else(|| self.name.path(), Path::to_owned), source }
    }
}

/// Bytes that several readers share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The beginning of what git hashes of a file.
fn git_blob(size: u64) -> Sha1 {
    Sha1::new_with_prefix(format!("blob {size}\0"))
}

fn hash(mut file: File, path: &Path, cancel: &Cancel, piece: &mut dyn FnMut(&[u8])) -> Result<String, HubError> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; PIECE]);
    loop {
        if cancel.asked() {
            return Err(HubError::Interrupted);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                piece(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(HubError::Io { path: path.to_owned(), source }),
        }
    }
}
