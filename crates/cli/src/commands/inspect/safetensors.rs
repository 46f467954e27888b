//! One safetensors file.

use super::Arguments;
use super::tensors::{self, Tensor, Totals};
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::table::{Align, Table};
use crate::units;
use ggufsmith_checkpoint::{Limits, safetensors_info};
use ggufsmith_core::TensorInfo;
use serde::Serialize;
use std::path::Path;

#[derive(Debug, Serialize)]
struct Report<'a> {
    kind: &'static str,
    path: &'a Path,
    bytes: u64,
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [Tensor<'a>]>,
    totals: Totals<'a>,
}

/// Print the file.
pub fn show(arguments: &Arguments) -> Result<(), Failure> {
    let path = arguments.path.as_path();
    let info = safetensors_info(path, &Limits::default())?;
    let mut stored: Vec<&TensorInfo> = info.tensors.iter().collect();
    stored.sort_by_key(|t| t.offset);
    let tensors: Vec<Tensor<'_>> = stored.into_iter().map(|t| tensor(t, None)).collect();
    let totals = Totals::of(&tensors);
    let bytes = std::fs::metadata(path)?.len();
    if arguments.json {
        return output::json(&Report {
            kind: "safetensors",
            path,
            bytes,
            metadata: info.metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
            tensors: (!arguments.no_tensors).then_some(&tensors),
            totals,
        });
    }
    let mut out = format!("{}: safetensors, {}\n\n", printable(&path.to_string_lossy()), units::bytes(bytes));
    if !info.metadata.is_empty() {
        out.push_str(&format!("metadata ({})\n", units::plural(info.metadata.len(), "key")));
        let mut table = Table::new([("key", Align::Left), ("value", Align::Left)]);
        info.metadata.iter().for_each(|(key, value)| table.row([key.clone(), value.clone()]));
        table.render("  ", &mut out);
        out.push('\n');
    }
    if !arguments.no_tensors {
        tensors::render(&tensors, &mut out);
        out.push('\n');
    }
    totals.render(&mut out);
    output::data(&out)
}

/// A checkpoint's tensor; `file` where there are several files.
pub fn tensor<'a>(info: &'a TensorInfo, file: Option<&'a str>) -> Tensor<'a> {
    let (name, shape, type_name) = (info.name.as_str(), info.shape.as_slice(), info.dtype.name());
    Tensor { name, shape, type_name, bytes: info.bytes(), file, offset: info.offset }
}
