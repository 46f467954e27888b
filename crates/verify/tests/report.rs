//! Reports as JSON, Markdown, terminal text, HTML and files.

mod samples;

use ggufsmith_verify::report::{FileError, Report, Written, html, markdown, read, terminal, write};
use samples::{SAMPLES, Sample, full, hostile, report, without_forward};
use std::collections::BTreeSet;
use std::path::Path;

fn pages() -> Vec<(&'static str, Vec<Report>)> {
    let mut huge = report(SAMPLES[11]);
    let figures = huge.figures.as_mut().unwrap();
    (figures.perplexity, figures.perplexity_ratio, figures.kld_max) = (1e300, 6e298, f64::MAX);
    figures.perplexity_error = 1e308;
    let mut empty = without_forward(SAMPLES[1]);
    empty.tensors.clear();
    empty.checks.clear();
    let mut strange = report(SAMPLES[8]);
    let figures = strange.figures.as_mut().unwrap();
    figures.hidden_error.clear();
    figures.per_window.clear();
    figures.kld_histogram.counts = vec![u64::MAX; 5_000];
    (figures.perplexity, figures.kld_mean, figures.kld_mean_error) = (-1.0, -1e-12, 5e-324);
    (strange.bytes, strange.parameters, strange.source.bytes) = (0, 0, u64::MAX);
    for (at, tensor) in strange.tensors.iter_mut().enumerate() {
        (tensor.layer, tensor.kind) = (Some(u32::MAX - at as u32 * 7), format!("kind{}", at % 90));
        tensor.relative_rmse = if at % 2 == 0 { 5e-324 } else { f64::MAX };
    }
    vec![
        ("one", vec![full(SAMPLES[8])]),
        ("twelve", SAMPLES.iter().map(|sample| report(*sample)).collect()),
        ("same type", vec![report(SAMPLES[8]), report(SAMPLES[8]), report(SAMPLES[8])]),
        ("lossless", vec![report(SAMPLES[0])]),
        ("partial", vec![without_forward(SAMPLES[1])]),
        ("hostile", vec![report(SAMPLES[1]), hostile(SAMPLES[8])]),
        ("deep", vec![report(Sample { layers: 126, ..SAMPLES[8] }), report(Sample { layers: 1, ..SAMPLES[1] })]),
        ("flat", vec![report(Sample { layers: 0, ..SAMPLES[8] })]),
        ("huge", vec![huge]),
        ("empty", vec![empty]),
        ("strange", vec![strange]),
        ("nothing", vec![]),
    ]
}

/// What is wrong with a page as XML, which ours are but for void elements: tags that do not match, attributes without quotes, ids that
/// are not unique, characters that had to be escaped.
fn markup_faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut open, mut ids) = (Vec::<String>::new(), BTreeSet::new());
    let (head, style) = page.split_once("<style>").unwrap_or((page, ""));
    let body = style.split_once("</style>").map_or(style, |(_, body)| body);
    let page = format!("{head}{body}");
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap_or(&page);
    while let Some(start) = rest.find('<') {
        if rest[..start].contains('>') {
            faults.push(format!("a lone > in {:?}", &rest[..start]));
        }
        let Some(end) = rest[start..].find('>') else { break };
        let tag = &rest[start + 1..start + end];
        rest = &rest[start + end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().to_owned();
        if tag.matches('"').count() % 2 == 1 || tag.contains('<') {
            faults.push(format!("quotes in <{tag}>"));
        }
        for (at, _) in tag.match_indices(" id=\"") {
            let id = tag[at + 5..].split('"').next().unwrap_or_default();
            if !ids.insert(id.to_owned()) {
                faults.push(format!("id {id} is there twice"));
            }
        }
        match () {
            () if tag.starts_with('/') => {
                if open.pop().as_deref() != Some(&*name) {
                    faults.push(format!("</{name}> closes another element"));
                }
            }
            () if tag.ends_with('/') || matches!(&*name, "meta" | "br") => {}
            () => open.push(name),
        }
    }
    faults.extend(open.into_iter().map(|name| format!("<{name}> is not closed")));
    faults
}

#[test]
fn pages_are_well_formed_whatever_is_in_them() {
    for (name, reports) in pages() {
        let page = html(&reports);
        assert_eq!(markup_faults(&page), [""; 0], "{name}");
        for word in ["NaN", "inf\"", "<script", "<img", "http://", "https://", "url("] {
            assert!(!page.contains(word), "{name}: {word}");
        }
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{name}");
    }
    // The check itself.
    let page = html(&[report(SAMPLES[8])]);
    for (old, new) in
        [("</h1>", ""), ("id=\"files\"", "id=\"cost\""), ("</main>", "</section>"), ("<p>", "<p title=\"x>"), ("<dl>", "> <dl>")]
    {
        let broken = page.replacen(old, new, 1);
        assert!(broken != page && !markup_faults(&broken).is_empty(), "{old}");
    }
}

