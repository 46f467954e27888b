//! A report for a terminal: plain text of at most [`WIDTH`] columns.

use super::outcome::{Outcome, labels, sentence, source_name, words};
use super::text::{ascii, bits, bits_per_weight, bytes, clean, grouped, number, plural, shorten, with_error};
use super::{Report, Status};
use std::fmt::Write;

/// Columns at most.
const WIDTH: usize = 100;
/// Problems of a check that are shown; the JSON has all of them.
const MAX_PROBLEMS: usize = 10;

/// Columns between the table's columns.
const GAPS: usize = 2 * 7;

const HEADINGS: [&str; 8] = ["TYPE", "SIZE", "BITS/WT", "VERDICT", "PERPLEXITY", "RATIO", "MEAN KLD", "TOP-1"];

/// Files of one source: a table, what failed, and the verdict in the last line. No colour; ends with a newline.
pub fn terminal(reports: &[Report]) -> String {
    let mut out = String::new();
    if let Some(first) = reports.first() {
        let rows = |errors: bool| -> Vec<_> {
            let files = reports.iter().zip(labels(reports)).map(|(report, label)| row(report, label, errors));
            std::iter::once(source_row(first)).chain(files).collect()
        };
        let with_errors = rows(true);
        let fits = widths(&with_errors).iter().sum::<usize>() + GAPS <= WIDTH;
        table(&mut out, if fits { with_errors } else { rows(false) });
        notes(&mut out, reports);
        engines(&mut out, reports);
    }
    for (report, label) in reports.iter().zip(labels(reports)) {
        failures(&mut out, report, &label);
    }
    if reports.len() > 1 {
        wrapped(&mut out, "", &format!("Source: {}", source_name(reports)));
    }
    wrapped(&mut out, "", &format!("{} {}", Outcome::of_all(reports).mark(), sentence(reports)));
    out
}

fn source_row(report: &Report) -> [String; 8] {
    let figures = report.figures.as_ref();
    let perplexity = figures.map_or("-".to_owned(), |f| ascii(&number(f.perplexity_source)));
    let per_weight = bits(bits_per_weight(report.source.bytes, report.parameters));
    let [verdict, ratio, kld, top1] = ["", "1", "0", "100 %"].map(str::to_owned);
    ["source".to_owned(), bytes(report.source.bytes), per_weight, verdict, perplexity, ratio, kld, top1]
}

fn row(report: &Report, label: String, errors: bool) -> [String; 8] {
    let verdict = format!("{} {}", Outcome::of(report).mark(), words(report));
    let value = |value, error| ascii(&if errors { with_error(value, error) } else { number(value) });
    let [perplexity, ratio, kld, top1] = match &report.figures {
        None => ["not run", "-", "-", "-"].map(str::to_owned),
        Some(f) => [
            ascii(&number(f.perplexity)),
            value(f.perplexity_ratio, f.perplexity_ratio_error),
            value(f.kld_mean, f.kld_mean_error),
            if f.same_top1.is_finite() { format!("{:.2} %", 100.0 * f.same_top1) } else { number(f.same_top1) },
        ],
    };
    [label, bytes(report.bytes), bits(report.bits_per_weight), verdict, perplexity, ratio, kld, top1]
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn widths(rows: &[[String; 8]]) -> [usize; 8] {
    std::array::from_fn(|column| rows.iter().map(|row| width(&row[column])).fold(width(HEADINGS[column]), usize::max))
}

fn table(out: &mut String, mut rows: Vec<[String; 8]>) {
    // Numbers stay whole; what does not fit is taken from the names.
    let excess = (widths(&rows).iter().sum::<usize>() + GAPS).saturating_sub(WIDTH);
    let room = widths(&rows)[0].saturating_sub(excess).max(6);
    for row in &mut rows {
        row[0] = shorten(&row[0], room);
    }
    let widths = widths(&rows);
    let mut line = |cells: [&str; 8]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let fill = " ".repeat(widths[column].saturating_sub(width(cell)));
            let gap = if column == 0 { "" } else { "  " };
            // Names and words to the left, numbers to the right.
            let _ = if matches!(column, 0 | 3) { write!(text, "{gap}{cell}{fill}") } else { write!(text, "{gap}{fill}{cell}") };
        }
        let _ = writeln!(out, "{}", shorten(text.trim_end(), WIDTH));
    };
    line(HEADINGS);
    for row in &rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    out.push('\n');
}

fn notes(out: &mut String, reports: &[Report]) {
    let Some(figures) = reports.iter().find_map(|report| report.figures.as_ref()) else { return };
    let text = format!(
        "{}: {} of {} tokens, {} scored positions. KL divergence in nats, F32 activations, ± one standard error.",
        figures.text.name,
        plural(figures.windows, "window"),
        grouped(figures.n_ctx),
        grouped(figures.tokens)
    );
    wrapped(out, "", &text);
}

/// What llama.cpp itself found, where it was asked.
fn engines(out: &mut String, reports: &[Report]) {
    for (report, label) in reports.iter().zip(labels(reports)) {
        let Some(engine) = &report.engine else { continue };
        let text = format!(
            "{label} in llama.cpp {}: perplexity {}, KL divergence {}, same top-1 {:.2} %.",
            clean(&engine.version),
            ascii(&number(engine.perplexity)),
            ascii(&number(engine.kld_mean)),
            100.0 * engine.same_top1
        );
        wrapped(out, "", &text);
    }
}

fn failures(out: &mut String, report: &Report, label: &str) {
    let problem = |out: &mut String, problems: &[String]| {
        for problem in problems.iter().take(MAX_PROBLEMS) {
            wrapped(out, "    ", problem);
        }
        if problems.len() > MAX_PROBLEMS {
            let _ = writeln!(out, "    and {} more in the JSON report", grouped((problems.len() - MAX_PROBLEMS) as u64));
        }
    };
    for check in report.checks.iter().filter(|check| check.status != Status::Passed) {
        let what = if check.status == Status::Failed { "failed" } else { "did not run" };
        wrapped(out, "  ", &format!("{label}: {} {what}: {}", check.name, check.summary));
        problem(out, &check.problems);
    }
    if !report.gate.failures.is_empty() {
        wrapped(out, "  ", &format!("{label}: gate failed"));
        problem(out, &report.gate.failures);
    }
}

/// Text over as many lines as it needs, each after `indent`; longer words are broken.
fn wrapped(out: &mut String, indent: &str, text: &str) {
    let room = WIDTH - indent.len();
    let mut line = String::new();
    let mut flush = |line: &mut String| {
        if !line.is_empty() {
            let _ = writeln!(out, "{indent}{line}");
            line.clear();
        }
    };
    for word in clean(text).split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            flush(&mut line);
        }
        let mut rest: Vec<char> = word.chars().collect();
        while rest.len() > room {
            line.extend(rest.drain(..room));
            flush(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(rest);
    }
    flush(&mut line);
}
