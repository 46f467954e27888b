//! A Hugging Face model directory.

use super::Arguments;
use super::safetensors::tensor;
use super::tensors::{self, Tensor, Totals};
use crate::failure::Failure;
use crate::hub::Located;
use crate::output::{self, printable};
use crate::units;
use ggufsmith_checkpoint::{Checkpoint, CheckpointError, ModelDir, OpenOptions};
use ggufsmith_core::TensorSource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

#[derive(Debug, Serialize)]
struct Report<'a> {
    kind: &'static str,
    path: &'a Path,
    class: Option<&'a str>,
    model_type: Option<&'a str>,
    /// The architecture it would be converted as; none where it is not supported.
    architecture: Option<&'static str>,
    /// Kind of vocabulary, by the tokenizer file that decides it.
    tokenizer: Option<Tokenizer>,
    files: Vec<File<'a>>,
    /// Where weights are stored otherwise than `tensors` lists them: what is read from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantization: Option<Quantization>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [Tensor<'a>]>,
    totals: Totals<'a>,
}

#[derive(Debug, Serialize)]
struct Quantization {
    what: Vec<String>,
    stored_bytes: u64,
    stored_bits_per_weight: f64,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    name: &'a str,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Tokenizer {
    kind: String,
    file: &'static str,
}

/// Print the directory.
pub fn show(arguments: &Arguments, located: &Located) -> Result<(), Failure> {
    let options = OpenOptions { remote: located.remote.clone(), ..OpenOptions::default() };
    let dir = ModelDir::open_with(&located.path, options).map_err(|error| match error {
        CheckpointError::NotAModel { .. } => Failure::from(error).hint("`ggufsmith inspect` takes a single .gguf or .safetensors file, too"),
        other => other.into(),
    })?;
    let checkpoint = Checkpoint::open(&dir)?;
    let config = dir.config();
    let class = config.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let files: Vec<File<'_>> = checkpoint.files().map(|(path, bytes)| File { name: file_name(path), bytes }).collect();
    let several = files.len() > 1;
    let tensors: Vec<Tensor<'_>> =
        checkpoint.tensors().iter().map(|info| tensor(info, several.then(|| file_name(&info.file)))).collect();
    let totals = Totals::of(&tensors);
    let notes = checkpoint.notes();
    let stored: u64 = files.iter().map(|file| file.bytes).sum();
    let quantization = (!notes.is_empty()).then(|| Quantization {
        what: notes,
        stored_bytes: stored,
        stored_bits_per_weight: stored as f64 * 8.0 / totals.parameters.max(1) as f64,
    });
    let report = Report {
        kind: "model directory",
        path: dir.path(),
        class,
        model_type: config.get("model_type").and_then(Value::as_str),
        architecture: class.and_then(ggufsmith_arch::by_class).map(|(family, _)| family.name()),
        tokenizer: tokenizer(&dir)?,
        files,
        quantization,
        tensors: (!arguments.no_tensors).then_some(&tensors),
        totals,
    };
    if arguments.json { output::json(&report) } else { output::data(&report.text()) }
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut out = format!("{}: Hugging Face model directory\n", printable(&self.path.to_string_lossy()));
        let supported = match self.architecture {
            Some(name) => format!("converted as {name}"),
            None => "not supported, see `ggufsmith list architectures`".to_owned(),
        };
        out.push_str(&format!("class: {}, {supported}\n", printable(self.class.unwrap_or("none in config.json"))));
        match &self.tokenizer {
            Some(Tokenizer { kind, file }) => out.push_str(&format!("tokenizer: {} ({file})\n", printable(kind))),
            None => out.push_str("tokenizer: none found\n"),
        }
        for file in &self.files {
            out.push_str(&format!("{}: {}\n", printable(file.name), units::bytes(file.bytes)));
        }
        if let Some(Quantization { what, stored_bytes, stored_bits_per_weight }) = &self.quantization {
            what.iter().for_each(|what| out.push_str(&format!("quantization: {}\n", printable(what))));
            let stored = units::bytes(*stored_bytes);
            out.push_str(&format!(
                "stored: {stored}, {stored_bits_per_weight:.2} bits per weight; below are the values that are read from it\n"
            ));
        }
        out.push('\n');
        if let Some(tensors) = self.tensors {
            tensors::render(tensors, &mut out);
            out.push('\n');
        }
        self.totals.render(&mut out);
        out
    }
}

/// As the reference converter looks for it: tokenizer.model first.
fn tokenizer(dir: &ModelDir) -> Result<Option<Tokenizer>, Failure> {
    #[derive(Deserialize)]
    struct Outer {
        model: Option<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        r#type: Option<String>,
        #[serde(default)]
        byte_fallback: bool,
    }
    if dir.list("")?.iter().any(|name| name == "tokenizer.model") {
        return Ok(Some(Tokenizer { kind: "SentencePiece".into(), file: "tokenizer.model" }));
    }
    let file = "tokenizer.json";
    let Some(text) = dir.bytes(file)? else { return Ok(None) };
    let kind = match serde_json::from_slice(&text) {
        Ok(Outer { model: Some(Model { r#type, byte_fallback }) }) => {
            let kind = r#type.unwrap_or_else(|| "unknown kind".into());
            if byte_fallback { format!("{kind} with byte fallback") } else { kind }
        }
        Ok(Outer { model: None }) => "unknown kind".into(),
        Err(error) => return Err(Failure::new(format!("{}: {error}", dir.path().join(file).display()))),
    };
    Ok(Some(Tokenizer { kind, file }))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
