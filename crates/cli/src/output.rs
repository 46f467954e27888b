//! Standard output for data, standard error for everything else.

use crate::failure::Failure;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// Write data.
///
/// # Errors
/// [`Failure`] where standard output is closed or full.
pub fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

/// Write one JSON value and a newline.
///
/// # Errors
/// As [`data`].
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    data(&text)
}

/// Tell what is going on. Text of files (names, values) must have gone through [`printable`].
pub fn note(text: &str) {
    line(None, text);
}

/// Tell what a user should know although the run goes on.
pub fn warning(text: &str) {
    line(Some(("warning:", AnsiColor::Yellow)), text);
}

/// Tell why the run ends.
pub fn error(text: &str, hint: Option<&str>) {
    line(Some(("error:", AnsiColor::Red)), text);
    if let Some(hint) = hint {
        line(None, "");
        line(Some(("hint:", AnsiColor::Cyan)), hint);
    }
}

/// Whether standard error is a terminal that understands control sequences.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether to colour standard error (`NO_COLOR`, see no-color.org).
pub fn stderr_has_colors() -> bool {
    stderr_is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn line(label: Option<(&str, AnsiColor)>, text: &str) {
    let text = printable(text);
    let labelled = match label {
        None => text.into_owned(),
        Some((label, color)) if stderr_has_colors() => {
            let style = Style::new().bold().fg_color(Some(color.into()));
            format!("{style}{label}{style:#} {text}")
        }
        Some((label, _)) => format!("{label} {text}"),
    };
    // Where standard error is gone nobody is left to be told.
    let _ = writeln!(io::stderr().lock(), "{labelled}");
}

/// Text from a file without the characters that move a terminal's cursor or worse; lines stay lines.
pub fn printable(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}c\r"), "a\\u{1b}[31m\nb\\u{202e}c\\r");
        assert!(matches!(printable("plain ümlaut"), Cow::Borrowed(_)));
    }
}
