//! A report for a pull request, a job's summary or a model card: GitHub's Markdown.

use super::outcome::{Outcome, sentence, source_name, words, worst_tensors};
use super::text::{bits, bits_per_weight, bytes, clean, grouped, number, percent, perplexity, plural, with_error};
use super::{Report, Status};
use std::fmt::Write;

/// Problems of a check that are shown; the JSON has all of them.
const MAX_PROBLEMS: usize = 10;
/// Tensors shown per file.
const MAX_TENSORS: usize = 10;

/// Files of one source: the verdict, a table, what failed, how to read it, the worst tensors. The same reports give the same text.
pub fn markdown(reports: &[Report]) -> String {
    let mut out = String::new();
    let sign = match Outcome::of_all(reports) {
        Outcome::Passed => "✅",
        Outcome::Partial => "⚠️",
        Outcome::Failed => "❌",
    };
    // Writing into a string has no errors, here and below.
    let _ = writeln!(out, "## {sign} {}\n", prose(&sentence(reports)));
    if let Some(first) = reports.first() {
        let revision =
            first.source.revision.as_deref().map_or(String::new(), |revision| format!(", revision {}", code(revision)));
        let _ = writeln!(out, "Compared with {}{revision} by {}.\n", code(&source_name(reports)), prose(&first.tool));
        table(&mut out, reports);
        texts(&mut out, reports);
    }
    for report in reports {
        failures(&mut out, report);
    }
    if !reports.is_empty() {
        out.push_str(READING);
    }
    for report in reports {
        details(&mut out, report);
    }
    out
}

const READING: &str = "\
**How to read it.** *Faithful* means that structure, tokenizer, every tensor and one forward pass agree with the source. The figures \
say what the type costs: a perplexity ratio of 1, a KL divergence of 0 nats and a top-1 of 100 % are the source itself.  \n\
± is one standard error. The perplexities' own errors come from the text, which both sides share; judge by the ratio's. Activations \
are F32, so llama.cpp's own figures differ a little. 1 MB is 1,000,000 bytes.\n\n";

fn table(out: &mut String, reports: &[Report]) {
    out.push_str(
        "| file | type | size | bits/weight | verdict | perplexity | ratio to source | mean KLD (nats) | same top-1 |\n",
    );
    out.push_str("| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n");
    if let Some(first) = reports.first() {
        let types: Vec<_> = first.memory.source.iter().map(|of_type| prose(&of_type.format)).collect();
        let (size, per_weight) = (first.source.bytes, bits_per_weight(first.source.bytes, first.parameters));
        let of_source =
            first.figures.as_ref().map_or("–".to_owned(), |f| perplexity(f.perplexity_source, f.perplexity_source_error));
        let _ = writeln!(
            out,
            "| *source* | {} | {} | {} | | {of_source} | 1 | 0 | 100 % |",
            types.join(", "),
            bytes(size),
            bits(per_weight)
        );
    }
    for report in reports {
        let figures = report.figures.as_ref().map_or(["not run", "–", "–", "–"].map(str::to_owned), |f| {
            [
                perplexity(f.perplexity, f.perplexity_error),
                with_error(f.perplexity_ratio, f.perplexity_ratio_error),
                with_error(f.kld_mean, f.kld_mean_error),
                percent(f.same_top1, f.same_top1_error),
            ]
        });
        let mark = Outcome::of(report).mark();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {mark} {} | {} |",
            code(&report.file),
            prose(&report.file_type),
            bytes(report.bytes),
            bits(report.bits_per_weight),
            words(report),
            figures.join(" | ")
        );
    }
    out.push('\n');
}

