//! A real llama.cpp loads what we wrote and continues a prompt with it.

use crate::with_reference;
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::checkpoint::load_tensors;
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    let both = reference::smollm2().zip(reference::engine_python());
    let mut trials = vec![
        with_reference("engine::continues_smollm2", both, |(model, python)| smollm2(model, python)),
        with_reference("engine::continues_bard", reference::engine_python(), |python| bard(python)),
        with_reference("engine::a_damaged_file_is_refused", reference::engine_python(), |python| damaged(python)),
    ];
    let folders = outputs::names(&fixture("tiny")).into_iter().filter(|name| fixture("tiny").join(name).is_dir());
    trials.extend(folders.map(|name| {
        let title = format!("engine::tiny::{name}");
        with_reference(&title, reference::engine_python(), move |python| tiny(python, &name, &name))
    }));
    trials.push(with_reference("engine::another_models_logits_are_noticed", reference::engine_python(), |python| {
        match tiny(python, "gpt2", "gpt2-buffers") {
            Ok(()) => Err("the engine is said to agree with another model's logits".to_owned()),
            Err(_) => Ok(()),
        }
    }));
    trials
}

/// The engine's greedy continuation.
fn complete(python: &Path, gguf: &Path, prompt: &str, tokens: u64) -> Result<String, String> {
    let answer = ask(python, gguf, prompt, tokens, 512)?;
    answer["text"].as_str().map(str::to_owned).ok_or_else(|| format!("no text in {answer}"))
}

/// What the script prints.
fn ask(python: &Path, gguf: &Path, prompt: &str, tokens: u64, context: u64) -> Result<Value, String> {
    let output = Command::new(python)
        .args([&fixture("engine/complete.py"), gguf])
        .args([&tokens.to_string(), prompt, &context.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("the engine on {}: {}\n{}", gguf.display(), output.status, String::from_utf8_lossy(&output.stderr)));
    }
    // The engine itself may print before our line.
    let line = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|e| format!("{e}: {stdout}"))
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

/// What log-probabilities of the engine, whose keys and values are F16, may differ by from those of transformers in F32.
const LOG_PROBABILITY: f64 = 0.02;
/// Positions that are set up: no more than any tiny model's original context, else the engine takes the frequencies for long texts.
const CONTEXT: u64 = 128;
/// Positions that are asked for, from the last one on, until the engine lists candidates: it lists none where the best one is part of
/// a character.
const POSITIONS: usize = 8;

/// The most probable next tokens of transformers' forward pass are those of the engine on our file.
fn tiny(python: &Path, name: &str, logits_of: &str) -> Result<(), String> {
    let out = scratch();
    convert(&fixture("tiny").join(name).join("hf"), out.path(), "F32")?;
    let gguf = outputs::of_type(out.path(), "F32")?;
    let golden = load_tensors(&fixture("tiny").join(logits_of).join("logits.safetensors"));
    let ids: Vec<i64> = golden["ids"].bytes.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word)).collect();
    let logits: Vec<f32> = golden["logits"].bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let n_vocab = logits.len() / ids.len();
    for len in (ids.len() - POSITIONS + 1..=ids.len()).rev() {
        let prompt = serde_json::to_string(&ids[..len]).map_err(|e| e.to_string())?;
        let answer = ask(python, &gguf, &prompt, 1, CONTEXT)?;
        let top: Vec<(usize, f64)> = answer["top"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| Some((entry["id"].as_u64()? as usize, entry["logprob"].as_f64()?)))
            .collect();
        let Some(&(best, _)) = top.first() else { continue };
        let expected = log_softmax(&logits[(len - 1) * n_vocab..len * n_vocab]);
        let wanted = (0..n_vocab).max_by(|&a, &b| expected[a].total_cmp(&expected[b])).unwrap_or_default();
        if best != wanted {
            return Err(format!("after {len} tokens the engine says {best}, transformers {wanted}"));
        }
        let off = top.iter().map(|&(id, log_probability)| (expected[id] - log_probability).abs()).fold(0.0, f64::max);
        return if off < LOG_PROBABILITY { Ok(()) } else { Err(format!("after {len} tokens the engine is {off} off")) };
    }
    Err(format!("the engine lists no candidates after any of the last {POSITIONS} tokens"))
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit - max) - sum.ln()).collect()
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
