//! The printable characters by which byte-level BPE spells bytes (`bytes_to_unicode` of GPT-2's encoder).

/// The character of each byte: printable Latin-1 stands for itself, the 68 others are numbered from U+0100.
pub(super) fn chars() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            }
        }
    })
}

/// The byte of a character; `None`: it spells none.
pub(super) fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `<0x0A>`
pub(super) fn fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let chars = chars();
        for (at, &c) in chars.iter().enumerate() {
            assert_eq!(byte(c), Some(at as u8));
        }
        assert_eq!((chars[b' ' as usize], chars[b'\n' as usize], chars[0xad]), ('Ġ', 'Ċ', 'Ń'));
        assert!([' ', '\n', '\u{144}', '▁'].into_iter().all(|c| byte(c).is_none()));
        assert_eq!(
            (fallback("<0x0A>"), fallback("<0xff>"), fallback("<0x+1>"), fallback("<0xA>")),
            (Some(10), Some(255), None, None)
        );
    }
}
