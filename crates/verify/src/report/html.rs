//! A report as one page: no script, nothing from elsewhere, plots inside, light or dark as the reader has it.

use super::markdown::cosine;
use super::outcome::{Outcome, labels, sentence, source_name, words, worst_tensors};
use super::plot::{Point, Reference, Scatter, heat_map, hidden_error, histogram, scatter};
use super::text::{
    bits, bits_per_weight, bytes, count, escape, grouped, number, percent, perplexity, plural, shorten, with_error,
};
use super::{Figures, HashedFile, Report, Status, TypeBytes};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// Problems of a check that are shown; the JSON has all of them.
const MAX_PROBLEMS: usize = 50;
/// Tensors in a file's table.
const MAX_TENSORS: usize = 20;

/// Writing into a string has no errors.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {{ let _ = writeln!($out, $($text)*); }};
}

/// Files of one source on one page: the verdict, a table, cost against size, then each file with its checks, plots and worst
/// tensors. The same reports give the same bytes.
pub fn html(reports: &[Report]) -> String {
    let mut out = String::new();
    let source = escape(&source_name(reports));
    // A policy that lets nothing load and no script run, should an escape ever be forgotten.
    put!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{source}: GGUF verification</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>"
    );
    header(&mut out, reports);
    if !reports.is_empty() {
        overview(&mut out, reports);
        cost(&mut out, reports);
    }
    for (at, report) in reports.iter().enumerate() {
        file(&mut out, report, at + 1, reports.len() > 1);
    }
    footer(&mut out, reports);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, reports: &[Report]) {
    let outcome = Outcome::of_all(reports);
    put!(out, "<header>\n<p class=\"eyebrow\">GGUF verification</p>\n<h1>{}</h1>", escape(&source_name(reports)));
    put!(
        out,
        "<p class=\"verdict {}\"><span class=\"mark\" aria-hidden=\"true\">{}</span><span>{}</span></p>",
        outcome.class(),
        outcome.mark(),
        escape(&sentence(reports))
    );
    if let Some(first) = reports.first() {
        let revision =
            first.source.revision.as_ref().map_or(String::new(), |r| format!(" at revision <code>{}</code>", escape(r)));
        put!(
            out,
            "<p class=\"muted\">{} against the original weights{revision}: {} architecture, {} weights.</p>",
            plural(reports.len() as u64, "file"),
            escape(&first.architecture),
            count(first.parameters)
        );
    }
    out.push_str("</header>\n");
}

const COLUMNS: [&str; 9] =
    ["File", "Type", "Size", "Bits per weight", "Verdict", "Perplexity", "Ratio to source", "Mean KLD, nats", "Same top-1"];

fn overview(out: &mut String, reports: &[Report]) {
    // On a narrow screen the rows become cards by `display: block`, which takes a table's meaning away: hence the roles.
    out.push_str("<section aria-labelledby=\"files\">\n<h2 id=\"files\">Files</h2>\n<table class=\"files\" role=\"table\">\n");
    out.push_str("<thead role=\"rowgroup\"><tr role=\"row\">");
    for column in COLUMNS {
        let _ = write!(out, "<th role=\"columnheader\" scope=\"col\">{column}</th>");
    }
    out.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
    if let Some(first) = reports.first() {
        let types: Vec<_> = first.memory.source.iter().map(|t| escape(&t.format)).collect();
        let of_source = first.figures.as_ref().map(|f| perplexity(f.perplexity_source, f.perplexity_source_error));
        let cells = [
            types.join(", "),
            bytes(first.source.bytes),
            bits(bits_per_weight(first.source.bytes, first.parameters)),
            String::new(),
            of_source.unwrap_or("not run".to_owned()),
            "1".to_owned(),
            "0".to_owned(),
            "100 %".to_owned(),
        ];
        row(out, "source", "Source", &cells);
    }
    for (at, report) in reports.iter().enumerate() {
        let outcome = Outcome::of(report);
        let [of_file, ratio, kld, top1] = match &report.figures {
            None => ["not run", "–", "–", "–"].map(str::to_owned),
            Some(f) => [
                perplexity(f.perplexity, f.perplexity_error),
                with_error(f.perplexity_ratio, f.perplexity_ratio_error),
                with_error(f.kld_mean, f.kld_mean_error),
                percent(f.same_top1, f.same_top1_error),
            ],
        };
        let cells = [
            escape(&shorten(&report.file_type, 20)),
            bytes(report.bytes),
            bits(report.bits_per_weight),
            format!("<span class=\"{}\">{} {}</span>", outcome.class(), outcome.mark(), words(report)),
            of_file,
            ratio,
            kld,
            top1,
        ];
        let name = format!("<span class=\"muted\">{}</span> <a href=\"#file-{0}\">{}</a>", at + 1, escape(&report.file));
        row(out, "", &name, &cells);
    }
    out.push_str("</tbody>\n</table>\n");
    texts(out, reports);
    out.push_str("</section>\n");
}

