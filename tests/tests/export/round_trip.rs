//! There and back: the same weights, and the same GGUF file once more.

use crate::{plain, text, with_reference};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, outputs, reference, scratch};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        plain("round_trip::bard", || there_and_back(&fixture("bard"), &["BF16", "F32", "Q8_0"])),
        plain("round_trip::a_flipped_bit_is_noticed", a_flipped_bit_is_noticed),
        with_reference("round_trip::smollm2", reference::smollm2(), |source| there_and_back(source, &["BF16"])),
    ];
    for name in outputs::names(&fixture("tiny")).into_iter().filter(|name| fixture("tiny").join(name).is_dir()) {
        let model = name.clone();
        if NO_WAY_BACK.contains(&name.as_str()) {
            let title = format!("round_trip::refused::{name}");
            trials.push(Trial::test(title, move || refused(&model).map_err(Failed::from)));
            continue;
        }
        let title = format!("round_trip::tiny::{name}");
        trials.push(Trial::test(title, move || {
            // Rows that no block of Q8_0 divides: nothing would be quantized.
            let types: &[&str] = if model == "command-r-plus" { &["BF16", "F32"] } else { &["BF16", "F32", "Q8_0"] };
            there_and_back(&fixture("tiny").join(&model).join("hf"), types).map_err(Failed::from)
        }));
        // The converter fails on some: there is no file of its.
        if fixture("tiny").join(&name).join("f32.gguf").is_file() {
            let title = format!("round_trip::reference_file::{name}");
            trials.push(Trial::test(title, move || reference_file(&name).map_err(Failed::from)));
        }
    }
    trials
}

/// Checkpoints of architectures whose files cannot be exported yet.
const NO_WAY_BACK: &[&str] =
    &["falcon", "gemma3", "gemma3-linear", "gemma3-vision", "mistral3", "phi3", "phi3-long", "phi3-partial"];

/// An architecture without a way back is an error that names it, and nothing is written.
fn refused(name: &str) -> Result<(), String> {
    let here = scratch();
    let model = here.path().join("model");
    let run = ggufsmith(&["export", text(&fixture("tiny").join(name).join("f32.gguf"))?, "--out", text(&model)?]);
    if run.code != Some(2) || !run.stderr.contains("there is no way back from the architecture") || model.exists() {
        return Err(run.describe("a refusal that names the architecture"));
    }
    Ok(())
}

/// Element type, shape and bytes by name, read without the product's crates.
type Tensors = BTreeMap<String, (String, String, Vec<u8>)>;

fn tensors(model: &Path) -> Result<Tensors, String> {
    let mut all = Tensors::new();
    for name in outputs::names(model).into_iter().filter(|name| name.ends_with(".safetensors")) {
        let bytes = std::fs::read(model.join(&name)).map_err(|e| format!("{name}: {e}"))?;
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("no header")?;
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: BTreeMap<String, Value> = serde_json::from_slice(header).map_err(|e| e.to_string())?;
        // Attention masks that old checkpoints of GPT-2 store: no weights, and no file holds them.
        let weight = |tensor: &str| !tensor.ends_with(".attn.bias") && !tensor.ends_with(".attn.masked_bias");
        for (tensor, entry) in header.into_iter().filter(|(tensor, _)| tensor != "__metadata__" && weight(tensor)) {
            let offset = |at: usize| entry["data_offsets"][at].as_u64().map(|offset| offset as usize).ok_or("no offset");
            let bytes = data.get(offset(0)?..offset(1)?).ok_or("offsets beyond the file")?.to_vec();
            // A bare decoder's names lack the prefix.
            let name = tensor.strip_prefix("transformer.").map_or_else(|| tensor.clone(), str::to_owned);
            all.insert(name, (entry["dtype"].to_string(), entry["shape"].to_string(), bytes));
        }
    }
    Ok(all)
}

