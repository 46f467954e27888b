//! sha256 of whole files against what `llama-quantize` wrote (fixtures/README.md says with which version).

use crate::{convert, copy, plain, run, text, with_reference};
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::Trial;
use std::path::Path;

/// The first of bard's shards.
const SPLIT: &str = "split-00001-of-00003.gguf";

pub fn trials() -> Vec<Trial> {
    vec![
        plain("golden::any_architecture_and_every_option", expected),
        plain("golden::options_that_decide_types", options),
        plain("golden::bard", bard),
        plain("golden::dtypes", dtypes),
        plain("golden::another_weight_is_noticed", another_weight_is_noticed),
        with_reference("golden::smollm2::one_thread", reference::smollm2(), |source| smollm2(source, "1")),
        with_reference("golden::smollm2::two_threads", reference::smollm2(), |source| smollm2(source, "2")),
    ]
}

/// sha256 of what a run writes, of shards in their order; `refused` where it is exit code 2 with nothing written.
fn quantize(folder: &Path, input: &str, options: &str, file_type: &str, threads: &str) -> Result<String, String> {
    for (name, path) in outputs::ggufs(folder).into_iter().filter(|(name, _)| name.starts_with("out")) {
        std::fs::remove_file(path).map_err(|e| format!("{name}: {e}"))?;
    }
    let mut args = vec!["quantize", "--quiet", "--no-manifest"];
    args.extend(options.split_whitespace());
    args.extend([input, "out.gguf", file_type, threads]);
    let run = run(folder, &args);
    let written: Vec<_> = outputs::names(folder).into_iter().filter(|name| name.contains("out")).collect();
    match run.code {
        Some(2) if written.is_empty() => Ok("refused".to_owned()),
        _ => {
            run.ok()?;
            Ok(written.iter().map(|name| outputs::sha256(&folder.join(name))).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Compare with one and two threads; every difference is listed.
fn compare<'a>(folder: &Path, cases: impl Iterator<Item = (&'a str, &'a str, &'a str, &'a str)>) -> Result<usize, String> {
    let (mut count, mut wrong) = (0, Vec::new());
    for (input, options, file_type, expected) in cases {
        for threads in ["1", "2"] {
            let found = quantize(folder, input, options, file_type, threads)?;
            if found != expected {
                wrong.push(format!("{options} {input} {file_type} {threads}: {found}, expected {expected}"));
            }
        }
        count += 1;
    }
    if wrong.is_empty() { Ok(count) } else { Err(wrong.join("\n")) }
}

fn enough(count: usize, least: usize) -> Result<(), String> {
    if count >= least { Ok(()) } else { Err(format!("only {count} cases")) }
}

/// bard's files, checked against the converter's where a sha256 is known.
fn bard_files(folder: &Path, types: &[&str]) -> Result<(), String> {
    let known = json(&fixture("bard.expected.json"))["sha256_converter"].clone();
    for file_type in types {
        let name = format!("{file_type}.gguf");
        convert(&fixture("bard"), folder, file_type, &name, &[])?;
        if known[*file_type] != outputs::sha256(&folder.join(&name)).as_str() {
            return Err(format!("{name} is not the converter's"));
        }
    }
    ["bard.imatrix.gguf", "bard.imatrix.dat"].iter().try_for_each(|name| copy(name, &folder.join(name)))
}

fn lines<const N: usize>(text: &str) -> Result<Vec<[&str; N]>, String> {
    let fields = |line| <[&str; N]>::try_from(str::split(line, '\t').collect::<Vec<_>>()).map_err(|_| format!("{line:?}"));
    text.lines().map(fields).collect()
}

fn expected() -> Result<(), String> {
    let folder = scratch();
    let folder = folder.path();
    bard_files(folder, &["BF16", "Q8_0"])?;
    convert(&fixture("bard"), folder, "BF16", "split.gguf", &["--split-max-size", "2M"])?;
    if !folder.join(SPLIT).is_file() {
        return Err(format!("no {SPLIT}: {:?}", outputs::names(folder)));
    }
    std::fs::create_dir(folder.join("tiny")).map_err(|e| e.to_string())?;
    let table = std::fs::read_to_string(fixture("quantize/expected.tsv")).map_err(|e| e.to_string())?;
    let cases = lines::<4>(&table)?;
    for [input, ..] in cases.iter().filter(|[input, ..]| input.starts_with("tiny/")) {
        copy(&format!("{input}/f32.gguf"), &folder.join(input))?;
    }
    enough(
        compare(folder, cases.into_iter().map(|[input, options, file_type, sha256]| (input, options, file_type, sha256)))?,
        100,
    )
}

/// The table that `convert` is tested with: its options from bard's BF16 file.
fn options() -> Result<(), String> {
    let folder = scratch();
    bard_files(folder.path(), &["BF16"])?;
    let table = std::fs::read_to_string(fixture("recipes/options.tsv")).map_err(|e| e.to_string())?;
    let cases = lines::<3>(&table)?;
    let cases = cases.into_iter().map(|[file_type, options, sha256]| ("BF16.gguf", options, file_type, sha256));
    enough(compare(folder.path(), cases)?, 18)
}

/// Every file type of a fixture's tables, without and with importance.
fn table(folder: &Path, table: &serde_json::Value, imatrix: &str, least: [usize; 2], threads: &[&str]) -> Result<(), String> {
    let with = format!("--imatrix {imatrix}");
    let tables = [("sha256_llama_quantize_from_bf16", ""), ("sha256_llama_quantize_from_bf16_with_imatrix", &with)];
    for ((name, options), least) in tables.into_iter().zip(least) {
        let all = table[name].as_object().ok_or_else(|| format!("the fixture has no {name}"))?;
        for (file_type, sha256) in all {
            for threads in threads {
                let found = quantize(folder, "BF16.gguf", options, file_type, threads)?;
                if *sha256 != found.as_str() {
                    return Err(format!("{name} {file_type} with {threads} threads: {found}, expected {sha256}"));
                }
            }
        }
        enough(all.len(), least)?;
    }
    Ok(())
}

fn bard() -> Result<(), String> {
    let folder = scratch();
    bard_files(folder.path(), &["BF16"])?;
    table(folder.path(), &json(&fixture("bard.expected.json")), "bard.imatrix.gguf", [18, 13], &["1", "2"])
}

fn smollm2(source: &Path, threads: &str) -> Result<(), String> {
    let folder = scratch();
    convert(source, folder.path(), "BF16", "BF16.gguf", &[])?;
    copy("smollm2/smollm2.imatrix.gguf", &folder.path().join("smollm2.imatrix.gguf"))?;
    table(folder.path(), &json(&fixture("smollm2/expected.json")), "smollm2.imatrix.gguf", [12, 8], &[threads])
}

/// Lines `quantize-from-WORDS TYPE sha256` of F32 and F16 checkpoints.
fn dtypes() -> Result<(), String> {
    let mut count = 0;
    for name in ["llama-256-f32", "llama-256-f16"] {
        let (folder, source) = (scratch(), fixture("dtypes").join(name));
        let text = std::fs::read_to_string(source.join("sha256.txt")).map_err(|e| e.to_string())?;
        for words in ["f32", "f16", "bf16"] {
            convert(&source.join("hf"), folder.path(), words, &format!("{words}.gguf"), &["--model-name", "llama-256"])?;
        }
        let mut cases = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("quantize-from-")) {
            let [words, file_type, sha256] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(line.to_owned()) };
            cases.push((format!("{words}.gguf"), file_type, sha256));
        }
        let cases = cases.iter().map(|(input, file_type, sha256)| (input.as_str(), "", *file_type, *sha256));
        count += compare(folder.path(), cases)?;
    }
    enough(count, 14)
}

/// The checker itself: another weight in the input, another output and no equality.
fn another_weight_is_noticed() -> Result<(), String> {
    let folder = scratch();
    let path = folder.path().join("in.gguf");
    copy("tiny/falcon/f32.gguf", &path)?;
    let sound = quantize(folder.path(), "in.gguf", "", "Q8_0", "2")?;
    let case = |sha256| compare(folder.path(), std::iter::once(("in.gguf", "", "Q8_0", sha256)));
    case(&sound)?;
    let mut bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
    let at = bytes.len() - 64 * 4;
    bytes[at..at + 4].copy_from_slice(&1.5f32.to_le_bytes());
    std::fs::write(text(&path)?, bytes).map_err(|e| e.to_string())?;
    match case(&sound) {
        Err(error) if error.contains("expected") => Ok(()),
        other => Err(format!("another weight gave {other:?}")),
    }
}
