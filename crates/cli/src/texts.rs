//! Texts to evaluate with.

use crate::failure::Failure;
use crate::units;
use ggufsmith_verify::{EVALUATION_TEXT, NamedText};
use std::path::Path;

/// A longer text is no evaluation text but a mistake.
const MAX_BYTES: u64 = 1 << 30;

/// The text of a file, or the embedded one.
pub fn evaluation(file: Option<&Path>) -> Result<NamedText, Failure> {
    match file {
        Some(file) => read("--text", file),
        None => Ok(NamedText { name: "eb1911-shakespeare.txt (embedded)".to_owned(), text: EVALUATION_TEXT.to_owned() }),
    }
}

/// A text file that `flag` names.
pub fn read(flag: &str, file: &Path) -> Result<NamedText, Failure> {
    let refuse = |what: &dyn std::fmt::Display| Failure::new(format!("{flag} {}: {what}", file.display()));
    let metadata = std::fs::metadata(file).map_err(|e| refuse(&e))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(refuse(&format_args!("no file of at most {}", units::bytes(MAX_BYTES))));
    }
    let text = std::fs::read(file).map_err(|e| refuse(&e))?;
    let text =
        String::from_utf8(text).map_err(|e| refuse(&format_args!("not UTF-8 from byte {} on", e.utf8_error().valid_up_to())))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(NamedText { name, text })
}
