//! Texts to evaluate with.

use crate::failure::Failure;
use crate::units;
use ggufsmith_verify::{EVALUATION_TEXT, NamedText};
use std::io::Read;
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
    let text = text(flag, file, MAX_BYTES)?;
    let name = match file.file_name() {
        Some(name) if name != "-" => name.to_string_lossy().into_owned(),
        _ => "standard input".to_owned(),
    };
    Ok(NamedText { name, text })
}

/// The text that `flag` names: of a file of at most `limit` bytes, or of standard input or another pipe that the shell made.
pub fn text(flag: &str, file: &Path, limit: u64) -> Result<String, Failure> {
    let refuse = |what: &dyn std::fmt::Display| Failure::new(format!("{flag} {}: {what}", file.display()));
    let too_large = || refuse(&format_args!("more than {}", units::bytes(limit)));
    let bytes = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(|e| refuse(&e))?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
    };
    let text = if file == Path::new("-") {
        bytes(&mut std::io::stdin().lock())?
    } else {
        let metadata = std::fs::metadata(file).map_err(|e| refuse(&e))?;
        // `<(command)` of a shell; another pipe might wait for ever.
        let shells = file.starts_with("/dev/fd") || file == Path::new("/dev/stdin") || file.starts_with("/proc/self/fd");
        if metadata.is_dir() || !(metadata.is_file() || shells) {
            let what = if metadata.is_dir() { "a directory" } else { "a pipe or a device" };
            return Err(refuse(&format_args!("{what}, no file")).hint("- means standard input"));
        }
        if metadata.len() > limit {
            return Err(too_large());
        }
        bytes(&mut std::fs::File::open(file).map_err(|e| refuse(&e))?)?
    };
    String::from_utf8(text).map_err(|e| refuse(&format_args!("not UTF-8 from byte {} on", e.utf8_error().valid_up_to())))
}
