//! What users do wrong, what is wrong with files, and what runs say.

use crate::{convert, copy, plain, run};
use ggufsmith_tests::binary::Run;
use ggufsmith_tests::gguf::Gguf;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("usage::refusals_write_nothing", refusals),
        plain("usage::damaged_files_are_refused", damaged),
        plain("usage::nothing_is_overwritten", overwriting),
        plain("usage::plan_and_summary", output),
    ]
}

/// Exit code 2, every word in the message, no file that was not there.
fn refused(folder: &Path, args: &[&str], words: &[&str]) -> Result<(), String> {
    let before = outputs::names(folder);
    let run = run(folder, &[&["quantize"], args].concat());
    if run.code != Some(2) || !run.stdout.is_empty() || run.stderr.contains("panicked") {
        return Err(run.describe("exit code 2 and nothing on standard output"));
    }
    if let Some(word) = words.iter().find(|word| !run.stderr.contains(**word)) {
        return Err(run.describe(&format!("a message with {word:?}")));
    }
    let after = outputs::names(folder);
    if before == after { Ok(()) } else { Err(run.describe(&format!("{before:?} in the folder, not {after:?}"))) }
}

fn refusals() -> Result<(), String> {
    let scratch = scratch();
    let folder = scratch.path();
    convert(&fixture("bard"), folder, "BF16,Q8_0", "{FTYPE}.gguf", &[])?;
    copy("bard.imatrix.gguf", &folder.join("bard.imatrix.gguf"))?;
    copy("smollm2/smollm2.imatrix.gguf", &folder.join("smollm2.imatrix.gguf"))?;
    copy("tiny/falcon/f32.gguf", &folder.join("falcon.gguf"))?;
    let cases: &[(&[&str], &[&str])] = &[
        (&["missing.gguf", "Q4_0"], &["no file missing.gguf"]),
        (&[".", "Q4_0"], &["is a directory", "ggufsmith convert"]),
        (&["BF16.gguf"], &["TYPE"]),
        (&["BF16.gguf", "out.gguf"], &["which type"]),
        (&["BF16.gguf", "Q4_KM"], &["no such type", "Q4_K_M"]),
        (&["BF16.gguf", "IQ1_S"], &["cannot write it yet"]),
        (&["BF16.gguf", "out.gguf", "Q4_0", "x"], &["number of threads"]),
        (&["BF16.gguf", "Q4_0", "2", "--threads", "3"], &["--threads 3"]),
        (&["Q8_0.gguf", "Q4_0"], &["token_embd.weight", "Q8_0 already", "--allow-requantize"]),
        (&["bard.imatrix.gguf", "Q4_0"], &["general.architecture"]),
        (&["falcon.gguf", "Q1_0"], &["rows of 64", "Q1_0", "--tensor-type"]),
        (&["BF16.gguf", "Q2_K_S"], &["Q2_K_S", "--imatrix"]),
        (&["BF16.gguf", "Q4_0", "--imatrix", "smollm2.imatrix.gguf"], &["another model"]),
        (&["BF16.gguf", "Q4_0", "--imatrix", "BF16.gguf"], &["importance matrix"]),
        (&["falcon.gguf", "Q4_0", "--imatrix", "bard.imatrix.gguf"], &["another model"]),
        (&["BF16.gguf", "Q4_0", "--imatrix", "bard.imatrix.gguf", "--include-weights", "xyz"], &["leave nothing"]),
        (&["BF16.gguf", "Q4_0", "--include-weights", "attn"], &["--imatrix"]),
        (&["BF16.gguf", "Q4_0", "--override-kv", "a=u32:1"], &["u32", "none of int"]),
        (&["BF16.gguf", "Q4_0", "--override-kv", "general.alignment=int:3"], &["alignment"]),
        (&["BF16.gguf", "Q4_0", "--prune-layers", "4"], &["--prune-layers 4", "the last one is 3"]),
        (&["BF16.gguf", "COPY", "--pure"], &["COPY keeps"]),
        (&["BF16.gguf", "BF16.gguf", "Q4_0", "--force"], &["is an input"]),
        (&["BF16.gguf", "nowhere/out.gguf", "Q4_0"], &["nowhere", "does not exist"]),
    ];
    cases.iter().try_for_each(|(args, words)| refused(folder, args, words))
}

