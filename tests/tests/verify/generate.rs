//! `generate` continues as a real llama.cpp does.

use crate::{bard, convert, demand, plain, refused, text, with_reference};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const PROMPT: &str = "ROMEO. What light";

pub fn trials() -> Vec<Trial> {
    let engine = reference::smollm2().zip(reference::engine_python());
    vec![
        plain("generate::greedy_as_llama_cpp", greedy),
        with_reference("generate::smollm2_as_the_engine", engine, |(model, python)| smollm2(model, python)),
        plain("generate::the_same_seed_draws_the_same", seeds),
        plain("generate::beams", beams),
        plain("generate::comparison", comparison),
        plain("generate::arguments", arguments),
    ]
}

fn generate(model: &Path, extra: &[&str]) -> Result<Value, String> {
    let args = ["generate", text(model)?, PROMPT, "--json", "--quiet"];
    ggufsmith(&[&args[..], extra].concat()).json()
}

fn ids(found: &Value) -> Result<Vec<u64>, String> {
    let ids = found["ids"].as_array().ok_or_else(|| format!("no ids in {found}"))?;
    Ok(ids.iter().filter_map(Value::as_u64).collect())
}

fn greedy() -> Result<(), String> {
    let expected = &json(&fixture("bard.expected.json"))["greedy"];
    let (prompt, tokens) = (expected["prompt"].as_str().unwrap_or_default(), expected["tokens"].to_string());
    let continuation = expected["continuation"].as_str().unwrap_or_default();
    demand(prompt == PROMPT && !continuation.is_empty(), || format!("{expected}"))?;
    // The file, and the model that it was made from.
    for model in [bard("BF16")?, fixture("bard")] {
        let run = ggufsmith(&["generate", text(&model)?, prompt, "-n", &tokens, "--quiet"]);
        demand(run.ok()?.strip_suffix('\n').unwrap_or(&run.stdout) == continuation, || run.describe(continuation))?;
        let found = &generate(&model, &["-n", &tokens])?["models"][0]["texts"][0];
        demand(found["text"] == continuation && ids(found)?.len() == 40, || format!("{found}"))?;
    }
    Ok(())
}

/// Of the BF16 file the engine computes with activations rounded to BF16, so that a near tie goes the other way. What is computed with
/// the weights as they are is the F32 file's.
fn smollm2(model: &Path, python: &Path) -> Result<(), String> {
    let folder = scratch();
    convert(model, folder.path(), "F32,F16,BF16")?;
    let greedy = &json(&fixture("smollm2/expected.json"))["greedy"];
    let (prompt, tokens) = (greedy["prompt"].as_str().unwrap_or_default(), greedy["tokens"].to_string());
    let whole = outputs::of_type(folder.path(), "F32")?;
    let output = Command::new(python)
        .args([&fixture("engine/complete.py"), &whole])
        .args([tokens.as_str(), prompt])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let answer: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default())
        .map_err(|e| format!("{e}: {stdout}\n{}", String::from_utf8_lossy(&output.stderr)))?;
    let expected = answer["text"].as_str().filter(|text| text.len() > 20).ok_or_else(|| format!("the engine says {answer}"))?;
    let files = ["F32", "F16", "BF16"].iter().map(|file_type| outputs::of_type(folder.path(), file_type));
    for model in files.chain([Ok(model.to_owned())]) {
        let model = model?;
        let run = ggufsmith(&["generate", text(&model)?, prompt, "-n", &tokens, "--json", "--quiet"]);
        let found = &run.json()?["models"][0]["texts"][0];
        demand(found["text"] == expected, || format!("{}: {} instead of {expected:?}", model.display(), found["text"]))?;
    }
    Ok(())
}

