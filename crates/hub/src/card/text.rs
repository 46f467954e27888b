//! Words and numbers in Markdown.

/// A text inside a line of Markdown, as the text that it is: no markup, no HTML, no link.
pub fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Of addresses, which are made links without any markup.
            ':' => escaped.push_str("&#58;"),
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '!' | '|' | '~' | '$' => escaped.extend(['\\', c]),
            c if is_invisible(c) => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped.replace("www.", "www&#46;")
}

/// A text in a block of code, on one line, that ends neither the block nor our part.
pub fn code(text: &str) -> String {
    let line: String = text.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect();
    line.replace("```", "` ` `").replace("<!--", "<! --").replace("-->", "-- >")
}

/// Characters that steer: controls, and those that turn the direction of a line.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `4.37 GB`, decimal, without a place to break the line.
pub fn size(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(unit, _)| bytes as f64 >= *unit) {
        Some((unit, name)) => format!("{}\u{a0}{name}", number(bytes as f64 / unit)),
        None => format!("{bytes}\u{a0}bytes"),
    }
}

/// Three or four digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "not finite".to_owned(),
        0.0 => "0".to_owned(),
        size if !(1e-4..1e6).contains(&size) => format!("{value:.2e}"),
        size => {
            let digits = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.digits$}")
        }
    }
}

/// `15.92 ± 0.31`; the error with two digits, which decide those of the value; it stays on one line.
pub fn measured((value, error): (f64, f64)) -> String {
    if !value.is_finite() || !error.is_finite() || error <= 0.0 || value.abs() >= 1e6 {
        return number(value);
    }
    let digits = |error: f64| (1 - error.log10().floor() as i32).clamp(0, 7) as usize;
    if value != 0.0 && value.abs() < 1e-4 {
        let power = value.abs().log10().floor() as i32;
        let (value, error) = (value / 10f64.powi(power), error / 10f64.powi(power));
        let digits = digits(error);
        return format!("({value:.digits$}\u{a0}±\u{a0}{error:.digits$})e{power}");
    }
    let digits = digits(error);
    format!("{value:.digits$}\u{a0}±\u{a0}{error:.digits$}")
}

/// An argument as a shell takes it.
pub fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}
