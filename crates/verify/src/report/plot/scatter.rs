//! A figure against file size, one labelled point per file.

use super::axis::Axis;
use super::{Anchor, LINE, Svg, px, text_width};
use crate::report::outcome::Outcome;
use crate::report::text::{bytes, number, with_error};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 300.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
const RIGHT: f64 = 14.0;
/// Height of the strips for values that have no place on the axis: not finite (above), zero on a logarithmic axis (below).
const STRIP: f64 = 20.0;
/// From this quotient of largest and smallest on, the axis is logarithmic.
const LOG_FROM: f64 = 10.0;

/// What is drawn.
#[derive(Debug)]
pub(in crate::report) struct Scatter<'a> {
    pub id: &'a str,
    pub title: &'a str,
    /// What the vertical axis is, with its unit.
    pub quantity: &'a str,
    pub points: Vec<Point>,
    /// The source's own value.
    pub reference: Option<Reference>,
    /// Whether the vertical axis is logarithmic in any case; otherwise it is where the values are far apart.
    pub log: bool,
}

/// One file.
#[derive(Debug)]
pub(in crate::report) struct Point {
    pub label: String,
    pub bytes: u64,
    pub value: f64,
    /// One standard error.
    pub error: f64,
    pub outcome: Outcome,
}

/// A horizontal line, and a point on it.
#[derive(Debug)]
pub(in crate::report) struct Reference {
    pub bytes: u64,
    pub value: f64,
}

/// A box that a label must not cover: left, top, right, bottom.
type Box = [f64; 4];

pub(in crate::report) fn scatter(plot: &Scatter<'_>) -> String {
    let scale = Scale::new(plot);
    let mut svg = Svg::new(plot.id, WIDTH, HEIGHT, plot.title, &description(plot));
    scale.draw(&mut svg, plot);
    let mut obstacles: Vec<Box> = Vec::new();
    if let Some(reference) = plot.reference.as_ref().filter(|reference| reference.value.is_finite()) {
        let (x, y) = (scale.x.at(reference.bytes as f64 / scale.unit), scale.y(reference.value));
        svg.line("reference", scale.left, y, WIDTH - RIGHT, y);
        let title = format!("source: {}, {}", bytes(reference.bytes), number(reference.value));
        svg.path("source-point", &diamond(x, y, 5.5), &title);
        obstacles.push([x - 6.0, y - 6.0, x + 6.0, y + 6.0]);
        // Below the line, since points are worse than the source and lie above it; where there is no room, above.
        let y = if y + 24.0 < HEIGHT - BOTTOM { y + 20.0 } else { y - 12.0 };
        let half = text_width("source") / 2.0;
        let x = x.min(WIDTH - 2.0 - half);
        svg.text("label muted", Anchor::Middle, x, y, "source");
        obstacles.push([x - half, y - 10.0, x + half, y + 2.0]);
    }
    let places: Vec<(f64, f64)> =
        plot.points.iter().map(|point| (scale.x.at(point.bytes as f64 / scale.unit), scale.y(point.value))).collect();
    for (point, &(x, y)) in plot.points.iter().zip(&places) {
        obstacles.push([x - 6.0, y - 6.0, x + 6.0, y + 6.0]);
        if let Some((high, low)) = scale.error_bar(point) {
            svg.line("error-bar", x, high, x, low);
            svg.line("error-bar", x - 3.0, high, x + 3.0, high);
            svg.line("error-bar", x - 3.0, low, x + 3.0, low);
            obstacles.push([x - 3.0, high, x + 3.0, low]);
        }
    }
    for (point, &(x, y)) in plot.points.iter().zip(&places) {
        let title = format!("{}: {}, {}", point.label, bytes(point.bytes), with_error(point.value, point.error));
        let failed = point.outcome == Outcome::Failed || !point.value.is_finite();
        let data = if failed { cross(x, y, 5.0) } else { circle(x, y, 4.5) };
        svg.path(&format!("point {}", point.outcome.class()), &data, &title);
    }
    for (point, &(x, y)) in plot.points.iter().zip(&places) {
        label(&mut svg, &point.label, (x, y), scale.left, &mut obstacles);
    }
    svg.finish()
}

fn description(plot: &Scatter<'_>) -> String {
    let points = plot.points.iter().map(|p| format!("{} {} {}", p.label, bytes(p.bytes), with_error(p.value, p.error)));
    let source = plot.reference.iter().map(|r| format!("source {} {}", bytes(r.bytes), number(r.value)));
    format!("{} against size: {}.", plot.quantity, source.chain(points).collect::<Vec<_>>().join("; "))
}