fn seeds() -> Result<(), String> {
    let model = bard("Q8_0")?;
    let draw = |extra: &[&str]| {
        let args = ["-n", "32", "--temp", "0.9"];
        ids(&generate(&model, &[&args[..], extra].concat())?["models"][0]["texts"][0])
    };
    let first = draw(&["--seed", "7"])?;
    demand(first.len() == 32, || format!("{first:?}"))?;
    for extra in [&["--seed", "7"][..], &["--seed", "7", "--threads", "1"], &["--seed", "7", "--memory", "1"]] {
        demand(draw(extra)? == first, || format!("{extra:?} draws another text"))?;
    }
    demand(draw(&["--seed", "8"])? != first, || "another seed draws the same".to_owned())?;
    // At temperature 0 nothing is drawn; a seed is then a mistake that is told.
    let run = ggufsmith(&["generate", text(&model)?, PROMPT, "-n", "2", "--seed", "7"]);
    demand(run.ok().is_ok() && run.stderr.contains("--seed changes nothing at temperature 0"), || run.describe("a warning"))
}

fn beams() -> Result<(), String> {
    let model = bard("BF16")?;
    let found = generate(&model, &["-n", "12", "--beams", "4"])?;
    let texts = found["models"][0]["texts"].as_array().cloned().unwrap_or_default();
    let scores: Vec<f64> = texts.iter().filter_map(|text| text["score"].as_f64()).collect();
    demand(scores.len() == 4 && scores.is_sorted_by(|a, b| a >= b), || format!("scores {scores:?}"))?;
    let one = &generate(&model, &["-n", "12", "--beams", "1"])?["models"][0]["texts"][0];
    let greedy = &generate(&model, &["-n", "12"])?["models"][0]["texts"][0];
    demand(ids(one)? == ids(greedy)?, || "one beam is not the most probable token each time".to_owned())?;
    // More beams find nothing less probable than one.
    let total = |text: &Value| text["log_probability"].as_f64().ok_or_else(|| format!("{text}"));
    demand(total(&texts[0])? >= total(one)? - 1e-6, || format!("{} and {one}", texts[0]))?;
    refused(&ggufsmith(&["generate", text(&model)?, PROMPT, "--beams", "2", "--temp", "1"]), &["--beams", "--temp"])
}

fn comparison() -> Result<(), String> {
    let (a, b) = (bard("BF16")?, bard("Q8_0")?);
    let found = generate(&a, &["-n", "24", "--compare", text(&b)?])?;
    let texts = [0, 1].map(|side| ids(&found["models"][side]["texts"][0]));
    let [a_ids, b_ids] = [texts[0].clone()?, texts[1].clone()?];
    let same = a_ids.iter().zip(&b_ids).take_while(|(a, b)| a == b).count();
    let comparison = &found["comparison"];
    demand(comparison["same_prompt_ids"] == true && comparison["same_tokens"] == same, || format!("{comparison}, found {same}"))?;
    demand(comparison["identical"] == (a_ids == b_ids), || format!("{comparison}"))?;
    // Another tokenizer: other ids of the prompt.
    let other = fixture("tiny/llama/f32.gguf");
    let run = ggufsmith(&["generate", text(&a)?, PROMPT, "-n", "4", "--compare", text(&other)?, "--quiet"]);
    demand(run.ok()?.contains("the tokenizers differ on the prompt already"), || run.describe("a word on the tokenizers"))
}

fn arguments() -> Result<(), String> {
    let (folder, model) = (scratch(), bard("Q8_0")?);
    let file = text(&model)?;
    let prompt = folder.path().join("prompt.txt");
    std::fs::write(&prompt, format!("{PROMPT}\n")).map_err(|e| e.to_string())?;
    let from_file = ggufsmith(&["generate", file, "--prompt-file", text(&prompt)?, "-n", "5", "--ids", "--quiet"]);
    let printed: Vec<&str> = from_file.ok()?.lines().collect();
    let expected = ids(&generate(&model, &["-n", "5"])?["models"][0]["texts"][0])?;
    demand(printed == expected.iter().map(u64::to_string).collect::<Vec<_>>(), || from_file.describe("ids"))?;
    refused(&ggufsmith(&["generate", file]), &["<PROMPT>"])?;
    refused(&ggufsmith(&["generate", file, "a", "--temp=-1"]), &["temperature"])?;
    refused(&ggufsmith(&["generate", file, "a", "--n-ctx", "1"]), &["context"])?;
    // The context's end is an end, and no error.
    let full = generate(&model, &["-n", "50", "--n-ctx", "12"])?;
    let text = &full["models"][0]["texts"][0];
    demand(text["stop"].as_str().is_some_and(|stop| stop.contains("context")), || format!("{text}"))
}
