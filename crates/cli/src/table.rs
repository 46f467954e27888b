//! Columns of text.

use crate::output::printable;

/// Which side of a column its text keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading; each column is as wide as its widest cell.
#[derive(Debug)]
pub struct Table<const N: usize> {
    aligns: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these columns.
    pub fn new(columns: [(&str, Align); N]) -> Self {
        Table { aligns: columns.map(|c| c.1), rows: vec![columns.map(|c| c.0.to_owned())] }
    }

    /// Add a row. Control characters and line breaks are escaped.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| match printable(&cell).into_owned() {
            clean if clean.contains('\n') => clean.replace('\n', "\\n"),
            clean => clean,
        }));
    }

    /// The table alone.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.render("", &mut text);
        text
    }

    /// Append the table to `out`, every line behind `indent`.
    pub fn render(&self, indent: &str, out: &mut String) {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let start = out.len();
            out.push_str(indent);
            for (column, cell) in row.iter().enumerate() {
                let (width, gap) = (widths[column], if column + 1 < N { "  " } else { "" });
                let padded = match self.aligns[column] {
                    Align::Left => format!("{cell:<width$}{gap}"),
                    Align::Right => format!("{cell:>width$}{gap}"),
                };
                out.push_str(&padded);
            }
            let end = out.trim_end().len().max(start);
            out.truncate(end);
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new([("name", Align::Left), ("bytes", Align::Right), ("note", Align::Left)]);
        table.row(["a".into(), "1,000".into(), String::new()]);
        table.row(["long\nname\u{1b}".into(), "7".into(), "x".into()]);
        let mut text = String::new();
        table.render("  ", &mut text);
        let lines = ["  name              bytes  note", "  a                 1,000", "  long\\nname\\u{1b}      7  x"];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
