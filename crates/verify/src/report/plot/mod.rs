//! Plots as inline SVG.
//!
//! Drawn by a little code of our own: their colours are CSS variables of the page, so that one file follows the reader's light or
//! dark setting without a script, which plotting libraries (they write fixed colours) cannot do. All coordinates are in user units
//! of a `viewBox` that the page scales; the texts are sized to be readable on a telephone.

mod axis;
mod bars;
mod heat;
mod layers;
mod scatter;

pub(super) use bars::histogram;
pub(super) use heat::heat_map;
pub(super) use layers::hidden_error;
pub(super) use scatter::{Point, Reference, Scatter, scatter};

use super::text::escape;
use std::fmt::Write;

/// Width of a character of the plots' text, roughly, to leave room for labels.
const CHAR: f64 = 6.9;
/// Height of a line of text.
const LINE: f64 = 13.0;

/// Which side of its anchor a text lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG image under construction.
#[derive(Debug)]
struct Svg {
    out: String,
}

impl Svg {
    /// `id` is unique on the page; `description` says what is to be seen.
    fn new(id: &str, width: f64, height: f64, title: &str, description: &str) -> Self {
        let (id, title, description) = (escape(id), escape(title), escape(description));
        let mut svg = Svg { out: String::new() };
        svg.raw(&format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title>\
             <desc id=\"{id}-d\">{description}</desc>\n",
            px(width),
            px(height)
        ));
        svg
    }

    fn raw(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(px);
        // Writing into a string has no errors, here and below.
        let _ = writeln!(self.out, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    /// `title` is shown where a pointer rests on it.
    fn rect(&mut self, class: &str, [x, y, width, height]: [f64; 4], title: &str) {
        let [x, y, width, height] = [x, y, width, height].map(px);
        let _ = write!(self.out, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
        let _ = match title {
            "" => writeln!(self.out, "/>"),
            title => writeln!(self.out, "><title>{}</title></rect>", escape(title)),
        };
    }

    fn path(&mut self, class: &str, data: &str, title: &str) {
        let _ = match title {
            "" => writeln!(self.out, "<path class=\"{class}\" d=\"{data}\"/>"),
            title => writeln!(self.out, "<path class=\"{class}\" d=\"{data}\"><title>{}</title></path>", escape(title)),
        };
    }

    fn text(&mut self, class: &str, anchor: Anchor, x: f64, y: f64, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = writeln!(self.out, "<text{class}{anchor} x=\"{}\" y=\"{}\">{}</text>", px(x), px(y), escape(text));
    }

    fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// A coordinate with one decimal. What is not finite, by whatever fault, must not break the markup.
fn px(value: f64) -> String {
    let text = format!("{:.1}", if value.is_finite() { value.clamp(-1e5, 1e5) } else { 0.0 });
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// How wide a text is, roughly.
fn text_width(text: &str) -> f64 {
    CHAR * text.chars().count() as f64
}