#[test]
fn the_same_reports_give_the_same_text() {
    let (first, second) = (pages(), pages());
    for ((name, a), (_, b)) in first.iter().zip(&second) {
        assert_eq!((html(a), markdown(a), terminal(a)), (html(b), markdown(b), terminal(b)), "{name}");
    }
}

#[test]
fn plots_have_their_marks() {
    let count = |page: &str, mark: &str| page.matches(mark).count();
    let page = html(&SAMPLES.map(report));
    // Twelve files in two plots, two more plots and a map for each.
    assert_eq!(count(&page, "class=\"point "), 24);
    assert_eq!(count(&page, "<svg"), 2 + 3 * 12);
    assert_eq!(count(&page, "class=\"curve\""), 12);
    // 30 layers of seven matrices each; the lossless file shows all nine kinds; two tensors outside of layers.
    let cells = count(&page, "<rect class=\"cell") - count(&page, "height=\"10\"");
    assert_eq!(cells, 11 * (30 * 7 + 2) + 30 * 9 + 2);
    for label in SAMPLES.map(|sample| sample.file_type) {
        assert!(count(&page, &format!(">{label}</text>")) == 2, "{label}");
    }
    let page = html(&[without_forward(SAMPLES[1])]);
    assert_eq!(count(&page, "<svg"), 1, "only the map");
    assert!(page.contains("not run") && page.contains("No forward pass"));
    let page = html(&[report(Sample { layers: 126, ..SAMPLES[8] })]);
    assert_eq!(count(&page, "<rect class=\"cell") - count(&page, "height=\"10\""), 126 * 7 + 2);
    let page = html(&pages().into_iter().find(|(name, _)| *name == "hostile").unwrap().1);
    assert!(
        page.contains("class=\"point failed\"") && page.contains(">not finite</text>") && page.contains("cell not-finite wrong")
    );
}