fn same_tensors(found: &Path, expected: &Path) -> Result<(), String> {
    let (found, expected) = (tensors(found)?, tensors(expected)?);
    match expected.keys().chain(found.keys()).find(|name| found.get(*name) != expected.get(*name)) {
        Some(name) => Err(format!("tensor {name} differs")),
        None if expected.is_empty() => Err("no tensors".to_owned()),
        None => Ok(()),
    }
}

fn there_and_back(source: &Path, types: &[&str]) -> Result<(), String> {
    for file_type in types {
        let here = scratch();
        let (gguf, again) = (here.path().join("a.gguf"), here.path().join("b.gguf"));
        // Another name than the model's, which says nothing of a size or version: what is called how comes from the file.
        let model = here.path().join("model");
        ggufsmith(&["convert", text(source)?, "--type", file_type, "--out", text(&gguf)?, "--no-manifest"]).ok()?;
        let run = ggufsmith(&["export", text(&gguf)?, "--out", text(&model)?, "--json", "--quiet"]);
        let summary = run.json()?;
        let quantized = summary["dequantized"].as_object().is_some_and(|types| !types.is_empty());
        if quantized != file_type.starts_with('Q') || quantized != run.stderr.contains("dequantized from") {
            return Err(run.describe("a note where weights were dequantized, and only there"));
        }
        if *file_type == "BF16" {
            same_tensors(&model, source)?;
        }
        for file in summary["files"].as_array().into_iter().flatten() {
            let path = file["path"].as_str().unwrap_or_default();
            if file["sha256"] != outputs::sha256(Path::new(path)).as_str() {
                return Err(format!("{path} is not the file that the summary tells of"));
            }
        }
        ggufsmith(&["convert", text(&model)?, "--type", file_type, "--out", text(&again)?, "--no-manifest"]).ok()?;
        if outputs::sha256(&again) != outputs::sha256(&gguf) {
            return Err(format!("{file_type}: {} converts to another file than before", model.display()));
        }
    }
    Ok(())
}

/// A file of llama.cpp's own converter: exported and converted, it is that file again.
fn reference_file(name: &str) -> Result<(), String> {
    let here = scratch();
    let (original, model) = (fixture("tiny").join(name).join("f32.gguf"), here.path().join("model"));
    ggufsmith(&["export", text(&original)?, "--out", text(&model)?, "--quiet"]).ok()?;
    let again = here.path().join("again.gguf");
    ggufsmith(&["convert", text(&model)?, "--type", "F32", "--out", text(&again)?, "--no-manifest"]).ok()?;
    if outputs::sha256(&again) != outputs::sha256(&original) {
        return Err(format!("{name}: another file than llama.cpp's"));
    }
    let narrow = here.path().join("narrow");
    ggufsmith(&["export", text(&original)?, "--out", text(&narrow)?, "--dtype", "bf16", "--max-shard-size", "100K"]).ok()?;
    if !narrow.join("model.safetensors.index.json").is_file() {
        return Err("no shards".to_owned());
    }
    same_tensors(&narrow, &fixture("tiny").join(name).join("hf"))
}

/// The comparison itself: one wrong bit of the exported weights.
fn a_flipped_bit_is_noticed() -> Result<(), String> {
    let here = scratch();
    let (original, model) = (fixture("tiny/llama/f32.gguf"), here.path().join("model"));
    ggufsmith(&["export", text(&original)?, "--out", text(&model)?, "--dtype", "bf16"]).ok()?;
    same_tensors(&model, &fixture("tiny/llama/hf"))?;
    let victim = model.join("model.safetensors");
    let mut bytes = std::fs::read(&victim).map_err(|e| e.to_string())?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&victim, bytes).map_err(|e| e.to_string())?;
    match same_tensors(&model, &fixture("tiny/llama/hf")) {
        Err(e) if e.ends_with("differs") => Ok(()),
        other => Err(format!("a flipped bit gave {other:?}")),
    }
}
