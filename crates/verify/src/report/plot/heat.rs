//! Error by layer and kind of tensor.

use super::{Anchor, Svg, text_width};
use crate::report::text::{grouped, number, shorten};
use crate::report::{Report, TensorFigures, TensorVerdict};
use std::collections::BTreeMap;

/// Steps of the colour scale; the style sheet has as many classes.
const LEVELS: usize = 9;
/// Layers and kinds drawn at most: a file may claim any number.
const MAX_LAYERS: usize = 300;
const MAX_KINDS: usize = 40;
/// Tensors outside of layers drawn at most.
const MAX_OTHERS: usize = 12;
const ROW: f64 = 18.0;
const TOP: f64 = 22.0;

/// The map and what is to be said about it.
#[derive(Debug)]
pub(in crate::report) struct HeatMap {
    pub svg: String,
    /// Kinds that are lossless in every layer and have no row.
    pub lossless: Vec<String>,
    /// What was left out, where something was.
    pub omitted: Option<String>,
    /// Width of the image in its own units, which are pixels where it is not scaled.
    pub width: f64,
}

/// Relative RMSE of every tensor, layers to the right, kinds downward. `None` where there are no tensors.
pub(in crate::report) fn heat_map(id: &str, report: &Report) -> Option<HeatMap> {
    let grid = Grid::new(report);
    if grid.kinds.is_empty() && grid.others.is_empty() {
        return None;
    }
    let scale = Colours::new(&report.tensors);
    let names = grid.kinds.iter().map(|(name, _)| name).chain(grid.others.iter().map(|tensor| &tensor.kind));
    let left = names.map(|name| text_width(&shorten(name, 18))).fold(60.0, f64::max) + 8.0;
    // Few layers have wide cells, many have narrow ones.
    let cell = (720.0 / grid.layers.len().max(1) as f64).clamp(8.0, 22.0);
    let width = (left + cell * grid.layers.len() as f64 + 12.0).max(380.0);
    let rows = grid.kinds.len() as f64;
    let gap = if grid.others.is_empty() || grid.kinds.is_empty() { 0.0 } else { 14.0 };
    let below = TOP + ROW * rows + gap + ROW * grid.others.len() as f64;
    let height = below + 56.0;

    let mut svg = Svg::new(id, width, height, "Relative RMSE by layer and kind of tensor", &scale.description(report));
    if !grid.kinds.is_empty() {
        grid.draw(&mut svg, &scale, left, cell);
    }
    for (at, tensor) in grid.others.iter().enumerate() {
        let y = TOP + ROW * (rows + at as f64) + gap;
        svg.text("tick", Anchor::End, left - 6.0, y + 13.0, &shorten(&tensor.kind, 18));
        svg.rect(&scale.class(tensor), [left, y + 1.0, 22.0, ROW - 2.0], &title(tensor));
        svg.text("tick", Anchor::Start, left + 28.0, y + 13.0, &format!("{} ({})", value(tensor), shorten(&tensor.format, 12)));
    }
    scale.legend(&mut svg, below + 14.0);
    let lossless = grid.lossless.iter().map(|name| shorten(name, 40)).collect();
    Some(HeatMap { svg: svg.finish(), lossless, omitted: grid.omitted, width })
}

/// What a cell says.
fn title(tensor: &TensorFigures) -> String {
    format!("{} ({}): {}, {}", tensor.name, tensor.format, value(tensor), tensor.verdict.word())
}

fn value(tensor: &TensorFigures) -> String {
    if tensor.relative_rmse == 0.0 { "no error".to_owned() } else { number(tensor.relative_rmse) }
}

/// Nothing was lost and nothing is wrong.
fn is_lossless(tensor: &TensorFigures) -> bool {
    tensor.relative_rmse == 0.0 && !matches!(tensor.verdict, TensorVerdict::Wrong | TensorVerdict::Unknown)
}

/// What goes where.
#[derive(Debug, Default)]
struct Grid<'a> {
    layers: Vec<u32>,
    /// Rows in file order, each with its tensors by column.
    kinds: Vec<(String, BTreeMap<usize, &'a TensorFigures>)>,
    lossless: Vec<String>,
    others: Vec<&'a TensorFigures>,
    omitted: Option<String>,
}

