//! HTML reports in a real browser: what a reader sees, on a telephone and on a desk, light and dark.
//!
//! Needs Chromium: without it ignored, on CI failed.

mod browser;
#[path = "../../../crates/verify/tests/samples/mod.rs"]
mod samples;

use browser::{Theme, chromium, look};
use ggufsmith_tests::{reference, scratch};
use ggufsmith_verify::report::{Report, html};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use samples::{SAMPLES, Sample, full, hostile, report, without_forward};
use std::process::ExitCode;

const NO_BROWSER: &str = "there is no Chromium; on Debian install chromium";
/// CSS pixels: small and ordinary telephones, a tablet, a desk.
const WIDTHS: [u32; 4] = [360, 390, 820, 1280];

fn with_browser(name: &str, test: fn() -> Result<(), String>) -> Trial {
    Trial::ignorable_test(name, move || match chromium() {
        Some(_) => test().map(|()| Completion::Completed).map_err(Failed::from),
        None if reference::required() => Err(Failed::from(NO_BROWSER)),
        None => Ok(Completion::ignored_with(NO_BROWSER)),
    })
}

/// The marks that each plot of a page must have, by the beginning of its title's id.
type Plots<'a> = &'a [(&'a str, u64)];

/// Everything that is wrong with a page as it is seen.
fn faults(page: &str, width: u32, theme: Theme, plots: Plots<'_>) -> Result<Vec<String>, String> {
    let folder = scratch();
    let seen = look(page, width, theme, folder.path())?;
    let mut faults: Vec<String> = seen.console.iter().map(|line| format!("console: {line}")).collect();
    let number = |key: &str| seen.probe[key].as_u64().unwrap_or(u64::MAX);
    if number("width") != u64::from(width) || number("scroll_width") > u64::from(width) {
        faults.push(format!("{} pixels wide in {}", number("scroll_width"), number("width")));
    }
    if number("tables") == 0 {
        faults.push("no table with headings".to_owned());
    }
    let found = seen.probe["plots"].as_array().cloned().unwrap_or_default();
    if found.len() != plots.len() {
        faults.push(format!("{} plots instead of {}", found.len(), plots.len()));
    }
    for (plot, (id, marks)) in found.iter().zip(plots) {
        let size = |key: &str| plot[key].as_f64().unwrap_or(0.0);
        let right = plot["id"].as_str().is_some_and(|found| found.starts_with(id));
        if !right
            || plot["marks"].as_u64() != Some(*marks)
            || size("width") < 250.0
            || size("height") < 100.0
            || size("texts") < 4.0
        {
            faults.push(format!("plot {id} with {marks} marks: {plot}"));
        }
    }
    for (key, what) in [("cut", "cut off"), ("touching", "overlapping")] {
        let texts = seen.probe[key].as_array().cloned().unwrap_or_default();
        faults.extend(texts.iter().map(|text| format!("{what}: {text}")));
    }
    Ok(faults)
}

fn check(reports: &[Report], plots: Plots<'_>) -> Result<(), String> {
    let page = html(reports);
    for width in WIDTHS {
        let theme = if width == 390 { Theme::Dark } else { Theme::Light };
        let faults = faults(&page, width, theme, plots)?;
        if !faults.is_empty() {
            return Err(format!("at {width} pixels:\n{}", faults.join("\n")));
        }
    }
    Ok(())
}

/// Cells of a map of `layers`: seven matrices each, two tensors outside, and the legend's.
const fn cells(layers: u64) -> u64 {
    7 * layers + 2 + 9 + 1
}

/// Bins of the sample's histogram that are not empty.
fn bars(report: &Report) -> u64 {
    let figures = report.figures.as_ref().unwrap();
    figures.kld_histogram.counts.iter().filter(|count| **count > 0).count() as u64
}

fn one() -> Result<(), String> {
    let report = full(SAMPLES[8]);
    let bars = bars(&report);
    // A curve and its 30 points.
    check(&[report], &[("perplexity", 1), ("kld", 1), ("kld-1", bars), ("hidden-1", 31), ("heat-1", cells(30))])
}

fn twelve() -> Result<(), String> {
    let reports = SAMPLES.map(report);
    let ids: Vec<_> = (1..=12).map(|n| [format!("kld-{n}-"), format!("hidden-{n}-"), format!("heat-{n}-")]).collect();
    let mut plots = vec![("perplexity", 12), ("kld", 12)];
    for (report, [kld, hidden, heat]) in reports.iter().zip(&ids) {
        // The lossless file's map has all nine kinds and no colours in its legend.
        let lossless = report.tensors.iter().all(|tensor| tensor.relative_rmse == 0.0);
        plots.push((kld, bars(report)));
        plots.push((hidden, 31));
        plots.push((heat, if lossless { 9 * 30 + 2 + 1 } else { cells(30) }));
    }
    check(&reports, &plots)
}

fn deep_and_flat() -> Result<(), String> {
    let reports = [report(Sample { layers: 126, ..SAMPLES[8] }), report(Sample { layers: 1, ..SAMPLES[1] })];
    let (deep, flat) = (bars(&reports[0]), bars(&reports[1]));
    let first = [("perplexity", 2), ("kld", 2), ("kld-1", deep), ("hidden-1", 127), ("heat-1", cells(126))];
    let second = [("kld-2", flat), ("hidden-2", 1), ("heat-2", cells(1))];
    check(&reports, &[&first[..], &second[..]].concat())
}

fn partial() -> Result<(), String> {
    check(&[without_forward(SAMPLES[1])], &[("heat-1", cells(30))])
}

/// Names that are markup show as names; nothing runs, and the console stays empty.
fn hostile_names() -> Result<(), String> {
    let mut reports = [report(SAMPLES[1]), hostile(SAMPLES[8])];
    // Its bins have no width, hence no plot; its map has one more kind.
    let bars = bars(&reports[0]);
    reports[1].tensors.retain(|tensor| tensor.layer.is_some());
    let page = html(&reports);
    let folder = scratch();
    let seen = look(&page, 390, Theme::Light, folder.path())?;
    let plots = seen.probe["plots"].as_array().cloned().unwrap_or_default();
    if !seen.console.is_empty() || seen.probe["scroll_width"] != 390 || plots.len() != 7 || plots[2]["marks"] != bars {
        return Err(format!("{seen:?}"));
    }
    Ok(())
}

fn light_and_dark() -> Result<(), String> {
    let page = html(&[report(SAMPLES[8])]);
    let folder = scratch();
    let background = |theme| look(&page, 1280, theme, folder.path()).map(|seen| seen.probe["background"].clone());
    let found = [background(Theme::Light)?, background(Theme::Dark)?];
    let expected = ["rgb(245, 246, 248)", "rgb(14, 18, 24)"];
    if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
}

/// The check itself: each kind of damage is found.
fn damage_is_found() -> Result<(), String> {
    let report = report(SAMPLES[8]);
    let bars = bars(&report);
    let plots = [("perplexity", 1), ("kld", 1), ("kld-1", bars), ("hidden-1", 31), ("heat-1", cells(30))];
    let page = html(&[report]);
    let (without_marks, rest) = page.split_once("<path class=\"point").ok_or("no point")?;
    let without_marks = format!("{without_marks}<path class=\"paint{rest}");
    let cases = [
        ("a point that is none", without_marks, "plot perplexity with 1 marks"),
        ("a broken path", page.replacen("<path class=\"curve\" d=\"M", "<path class=\"curve\" d=\"X", 1), "console: "),
        ("no size", page.replacen("<svg ", "<svg style=\"height:0\" ", 1), "plot perplexity"),
        ("an invisible colour", page.replace("svg .bar { fill: var(--accent); }", "svg .bar { fill: none; }"), "plot kld-1"),
        ("no plot", page.replacen("<svg", "<span", 1), "plots instead of 5"),
        ("a script", page.replacen("</main>", "<script>nothing()</script></main>", 1), "console: "),
        ("something wide", page.replacen("</main>", "<p style=\"width:700px\">wide</p></main>", 1), "pixels wide in 390"),
        (
            "a label outside",
            page.replacen("class=\"label\" text-anchor=\"middle\" x=\"", "class=\"label\" x=\"9", 1),
            "cut off: ",
        ),
        (
            "a label on a label",
            page.replacen("</svg>", "<text class=\"tick\" x=\"200\" y=\"297\">disk</text></svg>", 1),
            "overlapping: ",
        ),
    ];
    for (name, broken, message) in cases {
        if broken == page {
            return Err(format!("{name}: the page was not changed"));
        }
        let found = faults(&broken, 390, Theme::Light, &plots)?;
        if !found.iter().any(|fault| fault.contains(message)) {
            return Err(format!("{name}: {message:?} is not in {found:?}"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let trials = vec![
        with_browser("one", one),
        with_browser("twelve", twelve),
        with_browser("deep_and_flat", deep_and_flat),
        with_browser("partial", partial),
        with_browser("hostile_names", hostile_names),
        with_browser("light_and_dark", light_and_dark),
        with_browser("damage_is_found", damage_is_found),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
