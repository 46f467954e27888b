//! A real llama.cpp loads what we wrote and continues a prompt with it.

use crate::with_reference;
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    let both = reference::smollm2().zip(reference::engine_python());
    vec![
        with_reference("engine::continues_smollm2", both, |(model, python)| smollm2(model, python)),
        with_reference("engine::continues_bard", reference::engine_python(), |python| bard(python)),
        with_reference("engine::a_damaged_file_is_refused", reference::engine_python(), |python| damaged(python)),
    ]
}

/// The engine's greedy continuation.
fn complete(python: &Path, gguf: &Path, prompt: &str, tokens: u64) -> Result<String, String> {
    let output = Command::new(python)
        .args([&fixture("engine/complete.py"), gguf])
        .args([&tokens.to_string(), prompt])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("the engine on {}: {}\n{}", gguf.display(), output.status, String::from_utf8_lossy(&output.stderr)));
    }
    // The engine itself may print before our line.
    let line = stdout.lines().last().unwrap_or_default();
    let answer: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {stdout}"))?;
    answer["text"].as_str().map(str::to_owned).ok_or_else(|| format!("no text in {line}"))
}

fn convert(model: &Path, out: &Path, types: &str) -> Result<(), String> {
    let out = out.to_string_lossy();
    ggufsmith(&["convert", &model.to_string_lossy(), "--out", &out, "--type", types, "--no-manifest"]).ok().map(|_| ())
}

fn expect(python: &Path, gguf: &Path, greedy: &Value) -> Result<(), String> {
    let (prompt, tokens) = (greedy["prompt"].as_str().unwrap_or_default(), greedy["tokens"].as_u64().unwrap_or_default());
    let text = complete(python, gguf, prompt, tokens)?;
    if Some(text.as_str()) == greedy["continuation"].as_str() {
        return Ok(());
    }
    Err(format!("{}: the engine continues with {text:?}, expected {:?}", gguf.display(), greedy["continuation"]))
}

fn smollm2(model: &Path, python: &Path) -> Result<(), String> {
    let out = scratch();
    convert(model, out.path(), "BF16,Q8_0,Q4_0")?;
    let greedy = &json(&fixture("smollm2/expected.json"))["greedy"];
    expect(python, &outputs::of_type(out.path(), "BF16")?, greedy)?;
    // Quantized weights may continue otherwise; they must load, and say something.
    for file_type in ["Q8_0", "Q4_0"] {
        let prompt = greedy["prompt"].as_str().unwrap_or_default();
        let text = complete(python, &outputs::of_type(out.path(), file_type)?, prompt, 8)?;
        if text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count() < 2 {
            return Err(format!("{file_type}: the engine continues with {text:?}"));
        }
    }
    Ok(())
}

fn bard(python: &Path) -> Result<(), String> {
    let out = scratch();
    convert(&fixture("bard"), out.path(), "BF16")?;
    expect(python, &outputs::of_type(out.path(), "BF16")?, &json(&fixture("bard.expected.json"))["greedy"])
}

/// The check itself: a file that lacks its last tensor's end must not pass.
fn damaged(python: &Path) -> Result<(), String> {
    let out = scratch();
    convert(&fixture("bard"), out.path(), "Q8_0")?;
    let path = outputs::of_type(out.path(), "Q8_0")?;
    let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
    std::fs::write(&path, &bytes[..bytes.len() - 100_000]).map_err(|e| e.to_string())?;
    match complete(python, &path, "ROMEO.", 4) {
        Ok(text) => Err(format!("the engine loaded a truncated file and said {text:?}")),
        Err(_) => Ok(()),
    }
}
