//! Both verdicts for every architecture: files of every small model are faithful, with figures of what they cost; damaged ones are not.

use crate::{Test, check, convert, demand, number, plain, report, text};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::gguf::Gguf;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a type of files must be like. F32 loses nothing.
const TYPES: [&str; 3] = ["F32", "Q8_0", "Q4_0"];

/// No file is written of these; README, "Works where the reference's converter does not", says why.
const NO_FILE: [&str; 0] = [];

pub fn trials() -> Vec<Trial> {
    let folder = fixture("tiny");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.filter(|entry| entry.path().join("hf").is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.retain(|name| !NO_FILE.contains(&name.as_str()));
    let mut trials: Vec<_> = names
        .into_iter()
        .map(|name| Trial::test(format!("families::{name}"), move || faithful(&name).map_err(Failed::from)))
        .collect();
    let tests: &[(&str, Test)] = &[
        ("families::a_tokenizer_that_the_engine_reads_otherwise_is_told", other_tokenizer),
        ("families::damage_of_experts_is_seen", experts),
        ("families::damage_of_norms_is_seen", norms),
        ("families::damage_of_transposed_matrices_is_seen", transposed),
        ("families::damage_of_fused_matrices_is_seen", fused),
    ];
    trials.extend(tests.iter().map(|(name, test)| plain(name, *test)));
    trials
}

/// The small models' files name Llama's class, whose texts begin with a space; published Gemmas and Phi-3s say what llama.cpp assumes.
fn as_published(name: &str, config: &mut Value) {
    if name.starts_with("gemma") {
        config["tokenizer_class"] = "GemmaTokenizer".into();
        // Its default, <pad>, is a piece of published models and none of these.
        config["pad_token"] = "<unk>".into();
    }
    if name.starts_with("phi3") {
        let token = |text: &str| json!({"content": text, "special": true, "normalized": false, "lstrip": false, "rstrip": true, "single_word": false});
        config["added_tokens_decoder"] =
            json!({"500": token("<|endoftext|>"), "501": token("<|assistant|>"), "502": token("<|end|>")});
    }
}

/// A copy of a small model, its tokenizer as published ones have it.
pub fn copy(name: &str, folder: &Path) -> Result<PathBuf, String> {
    let (from, to) = (fixture(&format!("tiny/{name}/hf")), folder.join("hf"));
    std::fs::create_dir(&to).map_err(|e| e.to_string())?;
    for entry in std::fs::read_dir(from).map_err(|e| e.to_string())?.flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).map_err(|e| e.to_string())?;
    }
    let path = to.join("tokenizer_config.json");
    let mut config = ggufsmith_tests::json(&path);
    as_published(name, &mut config);
    std::fs::write(path, config.to_string()).map_err(|e| e.to_string())?;
    Ok(to)
}

fn verify(file: &Path, source: &Path, code: i32) -> Result<Value, String> {
    let args = [
        "verify",
        text(file)?,
        "--against",
        text(source)?,
        "--n-ctx",
        "64",
        "--chunks",
        "2",
        "--no-latency",
        "--json",
        "--quiet",
        "--no-report",
    ];
    report(&ggufsmith(&args), code)
}

fn faithful(name: &str) -> Result<(), String> {
    let folder = scratch();
    let source = copy(name, folder.path())?;
    let out = folder.path().join("out");
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    convert(&source, &out, &TYPES.join(","))?;
    for file_type in TYPES {
        let report = verify(&outputs::of_type(&out, file_type)?, &source, 0)?;
        demand(report["faithful"] == true, || format!("{name} {file_type}: {}", report["verdict"]))?;
        for part in ["structure", "tensors", "tokenizer", "forward"] {
            let check = check(&report, part)?;
            demand(check["status"] == "passed", || format!("{name} {file_type}: {check:#}"))?;
        }
        let (ppl, kld, top1) = (number(&report, "perplexity")?, number(&report, "kld_mean")?, number(&report, "same_top1")?);
        let sound = ppl.is_finite() && ppl > 1.0 && kld >= 0.0 && (0.0..=1.0).contains(&top1);
        demand(sound, || format!("{name} {file_type}: perplexity {ppl}, KL divergence {kld}, same top-1 {top1}"))?;
        if file_type == "F32" {
            demand(kld < 1e-6 && top1 == 1.0, || format!("{name}: F32 has KL divergence {kld} and same top-1 {top1}"))?;
        }
    }
    Ok(())
}

/// As the fixtures have it: a true difference.
fn other_tokenizer() -> Result<(), String> {
    for name in ["gemma", "phi3"] {
        let folder = scratch();
        let source = fixture(&format!("tiny/{name}/hf"));
        convert(&source, folder.path(), "F32")?;
        let report = verify(&outputs::of_type(folder.path(), "F32")?, &source, 1)?;
        let failed = check(&report, "tokenizer")?["status"] == "failed" && check(&report, "tensors")?["status"] == "passed";
        demand(failed, || format!("{name}: {report:#}"))?;
    }
    Ok(())
}

/// A file of F32 with a damage, and which check has to see it.
fn damaged(name: &str, damage: &dyn Fn(&mut Gguf), seen: &[&str]) -> Result<(), String> {
    let folder = scratch();
    let source = copy(name, folder.path())?;
    let out = folder.path().join("out");
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    convert(&source, &out, "F32")?;
    let path = outputs::of_type(&out, "F32")?;
    let mut file = Gguf::load(&path);
    damage(&mut file);
    file.write(&path);
    let report = verify(&path, &source, 1)?;
    demand(report["faithful"] == false, || format!("{name}: called faithful"))?;
    for part in seen {
        let check = check(&report, part)?;
        demand(check["status"] == "failed", || format!("{name}: {check:#}"))?;
    }
    Ok(())
}

fn swap_halves(file: &mut Gguf, name: &str) {
    let data = &mut file.tensor(name).bytes;
    let half = data.len() / 2;
    data.rotate_left(half);
}

fn experts() -> Result<(), String> {
    for name in ["mixtral", "qwen3moe", "qwen2moe", "olmoe"] {
        damaged(name, &|file| swap_halves(file, "blk.0.ffn_gate_exps.weight"), &["tensors", "forward"])?;
    }
    Ok(())
}

/// Gemma's norms, with the one that is added to them taken away.
fn norms() -> Result<(), String> {
    for name in ["gemma", "gemma2", "gemma3"] {
        let minus_one = |file: &mut Gguf| {
            for word in file.tensor("blk.0.attn_norm.weight").bytes.as_chunks_mut::<4>().0 {
                *word = (f32::from_le_bytes(*word) - 1.0).to_le_bytes();
            }
        };
        damaged(name, &minus_one, &["tensors", "forward"])?;
    }
    Ok(())
}

fn transposed() -> Result<(), String> {
    damaged("gpt2", &|file| swap_halves(file, "blk.0.ffn_up.weight"), &["tensors", "forward"])
}

fn fused() -> Result<(), String> {
    for (name, tensor) in
        [("phi3", "blk.0.ffn_up.weight"), ("gptneox", "blk.0.attn_qkv.weight"), ("falcon", "blk.0.attn_qkv.weight")]
    {
        damaged(name, &|file| swap_halves(file, tensor), &["tensors", "forward"])?;
    }
    Ok(())
}
