//! What SOURCE is, before anything is read.

use crate::failure::Failure;
use crate::texts;
use std::io;
use std::path::Path;

/// A metadata file is written by hand.
const METADATA_FILE_BYTES: u64 = 64 << 20;

/// Refuse what is no directory, and say what to do.
pub fn check(source: &Path) -> Result<(), Failure> {
    let shown = source.display();
    match std::fs::metadata(source) {
        Ok(metadata) if metadata.is_dir() => in_cache(source).map_or(Ok(()), Err),
        Ok(_) => {
            let failure = Failure::new(format!("{shown} is a file; convert takes a model's directory"));
            Err(match source.extension().and_then(|e| e.to_str()) {
                Some("gguf") => failure.hint("it is a GGUF file already; `ggufsmith inspect` shows what it holds"),
                Some("safetensors" | "json") => {
                    let directory = source.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    failure.hint(format!("name the directory it lies in: {}", directory.display()))
                }
                _ => failure,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("there is no directory {shown}")).hint("a model of the Hugging Face Hub is named org/name"))
        }
        Err(error) => Err(Failure::from(io::Error::new(error.kind(), format!("{shown}: {error}")))),
    }
}

/// A repository's folder of the Hub cache, `models--org--name`, holds the model one level deeper.
fn in_cache(source: &Path) -> Option<Failure> {
    if source.join("config.json").exists() {
        return None;
    }
    let mut snapshots: Vec<_> = std::fs::read_dir(source.join("snapshots")).ok()?.flatten().map(|entry| entry.path()).collect();
    snapshots.sort();
    let failure = Failure::new(format!("{} is a repository's folder of the Hub cache, not a model's directory", source.display()));
    let names: Vec<String> = snapshots.iter().map(|path| path.display().to_string()).collect();
    Some(failure.hint(match names.as_slice() {
        [] => "it holds no snapshot; download the model anew".to_owned(),
        names => format!("name a snapshot with --model-name NAME, since its directory is called by a hash: {}", names.join(" or ")),
    }))
}

/// The content of `--metadata FILE`.
pub fn metadata_file(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    let shown = path.display();
    let refuse = |what: &dyn std::fmt::Display| Failure::new(format!("--metadata {shown}: {what}"));
    let text = texts::text("--metadata", path, METADATA_FILE_BYTES)?;
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err(refuse(&"no JSON object").hint(r#"write keys and values: {"general.name": "My model"}"#)),
        Err(error) => Err(refuse(&format_args!("not JSON: {error}"))),
    }
}
