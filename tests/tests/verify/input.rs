//! What users do wrong and what broken files hold: one sentence that says what to do, and never a crash.

use crate::{bard, check, demand, plain, refused, report, text};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::checkpoint::Checkpoint;
use ggufsmith_tests::gguf::Gguf;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("input::paths", paths),
        plain("input::texts_and_numbers", texts),
        plain("input::thresholds", thresholds),
        plain("input::log_probabilities", log_probabilities),
        plain("input::files_of_another_model", another_model),
        plain("input::files_that_are_damaged", damaged),
        plain("input::sources_without_a_forward_pass", no_forward_pass),
        plain("input::a_context_longer_than_the_model_s", long_context),
    ]
}

fn paths() -> Result<(), String> {
    let (folder, file, source) = (scratch(), bard("Q8_0")?, fixture("bard"));
    let (file, source) = (text(&file)?, text(&source)?);
    let missing = folder.path().join("missing.gguf");
    let missing = text(&missing)?;
    let there_is_none = ["there is no file or directory", missing];
    refused(&ggufsmith(&["verify", missing, "--against", source]), &there_is_none)?;
    refused(&ggufsmith(&["perplexity", missing]), &there_is_none)?;
    refused(&ggufsmith(&["generate", missing, "To be"]), &there_is_none)?;
    refused(&ggufsmith(&["generate", file, "To be", "--compare", missing]), &there_is_none)?;
    refused(&ggufsmith(&["verify", file, "--against", missing]), &["there is no directory", missing])?;
    refused(&ggufsmith(&["verify", file, "--against", file]), &["is a file; a model's directory is needed"])?;
    refused(&ggufsmith(&["verify", source, "--against", source]), &["is not a regular file"])?;
    let empty = text(folder.path())?;
    for args in [&["verify", file, "--against", empty][..], &["perplexity", empty], &["generate", empty, "To be"]] {
        refused(&ggufsmith(args), &["config.json", "no Hugging Face model directory"])?;
    }
    let config = fixture("bard/config.json");
    for args in [
        &["verify", text(&config)?, "--against", source][..],
        &["perplexity", text(&config)?],
        &["generate", text(&config)?, "x"],
    ] {
        refused(&ggufsmith(args), &["not a GGUF file"])?;
    }
    let nowhere = folder.path().join("no/folder/l.bin");
    refused(
        &ggufsmith(&["verify", file, "--against", source, "--save-logits", text(&nowhere)?, "--chunks", "1", "--no-report"]),
        &["l.bin", "No such file"],
    )?;
    demand(outputs::names(folder.path()).is_empty(), || format!("{:?} were left", outputs::names(folder.path())))
}

fn texts() -> Result<(), String> {
    let (folder, file, source) = (scratch(), bard("Q8_0")?, fixture("bard"));
    let verify = |extra: &[&str]| {
        let args = ["verify", text(&file)?, "--against", text(&source)?, "--no-report"];
        Ok::<_, String>(ggufsmith(&[&args[..], extra].concat()))
    };
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf, String> {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map(|()| path).map_err(|e| e.to_string())
    };
    let (short, binary, blank) =
        (write("short", b"To be, or not")?, write("binary", &[65, 0xff])?, write("blank", b"\n \n\r\n")?);
    let too_short = ["tokens, one window needs 512", "a smaller --n-ctx"];
    refused(&verify(&["--text", text(&short)?])?, &too_short)?;
    refused(&ggufsmith(&["perplexity", text(&file)?, "--text", text(&short)?]), &too_short)?;
    refused(&verify(&["--text", text(&binary)?])?, &["--text", "not UTF-8 from byte 1 on"])?;
    refused(&verify(&["--text", text(folder.path())?])?, &["--text", "no file"])?;
    // Before the forward pass, not behind it.
    let run = verify(&["--sentences", text(&blank)?])?;
    refused(&run, &["no line of the sentences has a token to score"])?;
    demand(!run.stderr.contains("forward pass:"), || run.describe("a refusal before the long part"))?;
    refused(
        &ggufsmith(&["perplexity", text(&file)?, "--sentences", "--text", text(&blank)?]),
        &["no line has a token to score"],
    )?;
    refused(&verify(&["--n-ctx", "3"])?, &["--n-ctx"])?;
    refused(&verify(&["--budget", "0"])?, &["--budget 0", "above 0"])?;
    refused(&verify(&["--memory", "many"])?, &["--memory"])
}

fn thresholds() -> Result<(), String> {
    let (folder, file, source) = (scratch(), bard("Q8_0")?, fixture("bard"));
    let path = folder.path().join("t.toml");
    for (content, words) in [
        ("[gate]\nmax_kdl = 1\n", &["unknown key \"max_kdl\" in [gate]", "did you mean max_kld?"][..]),
        ("[gate.Q4_9]\nmax_kld = 1\n", &["Q4_9"]),
        ("[gate]\nmax_kld = \"low\"\n", &["max_kld in [gate]"]),
        ("[gate\n", &["not TOML"]),
    ] {
        std::fs::write(&path, content).map_err(|e| e.to_string())?;
        let args = ["verify", text(&file)?, "--against", text(&source)?, "--no-report", "--config", text(&path)?];
        refused(&ggufsmith(&args), &[&["t.toml"], words].concat())?;
    }
    let args = ["verify", text(&file)?, "--against", text(&source)?, "--no-report", "--max-kld", "nan"];
    refused(&ggufsmith(&args), &["max_kld is NaN", "e.g. 0.1"])
}

