//! Whole model directories with everything that changes a file: model cards, sampling parameters, metadata files, shards, splits,
//! names. `fixtures/converter/make.py` explains the fields of the table.

use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, json, outputs, scratch};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    let table = json(&fixture("converter/expected.json"));
    let cases = table["cases"].as_array().cloned().unwrap_or_default();
    let mut trials: Vec<_> = cases
        .into_iter()
        .map(|case| {
            let title = format!("converter::{}", text(&case["name"]));
            Trial::test(title, move || check(&case).map_err(Failed::from))
        })
        .collect();
    if trials.is_empty() {
        trials.push(Trial::test("converter::table", || Err("fixtures/converter/expected.json has no cases".into())));
    }
    trials
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().into_iter().flatten().collect()
}

/// The case's input directory.
fn model(case: &Value, parent: &Path) -> std::io::Result<PathBuf> {
    let folder = parent.join(text(&case["directory"]));
    fs::create_dir(&folder)?;
    let base = fixture(text(&case["base"]));
    for name in outputs::names(&base).iter().filter(|name| !list(&case["remove"]).iter().any(|gone| text(gone) == *name)) {
        fs::copy(base.join(name), folder.join(name))?;
    }
    for (name, from) in case["add"].as_object().into_iter().flatten() {
        fs::copy(fixture(text(from)), folder.join(name))?;
    }
    Ok(folder)
}

fn check(case: &Value) -> Result<(), String> {
    let parent = scratch();
    let model = model(case, parent.path()).map_err(|e| e.to_string())?;
    let mut wrong = Vec::new();
    let runs = list(&case["runs"]);
    for run in &runs {
        let arguments: Vec<&str> = list(&run["arguments"]).into_iter().map(text).collect();
        let outfile = run["outfile"].as_str();
        wrong.extend(convert(&model, &arguments, outfile, &list(&run["files"]), true).err());
        // `llama-quantize` behind the converter is one step here. What it does to the shards of its input, and
        // `llama-gguf-split`, are other tools.
        for then in list(&run["then"]).into_iter().filter(|then| then["quantize"].is_string() && then["options"].is_null()) {
            let without_split: Vec<&str> = match arguments.iter().position(|argument| argument.starts_with("--split")) {
                Some(at) => [&arguments[..at], &arguments[at + 2..]].concat(),
                None => arguments.clone(),
            };
            let step: Vec<&str> = without_split.iter().map(|&a| if a == "bf16" { text(&then["quantize"]) } else { a }).collect();
            wrong.extend(convert(&model, &step, None, &list(&then["files"]), false).err());
        }
    }
    match (runs.is_empty(), wrong.is_empty()) {
        (true, _) => Err("the case has no runs".to_owned()),
        (_, true) => Ok(()),
        _ => Err(wrong.join("\n")),
    }
}

/// Convert and compare sizes and sha256 of all files in order, and their names where they are ours to choose.
fn convert(model: &Path, arguments: &[&str], outfile: Option<&str>, files: &[&Value], names: bool) -> Result<(), String> {
    let out = scratch();
    let target = outfile.map_or_else(|| out.path().to_owned(), |name| out.path().join(name));
    let (source, target) = (model.to_string_lossy(), target.to_string_lossy());
    let below_fixtures = |argument: &&str| match argument.strip_suffix(".json") {
        Some(_) => fixture(argument).to_string_lossy().into_owned(),
        None => (*argument).to_owned(),
    };
    let mut all: Vec<String> = vec!["convert".into(), source.into(), "--outfile".into(), target.into(), "--no-manifest".into()];
    all.extend(arguments.iter().map(below_fixtures));
    ggufsmith(&all).ok()?;
    let got: Vec<_> = outputs::names(out.path())
        .into_iter()
        .map(|name| {
            let path = out.path().join(&name);
            (if names { name } else { String::new() }, fs::metadata(&path).map_or(0, |m| m.len()), outputs::sha256(&path))
        })
        .collect();
    let want: Vec<_> = files
        .iter()
        .map(|file| {
            let name = if names { text(&file["name"]).to_owned() } else { String::new() };
            (name, file["bytes"].as_u64().unwrap_or_default(), text(&file["sha256"]).to_owned())
        })
        .collect();
    if got == want && !want.is_empty() {
        return Ok(());
    }
    Err(format!("{}: got\n{got:#?}\nexpected\n{want:#?}", arguments.join(" ")))
}
