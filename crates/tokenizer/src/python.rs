//! The few functions of Python's text handling whose results enter the bytes.

/// `str.isspace` for one character: Unicode's White_Space plus the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|w| !w.is_empty())
}

/// What reading a file in text mode makes of its line ends.
pub(super) fn universal_newlines(text: String) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_is_pythons() {
        assert_eq!(strip("\u{1f}\u{85} a b\u{a0}\n"), "a b");
        assert_eq!(words(" a\u{1c}b \u{3000}c").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
    }

    #[test]
    fn line_ends() {
        assert_eq!(universal_newlines("a\r\nb\rc\n\r\n".into()), "a\nb\nc\n\n");
    }
}
