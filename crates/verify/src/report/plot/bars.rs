//! How KL divergences are distributed.

use super::axis::Axis;
use super::{Anchor, Svg, text_width};
use crate::report::Figures;
use crate::report::text::{number, plural, power_of_ten};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 210.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 36.0;
const RIGHT: f64 = 12.0;
/// More bins than this are joined.
const MAX_BINS: usize = 100;

/// Positions by the decimal logarithm of their KL divergence, with median and 99 % quantile. `None` where the histogram is empty or
/// its bins are not numbers.
pub(in crate::report) fn histogram(id: &str, figures: &Figures) -> Option<String> {
    let bins = &figures.kld_histogram;
    let total = bins.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    if total == 0 || !bins.from.is_finite() || !bins.width.is_normal() || bins.width < 0.0 {
        return None;
    }
    let join = bins.counts.len().div_ceil(MAX_BINS);
    let joined: Vec<u64> =
        bins.counts.chunks(join).map(|chunk| chunk.iter().fold(0, |sum: u64, n| sum.saturating_add(*n))).collect();
    let width = bins.width * join as f64;
    let most = joined.iter().copied().max().unwrap_or(0) as f64;
    let end = bins.from + width * joined.len() as f64;
    if !end.is_finite() {
        return None;
    }

    let share = |count: f64| 100.0 * count / total as f64;
    let y = Axis::linear(0.0, share(most) * 1.05, HEIGHT - BOTTOM, TOP);
    let ticks = y.ticks();
    let left = ticks.iter().map(|(_, name)| text_width(name)).fold(0.0, f64::max) + 12.0;
    let x = Axis::linear(bins.from, end, left, WIDTH - RIGHT);
    let description = format!(
        "{}; median {} nats, 99 % of positions below {} nats, largest {} nats.",
        plural(total, "position"),
        number(figures.kld_median),
        number(figures.kld_p99),
        number(figures.kld_max)
    );
    let mut svg = Svg::new(id, WIDTH, HEIGHT, "Distribution of the KL divergence", &description);
    svg.text("axis-title", Anchor::Start, 2.0, 14.0, "positions, %");
    for (value, name) in &ticks {
        svg.line("grid", left, y.at(*value), WIDTH - RIGHT, y.at(*value));
        svg.text("tick", Anchor::End, left - 6.0, y.at(*value) + 4.0, name);
    }
    let edge = |bin: usize| bins.from + width * bin as f64;
    let last = joined.len() - 1;
    for (bin, count) in joined.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (from, to, top) = (x.at(edge(bin)), x.at(edge(bin + 1)), y.at(share(*count as f64)));
        let range = match bin {
            0 => format!("below {}", number(10f64.powf(edge(1)))),
            bin if bin == last => format!("{} and more", number(10f64.powf(edge(bin)))),
            bin => format!("{} to {}", number(10f64.powf(edge(bin))), number(10f64.powf(edge(bin + 1)))),
        };
        let title = format!("{range} nats: {} ({:.2} %)", plural(*count, "position"), share(*count as f64));
        let gap = if to - from > 3.0 { 1.0 } else { 0.0 };
        // A bar of a few positions among many stays visible.
        let height = (HEIGHT - BOTTOM - top).max(0.8);
        svg.rect("bar", [from, HEIGHT - BOTTOM - height, (to - from - gap).max(0.4), height], &title);
    }
    svg.line("axis", left, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    decades(&mut svg, bins.from, end, &x);
    quantile(&mut svg, &x, figures.kld_median, "median", Anchor::End);
    quantile(&mut svg, &x, figures.kld_p99, "99 %", Anchor::Start);
    svg.text("axis-title", Anchor::End, WIDTH - RIGHT, HEIGHT - 4.0, "KL divergence of a position, nats, log scale");
    Some(svg.finish())
}

fn decades(svg: &mut Svg, from: f64, to: f64, x: &Axis) {
    let count = to.floor() - from.ceil();
    let every = (count / 7.0).ceil().max(1.0);
    let mut decade = from.ceil();
    for _ in 0..16 {
        if decade > to || decade.abs() > 400.0 {
            break;
        }
        svg.line("axis", x.at(decade), HEIGHT - BOTTOM, x.at(decade), HEIGHT - BOTTOM + 4.0);
        svg.text("tick", Anchor::Middle, x.at(decade), HEIGHT - BOTTOM + 16.0, &power_of_ten(decade as i32));
        decade += every;
    }
}

fn quantile(svg: &mut Svg, x: &Axis, value: f64, name: &str, anchor: Anchor) {
    if value.is_finite() && value > 0.0 {
        let at = x.at(value.log10());
        svg.line("quantile", at, TOP - 8.0, at, HEIGHT - BOTTOM);
        let beside = if anchor == Anchor::End { at - 3.0 } else { at + 3.0 };
        // Near an end of the plot the text would leave it.
        let text = format!("{name} {}", number(value));
        let room = text_width(&text);
        let (anchor, beside) = match anchor {
            Anchor::Start if at + room > WIDTH => (Anchor::End, WIDTH - 2.0),
            Anchor::End if at - room < 0.0 => (Anchor::Start, 2.0),
            anchor => (anchor, beside),
        };
        svg.text("label", anchor, beside, TOP - 10.0, &text);
    }
}
