//! Numbers as people read them. Units are decimal: 1 MB is 1,000,000 bytes.

use std::time::Duration;

/// Bytes with three significant digits: `999 B`, `1.23 kB`, `45.6 MB`, `789 GB`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes per second.
pub fn rate(bytes: u64, time: Duration) -> String {
    scaled(bytes as f64 / time.as_secs_f64().max(1e-9), &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// A count with three significant digits: `999`, `1.23 k`, `135 M`, `8.03 B`.
pub fn count(count: u64) -> String {
    scaled(count as f64, &["", "k", "M", "B", "T"]).trim_end().to_owned()
}

/// A count with its thousands apart: `134,515,008`.
pub fn grouped(count: u64) -> String {
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

/// A number of things: `1 tensor`, `2 tensors`.
pub fn plural(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

/// A duration: `0.04 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.2} s"),
        10..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A shape, outermost dimension first: `[1024, 64]`.
pub fn shape(shape: &[u64]) -> String {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
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
    fn bytes_have_three_digits_and_decimal_units() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_994, "9.99 kB"), (9_996, "10.0 kB")];
        let more = [(99_960, "100 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"), (144_811_072, "145 MB")];
        for (value, text) in cases.into_iter().chain(more) {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn counts_and_rates() {
        assert_eq!((count(999), count(134_515_008), count(8_030_261_248)), ("999".into(), "135 M".into(), "8.03 B".into()));
        assert_eq!([0, 999, 1000, 134_515_008].map(grouped), ["0", "999", "1,000", "134,515,008"]);
        assert_eq!(rate(2_500_000_000, Duration::from_secs(2)), "1.25 GB/s");
        assert_eq!((plural(1, "tensor"), plural(2000, "tensor")), ("1 tensor".into(), "2,000 tensors".into()));
    }

    #[test]
    fn durations_never_show_sixty_seconds() {
        let text = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        assert_eq!([0.0, 0.044, 12.34, 59.4].map(text), ["0.00 s", "0.04 s", "12.3 s", "59.4 s"]);
        assert_eq!([59.6, 185.2, 3599.7, 7620.0].map(text), ["1 min 00 s", "3 min 05 s", "1 h 00 min", "2 h 07 min"]);
        assert_eq!(text(9.996), "10.0 s");
    }
}
