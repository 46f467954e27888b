//! Numbers and names as people read them. Sizes are decimal: 1 MB is 1,000,000 bytes.

/// What a number that is NaN or infinite is called.
pub(super) const NOT_FINITE: &str = "not finite";

/// Outside these magnitudes numbers are written with a power of ten.
const PLAIN: std::ops::Range<f64> = 1e-3..1e6;

/// Three or four significant digits: `0`, `0.0312`, `15.92`, `3.12 × 10⁻⁵`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return NOT_FINITE.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    if !PLAIN.contains(&value.abs()) {
        // Rust's own scientific notation also rounds 9.999 up to the next power of ten.
        let scientific = format!("{value:.2e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return format!("{mantissa}{}", times_power(exponent.parse().unwrap_or(0)));
    }
    let digits = (3 - exponent(value)).clamp(0, 5) as usize;
    format!("{value:.digits$}")
}

/// A number and its standard error, rounded to one digit of the error, or to two where it begins with a one: `15.9 ± 0.3`,
/// `15.92 ± 0.12`, `(3.1 ± 0.2) × 10⁻⁵`. An error that is not finite is left out.
pub(super) fn with_error(value: f64, error: f64) -> String {
    if !value.is_finite() || !error.is_finite() || error < 0.0 {
        return number(value);
    }
    if error == 0.0 {
        return format!("{} ± 0", number(value));
    }
    let largest = value.abs().max(error);
    if !PLAIN.contains(&largest) {
        let power = exponent(largest);
        // In two steps: 10^-power alone may overflow.
        let scale = |x: f64| x / 10f64.powi(power / 2) / 10f64.powi(power - power / 2);
        let digits = decimals(scale(error)).min(4);
        return format!("({:.digits$} ± {:.digits$}){}", scale(value), scale(error), times_power(power));
    }
    let digits = decimals(error);
    format!("{value:.digits$} ± {error:.digits$}")
}

/// Decimals for an error and for what it belongs to.
fn decimals(error: f64) -> usize {
    let scientific = format!("{error:.0e}");
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    // An error that is rounded up to 1 still has one digit more than one of 2.
    let one = scientific.starts_with('1');
    (i32::from(one) - power).clamp(0, 6) as usize
}

/// A perplexity and its standard error. Its last digits mean something in spite of the error, which both sides of a comparison share:
/// two digits of it are kept, `15.92 ± 0.31`.
pub(super) fn perplexity(value: f64, error: f64) -> String {
    if PLAIN.contains(&value.abs()) && (1e-3..1e3).contains(&error) {
        let digits = (1 - exponent(error)).clamp(0, 4) as usize;
        return format!("{value:.digits$} ± {error:.digits$}");
    }
    with_error(value, error)
}

/// A share of 0 to 1 in percent with its standard error: `93.42 ± 0.31 %`.
pub(super) fn percent(share: f64, error: f64) -> String {
    if !share.is_finite() {
        return NOT_FINITE.to_owned();
    }
    if !error.is_finite() || error < 0.0 {
        return format!("{:.2} %", 100.0 * share);
    }
    format!("{:.2} ± {:.2} %", 100.0 * share, 100.0 * error)
}

/// Bytes with three significant digits: `999 B`, `145 MB`, `8.03 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A count with three significant digits: `135 M`, `8.03 B`.
pub(super) fn count(count: u64) -> String {
    scaled(count as f64, &["", "k", "M", "B", "T"]).trim_end().to_owned()
}