impl<'a> Grid<'a> {
    fn new(report: &'a Report) -> Self {
        let mut grid = Grid::default();
        // Kinds by first appearance; a map finds them where a file has very many.
        let mut order: Vec<&str> = Vec::new();
        let mut rows: BTreeMap<&str, BTreeMap<u32, &TensorFigures>> = BTreeMap::new();
        for tensor in &report.tensors {
            let Some(layer) = tensor.layer else {
                grid.others.push(tensor);
                continue;
            };
            let row = rows.entry(&tensor.kind).or_insert_with(|| {
                order.push(&tensor.kind);
                BTreeMap::new()
            });
            let worse = row.get(&layer).is_none_or(|known| severity(tensor) > severity(known));
            if worse {
                row.insert(layer, tensor);
            }
        }
        let all_layers: std::collections::BTreeSet<u32> = rows.values().flat_map(|row| row.keys().copied()).collect();
        grid.layers = all_layers.iter().copied().take(MAX_LAYERS).collect();

        let lossless = |kind: &&&str| rows[**kind].values().all(|tensor| is_lossless(tensor));
        let all_lossless = order.iter().all(|kind| lossless(&kind));
        if !all_lossless {
            grid.lossless = order.iter().filter(lossless).map(|kind| (*kind).to_owned()).collect();
        }
        let drawn = order.iter().filter(|kind| all_lossless || !lossless(kind));
        let number_of_kinds = drawn.clone().count();
        for kind in drawn.take(MAX_KINDS) {
            let column = |layer: &u32| grid.layers.binary_search(layer).ok();
            let cells = rows[kind].iter().filter_map(|(layer, tensor)| Some((column(layer)?, *tensor))).collect();
            grid.kinds.push(((*kind).to_owned(), cells));
        }
        let others = grid.others.len();
        // The worst of them stay where there are too many; their order is the file's otherwise.
        if others > MAX_OTHERS {
            grid.others.sort_by(|a, b| severity(b).total_cmp(&severity(a)));
            grid.others.truncate(MAX_OTHERS);
        }
        let left_out = [
            (all_layers.len() - grid.layers.len(), "layers"),
            (number_of_kinds - grid.kinds.len(), "kinds of tensors"),
            (others - grid.others.len(), "tensors outside of layers"),
        ];
        let left_out: Vec<_> =
            left_out.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n as u64))).collect();
        grid.omitted = (!left_out.is_empty()).then(|| left_out.join(", "));
        grid.lossless.truncate(MAX_KINDS);
        grid
    }

    fn draw(&self, svg: &mut Svg, scale: &Colours, left: f64, cell: f64) {
        let every = (text_width("000") / cell).ceil().max(1.0) as usize;
        let every = [1, 2, 5, 10, 20, 50].into_iter().find(|step| *step >= every).unwrap_or(every);
        svg.text("axis-title", Anchor::End, left - 6.0, TOP - 8.0, "layer");
        for (column, layer) in self.layers.iter().enumerate().step_by(every) {
            svg.text("tick", Anchor::Middle, left + cell * (column as f64 + 0.5), TOP - 8.0, &layer.to_string());
        }
        for (row, (kind, cells)) in self.kinds.iter().enumerate() {
            let y = TOP + ROW * row as f64;
            svg.text("tick", Anchor::End, left - 6.0, y + 13.0, &shorten(kind, 18));
            for (column, tensor) in cells {
                let place = [left + cell * *column as f64 + 0.5, y + 0.5, cell - 1.0, ROW - 1.0];
                svg.rect(&scale.class(tensor), place, &title(tensor));
            }
        }
    }
}

/// For comparing: what is wrong is worse than any error, what is not finite worse than that.
fn severity(tensor: &TensorFigures) -> f64 {
    match tensor.verdict {
        _ if !tensor.relative_rmse.is_finite() => f64::INFINITY,
        TensorVerdict::Wrong => f64::MAX,
        _ => tensor.relative_rmse,
    }
}

/// The colour scale: [`LEVELS`] steps of equal quotient.
#[derive(Debug)]
struct Colours {
    low: f64,
    high: f64,
    any: bool,
    lossless: bool,
    strange: bool,
    wrong: bool,
}

impl Colours {
    fn new(tensors: &[TensorFigures]) -> Self {
        let errors = || tensors.iter().map(|t| t.relative_rmse).filter(|e| e.is_finite() && *e > 0.0);
        let (low, high) = (errors().fold(f64::INFINITY, f64::min), errors().fold(0.0, f64::max));
        let any = high > 0.0;
        let (low, high) = match () {
            () if !any => (1.0, 2.0),
            // Nearly equal errors get neighbouring colours, not the ends of the scale.
            () if high / low < 2.0 => ((low * high).sqrt() / 2f64.sqrt(), (low * high).sqrt() * 2f64.sqrt()),
            () => (low, high),
        };
        let wrong = tensors.iter().any(|t| matches!(t.verdict, TensorVerdict::Wrong | TensorVerdict::Unknown));
        let strange = tensors.iter().any(|t| !t.relative_rmse.is_finite());
        Colours { low, high, any, lossless: tensors.iter().any(is_lossless), strange, wrong }
    }

    fn class(&self, tensor: &TensorFigures) -> String {
        let error = tensor.relative_rmse;
        let colour = match () {
            () if !error.is_finite() => "not-finite".to_owned(),
            () if error <= 0.0 => "lossless".to_owned(),
            () => {
                let share = (error.ln() - self.low.ln()) / (self.high.ln() - self.low.ln());
                format!("c{}", ((share * LEVELS as f64) as usize).min(LEVELS - 1))
            }
        };
        let outline = if matches!(tensor.verdict, TensorVerdict::Wrong | TensorVerdict::Unknown) { " wrong" } else { "" };
        format!("cell {colour}{outline}")
    }

    fn description(&self, report: &Report) -> String {
        let range =
            if self.any { format!("errors from {} to {}", number(self.low), number(self.high)) } else { "no errors".to_owned() };
        format!("{} tensors, {range}.", grouped(report.tensors.len() as u64))
    }

    fn legend(&self, svg: &mut Svg, y: f64) {
        let mut x = 4.0;
        if self.any {
            svg.text("axis-title", Anchor::Start, x, y + 10.0, "relative RMSE, log scale");
            for level in 0..LEVELS {
                svg.rect(&format!("cell c{level}"), [x + 18.0 * level as f64, y + 16.0, 18.0, 10.0], "");
            }
            svg.text("tick", Anchor::Start, x, y + 36.0, &number(self.low));
            x += 18.0 * LEVELS as f64;
            svg.text("tick", Anchor::End, x, y + 36.0, &number(self.high));
            x += 16.0;
        }
        let others = [
            (self.lossless, "lossless", "no error"),
            (self.strange, "not-finite", "not finite"),
            (self.wrong, "c0 wrong", "wrong or unknown"),
        ];
        let mut line = 0.0;
        for (shown, class, name) in others {
            if shown {
                svg.rect(&format!("cell {class}"), [x, y + 1.0 + 14.0 * line, 18.0, 10.0], "");
                svg.text("tick", Anchor::Start, x + 24.0, y + 10.0 + 14.0 * line, name);
                line += 1.0;
            }
        }
    }
}