/// Over which text the figures are; one line per text that differs.
fn texts(out: &mut String, reports: &[Report]) {
    let mut lines: Vec<String> = Vec::new();
    for figures in reports.iter().filter_map(|report| report.figures.as_ref()) {
        let line = format!(
            "Text: {}, {} of {} tokens, {} scored positions.",
            code(&figures.text.name),
            plural(figures.windows, "window"),
            grouped(figures.n_ctx),
            grouped(figures.tokens)
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for (report, engine) in reports.iter().filter_map(|report| Some((report, report.engine.as_ref()?))) {
        lines.push(format!(
            "{} in llama.cpp {}: perplexity {}, KL divergence {} nats, same top-1 {:.2} %.",
            code(&report.file),
            prose(&engine.version),
            number(engine.perplexity),
            number(engine.kld_mean),
            100.0 * engine.same_top1
        ));
    }
    if lines.is_empty() {
        lines.push("No forward pass over a text was run, so there are no figures of cost.".to_owned());
    }
    let _ = writeln!(out, "{}\n", lines.join("  \n"));
}

fn failures(out: &mut String, report: &Report) {
    let bad: Vec<_> = report.checks.iter().filter(|check| check.status != Status::Passed).collect();
    if bad.is_empty() && report.gate.failures.is_empty() {
        return;
    }
    let _ = writeln!(out, "### {} {}\n", code(&report.file), words(report));
    for check in bad {
        let what = if check.status == Status::Failed { "failed" } else { "did not run" };
        let _ = writeln!(out, "- **{}** {what}: {}", prose(&check.name), prose(&check.summary));
        list(out, &check.problems);
    }
    if !report.gate.failures.is_empty() {
        out.push_str("- **gate** failed\n");
        list(out, &report.gate.failures);
    }
    out.push('\n');
}

fn list(out: &mut String, problems: &[String]) {
    for problem in problems.iter().take(MAX_PROBLEMS) {
        let _ = writeln!(out, "  - {}", prose(problem));
    }
    if problems.len() > MAX_PROBLEMS {
        let _ = writeln!(out, "  - and {} more in the JSON report", grouped((problems.len() - MAX_PROBLEMS) as u64));
    }
}

fn details(out: &mut String, report: &Report) {
    let _ = writeln!(out, "<details><summary>{}: checks and worst tensors</summary>\n", html_code(&report.file));
    out.push_str("| check | result | |\n| --- | --- | --- |\n");
    for check in &report.checks {
        let status = match check.status {
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Skipped => "did not run",
        };
        let _ = writeln!(out, "| {} | {status} | {} |", prose(&check.name), prose(&check.summary));
    }
    let worst = worst_tensors(report, MAX_TENSORS);
    if worst.is_empty() {
        out.push_str("\nEvery tensor has the source's values.\n");
    } else {
        out.push_str(
            "\n| tensor | type | relative RMSE | largest error | cosine | |\n| --- | --- | ---: | ---: | ---: | --- |\n",
        );
        for tensor in worst {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                code(&tensor.name),
                prose(&tensor.format),
                number(tensor.relative_rmse),
                number(tensor.max_error),
                cosine(tensor.cosine),
                tensor.verdict.word()
            );
        }
    }
    let _ = writeln!(out, "\nsha256 {}\n\n</details>\n", code(&report.sha256));
}

/// With enough digits to differ from 1.
pub(super) fn cosine(cosine: f64) -> String {
    if cosine.is_finite() { format!("{cosine:.6}") } else { number(cosine) }
}

/// A name as code. Names of harmless characters are readable in the raw text too.
fn code(name: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=' | ':' | ',');
    if !name.is_empty() && name.chars().all(harmless) { format!("`{name}`") } else { html_code(name) }
}

/// A name as code where Markdown is not read, or with any characters: nobody is mentioned and nothing linked in it.
fn html_code(name: &str) -> String {
    format!("<code>{}</code>", entities(name))
}

/// A sentence as text. In a sentence with a mention, a number sign or an address, GitHub would link something: it is shown as code.
fn prose(text: &str) -> String {
    let links = text.contains(['@', '#']) || text.contains("://") || text.contains("www.");
    if links { html_code(text) } else { entities(text) }
}

/// Everything that means something in Markdown or HTML as an entity, which is never read as markup. Underscores inside of words and
/// lone punctuation stay as they are.
fn entities(text: &str) -> String {
    let chars: Vec<char> = clean(text).chars().collect();
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        let word = |neighbour: Option<&char>| neighbour.is_some_and(|c| c.is_alphanumeric());
        let inside_word = at > 0 && word(chars.get(at - 1)) && word(chars.get(at + 1));
        let structural =
            matches!(c, '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '&' | '|' | '~' | '#' | '@' | '$' | '!' | '"' | '\'');
        // A line could become a list or a heading by its first character; an address is known by its colon or its dot.
        let at_start = at == 0 && !c.is_alphanumeric();
        let address =
            (c == ':' && chars.get(at + 1) == Some(&'/')) || (c == '.' && at >= 3 && chars[at - 3..at] == ['w', 'w', 'w']);
        if structural || at_start || address || (c == '_' && !inside_word) {
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
