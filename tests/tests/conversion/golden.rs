//! sha256 of whole files against what llama.cpp's own tools wrote (fixtures/README.md says with which versions).

use crate::{plain, with_reference};
use ggufsmith_tests::binary::{self, ggufsmith};
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::path::Path;

/// What `convert_hf_to_gguf.py` writes itself, at least.
const CONVERTER: &[&str] = &["F32", "F16", "BF16", "Q8_0"];
/// What `llama-quantize` makes of its output, at least.
const QUANTIZE: &[&str] = &["Q4_0"];
/// The table of what it makes with an importance matrix.
const WITH_IMATRIX: &str = "sha256_llama_quantize_from_bf16_with_imatrix";

/// Models of which the converter's files compute something else: there is nothing to be equal to.
const WRONG_REFERENCE: &[&str] = &["falcon-11b"];

/// Models whose files are the same whichever version of transformers saved them. Of those with a tokenizer.model version 5 keeps the
/// tensors alone: it does not save that file.
const SAVED_BY_5: &[&str] = &["llama", "llama3-rope", "qwen3", "qwen2moe", "qwen3moe"];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        with_reference("golden::smollm2::one_thread", reference::smollm2(), |source| smollm2(source, 1)),
        with_reference("golden::smollm2::two_threads", reference::smollm2(), |source| smollm2(source, 2)),
        plain("golden::bard", bard),
        plain("golden::a_flipped_bit_is_noticed", a_flipped_bit_is_noticed),
    ];
    let models = |of: &str| {
        let folder = fixture(of);
        let is_model = move |name: &String| folder.join(name).is_dir() && !WRONG_REFERENCE.contains(&name.as_str());
        outputs::names(&fixture(of)).into_iter().filter(is_model)
    };
    trials.extend(models("dtypes").map(|name| {
        let title = format!("golden::dtypes::{name}");
        Trial::test(title, move || dtypes(&name).map_err(Failed::from))
    }));
    trials.extend(models("tiny").map(|name| {
        let title = format!("golden::tiny::{name}");
        Trial::test(title, move || tiny(&name).map_err(Failed::from))
    }));
    trials.extend(SAVED_BY_5.iter().map(|name| {
        let title = format!("golden::saved_by_transformers_5::{name}");
        Trial::test(title, || saved_as(name, &fixture("tiny5")).map_err(Failed::from))
    }));
    trials
}

/// Expected sha256 of every file type that the binary writes, from the fixture's table of a tool; `least` must be among them.
fn expected(of: &Value, tool: &str, least: &[&str]) -> Result<Vec<(String, String)>, String> {
    let lists = ggufsmith(&["list", "types", "--json"]).json()?;
    let listed = |name: &str| lists["types"].as_array().is_some_and(|types| types.iter().any(|t| t["name"] == name));
    let table = of[tool].as_object().ok_or_else(|| format!("the fixture has no {tool}"))?;
    let sha256 = |(name, sha256): (&String, &Value)| Some((name.clone(), sha256.as_str()?.to_owned()));
    let found: Vec<_> = table.iter().filter(|(name, _)| listed(name)).filter_map(sha256).collect();
    match least.iter().find(|name| !found.iter().any(|(file_type, _)| file_type == *name)) {
        Some(name) => Err(format!("{name} of {tool} is not compared")),
        None => Ok(found),
    }
}

/// Convert to all types in one run and compare.
fn convert(source: &Path, expected: &[(String, String)], extra: &[&str]) -> Result<(), String> {
    let out = scratch();
    let mut args = vec!["convert", text(source)?, "--out", text(out.path())?];
    args.extend(expected.iter().flat_map(|(file_type, _)| ["--type", file_type.as_str()]));
    args.extend(extra);
    ggufsmith(&args).ok()?;
    outputs::check(out.path(), expected)
}

/// The same from the folder of an importance matrix, whose path as given enters the bytes.
fn convert_with(source: &Path, imatrix: &Path, expected: &[(String, String)], extra: &[&str]) -> Result<(), String> {
    let (Some(folder), Some(name)) = (imatrix.parent(), imatrix.file_name()) else {
        return Err(format!("{} is no file", imatrix.display()));
    };
    let out = scratch();
    let mut args = vec!["convert", text(source)?, "--out", text(out.path())?, "--imatrix", text(Path::new(name))?];
    args.extend(expected.iter().flat_map(|(file_type, _)| ["--type", file_type.as_str()]));
    args.extend(extra);
    let mut command = binary::command(&args);
    command.current_dir(folder);
    binary::finish(command).ok()?;
    outputs::check(out.path(), expected)
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{path:?} is not UTF-8"))
}

