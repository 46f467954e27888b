//! Text from the bytes of tokens.

/// Turns the bytes of one token after the other into text: a character whose bytes are spread over tokens comes with its last one.
///
/// All pieces in a row are what [`String::from_utf8_lossy`] makes of all bytes: what is not UTF-8 becomes U+FFFD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Utf8Stream {
    /// The beginning of a character, at most 3 bytes.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// The text that is complete with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, behind) = rest.split_at(error.valid_up_to());
                    // Valid, as was just found: this borrows.
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = behind;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    /// What is left at the end: U+FFFD for a character that never became complete.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(parts: &[&[u8]]) -> (Vec<String>, String) {
        let mut stream = Utf8Stream::default();
        (parts.iter().map(|part| stream.push(part)).collect(), stream.finish())
    }

    #[test]
    fn characters_come_whole() {
        let (said, rest) = pieces(&[b"a\xf0\x9f", b"\x98", b"\x80b", b"\xc3"]);
        assert_eq!((said, rest), (vec!["a".into(), String::new(), "\u{1f600}b".into(), String::new()], "\u{fffd}".into()));
        let (said, rest) = pieces(&[b"\xff\xfea", b"\xe2\x82", b"z", b""]);
        assert_eq!((said.concat(), rest), ("\u{fffd}\u{fffd}a\u{fffd}z".into(), String::new()));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(
            parts in prop::collection::vec(
                prop::collection::vec(prop::sample::select(vec![0x41, 0x80, 0xBF, 0xC2, 0xC0, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0xF4, 0x90, 0xFF]), 0..5),
                0..12,
            ),
        ) {
            let mut stream = Utf8Stream::default();
            let mut text = String::new();
            for part in &parts {
                text.push_str(&stream.push(part));
                prop_assert!(stream.held.len() <= 3);
            }
            text.push_str(&stream.finish());
            let whole = parts.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
