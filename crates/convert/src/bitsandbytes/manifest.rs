//! What a directory was made from and how.

use super::run::file_name;
use super::{Method, Quantization, QuantizeError};
use crate::manifest::{HashedFile, SCHEMA, sha256, write_json};
use crate::sink::FinishedFile;
use ggufsmith_core::TensorSource;
use serde_json::{Value, json};

/// Its name in the directory.
pub const MANIFEST: &str = "ggufsmith.manifest.json";

/// The tools whose tensors bitsandbytes' types equal.
const REFERENCE: &str = "bitsandbytes 0.50.2, transformers 5.23";

/// Write it, atomically; an older one is replaced. No clock, no host: the same run gives the same manifest.
pub(super) fn write(
    quantization: &Quantization,
    command: &[String],
    weights: Vec<HashedFile>,
    finished: &[FinishedFile],
) -> Result<(), QuantizeError> {
    let dir = &quantization.dir;
    let mut inputs = weights;
    for name in dir.files_read() {
        let bytes = dir.bytes(&name)?.unwrap_or_default();
        inputs.push(HashedFile { name, bytes: bytes.len() as u64, sha256: sha256(&bytes) });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    let outputs: Vec<HashedFile> = finished
        .iter()
        .map(|file| HashedFile { name: file_name(&file.path), bytes: file.bytes, sha256: file.sha256.clone() })
        .collect();
    let method = quantization.options.method;
    let reference = match method {
        Method::FourBit { .. } | Method::Int8 => json!(REFERENCE),
        Method::Plain(_) => Value::Null,
    };
    let tensors = quantization.checkpoint.tensors().iter().zip(&quantization.kept);
    let kept: serde_json::Map<String, Value> =
        tensors.filter_map(|(info, kept)| kept.as_ref().map(|kept| (info.name.clone(), kept.to_string().into()))).collect();
    let manifest = json!({
        "schema": SCHEMA,
        "tool": format!("ggufsmith {}", env!("CARGO_PKG_VERSION")),
        "reference": reference,
        "command": command,
        "source": dir.name(),
        "inputs": inputs,
        "format": "safetensors",
        "type": method.name(),
        "options": options(method, quantization),
        "kept": kept,
        "outputs": outputs,
        "warnings": quantization.warnings,
    });
    let path = quantization.options.out.join(MANIFEST);
    write_json(&path, &manifest).map_err(|source| QuantizeError::Manifest { path, source })
}

fn options(method: Method, quantization: &Quantization) -> Value {
    let mut options = match method {
        Method::FourBit { block_len, double, .. } => json!({"block_size": block_len, "double_quant": double}),
        Method::Int8 => json!({}),
        Method::Plain(config) => {
            let unsigned = config.scheme.codes() == ggufsmith_core::schemes::int8_affine::Codes::Unsigned;
            json!({"granularity": if config.per_row { "row" } else { "tensor" }, "unsigned": unsigned})
        }
    };
    options["skip_modules"] = json!(quantization.options.skip_modules);
    options["max_shard_size"] = json!(quantization.options.max_shard_bytes);
    options
}