fn damaged() -> Result<(), String> {
    let scratch = scratch();
    let folder = scratch.path();
    convert(&fixture("bard"), folder, "F32,Q8_0", "{FTYPE}.gguf", &[])?;
    let sound = std::fs::read(folder.join("F32.gguf")).map_err(|e| e.to_string())?;
    let input = folder.join("in.gguf");
    std::fs::write(&input, &sound[..sound.len() - 4096]).map_err(|e| e.to_string())?;
    refused(folder, &["in.gguf", "Q4_0"], &["in.gguf"])?;

    let mut file = Gguf::load(&folder.join("F32.gguf"));
    file.remove_key("llama.block_count");
    file.write(&input);
    refused(folder, &["in.gguf", "Q4_0"], &["llama.block_count"])?;
    // The rules alone need it.
    run(folder, &["quantize", "in.gguf", "copy.gguf", "COPY", "-q", "--no-manifest"]).ok()?;

    let mut file = Gguf::load(&folder.join("F32.gguf"));
    file.tensor("blk.1.ffn_up.weight").bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    file.write(&input);
    for file_type in ["Q4_0", "COPY"] {
        refused(folder, &["in.gguf", file_type], &["blk.1.ffn_up.weight", "NaN", "--allow-nonfinite"])?;
    }
    let summary = run(folder, &["quantize", "in.gguf", "nan.gguf", "COPY", "--allow-nonfinite", "--json", "-q"]).json()?;
    if summary["nonfinite"][0]["count"] != 1 {
        return Err(format!("{summary}"));
    }

    // A scale of blocks that are only copied.
    let mut file = Gguf::load(&folder.join("Q8_0.gguf"));
    file.tensor("blk.2.attn_q.weight").bytes[..2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    file.write(&input);
    refused(folder, &["in.gguf", "COPY"], &["blk.2.attn_q.weight", "--allow-nonfinite"])?;
    refused(folder, &["in.gguf", "Q4_0", "--allow-requantize"], &["blk.2.attn_q.weight", "--allow-nonfinite"])
}

fn overwriting() -> Result<(), String> {
    let scratch = scratch();
    let folder = scratch.path();
    copy("tiny/falcon/f32.gguf", &folder.join("in.gguf"))?;
    let args = ["quantize", "in.gguf", "q4_0", "-q"];
    run(folder, &args).ok()?;
    let names = outputs::names(folder);
    if names != ["ggml-model-Q4_0.gguf", "ggml-model-Q4_0.gguf.manifest.json", "in.gguf"] {
        return Err(format!("{names:?}"));
    }
    let manifest = ggufsmith_tests::json(&folder.join("ggml-model-Q4_0.gguf.manifest.json"));
    let expected = outputs::sha256(&folder.join("in.gguf"));
    if manifest["inputs"][0]["sha256"] != expected.as_str() || manifest["source"] != "in.gguf" {
        return Err(format!("{manifest}"));
    }
    refused(folder, &args[1..], &["ggml-model-Q4_0.gguf exists", "--force"])?;
    run(folder, &[&args[..], &["--force"]].concat()).ok().map(|_| ())
}

fn output() -> Result<(), String> {
    let scratch = scratch();
    let folder = scratch.path();
    convert(&fixture("bard"), folder, "Q8_0", "Q8_0.gguf", &[])?;
    let args = ["quantize", "Q8_0.gguf", "out.gguf", "Q4_K_M", "--allow-requantize"];
    let plan: Run = run(folder, &[&args[..], &["--dry-run", "--json"]].concat());
    let report = plan.json()?;
    let tensors = report["outputs"][0]["tensors"].as_array().ok_or("no tensors")?;
    let of = |name: &str| tensors.iter().find(|tensor| tensor["name"] == name).cloned().unwrap_or_default();
    let norm = of("output_norm.weight");
    let value = of("blk.0.attn_v.weight");
    if norm["type"] != "F32" || norm["rule"] != "not quantized: kept as it is" || value["source_type"] != "Q8_0" {
        return Err(format!("{norm}\n{value}"));
    }
    if outputs::names(folder) != ["Q8_0.gguf"] || !plan.stderr.contains("quantized before (Q8_0)") {
        return Err(plan.describe("a warning and no file"));
    }
    let summary = run(folder, &[&args[..], &["--json"]].concat());
    let written = folder.join("out.gguf");
    let size = std::fs::metadata(&written).map_err(|e| e.to_string())?.len();
    let output = &summary.json()?["outputs"][0];
    if report["outputs"][0]["bytes"] != size || output["bytes"] != size {
        return Err(format!("{size} bytes were written; {output}"));
    }
    if output["files"][0]["sha256"] != outputs::sha256(&written).as_str() || !summary.stderr.contains("bits per weight") {
        return Err(summary.describe("the file's sha256 and a summary"));
    }
    Ok(())
}
