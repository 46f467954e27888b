//! What users do wrong, and what they see.

use crate::{plain, text};
use ggufsmith_tests::binary::{Run, ggufsmith};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("usage::what_cannot_be_exported_says_why", refusals),
        plain("usage::nothing_is_overwritten_without_force", force),
        plain("usage::what_runs_say", output),
    ]
}

/// Exit code 2, nothing on standard output, every word in its message.
fn refused(run: &Run, words: &[&str]) -> Result<(), String> {
    if run.code != Some(2) || !run.stdout.is_empty() || run.stderr.contains("panicked") {
        return Err(run.describe("exit code 2 and nothing on standard output"));
    }
    match words.iter().find(|word| !run.stderr.contains(**word)) {
        Some(word) => Err(run.describe(&format!("a message with {word:?}"))),
        None => Ok(()),
    }
}

fn refusals() -> Result<(), String> {
    let here = scratch();
    let out = here.path().join("out");
    let export = |file: &str| Ok::<_, String>(ggufsmith(&["export", file, "--out", text(&out)?]));
    refused(&export(text(&fixture("bard"))?)?, &["is a directory", "ggufsmith convert"])?;
    refused(&export(text(&here.path().join("missing.gguf"))?)?, &["there is no file"])?;
    refused(&export(text(&fixture("bard/config.json"))?)?, &["not a GGUF file"])?;

    // Keys of the same length, so that a header of another architecture needs no new offsets.
    let original = std::fs::read(fixture("tiny/llama/f32.gguf")).map_err(|e| e.to_string())?;
    let changed = |from: &str, to: &str| -> Result<String, String> {
        let at = original.windows(from.len()).position(|window| window == from.as_bytes()).ok_or(format!("no {from}"))?;
        let mut bytes = original.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        let path = here.path().join("changed.gguf");
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        Ok(text(&path)?.to_owned())
    };
    let value = "general.architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0";
    let other = export(&changed(&format!("{value}llama"), &format!("{value}lxama"))?)?;
    refused(&other, &["\"lxama\"", "did you mean llama", "ggufsmith list architectures"])?;
    refused(&export(&changed("blk.1.ffn_up.weight", "blk.1.ffn_xx.weight")?)?, &["blk.1.ffn_xx.weight"])?;
    refused(&export(&changed("llama.block_count", "llama.block_xount")?)?, &["llama.block_count is missing"])?;
    let pre = "tokenizer.ggml.pre\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0";
    let unknown = changed(&format!("{pre}gpt-2"), &format!("{pre}gpt-9"))?;
    refused(&export(&unknown)?, &["gpt-9", "--no-tokenizer"])?;
    if out.exists() {
        return Err(format!("{:?} were left", outputs::names(&out)));
    }
    ggufsmith(&["export", &unknown, "--out", text(&out)?, "--no-tokenizer"]).ok()?;
    let names = outputs::names(&out);
    if names != ["README.md", "config.json", "model.safetensors"] {
        return Err(format!("without a tokenizer: {names:?}"));
    }
    Ok(())
}

fn force() -> Result<(), String> {
    let here = scratch();
    let file = fixture("tiny/llama/f32.gguf");
    let args = ["export", text(&file)?, "--out", text(here.path())?];
    ggufsmith(&args).ok()?;
    let before = outputs::sha256(&here.path().join("model.safetensors"));
    refused(&ggufsmith(&args), &["exists", "--force"])?;
    ggufsmith(&[&args[..], &["--force", "--dtype", "f16"]].concat()).ok()?;
    if outputs::sha256(&here.path().join("model.safetensors")) == before {
        return Err("--force wrote nothing".to_owned());
    }
    let stale = here.path().join("model-00001-of-00002.safetensors");
    std::fs::write(&stale, b"").map_err(|e| e.to_string())?;
    refused(&ggufsmith(&[&args[..], &["--force"]].concat()), &["model-00001-of-00002.safetensors is in the way"])
}

fn output() -> Result<(), String> {
    let here = scratch();
    let file = fixture("tiny/mistral/f32.gguf");
    let (loud, quiet) = (here.path().join("loud"), here.path().join("quiet"));
    let run = ggufsmith(&["export", text(&file)?, "--out", text(&loud)?]);
    if !run.ok()?.is_empty() || !run.stderr.contains("MistralForCausalLM: 21 tensors (21 F32)") {
        return Err(run.describe("a summary on standard error"));
    }
    let run = ggufsmith(&["export", text(&file)?, "--out", text(&quiet)?, "--quiet", "--class", "LlamaForCausalLM", "--json"]);
    let summary = run.json()?;
    if !run.stderr.is_empty() || summary["class"] != "LlamaForCausalLM" || summary["dtypes"]["F32"] != 21 {
        return Err(run.describe("JSON alone"));
    }
    Ok(())
}