#[test]
fn colours_follow_the_reader() {
    let page = html(&[report(SAMPLES[8])]);
    assert!(page.contains("@media (prefers-color-scheme: dark)"));
    let (style, body) = page.split_once("</style>").unwrap();
    // Every colour is a variable, and every variable has a value for both.
    assert!(!body.contains("fill=\"") && !body.contains("stroke=\"") && !body.contains("color:"));
    let (light, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let (dark, rules) = rest.split_once("\n}\n").unwrap();
    assert!(!rules.contains(": #"));
    let names = |text: &str| -> BTreeSet<String> {
        let declared = text.split("--").skip(1).filter_map(|part| part.split_once(": #")).map(|(name, _)| name.to_owned());
        declared.filter(|name| !name.contains(['\n', ')', ' '])).collect()
    };
    assert_eq!(names(light), names(dark));
    assert!(names(light).len() > 15);
}

/// Text on its surfaces has the contrast that WCAG 2 asks for at level AA: 4.5 to 1.
#[test]
fn text_has_contrast() {
    let page = html(&[]);
    let (light, rest) = page.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let dark = rest.split_once("\n}\n").unwrap().0;
    let luminance = |theme: &str, name: &str| -> f64 {
        let value = theme.split(&format!("--{name}: #")).nth(1).unwrap();
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&value[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
    };
    let contrast = |theme: &str, a: &str, b: &str| {
        let (a, b) = (luminance(theme, a), luminance(theme, b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    };
    for theme in [light, dark] {
        for text in ["text", "muted", "accent", "passed", "partial", "failed"] {
            for surface in ["page", "surface"] {
                let found = contrast(theme, text, surface);
                assert!(found >= 4.5, "{text} on {surface}: {found:.2}");
            }
        }
        for word in ["passed", "partial", "failed"] {
            assert!(contrast(theme, word, &format!("{word}-soft")) >= 4.5, "{word}");
        }
        // A larger error is farther from the page.
        let away: Vec<f64> = (0..9).map(|level| contrast(theme, &format!("c{level}"), "surface")).collect();
        assert!(away.is_sorted(), "{away:?}");
        assert!(contrast(theme, "rule", "surface") < contrast(theme, "muted", "surface"), "the check itself");
    }
}

#[test]
fn markdown_links_and_mentions_nothing() {
    for (name, reports) in pages() {
        let text = markdown(&reports);
        for word in ["<script", "<img", "NaN", "\u{1b}", "](", "http"] {
            assert!(!text.contains(word), "{name}: {word}\n{text}");
        }
        // GitHub looks for mentions outside of code only.
        let outside: String = text
            .split("<code>")
            .enumerate()
            .map(|(at, part)| if at == 0 { part } else { part.split_once("</code>").unwrap().1 })
            .collect();
        assert!(!outside.contains('@'), "{name}");
        // Every row of a table has the columns of its heading.
        let mut columns = None;
        for line in text.lines() {
            if !line.starts_with('|') {
                columns = None;
                continue;
            }
            let found = line.matches('|').count();
            assert_eq!(*columns.get_or_insert(found), found, "{name}: {line}");
        }
    }
    let text = markdown(&[hostile(SAMPLES[8])]);
    assert!(text.starts_with("## ❌ ") && text.contains("and 50 more in the JSON report") && text.contains("**gate** failed"));
    let text = markdown(&SAMPLES.map(report));
    assert!(
        text.starts_with("## ✅ All 12 files are faithful") && text.len() < 60_000,
        "a comment on GitHub has at most 65,536 characters"
    );
    assert!(markdown(&[without_forward(SAMPLES[1])]).contains("| not run | – | – | – |"));
}

#[test]
fn terminal_text_is_narrow_and_plain() {
    for (name, reports) in pages() {
        let text = terminal(&reports);
        assert!(text.ends_with('\n') && !text.chars().any(|c| c.is_control() && c != '\n'), "{name}");
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
    }
    let text = terminal(&[report(SAMPLES[1]), report(SAMPLES[8])]);
    let row = text.lines().find(|line| line.starts_with("Q4_0")).unwrap();
    for cell in ["77.6 MB", "4.507", "✓ faithful", "16.90", "1.062 ± 0.010", "0.054 ± 0.002", "92.08 %"] {
        assert!(row.contains(cell), "{cell}: {row}");
    }
}

#[test]
fn json_comes_back_as_it_was() {
    for (name, reports) in pages() {
        for report in reports {
            let text = serde_json::to_string_pretty(&report).unwrap();
            let back: Report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            // NaN is not equal to itself and infinity becomes NaN; the bytes are equal whatever the numbers.
            assert_eq!(serde_json::to_string_pretty(&back).unwrap(), text, "{name}");
            if !text.contains(": null,\n  \"perplexity_error\"") && name != "hostile" {
                assert_eq!(back, report, "{name}");
            }
        }
    }
    let value = serde_json::to_value(full(SAMPLES[8])).unwrap();
    let mut more = value.clone();
    more["something_new"] = serde_json::json!([1, 2]);
    assert_eq!(serde_json::from_value::<Report>(more).unwrap(), full(SAMPLES[8]), "new keys may appear at any time");
    // A damaged figure is an error, not a report whose forward pass did not run.
    for key in ["kld_mean", "perplexity", "text"] {
        let mut damaged = value.clone();
        damaged[key] = serde_json::json!("much");
        assert!(serde_json::from_value::<Report>(damaged).is_err(), "{key}");
        let mut incomplete = value.clone();
        incomplete.as_object_mut().unwrap().remove(key);
        assert!(serde_json::from_value::<Report>(incomplete).is_err(), "{key}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_lie_beside_the_model_or_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = folder.path().join("m-Q4_0.gguf");
    let first = full(SAMPLES[8]);
    let written = write(&[(&gguf, &first)], None).unwrap();
    assert_eq!(names(folder.path()), ["m-Q4_0.gguf.report.html", "m-Q4_0.gguf.report.json", "m-Q4_0.gguf.report.md"]);
    assert_eq!(written, [Written::at(&gguf, None).unwrap()]);
    assert_eq!(read(&written[0].json).unwrap(), first);
    let text = std::fs::read_to_string(&written[0].json).unwrap();
    assert!(text.starts_with("{\n  \"schema\": \"ggufsmith.report/1\"") && text.ends_with("}\n"));
    assert_eq!(std::fs::read_to_string(&written[0].html).unwrap(), html(std::slice::from_ref(&first)));

    let second = report(SAMPLES[1]);
    let other = folder.path().join("new/reports");
    let written = write(&[(&gguf, &first), (Path::new("m-Q8_0.gguf"), &second)], Some(&other)).unwrap();
    assert_eq!(names(&other).len(), 9);
    assert_eq!(written[2].html, other.join("SmolLM2-135M-Instruct.report.html"));
    assert_eq!(read(&written[1].json).unwrap(), second);
    assert!(matches!(read(&written[2].json), Err(FileError::Format { .. })), "a list is no report");
    let mut evil = hostile(SAMPLES[8]);
    evil.source.name = "../../..".to_owned();
    let written = write(&[(&gguf, &evil), (Path::new("m-Q8_0.gguf"), &second)], Some(&other)).unwrap();
    assert_eq!(written[2].json, other.join("source.report.json"));
    let mut schema = second.clone();
    schema.schema = "ggufsmith.report/2".to_owned();
    let written = write(&[(&gguf, &schema)], Some(&other)).unwrap();
    assert!(matches!(read(&written[0].json), Err(FileError::Format { .. })));
}

#[test]
fn nothing_half_done_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = folder.path().join("m.gguf");
    // A folder where one of the files should go.
    std::fs::create_dir(folder.path().join("m.gguf.report.md")).unwrap();
    assert!(matches!(write(&[(&gguf, &report(SAMPLES[8]))], None), Err(FileError::Io { .. })));
    assert!(names(folder.path()).iter().all(|name| !name.ends_with(".partial")), "{:?}", names(folder.path()));
    let missing = folder.path().join("none/m.gguf");
    assert!(matches!(write(&[(&missing, &report(SAMPLES[8]))], None), Err(FileError::Io { .. })));
    assert!(matches!(write(&[(Path::new("/"), &report(SAMPLES[8]))], None), Err(FileError::NoName { .. })));
}