fn smollm2(source: &Path, threads: usize) -> Result<(), String> {
    let table = json(&fixture("smollm2/expected.json"));
    let weights = outputs::sha256(&source.join("model.safetensors"));
    if table["safetensors_sha256"] != weights.as_str() {
        return Err(format!("{} has sha256 {weights}: not the checkpoint of the fixture", source.display()));
    }
    let mut all = expected(&table, "sha256_converter", CONVERTER)?;
    all.extend(expected(&table, "sha256_llama_quantize_from_bf16", QUANTIZE)?);
    let threads = threads.to_string();
    convert(source, &all, &["--threads", &threads])?;
    let all = expected(&table, WITH_IMATRIX, QUANTIZE)?;
    convert_with(source, &fixture("smollm2/smollm2.imatrix.gguf"), &all, &["--threads", &threads])
}

fn bard() -> Result<(), String> {
    let table = json(&fixture("bard.expected.json"));
    let mut all = expected(&table, "sha256_converter", CONVERTER)?;
    all.extend(expected(&table, "sha256_llama_quantize_from_bf16", QUANTIZE)?);
    convert(&fixture("bard"), &all, &[])?;
    let all = expected(&table, WITH_IMATRIX, QUANTIZE)?;
    convert_with(&fixture("bard"), &fixture("bard.imatrix.gguf"), &all, &[])
}

fn tiny(name: &str) -> Result<(), String> {
    saved_as(name, &fixture("tiny"))
}

/// The model as it lies in a folder, by the lines `NAME sha256` of the small models, four per model.
fn saved_as(name: &str, saved: &Path) -> Result<(), String> {
    let folder = fixture("tiny").join(name);
    let lines = std::fs::read_to_string(folder.join("sha256.txt")).map_err(|e| format!("{}: {e}", folder.display()))?;
    let all: Vec<_> = lines.lines().filter_map(|l| l.split_once(' ')).map(|(t, s)| (t.to_owned(), s.to_owned())).collect();
    if all.len() != 4 {
        return Err(format!("{} lines in sha256.txt, not 4", all.len()));
    }
    convert(&saved.join(name).join("hf"), &all, &["--model-name", name])
}

/// Lines `convert TYPE sha256` and `quantize-from-WORDS TYPE sha256`; the folder's name is the model's, a hyphen, and the words of its
/// weights.
fn dtypes(folder_name: &str) -> Result<(), String> {
    let (name, words) = folder_name.rsplit_once('-').ok_or_else(|| format!("{folder_name} says nothing of its words"))?;
    let folder = fixture("dtypes").join(folder_name);
    let lines = std::fs::read_to_string(folder.join("sha256.txt")).map_err(|e| format!("{}: {e}", folder.display()))?;
    let of = |tool: &str| -> Vec<(String, String)> {
        let fields = lines.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.filter(|f| f.len() == 3 && f[0] == tool).map(|f| (f[1].to_owned(), f[2].to_owned())).collect()
    };
    let (converted, quantized) = (of("convert"), of(&format!("quantize-from-{words}")));
    if converted.len() != CONVERTER.len() || quantized.len() < LEAST_QUANTIZED {
        return Err(format!("{} and {} lines in sha256.txt", converted.len(), quantized.len()));
    }
    let model = ["--model-name", name];
    convert(&folder.join("hf"), &[converted, quantized].concat(), &model)?;
    let mut compared = 0;
    for via in ["f32", "f16", "bf16"] {
        let all = of(&format!("quantize-from-{via}"));
        compared += all.len();
        if !all.is_empty() {
            let args = [&model[..], &["--via", via]].concat();
            convert(&folder.join("hf"), &all, &args).map_err(|e| format!("--via {via}: {e}"))?;
        }
    }
    if compared + CONVERTER.len() == lines.lines().count() { Ok(()) } else { Err("a line was not compared".to_owned()) }
}

/// Types that `llama-quantize` made of the source's own words, at least.
const LEAST_QUANTIZED: usize = 5;

/// The checker itself: one wrong bit in one of two files must be reported, for that file only.
fn a_flipped_bit_is_noticed() -> Result<(), String> {
    let folder = fixture("tiny/llama");
    let lines = std::fs::read_to_string(folder.join("sha256.txt")).map_err(|e| e.to_string())?;
    let all: Vec<_> = lines.lines().filter_map(|l| l.split_once(' ')).map(|(t, s)| (t.to_owned(), s.to_owned())).collect();
    let out = scratch();
    let (source, target) = (folder.join("hf"), out.path());
    let args = ["convert", text(&source)?, "--out", text(target)?, "--type", "F32", "--type", "F16", "--model-name", "llama"];
    ggufsmith(&args).ok()?;
    outputs::check(target, &all[..2])?;
    let victim = outputs::of_type(target, "F16")?;
    let mut bytes = std::fs::read(&victim).map_err(|e| e.to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).map_err(|e| e.to_string())?;
    match outputs::check(target, &all[..2]) {
        Err(e) if e.starts_with("1 of 2 files equal") && e.contains("f16: ") && !e.contains("f32: ") => Ok(()),
        other => Err(format!("a flipped bit gave {other:?}")),
    }
}
