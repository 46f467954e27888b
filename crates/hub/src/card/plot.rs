//! How far the files are from their source, as a picture.

use super::text::number;
use super::{CardFile, Figures};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const HEIGHT: f64 = 260.0;
/// A file that is nearer to its source differs by the order of sums alone: its one high column would flatten all others.
const NOTHING: f64 = 1e-6;
/// A line of the legend.
const LINE: f64 = 20.0;
/// Told apart by people who see colours otherwise, too (Okabe and Ito, 2008); more files begin anew.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333"];

/// An SVG image: the share of positions by the decimal logarithm of their KL divergence, a line per file. None where nothing was
/// measured.
pub fn divergences(files: &[CardFile]) -> Option<String> {
    let measured = |file: &'_ CardFile| file.figures.as_ref().is_some_and(|figures| usable(figures).is_some());
    let files: Vec<&CardFile> = files.iter().filter(|file| measured(file)).collect();
    let nothing = |file: &&CardFile| file.figures.as_ref().is_some_and(|figures| figures.kld.0 < NOTHING);
    let (mut same, mut files): (Vec<&CardFile>, Vec<&CardFile>) = files.into_iter().partition(nothing);
    if files.is_empty() {
        std::mem::swap(&mut same, &mut files);
    }
    let histograms: Vec<(f64, f64, Vec<f64>)> = files.iter().filter_map(|file| usable(file.figures.as_ref()?)).collect();
    let (low, high) = histograms.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (from, width, shares)| {
        let first = shares.iter().position(|share| *share > 0.0).unwrap_or(0);
        let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or(0) + 1;
        (low.min(from + width * first as f64), high.max(from + width * last as f64))
    });
    let (low, high) = (low.floor(), high.ceil());
    let most = histograms.iter().flat_map(|(_, width, shares)| shares.iter().map(move |share| share / width)).fold(0.0, f64::max);
    if files.is_empty() || !(low < high && high - low < 100.0 && most > 0.0) {
        return None;
    }
    let x = |value: f64| LEFT + (value.clamp(low, high) - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let y = |density: f64| TOP + HEIGHT * (1.0 - density / most);
    let total = TOP + HEIGHT + 56.0 + LINE * (files.len() + same.len()) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{total}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" fill=\"#222222\">Share of positions by KL divergence from the source</text>\n"
    );
    for power in low as i32..=high as i32 {
        let at = x(f64::from(power));
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{0:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{at:.1}\" y=\"{1:.1}\" text-anchor=\"middle\" fill=\"#444444\">10<tspan dy=\"-5\" font-size=\"10\">{power}</tspan></text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 18.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444444\">KL divergence of a position, in nats</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        TOP + HEIGHT + 38.0
    );
    for (index, (file, (from, width, shares))) in files.iter().zip(&histograms).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if index < COLOURS.len() { "" } else { " stroke-dasharray=\"6 3\"" };
        let mut path = String::new();
        for (bin, share) in shares.iter().enumerate() {
            let (start, end) = (from + width * bin as f64, from + width * (bin + 1) as f64);
            if end <= low || start >= high {
                continue;
            }
            let height = y(share / width);
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {height:.1}L{:.1} {height:.1}", x(start), x(end));
        }
        let line = TOP + HEIGHT + 60.0 + LINE * index as f64;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
             <line x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222222\">{}</text>",
            LEFT + 24.0,
            LEFT + 32.0,
            line + 4.5,
            xml(file.name())
        );
    }
    for (index, file) in same.iter().enumerate() {
        let line = TOP + HEIGHT + 60.0 + LINE * (files.len() + index) as f64;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666666\">{}: not drawn, its mean is {}</text>",
            LEFT + 32.0,
            line + 4.5,
            xml(file.name()),
            number(file.figures.as_ref().map_or(0.0, |figures| figures.kld.0))
        );
    }
    Some(out + "</svg>\n")
}

/// Where bins begin, their width, the share of positions in each.
fn usable(figures: &Figures) -> Option<(f64, f64, Vec<f64>)> {
    let (from, width, counts) = &figures.kld_histogram;
    let total = counts.iter().map(|count| *count as f64).sum::<f64>();
    let sane = from.is_finite() && width.is_finite() && *width > 0.0 && total > 0.0 && counts.len() <= 10_000;
    sane.then(|| (*from, *width, counts.iter().map(|count| *count as f64 / total).collect()))
}

fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
