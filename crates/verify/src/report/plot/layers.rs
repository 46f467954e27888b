//! How the error of the hidden state grows from layer to layer.

use super::axis::Axis;
use super::{Anchor, Svg, px, text_width};
use crate::report::text::number;
use std::fmt::Write;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 210.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;
const RIGHT: f64 = 12.0;
/// From this quotient of largest and smallest on, the axis is logarithmic.
const LOG_FROM: f64 = 30.0;
/// Layers drawn at most.
const MAX_LAYERS: usize = 2_000;

/// Relative RMSE of the hidden state behind each layer. `None` where there is none.
pub(in crate::report) fn hidden_error(id: &str, errors: &[f64]) -> Option<String> {
    let errors = &errors[..errors.len().min(MAX_LAYERS)];
    let last = errors.len().checked_sub(1)?;
    let positive = || errors.iter().copied().filter(|error| error.is_finite() && *error > 0.0);
    let (least, most) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    // A logarithmic axis has no place for an exact layer.
    let log = most / least > LOG_FROM && errors.iter().all(|error| *error != 0.0);
    let (from, to) = (HEIGHT - BOTTOM, TOP);
    let y = if log {
        Axis::log(least / 1.3, most * 1.3, from, to)
    } else {
        Axis::linear(0.0, if most > 0.0 { most * 1.1 } else { 1.0 }, from, to)
    };
    let ticks = y.ticks();
    let left = ticks.iter().map(|(_, name)| text_width(name)).fold(0.0, f64::max) + 12.0;
    // One layer lies in the middle.
    let x = if last == 0 {
        Axis::linear(-1.0, 1.0, left, WIDTH - RIGHT)
    } else {
        Axis::linear(0.0, last as f64, left + 6.0, WIDTH - RIGHT)
    };

    let description = format!(
        "{} layers, from {} behind the first to {} behind the last.",
        errors.len(),
        number(errors[0]),
        number(errors[last])
    );
    let mut svg = Svg::new(id, WIDTH, HEIGHT, "Error of the hidden state by layer", &description);
    svg.text("axis-title", Anchor::Start, 2.0, 14.0, if log { "relative RMSE, log scale" } else { "relative RMSE" });
    for (value, name) in &ticks {
        svg.line("grid", left, y.at(*value), WIDTH - RIGHT, y.at(*value));
        svg.text("tick", Anchor::End, left - 6.0, y.at(*value) + 4.0, name);
    }
    svg.line("axis", left, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (value, name) in x.ticks().into_iter().filter(|(value, _)| value.fract() == 0.0 && (0.0..=last as f64).contains(value)) {
        svg.line("axis", x.at(value), HEIGHT - BOTTOM, x.at(value), HEIGHT - BOTTOM + 4.0);
        let name = name.split('.').next().unwrap_or_default();
        svg.text("tick", Anchor::Middle, x.at(value), HEIGHT - BOTTOM + 16.0, name);
    }
    svg.text("axis-title", Anchor::End, WIDTH - RIGHT, HEIGHT - 4.0, "behind layer");
    // A gap where a value is not finite.
    let (mut data, mut pen) = (String::new(), 'M');
    for (layer, error) in errors.iter().enumerate() {
        if error.is_finite() {
            let _ = write!(data, "{pen}{} {}", px(x.at(layer as f64)), px(y.at(*error)));
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    if !data.is_empty() {
        svg.path("curve", &data, "");
    }
    for (layer, error) in errors.iter().enumerate() {
        let (at, title) = (x.at(layer as f64), format!("behind layer {layer}: {}", number(*error)));
        if error.is_finite() {
            let r = if last > 60 { 1.5 } else { 2.5 };
            let data = format!("M{} {}a{r} {r} 0 1 0 {} 0a{r} {r} 0 1 0 -{} 0z", px(at - r), px(y.at(*error)), 2.0 * r, 2.0 * r);
            svg.path("curve-point", &data, &title);
        } else {
            svg.rect("not-finite", [at - 2.0, TOP, 4.0, HEIGHT - BOTTOM - TOP], &title);
        }
    }
    Some(svg.finish())
}
