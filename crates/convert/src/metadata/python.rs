//! The Python string methods that decide how names are written, for every code point.
//!
//! `str.title()` and `str.split()` differ from what Rust's standard library offers under similar names: titlecase is not
//! uppercase, and Python counts U+001C to U+001F as space.

/// `str.isspace()` of one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.islower()`: at least one cased character and none of them in upper or title case.
pub(super) fn is_lower(word: &str) -> bool {
    word.chars().any(char::is_lowercase) && !word.chars().any(|c| c.is_uppercase() || is_titlecase(c))
}

/// `str.title()` of a word for which [`is_lower`] holds: the first cased character of every run of letters in title case.
pub(super) fn title_of_lower(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut inside_word = false;
    for c in word.chars() {
        if inside_word {
            out.push(c);
        } else {
            push_titlecase(c, &mut out);
        }
        inside_word = c.is_lowercase();
    }
    out
}

/// General category Lt.
fn is_titlecase(c: char) -> bool {
    matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}' | '\u{1fa8}'..='\u{1faf}'
        | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// Full title case of a lowercase character (Unicode's SpecialCasing.txt); other characters stay as they are.
///
/// It is the uppercase form, where that is several characters all but the first of them lowered again, with four exceptions.
fn push_titlecase(c: char, out: &mut String) {
    const COMBINING_IOTA: char = '\u{345}';
    match c {
        'ŉ' => out.push_str("ʼN"),
        'ǆ' => out.push('ǅ'),
        'ǉ' => out.push('ǈ'),
        'ǌ' => out.push('ǋ'),
        'ǳ' => out.push('ǲ'),
        // Georgian has capitals and does not use them for titles.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => out.push(c),
        // Greek with an iota below: the capital keeps it below.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => out.extend(char::from_u32(c as u32 + 8)),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => out.extend(char::from_u32(c as u32 + 9)),
        '\u{1fb2}' | '\u{1fb4}' | '\u{1fb7}' | '\u{1fc2}' | '\u{1fc4}' | '\u{1fc7}' | '\u{1ff2}' | '\u{1ff4}' | '\u{1ff7}' => {
            out.extend(c.to_uppercase().map(|u| if u == 'Ι' { COMBINING_IOTA } else { u }));
        }
        _ => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lowercase_character_has_pythons_title_case() {
        // Python 3.11's `chr(i).title()` wherever it is not the one-character uppercase form.
        let table: Vec<(String, String)> =
            serde_json::from_str(include_str!("../../../../fixtures/metadata/titlecase.json")).unwrap();
        assert!(table.len() > 100, "the table is cut");
        for i in (0..0x110000).filter_map(char::from_u32).filter(|c| c.is_lowercase()) {
            let word = i.to_string();
            let special = table.iter().find(|(c, _)| *c == word).map(|(_, title)| title.clone());
            let plain = || i.to_uppercase().collect::<String>();
            // Unicode of Rust is newer than Python's: characters that one of them does not know are not compared.
            assert_eq!(title_of_lower(&word), special.unwrap_or_else(plain), "{word} U+{:04X}", i as u32);
        }
    }

    #[test]
    fn only_the_first_letter_of_each_run_is_raised() {
        assert_eq!(title_of_lower("llama3b_it's"), "Llama3B_It'S");
        assert!(is_lower("a1-") && !is_lower("1") && !is_lower("aB") && !is_lower("aǅ"));
        assert_eq!(strip("\u{1c} a b\u{a0}"), "a b");
    }
}