fn log_probabilities() -> Result<(), String> {
    let (folder, file, source) = (scratch(), bard("Q8_0")?, fixture("bard"));
    let path = folder.path().join("l.bin");
    ggufsmith(&["perplexity", text(&source)?, "--chunks", "1", "--save-logits", text(&path)?, "--quiet"]).ok()?;
    let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
    let verify = |file: &str, source: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        Ok::<_, String>(ggufsmith(&["verify", file, "--against", source, "--no-report", "--logits", text(&path)?]))
    };
    let (file, source) = (text(&file)?, text(&source)?);
    refused(&verify(file, source, &bytes[..bytes.len() / 2])?, &["l.bin", "its header promises"])?;
    refused(&verify(file, source, &[0; 1000])?, &["it does not begin with _logits_"])?;
    refused(&verify(file, source, b"")?, &["l.bin", "no whole header"])?;
    let mut outside = bytes.clone();
    outside[24..28].copy_from_slice(&5000u32.to_le_bytes());
    refused(&verify(file, source, &outside)?, &["the token 5000 of a vocabulary of 1024"])?;
    let (other, hf) = (fixture("tiny/llama/f32.gguf"), fixture("tiny/llama/hf"));
    let words = ["l.bin was made for 1024 vocabulary entries, this run has 512"];
    refused(&verify(text(&other)?, text(&hf)?, &bytes)?, &words)
}

/// That is an answer: not the same model, and by what one sees it.
fn another_model() -> Result<(), String> {
    let (bard, hf) = (bard("Q8_0")?, fixture("tiny/llama/hf"));
    let run = ggufsmith(&["verify", text(&bard)?, "--against", text(&hf)?, "--json", "--no-report", "--quiet"]);
    let found = report(&run, 1)?;
    let forward = check(&found, "forward")?;
    demand(forward["problems"].to_string().contains("it is another model"), || format!("{forward}"))?;
    for (name, word) in [("tensors", "has the shape"), ("tokenizer", "tokenizer.ggml.model")] {
        let check = check(&found, name)?;
        demand(check["status"] == "failed" && check["problems"].to_string().contains(word), || format!("{check}"))?;
    }
    // Of the same sizes.
    let twin = fixture("tiny/llama-spm/f32.gguf");
    let run = ggufsmith(&["verify", text(&twin)?, "--against", text(&hf)?, "--json", "--no-report", "--quiet", "--chunks", "1"]);
    let found = report(&run, 1)?;
    for name in ["tensors", "tokenizer", "forward"] {
        demand(check(&found, name)?["status"] == "failed", || format!("{name}: {}", found["checks"]))?;
    }
    Ok(())
}

fn damaged() -> Result<(), String> {
    let (folder, source) = (scratch(), fixture("bard"));
    let path = folder.path().join("damaged.gguf");
    let whole = std::fs::read(bard("Q8_0")?).map_err(|e| e.to_string())?;
    let (path, source) = (text(&path)?, text(&source)?);
    for len in [0, 3, 7, 100, 30_000, whole.len() - 1000] {
        std::fs::write(path, &whole[..len]).map_err(|e| e.to_string())?;
        for args in
            [&["verify", path, "--against", source, "--no-report"][..], &["perplexity", path], &["generate", path, "To be"]]
        {
            refused(&ggufsmith(args), &["damaged.gguf"]).map_err(|e| format!("{len} bytes: {e}"))?;
        }
    }
    let mut file = Gguf::load(&bard("BF16")?);
    let tensor = &mut file.tensor("blk.0.ffn_up.weight").bytes;
    tensor[..2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    file.write(path.as_ref());
    refused(&ggufsmith(&["perplexity", path, "--chunks", "1"]), &["finite", "`ggufsmith verify`"])
}

fn no_forward_pass() -> Result<(), String> {
    let (folder, file) = (scratch(), bard("Q8_0")?);
    let source = folder.path().join("bard");
    let mut model = Checkpoint::load(&fixture("bard"));
    model.config["architectures"] = serde_json::json!(["NoSuchForCausalLM"]);
    model.write(&source);
    for args in [
        &["verify", text(&file)?, "--against", text(&source)?, "--no-report"][..],
        &["perplexity", text(&source)?],
        &["generate", text(&source)?, "To be"],
    ] {
        refused(&ggufsmith(args), &["NoSuchForCausalLM"])?;
    }
    let mut other = Gguf::load(&file);
    *other.raw("general.architecture") = [&6u64.to_le_bytes()[..], b"nosuch"].concat();
    let path = folder.path().join("other.gguf");
    other.write(&path);
    for args in [&["perplexity", text(&path)?][..], &["generate", text(&path)?, "To be"]] {
        refused(&ggufsmith(args), &["nosuch"])?;
    }
    let bard = fixture("bard");
    let run = ggufsmith(&["verify", text(&path)?, "--against", text(&bard)?, "--json", "--no-report", "--quiet"]);
    let found = report(&run, 1)?;
    let structure = check(&found, "structure")?;
    demand(structure["status"] == "failed" && structure.to_string().contains("nosuch"), || format!("{:#}", found["checks"]))
}

fn long_context() -> Result<(), String> {
    let (file, source) = (bard("Q8_0")?, fixture("bard"));
    let verify = |n_ctx: &str| {
        let args = ["verify", text(&file)?, "--against", text(&source)?, "--no-report", "--chunks", "1", "--no-latency"];
        Ok::<_, String>(ggufsmith(&[&args[..], &["--n-ctx", n_ctx]].concat()))
    };
    let (long, fitting) = (verify("1024")?, verify("256")?);
    let note = "made for texts of 256 tokens, windows have 1024";
    demand(long.ok().is_ok() && long.stderr.contains(note), || long.describe("a note on the length"))?;
    demand(fitting.ok().is_ok() && !fitting.stderr.contains("made for texts"), || fitting.describe("no note on the length"))
}