#[derive(Debug)]
struct Scale {
    x: Axis,
    y: Axis,
    left: f64,
    /// Bytes of the unit that the horizontal axis counts.
    unit: f64,
    unit_name: &'static str,
    /// Top and bottom of the axis itself, without strips.
    high: f64,
    low: f64,
    strange: bool,
    zeros: bool,
}

impl Scale {
    fn new(plot: &Scatter<'_>) -> Self {
        let source = plot.reference.iter().map(|reference| (reference.value, 0.0));
        let values = plot.points.iter().map(|p| (p.value, if p.error.is_finite() { p.error.abs() } else { 0.0 })).chain(source);
        let values: Vec<(f64, f64)> = values.filter(|(value, _)| value.is_finite()).collect();
        let positive = || values.iter().filter(|(value, _)| *value > 0.0);
        let (least, most) = positive().fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), (v, _)| (a.min(*v), b.max(*v)));
        let log = most > 0.0 && (plot.log || most / least > LOG_FROM);
        let zeros = log && values.iter().any(|(value, _)| *value <= 0.0);
        let strange = plot.points.iter().any(|point| !point.value.is_finite());
        let high = TOP + if strange { STRIP } else { 0.0 };
        let low = HEIGHT - BOTTOM - if zeros { STRIP } else { 0.0 };
        let y = if log {
            // An error bar that reaches zero has no end on this axis.
            let bottom = positive().map(|(v, e)| if v > e { v - e } else { *v }).fold(f64::INFINITY, f64::min);
            let top = positive().map(|(v, e)| v + e).fold(0.0, f64::max);
            let pad = (top / bottom).powf(0.1).clamp(1.01, 1e3);
            Axis::log(bottom / pad / pad, top * pad, low, high)
        } else {
            let bottom = values.iter().map(|(v, e)| v - e).fold(0.0, f64::min);
            let top = values.iter().map(|(v, e)| v + e).fold(0.0, f64::max);
            Axis::linear(bottom, if top > 0.0 { top * 1.15 } else { 1.0 }, low, high)
        };
        let widest = y.ticks().iter().map(|(_, name)| text_width(name)).fold(text_width("0"), f64::max);
        let left = (widest + 12.0).max(if strange { text_width("not finite") + 8.0 } else { 0.0 });
        let sizes = || plot.points.iter().map(|p| p.bytes).chain(plot.reference.iter().map(|r| r.bytes));
        let (smallest, largest) = (sizes().min().unwrap_or(1).max(1) as f64, sizes().max().unwrap_or(1).max(1) as f64);
        let (unit, unit_name) = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")]
            .into_iter()
            .find(|(unit, _)| largest >= *unit)
            .unwrap_or((1.0, "bytes"));
        let pad = (largest / smallest).powf(0.1).max(1.15);
        let x = Axis::log(smallest / unit / pad, largest / unit * pad, left, WIDTH - RIGHT);
        Scale { x, y, left, unit, unit_name, high, low, strange, zeros }
    }

    fn y(&self, value: f64) -> f64 {
        match () {
            () if !value.is_finite() => TOP + 8.0,
            () if self.zeros && value <= 0.0 => self.low + STRIP * 0.6,
            () => self.y.at(value),
        }
    }

    /// Its upper and lower end, where there is one that can be seen.
    fn error_bar(&self, point: &Point) -> Option<(f64, f64)> {
        let drawn =
            point.value.is_finite() && point.error.is_finite() && point.error > 0.0 && !(self.zeros && point.value <= 0.0);
        drawn.then(|| (self.y.at(point.value + point.error), self.y.at(point.value - point.error)))
    }

    fn draw(&self, svg: &mut Svg, plot: &Scatter<'_>) {
        let bottom = HEIGHT - BOTTOM;
        let log = if self.y.is_log() { ", log scale" } else { "" };
        svg.text("axis-title", Anchor::Start, 2.0, 14.0, &format!("{}{log}", plot.quantity));
        for (value, name) in self.y.ticks() {
            let y = self.y.at(value);
            svg.line("grid", self.left, y, WIDTH - RIGHT, y);
            svg.text("tick", Anchor::End, self.left - 6.0, y + 4.0, &name);
        }
        if self.zeros {
            svg.line("break", self.left, self.low + 2.0, WIDTH - RIGHT, self.low + 2.0);
            svg.text("tick", Anchor::End, self.left - 6.0, self.low + STRIP * 0.6 + 4.0, "0");
        }
        if self.strange {
            svg.line("break", self.left, self.high - 4.0, WIDTH - RIGHT, self.high - 4.0);
            svg.text("tick", Anchor::End, self.left - 6.0, TOP + 12.0, "not finite");
        }
        svg.line("axis", self.left, bottom, WIDTH - RIGHT, bottom);
        let ticks: Vec<_> = self.x.ticks().into_iter().map(|(value, name)| (self.x.at(value), name)).collect();
        for (x, _) in &ticks {
            svg.line("axis", *x, bottom, *x, bottom + 4.0);
        }
        for (x, name) in legible(ticks) {
            svg.text("tick", Anchor::Middle, x, bottom + 16.0, &name);
        }
        svg.text("axis-title", Anchor::End, WIDTH - RIGHT, HEIGHT - 6.0, &format!("size on disk, {}, log scale", self.unit_name));
    }
}

