//! Names that users, servers and indexes give: checked before a path or an address is made of them.

use crate::error::{HubError, printable};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `org/name`, as the Hub spells repositories.
///
/// huggingface.co: each part has letters, digits, `-`, `_` and `.`, neither begins nor ends with `-` or `.`, holds neither `--` nor
/// `..`; at most 96 characters; a name does not end in `.git`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId {
    text: String,
    slash: usize,
}

impl RepoId {
    /// `org/name`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is: a user or an organization.
    pub fn owner(&self) -> &str {
        &self.text[..self.slash]
    }

    /// Its name without the owner.
    pub fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |why| HubError::BadName { what: "the repository id", name: printable(text, 200), why };
        let (owner, name) = text.split_once('/').ok_or_else(|| refuse("it is not of the form org/name"))?;
        for part in [owner, name] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if part.is_empty() || name.contains('/') {
                return Err(refuse("it is not of the form org/name"));
            }
            if !part.chars().all(plain) {
                return Err(refuse("letters, digits, '-', '_' and '.' are allowed"));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) || part.contains("--") || part.contains("..") {
                return Err(refuse("a part neither begins nor ends with '-' or '.', and holds neither '--' nor '..'"));
            }
        }
        if owner.len() > 96 || name.len() > 96 {
            return Err(refuse("a part of it has more than 96 characters"));
        }
        if name.ends_with(".git") {
            return Err(refuse("it ends in .git"));
        }
        Ok(RepoId { text: text.to_owned(), slash: owner.len() })
    }
}

/// A branch, a tag, `refs/pr/N` or a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(String);

impl Revision {
    /// The default branch.
    pub fn main() -> Revision {
        Revision("main".to_owned())
    }

    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One segment of an address: `refs%2Fpr%2F1`.
    pub fn segment(&self) -> String {
        encode_segment(&self.0)
    }

    /// Whether this is a commit's full name, which does not move.
    pub fn is_commit(&self) -> bool {
        self.0.len() == 40 && is_hex(&self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    /// The rules of `git check-ref-format`, as far as they keep a path or an address from being misread.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |why| HubError::BadName { what: "the revision", name: printable(text, 200), why };
        if let Some(why) = not_relative(text) {
            return Err(refuse(why));
        }
        let bad = |c: char| c.is_whitespace() || "~^:?*[@\\".contains(c);
        if text.contains(bad) || text.contains("..") || text.ends_with(".lock") || text.ends_with('.') {
            return Err(refuse("it is no name of a branch, a tag or a commit"));
        }
        if text.len() > 255 {
            return Err(refuse("it has more than 255 bytes"));
        }
        Ok(Revision(text.to_owned()))
    }
}

/// The path of a file inside a repository: relative, with `/` between its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// With `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Below a folder of this machine.
    pub fn path(&self) -> PathBuf {
        self.0.split('/').collect()
    }

    /// For an address: each part percent-encoded.
    pub fn encoded(&self) -> String {
        self.0.split('/').map(encode_segment).collect::<Vec<_>>().join("/")
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |why| HubError::BadName { what: "the file name", name: printable(text, 200), why };
        match not_relative(text) {
            Some(why) => Err(refuse(why)),
            None if text.len() > 1024 || text.split('/').any(|part| part.len() > 255) => Err(refuse("it is too long")),
            None if text.split('/').any(|part| part.eq_ignore_ascii_case(".git")) => Err(refuse("it leads into .git")),
            None => Ok(FileName(text.to_owned())),
        }
    }
}

/// Why a text is no relative path below some folder, on whatever system.
fn not_relative(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.contains('\\') {
        return Some("it holds a backslash");
    }
    if text.chars().any(char::is_control) {
        return Some("it holds control characters");
    }
    for part in text.split('/') {
        match part {
            "" => return Some("a part of it is empty"),
            "." | ".." => return Some("a part of it is '.' or '..'"),
            // A drive or a stream of Windows.
            part if part.contains(':') => return Some("it holds a colon"),
            _ => {}
        }
    }
    None
}

/// The name of a file's content in the cache: its sha256 (64 hex digits) or git's sha1 of it (40).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl BlobName {
    /// From an `ETag` header, quotes and the mark of a weak tag removed. One that is no hash names the blob by its own sha256: what
    /// a server says becomes no path.
    pub fn from_etag(etag: &str) -> BlobName {
        let bare = etag.trim();
        let bare = bare.strip_prefix("W/").unwrap_or(bare).trim_matches('"');
        if matches!(bare.len(), 40 | 64) && is_hex(bare) {
            return BlobName(bare.to_owned());
        }
        BlobName(hex(&Sha256::digest(bare.as_bytes())))
    }

    /// For a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal digits, and nothing else.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lower-case hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One segment of an address: all but RFC 3986's unreserved characters are percent-encoded.
pub fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_ids() {
        let id: RepoId = "HuggingFaceTB/SmolLM2-135M_v1.0".parse().unwrap();
        assert_eq!(
            (id.owner(), id.name(), id.as_str()),
            ("HuggingFaceTB", "SmolLM2-135M_v1.0", "HuggingFaceTB/SmolLM2-135M_v1.0")
        );
        let long = format!("a/{}", "b".repeat(97));
        for bad in [
            "gpt2", "a/b/c", "/a", "a/", "../b", "a/..", "a/b..c", "a/b--c", "a/-b", "a/b.", "a/b c", "a/b\0", "a/ü", "a/b.git",
            &long,
        ] {
            assert!(matches!(bad.parse::<RepoId>(), Err(HubError::BadName { .. })), "{bad}");
        }
    }

    #[test]
    fn revisions_are_one_segment() {
        let revision: Revision = "refs/pr/1".parse().unwrap();
        assert_eq!(revision.segment(), "refs%2Fpr%2F1");
        assert!(!revision.is_commit() && "0123456789abcdef0123456789abcdef01234567".parse::<Revision>().unwrap().is_commit());
        for bad in ["", "../main", "a/../b", "/main", "a//b", "a b", "a:b", "a\\b", "a\nb", "v1..v2", "a@b"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad}");
        }
    }

    #[test]
    fn file_names_stay_below_their_folder() {
        let name: FileName = "sub dir/modèle-00001.safetensors".parse().unwrap();
        assert_eq!(name.encoded(), "sub%20dir/mod%C3%A8le-00001.safetensors");
        assert_eq!(name.path(), PathBuf::from("sub dir").join("modèle-00001.safetensors"));
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a/./x",
            ".",
            "..",
            "a//x",
            "a/",
            "a\\..\\x",
            "C:/x",
            "c:x",
            "a\0",
            "a\nb",
            "\\\\host\\share",
            ".git/config",
            "a/.GIT/x",
        ] {
            assert!(matches!(bad.parse::<FileName>(), Err(HubError::BadName { .. })), "{bad:?}");
        }
        assert!("a/..b/x..y".parse::<FileName>().is_ok(), "dots inside a name are no way out");
    }

    #[test]
    fn etags_become_no_paths() {
        let sha256 = "a".repeat(64);
        assert_eq!(BlobName::from_etag(&format!("\"{sha256}\"")).as_str(), sha256);
        assert_eq!(BlobName::from_etag(&format!("W/\"{}\"", "b".repeat(40))).as_str(), "b".repeat(40));
        for hostile in ["../../x", "\"/etc/passwd\"", "", "A/B", &"G".repeat(40)] {
            let name = BlobName::from_etag(hostile);
            assert!(name.as_str().len() == 64 && is_hex(name.as_str()), "{hostile}");
        }
    }
}
