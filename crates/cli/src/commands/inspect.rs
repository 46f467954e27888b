//! `ggufsmith inspect`.

mod directory;
mod gguf;
mod safetensors;
mod tensors;

use crate::failure::Failure;
use crate::hub::{self, Need};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Show what a GGUF file, a safetensors file or a model directory holds
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("inspect/help.txt"))]
pub struct Arguments {
    /// GGUF file (of a model in shards: any of them), .safetensors file, model directory, or `org/name[@revision]` on the Hub
    path: PathBuf,

    /// Leave out the list of tensors
    #[arg(long)]
    no_tensors: bool,

    /// Show long values whole (with --json: every element of every array)
    #[arg(long)]
    full: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a path is, by its first bytes, or by its name where it is empty or cut off.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Gguf,
    Safetensors,
    Other,
}

impl Arguments {
    /// Print what the path holds.
    pub fn run(&self) -> Result<(), Failure> {
        let located = hub::locate(&self.path, Need::Headers, false)?;
        let shown = located.path.display();
        let fault = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Failure::new(format!("there is no file or directory {shown}")),
            _ => Failure::from(io::Error::new(e.kind(), format!("{shown}: {e}"))),
        };
        match kind(&located.path).map_err(fault)? {
            Kind::Directory => directory::show(self, &located),
            Kind::Gguf => gguf::show(self),
            Kind::Safetensors => safetensors::show(self),
            Kind::Other => Err(Failure::new(format!("{shown} is neither a GGUF nor a safetensors file"))
                .hint("for a model in several files name its directory, or one of its .gguf files")),
        }
    }
}

fn kind(path: &Path) -> io::Result<Kind> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(Kind::Directory);
    }
    let named = match path.extension().and_then(|e| e.to_str()) {
        Some("gguf") => Kind::Gguf,
        Some("safetensors") => Kind::Safetensors,
        _ => Kind::Other,
    };
    if !metadata.is_file() {
        // Reading a pipe could wait for ever; the readers refuse it by its name.
        return Ok(named);
    }
    let mut first = Vec::new();
    File::open(path)?.take(9).read_to_end(&mut first)?;
    Ok(match first.as_slice() {
        [b'G', b'G', b'U', b'F', ..] => Kind::Gguf,
        [_, _, _, _, _, _, _, _, b'{'] if named != Kind::Gguf => Kind::Safetensors,
        _ => named,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_more_than_names() {
        let dir = tempfile::tempdir().unwrap();
        let kind_of = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            kind(&path).unwrap()
        };
        assert_eq!(kind(dir.path()).unwrap(), Kind::Directory);
        assert_eq!(kind_of("a", b"GGUF\x03\0\0\0\0"), Kind::Gguf);
        assert_eq!(kind_of("b", b"\x02\0\0\0\0\0\0\0{}"), Kind::Safetensors);
        assert_eq!(kind_of("c.gguf", b""), Kind::Gguf);
        assert_eq!(kind_of("d.safetensors", b"\x02"), Kind::Safetensors);
        assert_eq!(kind_of("e", b"{\"a\": 1234567}"), Kind::Other);
    }
}
