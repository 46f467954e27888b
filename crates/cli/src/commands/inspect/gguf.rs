//! A GGUF model: one file or shards.

use super::Arguments;
use super::tensors::{self, Tensor, Totals};
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::table::{Align, Table};
use crate::units;
use ggufsmith_gguf::{Array, Limits, Metadata, Shards, Value};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// Characters of a value in the table.
const VALUE_WIDTH: usize = 64;
/// Elements of an array in JSON without `--full`.
const FIRST_ELEMENTS: usize = 8;

#[derive(Debug, Serialize)]
struct Report<'a> {
    kind: &'static str,
    files: Vec<FileReport<'a>>,
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [Tensor<'a>]>,
    totals: Totals<'a>,
}

#[derive(Debug, Serialize)]
struct FileReport<'a> {
    path: &'a Path,
    bytes: u64,
    version: u32,
    alignment: u64,
    /// Where the tensors' data starts.
    data_offset: u64,
}

/// Print the model that a path belongs to.
pub fn show(arguments: &Arguments) -> Result<(), Failure> {
    let model = Shards::open(&arguments.path, &Limits::default())?;
    let files: Vec<FileReport<'_>> = model
        .files()
        .iter()
        .map(|file| FileReport {
            path: file.path(),
            bytes: file.header().file_size(),
            version: file.header().version(),
            alignment: file.header().alignment(),
            data_offset: file.header().data_offset(),
        })
        .collect();
    let tensors = all_tensors(&model);
    let totals = Totals::of(&tensors);
    if arguments.json {
        return output::json(&Report {
            kind: "gguf",
            files,
            metadata: model.metadata().iter().map(|(key, value)| (key.to_owned(), to_json(value, arguments.full))).collect(),
            tensors: (!arguments.no_tensors).then_some(&tensors),
            totals,
        });
    }
    let mut out = String::new();
    for file in &files {
        let (path, bytes) = (file.path.to_string_lossy(), units::bytes(file.bytes));
        out.push_str(&format!("{}: GGUF version {}, {bytes}\n", printable(&path), file.version));
    }
    out.push_str(&format!("\nmetadata ({})\n", units::plural(model.metadata().len(), "key")));
    render_metadata(model.metadata(), arguments.full, &mut out);
    out.push('\n');
    if !arguments.no_tensors {
        tensors::render(&tensors, &mut out);
        out.push('\n');
    }
    totals.render(&mut out);
    output::data(&out)
}

fn all_tensors(model: &Shards) -> Vec<Tensor<'_>> {
    let several = model.files().len() > 1;
    let mut all = Vec::new();
    for file in model.files() {
        let name = file.path().file_name().and_then(|name| name.to_str()).filter(|_| several);
        all.extend(file.tensors().iter().map(|t| Tensor {
            name: &t.name,
            shape: &t.shape,
            type_name: t.format.name,
            bytes: t.bytes,
            file: name,
            offset: t.offset,
        }));
    }
    all
}

fn render_metadata(metadata: &Metadata, full: bool, out: &mut String) {
    let width = if full { usize::MAX } else { VALUE_WIDTH };
    let mut table = Table::new([("key", Align::Left), ("type", Align::Left), ("value", Align::Left)]);
    for (key, value) in metadata.iter() {
        table.row([key.to_owned(), value.type_name(), value.short(width)]);
    }
    table.render("  ", out);
}

/// A value with its type; long arrays by their length and first elements, unless `full`.
fn to_json(value: &Value, full: bool) -> serde_json::Value {
    let type_name = value.type_name();
    match value {
        Value::Array(array) => {
            let elements = array.len();
            let cut = !full && elements > FIRST_ELEMENTS;
            let values = elements_json(array, if cut { FIRST_ELEMENTS } else { elements });
            if cut {
                json!({ "type": type_name, "elements": elements, "first": values })
            } else {
                json!({ "type": type_name, "value": values })
            }
        }
        other => json!({ "type": type_name, "value": scalar_json(other) }),
    }
}

fn elements_json(array: &Array, count: usize) -> serde_json::Value {
    match array {
        Array::U8(v) => v[..count].into(),
        Array::I8(v) => v[..count].into(),
        Array::U16(v) => v[..count].into(),
        Array::I16(v) => v[..count].into(),
        Array::U32(v) => v[..count].into(),
        Array::I32(v) => v[..count].into(),
        Array::F32(v) => v[..count].iter().map(|&v| f32_json(v)).collect(),
        Array::Bool(v) => v[..count].into(),
        Array::String(v) => v[..count].into(),
        Array::U64(v) => v[..count].into(),
        Array::I64(v) => v[..count].into(),
        Array::F64(v) => v[..count].iter().map(|&v| f64_json(v)).collect(),
    }
}

fn scalar_json(value: &Value) -> serde_json::Value {
    match value {
        Value::U8(v) => (*v).into(),
        Value::I8(v) => (*v).into(),
        Value::U16(v) => (*v).into(),
        Value::I16(v) => (*v).into(),
        Value::U32(v) => (*v).into(),
        Value::I32(v) => (*v).into(),
        Value::F32(v) => f32_json(*v),
        Value::Bool(v) => (*v).into(),
        Value::String(v) => v.as_str().into(),
        Value::Array(v) => elements_json(v, v.len()),
        Value::U64(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::F64(v) => f64_json(*v),
    }
}

/// The shortest digits that give the same f32 again; what JSON has no number for as text.
fn f32_json(value: f32) -> serde_json::Value {
    // serde_json would widen to f64 and print its digits: 0.1 as 0.10000000149011612.
    match value.to_string().parse::<f64>() {
        Ok(shortest) if value.is_finite() => shortest.into(),
        _ => value.to_string().into(),
    }
}

fn f64_json(value: f64) -> serde_json::Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits() {
        assert_eq!(to_json(&Value::F32(0.1), false).to_string(), r#"{"type":"f32","value":0.1}"#);
        assert_eq!(to_json(&Value::F32(f32::NAN), false).to_string(), r#"{"type":"f32","value":"NaN"}"#);
        assert_eq!(to_json(&Value::F64(f64::NEG_INFINITY), false).to_string(), r#"{"type":"f64","value":"-inf"}"#);
        assert_eq!(to_json(&Value::U64(u64::MAX), false).to_string(), r#"{"type":"u64","value":18446744073709551615}"#);
    }

    #[test]
    fn long_arrays_are_cut_unless_all_is_wanted() {
        let value = Value::from((0..9u32).collect::<Vec<_>>());
        assert_eq!(to_json(&value, false).to_string(), r#"{"type":"[u32]","elements":9,"first":[0,1,2,3,4,5,6,7]}"#);
        assert_eq!(to_json(&value, true).to_string(), r#"{"type":"[u32]","value":[0,1,2,3,4,5,6,7,8]}"#);
        let short = Value::from(vec!["a".to_owned()]);
        assert_eq!(to_json(&short, false).to_string(), r#"{"type":"[str]","value":["a"]}"#);
    }
}
