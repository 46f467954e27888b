//! The list of tensors and what it adds up to, whatever holds them.

use crate::table::{Align, Table};
use crate::units;
use serde::Serialize;

/// A stored tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Tensor<'a> {
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [u64],
    #[serde(rename = "type")]
    pub type_name: &'a str,
    pub bytes: u64,
    /// The file's name, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    /// From the start of the file.
    pub offset: u64,
}

/// What tensors add up to.
#[derive(Debug, PartialEq, Serialize)]
pub struct Totals<'a> {
    pub tensors: usize,
    pub parameters: u64,
    pub bytes: u64,
    pub bits_per_weight: f64,
    pub types: Vec<TypeTotal<'a>>,
}

/// The tensors of one type.
#[derive(Debug, PartialEq, Serialize)]
pub struct TypeTotal<'a> {
    #[serde(rename = "type")]
    pub name: &'a str,
    pub tensors: usize,
    pub parameters: u64,
    pub bytes: u64,
}

impl<'a> Totals<'a> {
    /// Add up. Types are ordered by their bytes, largest first.
    pub fn of(tensors: &[Tensor<'a>]) -> Self {
        let mut types: Vec<TypeTotal<'a>> = Vec::new();
        for tensor in tensors {
            // Readers have checked that a tensor's elements fit a u64; a sum over many could still leave it.
            let elems: u64 = tensor.shape.iter().product();
            let at = types.iter().position(|t| t.name == tensor.type_name).unwrap_or_else(|| {
                types.push(TypeTotal { name: tensor.type_name, tensors: 0, parameters: 0, bytes: 0 });
                types.len() - 1
            });
            types[at].tensors += 1;
            types[at].parameters = types[at].parameters.saturating_add(elems);
            types[at].bytes = types[at].bytes.saturating_add(tensor.bytes);
        }
        types.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(b.name)));
        let sum = |of: fn(&TypeTotal<'_>) -> u64| types.iter().map(of).fold(0, u64::saturating_add);
        let (parameters, bytes) = (sum(|t| t.parameters), sum(|t| t.bytes));
        let bits_per_weight = if parameters == 0 { 0.0 } else { bytes as f64 * 8.0 / parameters as f64 };
        Totals { tensors: tensors.len(), parameters, bytes, bits_per_weight, types }
    }

    /// Lines of text.
    pub fn render(&self, out: &mut String) {
        let (parameters, short) = (units::grouped(self.parameters), units::count(self.parameters));
        let (tensors, bytes) = (units::plural(self.tensors, "tensor"), units::bytes(self.bytes));
        out.push_str(&format!(
            "{tensors}, {parameters} parameters ({short}), {bytes}, {:.2} bits per weight\n",
            self.bits_per_weight
        ));
        let mut table = Table::new([
            ("type", Align::Left),
            ("tensors", Align::Right),
            ("parameters", Align::Right),
            ("bytes", Align::Right),
            ("share", Align::Right),
        ]);
        for t in &self.types {
            let share = if self.bytes == 0 { 0.0 } else { t.bytes as f64 * 100.0 / self.bytes as f64 };
            let (tensors, parameters) = (units::grouped(t.tensors as u64), units::grouped(t.parameters));
            table.row([t.name.to_owned(), tensors, parameters, units::grouped(t.bytes), format!("{share:.1} %")]);
        }
        table.render("  ", out);
    }
}

/// A table of tensors.
pub fn render(tensors: &[Tensor<'_>], out: &mut String) {
    let files = tensors.iter().any(|t| t.file.is_some());
    let columns = [
        ("tensor", Align::Left),
        ("shape", Align::Left),
        ("type", Align::Left),
        ("bytes", Align::Right),
        ("offset", Align::Right),
        (if files { "file" } else { "" }, Align::Left),
    ];
    let mut table = Table::new(columns);
    for t in tensors {
        let (bytes, offset) = (units::grouped(t.bytes), units::grouped(t.offset));
        let file = t.file.unwrap_or_default().to_owned();
        table.row([t.name.to_owned(), units::shape(t.shape), t.type_name.to_owned(), bytes, offset, file]);
    }
    table.render("  ", out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<'a>(name: &'a str, shape: &'a [u64], type_name: &'a str, bytes: u64) -> Tensor<'a> {
        Tensor { name, shape, type_name, bytes, file: None, offset: 0 }
    }

    #[test]
    fn totals_by_type_largest_first() {
        let tensors = [tensor("a", &[2, 3], "small", 12), tensor("b", &[10], "large", 40), tensor("c", &[], "small", 2)];
        let totals = Totals::of(&tensors);
        let of = |name, tensors, parameters, bytes| TypeTotal { name, tensors, parameters, bytes };
        assert_eq!(totals.types, [of("large", 1, 10, 40), of("small", 2, 7, 14)]);
        assert_eq!((totals.tensors, totals.parameters, totals.bytes), (3, 17, 54));
        assert_eq!(totals.bits_per_weight, 54.0 * 8.0 / 17.0);
    }

    #[test]
    fn no_tensors_and_huge_tensors_do_no_harm() {
        assert_eq!(Totals::of(&[]).bits_per_weight, 0.0);
        let huge = [tensor("a", &[u64::MAX], "t", u64::MAX), tensor("b", &[u64::MAX], "t", u64::MAX)];
        assert_eq!(Totals::of(&huge).parameters, u64::MAX);
    }
}
