//! Properties of a run beside its bytes: order of threads, places of files, what it says, what it costs.

use crate::plain;
use ggufsmith_tests::binary::{command, finish_with_peak_memory, ggufsmith};
use ggufsmith_tests::checkpoint::Checkpoint;
use ggufsmith_tests::random_model::Shape;
use ggufsmith_tests::{fixture, json, outputs, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Every type that can be written, in one argument.
const ALL: &str = "F32,F16,BF16,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,Q6_K";

pub fn trials() -> Vec<Trial> {
    vec![
        plain("behaviour::any_number_of_threads_gives_the_same_bytes", threads),
        plain("behaviour::shards_of_the_source_do_not_matter", source_shards),
        plain("behaviour::several_types_in_one_run_equal_single_runs", one_run_or_many),
        plain("behaviour::output_inside_the_model_directory", inside_the_input),
        plain("behaviour::default_place_is_the_current_directory", current_directory),
        plain("behaviour::flags_of_llama_cpp_are_understood", llama_cpp_flags),
        plain("behaviour::names_with_a_placeholder", placeholder),
        plain("behaviour::dry_run_tells_the_exact_sizes_and_writes_nothing", dry_run),
        plain("behaviour::json_on_standard_output_is_all_there_is", json_outputs),
        plain("behaviour::the_manifest_names_inputs_and_outputs", manifest),
        plain("behaviour::quiet_is_quiet", quiet),
        plain("behaviour::inspect_shows_what_was_written", inspect),
        #[cfg(target_os = "linux")]
        plain("behaviour::memory_does_not_grow_with_the_model", memory),
    ]
}

/// Convert and return the sha256 of every output by name.
fn convert(source: &Path, types: &str, extra: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let out = scratch();
    run(source, out.path(), types, extra)?;
    Ok(outputs::hashes(out.path()))
}

fn run(source: &Path, out: &Path, types: &str, extra: &[&str]) -> Result<(), String> {
    let (source, out) = (source.to_string_lossy(), out.to_string_lossy());
    let mut args = vec!["convert", &source, "--out", &out, "--type", types];
    args.extend(extra);
    ggufsmith(&args).ok().map(|_| ())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, left: &T, right: &T) -> Result<(), String> {
    if left == right { Ok(()) } else { Err(format!("{what}:\n{left:?}\nis not\n{right:?}")) }
}

fn demand(truth: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if truth { Ok(()) } else { Err(what()) }
}

fn threads() -> Result<(), String> {
    let one = convert(&fixture("bard"), ALL, &["--threads", "1"])?;
    same("number of outputs", &one.len(), &ALL.split(',').count())?;
    for threads in ["2", "3", "4", "16"] {
        same(&format!("{threads} threads"), &convert(&fixture("bard"), ALL, &["--threads", threads])?, &one)?;
    }
    Ok(())
}

fn source_shards() -> Result<(), String> {
    let model = scratch();
    // The source directory's name enters the bytes.
    let (whole, shards) = (model.path().join("whole/hf"), model.path().join("shards/hf"));
    let checkpoint = Checkpoint::load(&fixture("tiny/llama/hf"));
    checkpoint.write(&whole);
    // Consecutive tensors in different files; the order of tensors in converter outputs follows the files, so only
    // llama-quantize's order is the same.
    checkpoint.write_shards(&shards, 3);
    same("Q4_0", &convert(&shards, "Q4_0", &[])?, &convert(&whole, "Q4_0", &[])?)
}

fn one_run_or_many() -> Result<(), String> {
    let together = convert(&fixture("bard"), ALL, &[])?;
    let mut single = BTreeMap::new();
    for file_type in ALL.split(',') {
        single.extend(convert(&fixture("bard"), file_type, &[])?);
    }
    same("single runs", &single, &together)
}

fn inside_the_input() -> Result<(), String> {
    let parent = scratch();
    let model = parent.path().join("hf");
    let checkpoint = Checkpoint::load(&fixture("tiny/llama/hf"));
    checkpoint.write(&model);
    let before = outputs::names(&model);
    run(&model, &model, "Q8_0,F16", &["--model-name", "llama"])?;
    let first = outputs::hashes(&model);
    // A second run finds the outputs of the first among its inputs, and must not care.
    run(&model, &model, "Q8_0,F16", &["--model-name", "llama", "--force"])?;
    same("second run", &outputs::hashes(&model), &first)?;
    same("elsewhere", &convert(&model, "Q8_0,F16", &["--model-name", "llama"])?, &first)?;
    let kept: Vec<_> = outputs::names(&model).into_iter().filter(|name| before.contains(name)).collect();
    same("the model's own files", &kept, &before)
}

fn current_directory() -> Result<(), String> {
    let here = scratch();
    let mut bare = command(&["convert", &fixture("bard").to_string_lossy(), "--type", "Q8_0"]);
    bare.current_dir(here.path());
    ggufsmith_tests::binary::finish(bare).ok()?;
    same("here", &outputs::hashes(here.path()), &convert(&fixture("bard"), "Q8_0", &[])?)?;
    let names = outputs::names(here.path());
    demand(names.iter().any(|name| name.ends_with("-Q8_0.gguf") && name.to_lowercase().starts_with("bard")), || {
        format!("{names:?}")
    })
}

fn llama_cpp_flags() -> Result<(), String> {
    let out = scratch();
    let file = out.path().join("x.gguf");
    ggufsmith(&["convert", &fixture("bard").to_string_lossy(), "--outtype", "q8_0", "--outfile", &file.to_string_lossy()])
        .ok()?;
    let expected = convert(&fixture("bard"), "Q8_0", &[])?;
    same("x.gguf", &Some(&outputs::sha256(&file)), &expected.values().next())
}

fn placeholder() -> Result<(), String> {
    let out = scratch();
    let (source, pattern) = (fixture("bard"), out.path().join("a-{ftype}.gguf"));
    run(&source, &pattern, "Q8_0,f16", &["--no-manifest"])?;
    same("names", &outputs::names(out.path()), &vec!["a-f16.gguf".to_owned(), "a-q8_0.gguf".to_owned()])
}

fn dry_run() -> Result<(), String> {
    let out = scratch();
    let (source, target) = (fixture("bard"), out.path().to_string_lossy().into_owned());
    let args = ["convert", &source.to_string_lossy(), "--out", &target, "--type", ALL, "--split-max-size", "1M"];
    let plan = ggufsmith(&[&args[..], &["--dry-run", "--json"]].concat()).json()?;
    same("names after a dry run", &outputs::names(out.path()), &Vec::new())?;
    let table = ggufsmith(&[&args[..], &["--dry-run"]].concat());
    demand(table.ok()?.contains("blk.0.attn_q.weight"), || table.describe("a table of tensors"))?;
    ggufsmith(&args).ok()?;
    let mut planned = BTreeMap::new();
    for file in plan["outputs"].as_array().into_iter().flatten().flat_map(|output| output["files"].as_array()).flatten() {
        let name = Path::new(file["path"].as_str().unwrap_or_default()).file_name().unwrap_or_default();
        planned.insert(name.to_string_lossy().into_owned(), file["bytes"].as_u64().unwrap_or_default());
    }
    let size = |(name, path): (String, std::path::PathBuf)| (name, std::fs::metadata(path).map_or(0, |m| m.len()));
    let real: BTreeMap<_, _> = outputs::ggufs(out.path()).into_iter().map(size).collect();
    demand(real.len() > 9, || format!("a split into shards was asked for: {real:?}"))?;
    same("planned sizes", &planned, &real)
}

fn json_outputs() -> Result<(), String> {
    let out = scratch();
    let (source, target) = (fixture("bard").to_string_lossy().into_owned(), out.path().to_string_lossy().into_owned());
    let summary = ggufsmith(&["convert", &source, "--out", &target, "--type", "Q8_0,Q4_0", "--json"]).json()?;
    let text = summary.to_string();
    for (name, sha256) in outputs::hashes(out.path()) {
        demand(text.contains(&name) && text.contains(&sha256), || format!("{name} {sha256} is not in {text}"))?;
    }
    let weights = fixture("bard/model.safetensors").to_string_lossy().into_owned();
    let gguf = outputs::of_type(out.path(), "Q4_0")?.to_string_lossy().into_owned();
    for source in [&source, &weights, &gguf] {
        let shown = ggufsmith(&["inspect", source, "--json"]).json()?;
        demand(shown.is_object(), || format!("inspect {source}: {shown}"))?;
    }
    for args in [&["list", "--json"][..], &["list", "types", "--json"], &["list", "architectures", "--json"]] {
        ggufsmith(args).json()?;
    }
    let failed = ggufsmith(&["convert", &target, "--type", "Q8_0", "--json"]);
    demand(failed.code == Some(2), || failed.describe("exit code 2"))?;
    let error: Value = serde_json::from_str(&failed.stdout).map_err(|e| failed.describe(&format!("JSON ({e})")))?;
    demand(error["error"].as_str().is_some_and(|e| !e.is_empty()), || failed.describe("an error as JSON"))
}

fn manifest() -> Result<(), String> {
    let out = scratch();
    run(&fixture("bard"), out.path(), "Q8_0,Q4_0", &[])?;
    for (name, path) in outputs::ggufs(out.path()) {
        let manifest = json(&out.path().join(format!("{name}.manifest.json")));
        let expected = (name.as_str(), outputs::sha256(&path));
        let named = &manifest["outputs"][0];
        same(
            "output",
            &(named["name"].as_str().unwrap_or_default(), named["sha256"].as_str().unwrap_or_default().to_owned()),
            &expected,
        )?;
        let inputs = manifest["inputs"].as_array().cloned().unwrap_or_default();
        for input in &inputs {
            let name = input["name"].as_str().unwrap_or_default();
            let real = outputs::sha256(&fixture("bard").join(name));
            same(name, &input["sha256"].as_str(), &Some(real.as_str()))?;
        }
        for name in ["config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json", "generation_config.json"] {
            demand(inputs.iter().any(|input| input["name"] == name), || format!("{name} was read but is not in {manifest}"))?;
        }
    }
    // Nothing of one run only: the same conversion gives the same manifest.
    let text = |folder: &Path| {
        let name = outputs::names(folder).into_iter().find(|n| n.ends_with("Q4_0.gguf.manifest.json")).unwrap_or_default();
        std::fs::read_to_string(folder.join(name)).unwrap_or_default().replace(&*folder.to_string_lossy(), "")
    };
    let again = scratch();
    run(&fixture("bard"), again.path(), "Q8_0,Q4_0", &[])?;
    demand(!text(again.path()).is_empty(), || format!("{:?}", outputs::names(again.path())))?;
    same("manifest of a second run", &text(again.path()), &text(out.path()))
}

fn quiet() -> Result<(), String> {
    let out = scratch();
    let (source, target) = (fixture("bard").to_string_lossy().into_owned(), out.path().to_string_lossy().into_owned());
    let run = ggufsmith(&["convert", &source, "--out", &target, "--type", "Q8_0", "--quiet"]);
    demand(run.ok()?.is_empty() && run.stderr.is_empty(), || run.describe("no words"))
}

fn inspect() -> Result<(), String> {
    let out = scratch();
    run(&fixture("tiny/llama3-rope/hf"), out.path(), "Q4_0", &["--model-name", "llama3-rope"])?;
    let gguf = outputs::of_type(out.path(), "Q4_0")?.to_string_lossy().into_owned();
    let shown = ggufsmith(&["inspect", &gguf]);
    for word in ["llama", "rope_freqs.weight", "blk.1.ffn_down.weight", "Q4_0", "general.architecture", "tokenizer.ggml.tokens"] {
        demand(shown.ok()?.contains(word), || shown.describe(&format!("the word {word}")))?;
    }
    Ok(())
}

/// A model of 540 MB in four shards, two outputs: the resident set must be a small part of it, and what a dry run says beside what
/// the program itself, its libraries and a small tokenizer take.
#[cfg(target_os = "linux")]
fn memory() -> Result<(), String> {
    const PROGRAM: u64 = 64 << 20;
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    let shape = Shape::of_bytes(600 << 20, 2048, 4);
    shape.write(&model).and_then(|()| std::fs::create_dir(&out)).map_err(|e| e.to_string())?;
    let (source, target) = (model.to_string_lossy(), out.to_string_lossy());
    let args = ["convert", &source, "--out", &target, "--type", "Q8_0,Q4_0", "--threads", "2"];
    let plan = ggufsmith(&[&args[..], &["--dry-run", "--json"]].concat()).json()?;
    let limit = plan["memory_bytes"].as_u64().unwrap_or_default() + PROGRAM;
    demand(shape.bytes() > 4 * limit, || format!("{limit} bytes may be resident, the model has {}", shape.bytes()))?;
    let (run, peak) = finish_with_peak_memory(command(&args));
    run.ok()?;
    demand(peak < limit, || format!("{} MiB resident, expected less than {}", peak >> 20, limit >> 20))
}