/// A count with its thousands apart: `134,515,008`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 window`, `2 windows`.
pub(super) fn plural(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Bits per weight: `4.5`, `8.501`.
pub(super) fn bits(bits: f64) -> String {
    if !bits.is_finite() {
        return NOT_FINITE.to_owned();
    }
    let text = format!("{bits:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bits per weight that a number of bytes means.
pub(super) fn bits_per_weight(bytes: u64, parameters: u64) -> f64 {
    8.0 * bytes as f64 / parameters as f64
}

/// The exponent of `value` in scientific notation, after rounding to two digits.
fn exponent(value: f64) -> i32 {
    let scientific = format!("{:.1e}", value.abs());
    scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

fn times_power(power: i32) -> String {
    if power == 0 { String::new() } else { format!(" × {}", power_of_ten(power)) }
}

/// `10⁻⁵`.
pub(super) fn power_of_ten(power: i32) -> String {
    let digits = power.to_string();
    let raised = digits.chars().map(|c| SUPERSCRIPTS.iter().find(|(plain, _)| *plain == c).map_or(c, |(_, raised)| *raised));
    "10".chars().chain(raised).collect()
}

const SUPERSCRIPTS: [(char, char); 11] = [
    ('-', '⁻'),
    ('0', '⁰'),
    ('1', '¹'),
    ('2', '²'),
    ('3', '³'),
    ('4', '⁴'),
    ('5', '⁵'),
    ('6', '⁶'),
    ('7', '⁷'),
    ('8', '⁸'),
    ('9', '⁹'),
];

/// Numbers of this module for a terminal, where raised digits are hard to read: `3.12e-5`.
pub(super) fn ascii(text: &str) -> String {
    let text = text.replace(" × 10", "e");
    text.chars().map(|c| SUPERSCRIPTS.iter().find(|(_, raised)| *raised == c).map_or(c, |(plain, _)| *plain)).collect()
}

/// Text on one line without what could steer a terminal or turn the direction of writing: such characters become `�`.
pub(super) fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// At most `max` characters of [`clean`] text, with `…` for what is left out in the middle.
pub(super) fn shorten(text: &str, max: usize) -> String {
    let text = clean(text);
    let length = text.chars().count();
    if length <= max {
        return text;
    }
    let tail = max.saturating_sub(1) / 2;
    let head = max.saturating_sub(1) - tail;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// Text for HTML, in content and in quoted attributes alike.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be rounded to 1000 of the smaller unit.
    while value >= if unit == 0 { 1000.0 } else { 999.5 } && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        let cases = [
            (0.0, "0"),
            (15.9213, "15.92"),
            (1.018_23, "1.018"),
            (0.031_234, "0.03123"),
            (0.000_999_9, "1.00 × 10⁻³"),
            (3.123e-5, "3.12 × 10⁻⁵"),
            (123_456.7, "123457"),
            (1e300, "1.00 × 10³⁰⁰"),
            (-2.5e-7, "-2.50 × 10⁻⁷"),
            (f64::NAN, "not finite"),
            (f64::NEG_INFINITY, "not finite"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::MIN_POSITIVE / 4.0), "5.56 × 10⁻³⁰⁹");
    }

    #[test]
    fn errors_decide_the_digits() {
        assert_eq!(with_error(15.9213, 0.3124), "15.9 ± 0.3");
        assert_eq!(with_error(15.9213, 0.1249), "15.92 ± 0.12");
        assert_eq!(with_error(15.9213, 0.0996), "15.92 ± 0.10");
        assert_eq!(with_error(1.0, 0.0), "1.000 ± 0");
        assert_eq!(with_error(3.123e-5, 2.04e-6), "(3.1 ± 0.2) × 10⁻⁵");
        assert_eq!(with_error(5.0e5, 1.2e4), "500000 ± 12000");
        assert_eq!(with_error(5.0e8, 1.2e7), "(5.00 ± 0.12) × 10⁸");
        assert_eq!(with_error(12.0, f64::NAN), "12.00");
        assert_eq!(with_error(f64::NAN, 1.0), "not finite");
        assert_eq!(with_error(3e-320, 2e-321), "(3.0 ± 0.2) × 10⁻³²⁰");
        assert_eq!(percent(0.934_21, 0.003_11), "93.42 ± 0.31 %");
        assert_eq!(
            (perplexity(15.9213, 0.3124), perplexity(1e300, 1e299)),
            ("15.92 ± 0.31".into(), "(1.00 ± 0.10) × 10³⁰⁰".into())
        );
    }

    #[test]
    fn names_cannot_do_harm() {
        assert_eq!(escape("<script>alert('1' & \"2\")"), "&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)");
        assert_eq!(clean("a\u{1b}[31m\nb\u{202e}c"), "a�[31m�b�c");
        assert_eq!(
            (shorten("abcdefgh", 8), shorten("abcdefgh", 5), shorten("äöüß", 3)),
            ("abcdefgh".into(), "ab…gh".into(), "ä…ß".into())
        );
        assert_eq!(ascii("(3.12 ± 0.20) × 10⁻⁵"), "(3.12 ± 0.20)e-5");
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!((bytes(999), bytes(144_811_072), bytes(u64::MAX)), ("999 B".into(), "145 MB".into(), "18.4 EB".into()));
        assert_eq!(
            (count(134_515_008), grouped(134_515_008), plural(1, "window")),
            ("135 M".into(), "134,515,008".into(), "1 window".into())
        );
        assert_eq!(
            (bits(4.5), bits(8.5012), bits(16.0), bits(f64::NAN)),
            ("4.5".into(), "8.501".into(), "16".into(), "not finite".into())
        );
    }
}