/// A row of the overview; `cells` are the columns after the first.
fn row(out: &mut String, class: &str, name: &str, cells: &[String; 8]) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = write!(out, "<tr role=\"row\"{class}><th role=\"rowheader\" scope=\"row\">{name}</th>");
    for (column, cell) in COLUMNS[1..].iter().zip(cells) {
        let _ = write!(out, "<td role=\"cell\" data-label=\"{column}\">{cell}</td>");
    }
    out.push_str("</tr>\n");
}

fn texts(out: &mut String, reports: &[Report]) {
    let mut lines: Vec<String> = Vec::new();
    for figures in reports.iter().filter_map(|report| report.figures.as_ref()) {
        let line = format!(
            "Measured on <code>{}</code>: {} of {} tokens, {} scored positions.",
            escape(&figures.text.name),
            plural(figures.windows, "window"),
            grouped(figures.n_ctx),
            grouped(figures.tokens)
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        lines.push("No forward pass over a text was run, so there are no figures of cost.".to_owned());
    }
    put!(out, "<p class=\"note\">{} ± is one standard error; 1 MB is 1,000,000 bytes.</p>", lines.join(" "));
}

/// Perplexity and KL divergence against size.
fn cost(out: &mut String, reports: &[Report]) {
    let measured: Vec<(&Report, &Figures, String)> = reports
        .iter()
        .zip(labels(reports))
        .filter_map(|(report, label)| Some((report, report.figures.as_ref()?, label)))
        .collect();
    let Some((first, figures, _)) = measured.first() else { return };
    let points = |value: fn(&Figures) -> (f64, f64)| {
        let point = |(report, figures, label): &(&Report, &Figures, String)| {
            let (value, error) = value(figures);
            Point { label: label.clone(), bytes: report.bytes, value, error, outcome: Outcome::of(report) }
        };
        measured.iter().map(point).collect()
    };
    let against_size = scatter(&Scatter {
        id: "perplexity",
        title: "Perplexity against size",
        quantity: "perplexity",
        points: points(|f| (f.perplexity, f.perplexity_error)),
        reference: Some(Reference { bytes: first.source.bytes, value: figures.perplexity_source }),
        log: true,
    });
    let kld = scatter(&Scatter {
        id: "kld",
        title: "Mean KL divergence against size",
        quantity: "mean KL divergence, nats",
        points: points(|f| (f.kld_mean, f.kld_mean_error)),
        reference: Some(Reference { bytes: first.source.bytes, value: 0.0 }),
        log: false,
    });
    put!(out, "<section aria-labelledby=\"cost\">\n<h2 id=\"cost\">What quantization costs</h2>\n<div class=\"plots\">");
    figure(
        out,
        "Perplexity against size",
        &against_size,
        "Lower is better; the dashed line is the source, whose size is that of its weights. The bars are the perplexities' own errors, which come mostly from the text and \
         are shared with the source: judge differences by the ratio in the table.",
    );
    figure(
        out,
        "Mean KL divergence against size",
        &kld,
        "Lower is better; 0 is the source's own distribution. A point with a cross failed a check or the gate.",
    );
    out.push_str("</div>\n</section>\n");
}

fn figure(out: &mut String, title: &str, svg: &str, caption: &str) {
    put!(out, "<figure>\n<h3>{title}</h3>\n{svg}<figcaption>{caption}</figcaption>\n</figure>");
}

fn file(out: &mut String, report: &Report, at: usize, one_of_several: bool) {
    let outcome = Outcome::of(report);
    put!(out, "<section class=\"file\" id=\"file-{at}\" aria-labelledby=\"file-{at}-name\">");
    put!(out, "<h2 id=\"file-{at}-name\">{}</h2>", escape(&report.file));
    put!(
        out,
        "<p><span class=\"badge {}\">{} {}</span> {}</p>",
        outcome.class(),
        outcome.mark(),
        words(report),
        // A page about one file has said it.
        if one_of_several { escape(&report.verdict) } else { String::new() }
    );
    checks(out, report);
    out.push_str("<div class=\"plots\">\n");
    if let Some(figures) = &report.figures {
        match histogram(&format!("kld-{at}"), figures) {
            Some(svg) => figure(
                out,
                "Distribution of the KL divergence",
                &svg,
                "Positions of the text by how far the file's prediction is from the source's. The first and the last bar hold everything \
                 beyond them.",
            ),
            None => out.push_str("<p class=\"note\">There is no distribution of the KL divergence.</p>\n"),
        }
        if let Some(svg) = hidden_error(&format!("hidden-{at}"), &figures.hidden_error) {
            let caption = "Relative RMSE of the hidden state, file against source, over all positions. A step up shows the layer that \
                           adds the error.";
            figure(out, "Error of the hidden state by layer", &svg, caption);
        }
    }
    out.push_str("</div>\n");
    heat(out, report, at);
    worst(out, report);
    out.push_str("<div class=\"facts\">\n");
    facts(out, report);
    out.push_str("</div>\n</section>\n");
}

fn checks(out: &mut String, report: &Report) {
    out.push_str("<ul class=\"checks\">\n");
    for check in &report.checks {
        let (class, mark, word) = match check.status {
            Status::Passed => ("passed", "✓", "passed"),
            Status::Failed => ("failed", "✗", "failed"),
            Status::Skipped => ("partial", "–", "did not run"),
        };
        let _ = write!(
            out,
            "<li><span class=\"{class}\"><span aria-hidden=\"true\">{mark}</span> <strong>{}</strong> {word}</span>: {}",
            escape(&check.name),
            escape(&check.summary)
        );
        problems(out, &check.problems);
        out.push_str("</li>\n");
    }
    let gate = &report.gate;
    let limits = [
        gate.max_ppl_ratio.map(|limit| format!("perplexity ratio at most {}", number(limit))),
        gate.max_kld.map(|limit| format!("mean KL divergence at most {} nats", number(limit))),
        gate.min_top1.map(|limit| format!("same top-1 at least {:.2} %", 100.0 * limit)),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() || !gate.failures.is_empty() {
        let (class, mark, word) =
            if gate.failures.is_empty() { ("passed", "✓", "passed") } else { ("failed", "✗", "failed") };
        let limits = if limits.is_empty() { "no thresholds".to_owned() } else { limits.join(", ") };
        let _ = write!(
            out,
            "<li><span class=\"{class}\"><span aria-hidden=\"true\">{mark}</span> <strong>gate</strong> {word}</span>: {limits}"
        );
        problems(out, &gate.failures);
        out.push_str("</li>\n");
    }
    out.push_str("</ul>\n");
}

fn problems(out: &mut String, problems: &[String]) {
    if problems.is_empty() {
        return;
    }
    out.push_str("\n<ul>\n");
    for problem in problems.iter().take(MAX_PROBLEMS) {
        put!(out, "<li>{}</li>", escape(problem));
    }
    if problems.len() > MAX_PROBLEMS {
        put!(out, "<li>and {} more in the JSON report</li>", grouped((problems.len() - MAX_PROBLEMS) as u64));
    }
    out.push_str("</ul>\n");
}

fn heat(out: &mut String, report: &Report, at: usize) {
    let Some(map) = heat_map(&format!("heat-{at}"), report) else { return };
    let mut caption =
        "Root mean square of a tensor's error over that of the source's values, as colour; a pointer shows the number."
            .to_owned();
    if !map.lossless.is_empty() {
        let names: Vec<_> = map.lossless.iter().map(|name| format!("<code>{}</code>", escape(name))).collect();
        let _ = write!(caption, " Without any error in all layers, and not drawn: {}.", names.join(", "));
    }
    if let Some(omitted) = &map.omitted {
        let _ = write!(caption, " Not drawn for lack of room: {omitted}; the JSON report has them.");
    }
    // Not scaled down on a narrow screen, where it would be unreadable: it scrolls, with the keyboard too.
    put!(
        out,
        "<figure class=\"wide\">\n<h3>Error of every tensor</h3>\n\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Error of every tensor, scrolls sideways\">\
         <div style=\"min-width:{0:.0}px;max-width:{1:.0}px\">\n{2}</div></div>\n<figcaption>{caption}</figcaption>\n</figure>",
        map.width,
        1.35 * map.width,
        map.svg
    );
}

fn worst(out: &mut String, report: &Report) {
    let worst = worst_tensors(report, MAX_TENSORS);
    if worst.is_empty() {
        return;
    }
    put!(
        out,
        "<details>\n<summary>{} with the largest error, of {}</summary>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" \
         aria-label=\"Tensors with the largest error, scrolls sideways\">\n<table class=\"data\">\n<thead><tr><th scope=\"col\">Tensor</th>\
         <th scope=\"col\">Type</th><th scope=\"col\">Verdict</th><th scope=\"col\">Relative RMSE</th><th scope=\"col\">Largest error</th>\
         <th scope=\"col\">Cosine</th><th scope=\"col\">At the block's limit</th></tr></thead>\n<tbody>",
        plural(worst.len() as u64, "tensor"),
        grouped(report.tensors.len() as u64)
    );
    for tensor in worst {
        put!(
            out,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&tensor.name),
            escape(&tensor.format),
            tensor.verdict.word(),
            number(tensor.relative_rmse),
            number(tensor.max_error),
            cosine(tensor.cosine),
            percent(tensor.saturated, f64::NAN)
        );
    }
    out.push_str("</tbody>\n</table>\n</div>\n</details>\n");
}

/// Everything else, as lists of names and values.
fn facts(out: &mut String, report: &Report) {
    if let Some(f) = &report.figures {
        let rows = [
            ("perplexity, source", perplexity(f.perplexity_source, f.perplexity_source_error)),
            ("perplexity, file", perplexity(f.perplexity, f.perplexity_error)),
            ("perplexity ratio", with_error(f.perplexity_ratio, f.perplexity_ratio_error)),
            ("correlation of log-likelihoods", cosine(f.nll_correlation)),
            ("KL divergence, mean", with_error(f.kld_mean, f.kld_mean_error)),
            ("median", number(f.kld_median)),
            ("95 % of positions below", number(f.kld_p95)),
            ("99 % below", number(f.kld_p99)),
            ("99.9 % below", number(f.kld_p999)),
            ("largest", number(f.kld_max)),
            ("right token's probability, mean change", percent(f.delta_p_mean, f.delta_p_mean_error)),
            ("RMS change", percent(f.delta_p_rms, f.delta_p_rms_error)),
            ("same top-1", percent(f.same_top1, f.same_top1_error)),
        ];
        list(out, "Figures (KL divergences in nats)", rows.map(|(name, value)| (name.to_owned(), value)));
    }
    if let Some(s) = &report.sentences {
        let what =
            format!("{}, {} tokens of <code>{}</code>", plural(s.sentences, "sentence"), grouped(s.tokens), escape(&s.text.name));
        let pair = |source: f64, file: f64| format!("{} → {}", number(source), number(file));
        let rows = [
            ("over all tokens", pair(s.perplexity_source, s.perplexity)),
            ("mean of the sentences'", pair(s.mean_perplexity_source, s.mean_perplexity)),
            ("median of the sentences'", pair(s.median_perplexity_source, s.median_perplexity)),
        ];
        let rows = [("text".to_owned(), what)].into_iter().chain(rows.map(|(name, value)| (name.to_owned(), value)));
        list(out, "Perplexity of single sentences, source → file", rows);
    }
    if let Some(e) = &report.engine {
        let rows = [
            ("perplexity", number(e.perplexity)),
            ("KL divergence, mean", format!("{} nats", number(e.kld_mean))),
            ("largest", format!("{} nats", number(e.kld_max))),
            ("same top-1", percent(e.same_top1, f64::NAN)),
        ];
        list(
            out,
            &format!("The same windows in llama.cpp {}", escape(&e.version)),
            rows.map(|(name, value)| (name.to_owned(), value)),
        );
    }
    if let Some(latency) = &report.latency {
        let pair = |source: f64, file: f64, unit: &str| format!("{} → {} {unit}", number(source), number(file));
        let (a, b) = (&latency.source, &latency.file);
        let rows = [
            ("reading a prompt", pair(a.prompt_tokens_per_second, b.prompt_tokens_per_second, "tokens/s")),
            ("generating", pair(a.generated_tokens_per_second, b.generated_tokens_per_second, "tokens/s")),
            ("per generated token", pair(a.ms_per_token, b.ms_per_token, "ms")),
        ];
        let title = format!("Speed of this reference implementation, {}, source → file", plural(latency.threads, "thread"));
        list(out, &title, rows.map(|(name, value)| (name.to_owned(), value)));
    }
    memory(out, report);
    let hashes = |files: &[HashedFile]| {
        let row = |file: &HashedFile| {
            (escape(&file.name), format!("{}<br><code class=\"hash\">{}</code>", bytes(file.bytes), escape(&file.sha256)))
        };
        files.iter().map(row).collect::<Vec<_>>()
    };
    out.push_str("<details class=\"list\">\n<summary>Hashes (SHA-256) and command</summary>\n");
    list(out, "File", hashes(&report.files));
    list(out, "Source", hashes(&report.source.files));
    put!(out, "<p class=\"command\"><code>ggufsmith {}</code></p>\n</details>", escape(&report.command.join(" ")));
}

fn memory(out: &mut String, report: &Report) {
    let rows = |side: &str, types: &[TypeBytes]| {
        let side = side.to_owned();
        let row = |t: &TypeBytes| {
            (format!("{side}, {}", escape(&t.format)), format!("{} in {}", bytes(t.bytes), plural(t.tensors, "tensor")))
        };
        types.iter().map(row).collect::<Vec<_>>()
    };
    let all = rows("source", &report.memory.source).into_iter().chain(rows("file", &report.memory.file));
    list(out, "Memory of the weights", all);
}

/// `rows` are markup; so is `title`.
fn list(out: &mut String, title: &str, rows: impl IntoIterator<Item = (String, String)>) {
    put!(out, "<div class=\"list\">\n<h3>{title}</h3>\n<dl>");
    for (name, value) in rows {
        put!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n</div>\n");
}

fn footer(out: &mut String, reports: &[Report]) {
    out.push_str(
        "<footer>\n<h2>How to read it</h2>\n\
         <p><strong>Faithful</strong> means that the file's structure, its tokenizer, every tensor and a forward pass agree with the source: \
         a tensor is <em>lossless</em> when every value is the source's, <em>exact</em> when encoding the source again gives the same bytes, \
         <em>bounded</em> when its error is at most 1.05 times that of our own encoder.</p>\n\
         <p>The figures say what the type costs. Perplexity is that of llama-perplexity: windows of the text, the second half of each \
         scored. The KL divergence compares all predictions of the file with the source's; same top-1 is the share of positions where both \
         find the same token most probable. Activations are F32; llama.cpp quantizes them, so its own figures differ a little.</p>\n",
    );
    if let Some(first) = reports.first() {
        put!(out, "<p class=\"muted\">Made by {} (schema {}).</p>", escape(&first.tool), escape(&first.schema));
    }
    out.push_str("</footer>\n");
}