/// The ticks whose names do not touch each other; round numbers before others.
fn legible(mut ticks: Vec<(f64, String)>) -> Vec<(f64, String)> {
    let round = |name: &str| match name.trim_matches(['0', '.']) {
        "1" => 0,
        "5" | "2" => 1,
        "3" => 2,
        _ => 3,
    };
    ticks.sort_by_key(|(_, name)| round(name));
    let mut kept: Vec<(f64, String)> = Vec::new();
    for (x, name) in ticks {
        let apart =
            |(other, other_name): &(f64, String)| (other - x).abs() > (text_width(other_name) + text_width(&name)) / 2.0 + 4.0;
        if kept.iter().all(apart) {
            kept.push((x, name));
        }
    }
    kept
}

fn circle(x: f64, y: f64, r: f64) -> String {
    format!("M{} {}a{r} {r} 0 1 0 {} 0a{r} {r} 0 1 0 -{} 0z", px(x - r), px(y), 2.0 * r, 2.0 * r)
}

fn diamond(x: f64, y: f64, r: f64) -> String {
    format!("M{} {}L{} {}L{} {}L{} {}z", px(x - r), px(y), px(x), px(y - r), px(x + r), px(y), px(x), px(y + r))
}

fn cross(x: f64, y: f64, r: f64) -> String {
    format!("M{} {}L{} {}M{} {}L{} {}", px(x - r), px(y - r), px(x + r), px(y + r), px(x - r), px(y + r), px(x + r), px(y - r))
}

/// Put a label near its point where it covers nothing, farther away with a line to it where it must be.
fn label(svg: &mut Svg, text: &str, (x, y): (f64, f64), left: f64, obstacles: &mut Vec<Box>) {
    let width = text_width(text);
    let place = |angle: usize, distance: f64| -> (f64, f64) {
        // Clockwise from the right; the label's centre lies so that its nearest edge or corner is `distance` away.
        let (dx, dy) =
            [(1.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (0.7, -0.7), (-0.7, -0.7), (0.0, 1.0), (0.7, 0.7), (-0.7, 0.7)][angle];
        (x + dx * distance + f64::signum(dx) * if dx == 0.0 { 0.0 } else { width / 2.0 }, y + dy * (distance + LINE / 2.0))
    };
    let around = |(cx, cy): (f64, f64)| [cx - width / 2.0, cy - LINE / 2.0, cx + width / 2.0, cy + LINE / 2.0];
    let mut best = (f64::INFINITY, 9.0, around(place(0, 9.0)));
    'search: for distance in [9.0, 18.0, 30.0, 44.0, 60.0, 78.0] {
        for angle in 0..8 {
            let found = around(place(angle, distance));
            let inside = found[0] >= left && found[2] <= WIDTH - 2.0 && found[1] >= TOP - 12.0 && found[3] <= HEIGHT - BOTTOM;
            if !inside {
                continue;
            }
            let covered = obstacles.iter().map(|obstacle| overlap(&found, obstacle)).sum::<f64>();
            if covered < best.0 {
                best = (covered, distance, found);
            }
            if covered == 0.0 {
                break 'search;
            }
        }
    }
    let (_, distance, [x1, y1, x2, y2]) = best;
    if distance > 9.0 {
        svg.line("leader", x, y, x.clamp(x1, x2), y.clamp(y1 + 2.0, y2 - 2.0));
    }
    svg.text("label", Anchor::Middle, (x1 + x2) / 2.0, y2 - 3.0, text);
    obstacles.push([x1 - 2.0, y1, x2 + 2.0, y2]);
}

/// Area that two boxes share.
fn overlap(a: &Box, b: &Box) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    width.max(0.0) * height.max(0.0)
}
