//! Perplexity and KL divergence against those of other tools.

use crate::{bard, check, convert, demand, near, number, plain, report, text, with_reference};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, json, outputs, reference, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        with_reference("figures::smollm2_against_float32", reference::smollm2(), |model| smollm2(model)),
        plain("figures::bard_against_llama_perplexity", bard_perplexity),
        plain("figures::a_figure_that_is_off_is_noticed", off),
        plain("figures::saved_log_probabilities_give_the_same", saved),
        plain("figures::saved_log_probabilities_that_are_cut_off_are_told", cut_off),
        plain("figures::sentences", sentences),
    ]
}

/// The files of `verify --json`, by type.
fn of_type<'a>(reports: &'a Value, file_type: &str) -> Result<&'a Value, String> {
    let found = reports.as_array().into_iter().flatten().find(|report| report["file_type"] == file_type);
    found.ok_or_else(|| format!("no report of {file_type}"))
}

/// Files whose bytes are those of the reference tools: each tensor is exact, and figures are those of exact arithmetic.
fn smollm2(model: &Path) -> Result<(), String> {
    let folder = scratch();
    convert(model, folder.path(), "BF16,F16,Q8_0,Q4_0,Q6_K")?;
    let expected = json(&fixture("smollm2/expected.json"));
    let file = |file_type: &str| outputs::of_type(folder.path(), file_type);

    let measured = ["BF16", "F16", "Q8_0", "Q4_0"];
    let paths = measured.iter().map(|file_type| file(file_type)).collect::<Result<Vec<_>, _>>()?;
    let mut args = vec!["verify"];
    args.extend(paths.iter().map(|path| text(path)).collect::<Result<Vec<_>, _>>()?);
    args.extend(["--against", text(model)?, "--chunks", "8", "--no-latency", "--json", "--quiet"]);
    let reports = report(&ggufsmith(&args), 0)?;
    let figures = &expected["expected_float32"];
    for file_type in measured {
        let report = of_type(&reports, file_type)?;
        faithful(report, &expected)?;
        demand(report["faithful"] == true, || format!("{file_type}: {}", report["verdict"]))?;
        demand(report["tokens"] == figures["source"]["tokens"], || format!("{} tokens", report["tokens"]))?;
        near("perplexity of the source", number(report, "perplexity_source")?, number(&figures["source"], "ppl")?, 5e-4)?;
        // All of the BF16 weights are F16 numbers, too.
        let wanted = &figures[if file_type == "BF16" { "F16" } else { file_type }];
        near(&format!("perplexity of {file_type}"), number(report, "perplexity")?, number(wanted, "ppl")?, 5e-4)?;
        let top1 = (number(report, "same_top1")? - number(wanted, "same_top1")?).abs();
        demand(top1 <= 0.003, || format!("same top-1 of {file_type} is off by {top1}"))?;
        let kld = number(report, "kld_mean")?;
        if file_type.starts_with('Q') {
            near(&format!("KL divergence of {file_type}"), kld, number(wanted, "kld_mean")?, 0.01)?;
        } else {
            demand((0.0..1e-7).contains(&kld), || format!("KL divergence of {file_type} is {kld}"))?;
        }
    }

    let q6_k = file("Q6_K")?;
    let run = ggufsmith(&["verify", text(&q6_k)?, "--against", text(model)?, "--no-forward", "--json", "--quiet"]);
    faithful(&report(&run, 0)?, &expected)
}

/// The reference tools' bytes, and every tensor and key is found to be the source's.
fn faithful(report: &Value, expected: &Value) -> Result<(), String> {
    let file_type = report["file_type"].as_str().unwrap_or_default();
    let lists = [&expected["sha256_converter"][file_type], &expected["sha256_llama_quantize_from_bf16"][file_type]];
    demand(report["sha256"].is_string() && lists.contains(&&report["sha256"]), || {
        format!("{file_type} has sha256 {}, the reference tools' is another", report["sha256"])
    })?;
    for name in ["structure", "tensors", "tokenizer"] {
        let check = check(report, name)?;
        demand(check["status"] == "passed", || format!("{file_type}: {check}"))?;
    }
    let tensors = report["tensors"].as_array().cloned().unwrap_or_default();
    let wrong = tensors.iter().find(|tensor| tensor["verdict"] != "exact" && tensor["verdict"] != "lossless");
    demand(tensors.len() == 272 && wrong.is_none(), || format!("{file_type}: {} tensors, {wrong:?}", tensors.len()))
}

/// A bard's perplexity on the text of its reference.
fn perplexity(file: &Path, extra: &[&str]) -> Result<Value, String> {
    let eval = fixture("bard/eval.txt");
    let args = ["perplexity", text(file)?, "--text", text(&eval)?, "--n-ctx", "256", "--chunks", "64", "--json", "--quiet"];
    ggufsmith(&[&args[..], extra].concat()).json()
}

fn as_llama_perplexity(found: &Value, file_type: &str) -> Result<(), String> {
    let expected = &json(&fixture("bard.expected.json"))["llama_perplexity"];
    near(&format!("perplexity of {file_type}"), number(found, "perplexity")?, number(expected, file_type)?, 1e-3)?;
    let error = number(found, "perplexity_error")?;
    demand((0.7..0.95).contains(&error) && found["tokens"] == 64 * 127, || format!("{found}"))
}

fn bard_perplexity() -> Result<(), String> {
    for file_type in ["F32", "BF16", "Q8_0", "Q4_0"] {
        as_llama_perplexity(&perplexity(&bard(file_type)?, &[])?, file_type)?;
    }
    // The model directory is what the F32 file has.
    as_llama_perplexity(&perplexity(&fixture("bard"), &[])?, "F32")
}

/// The comparison itself: Q4_0 is not within a tenth of a percent of Q8_0.
fn off() -> Result<(), String> {
    match as_llama_perplexity(&perplexity(&bard("Q4_0")?, &[])?, "Q8_0") {
        Err(e) if e.starts_with("perplexity of Q8_0") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn verify(file: &Path, extra: &[&str]) -> Result<Value, String> {
    let source = fixture("bard");
    let args = ["verify", text(file)?, "--against", text(&source)?, "--json", "--quiet", "--no-report", "--no-latency"];
    report(&ggufsmith(&[&args[..], extra].concat()), 0)
}

/// Saved by `verify` and by `perplexity`, read by `verify`.
fn saved() -> Result<(), String> {
    let folder = scratch();
    let (by_verify, by_perplexity) = (folder.path().join("a.bin"), folder.path().join("b.bin"));
    let eval = fixture("bard/eval.txt");
    let options = ["--text", text(&eval)?, "--n-ctx", "256", "--chunks", "16"];
    let file = bard("Q4_0")?;
    let direct = verify(&file, &[&options[..], &["--save-logits", text(&by_verify)?]].concat())?;
    let without = verify(&file, &options)?;
    demand(direct["kld_mean"] == without["kld_mean"] && direct["per_window"] == without["per_window"], || {
        "saving changes figures".to_owned()
    })?;
    let source = fixture("bard");
    let args = ["perplexity", text(&source)?, "--save-logits", text(&by_perplexity)?, "--quiet"];
    ggufsmith(&[&args[..], &options].concat()).ok()?;
    demand(outputs::sha256(&by_verify) == outputs::sha256(&by_perplexity), || "two files of one source differ".to_owned())?;

    // No length is given: the file has it.
    let again = verify(&file, &["--logits", text(&by_verify)?])?;
    demand(again["windows"] == 16 && again["n_ctx"] == 256, || format!("{} windows", again["windows"]))?;
    for (key, tolerance) in [("perplexity", 1e-12), ("perplexity_source", 1e-3), ("kld_mean", 1e-3), ("same_top1", 1e-3)] {
        near(key, number(&again, key)?, number(&direct, key)?, tolerance)?;
    }
    Ok(())
}

/// Behind a text that the model finds very improbable, what the saved form leaves out shows in the perplexity.
fn cut_off() -> Result<(), String> {
    let folder = scratch();
    let saved = folder.path().join("l.bin");
    let (file, source) = (bard("Q4_0")?, fixture("bard"));
    let args = ["verify", text(&file)?, "--against", text(&source)?, "--json", "--no-report", "--no-latency", "--chunks", "2"];
    let direct = report(&ggufsmith(&[&args[..], &["--save-logits", text(&saved)?]].concat()), 0)?;
    let run = ggufsmith(&[&args[..], &["--logits", text(&saved)?]].concat());
    let again = report(&run, 0)?;
    let lower = number(&again, "perplexity_source")? < 0.99 * number(&direct, "perplexity_source")?;
    demand(lower && run.stderr.contains("less probable than saved log-probabilities tell"), || {
        run.describe("a lower perplexity of the source, and a note that says so")
    })
}

/// Sentences are scored from their first token on, each by itself; blank lines are none.
fn sentences() -> Result<(), String> {
    let folder = scratch();
    let (file, lines) = (bard("BF16")?, ["To be, or not to be: that is the question.", "O Romeo, Romeo!"]);
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).map(|()| path).map_err(|e| e.to_string())
    };
    let measure = |content: &str, n_ctx: &str| {
        let path = write("lines.txt", content)?;
        ggufsmith(&["perplexity", text(&file)?, "--sentences", "--text", text(&path)?, "--n-ctx", n_ctx, "--json", "--quiet"])
            .json()
    };
    let both = measure(&format!("\n{}\r\n   \n\n{}\n\n", lines[0], lines[1]), "512")?;
    let (a, b) = (measure(lines[0], "512")?, measure(lines[1], "512")?);
    demand(both["samples"] == 2 && a["samples"] == 1, || format!("{both}"))?;
    let sum = |value: &Value| Ok::<_, String>(number(value, "tokens")? * number(value, "perplexity")?.ln());
    let tokens = number(&a, "tokens")? + number(&b, "tokens")?;
    near("tokens", number(&both, "tokens")?, tokens, 0.0)?;
    near("perplexity", number(&both, "perplexity")?, ((sum(&a)? + sum(&b)?) / tokens).exp(), 1e-5)?;
    let mean = (number(&a, "perplexity")? + number(&b, "perplexity")?) / 2.0;
    near("mean of the sentences' perplexities", number(&both, "mean_perplexity")?, mean, 1e-5)?;

    // A window scores the second half of what a sentence of the same tokens scores: the whole less its first half.
    let path = write("line.txt", lines[0])?;
    let window = ["perplexity", text(&file)?, "--text", text(&path)?, "--n-ctx", "12", "--chunks", "1", "--json", "--quiet"];
    let (window, whole, half) = (ggufsmith(&window).json()?, measure(lines[0], "12")?, measure(lines[0], "7")?);
    demand(window["tokens"] == 5 && whole["tokens"] == 11 && half["tokens"] == 6, || format!("{window} {whole} {half}"))?;
    near("perplexity of a window", sum(&window)?, sum(&whole)? - sum(&half)?, 1e-4)?;

    // `verify` scores sentences on both sides as `perplexity` does.
    let path = write("both.txt", &lines.join("\n\n"))?;
    let verified = verify(&file, &["--sentences", text(&path)?, "--chunks", "1"])?;
    let sentences = &verified["sentences"];
    for (key, expected) in
        [("perplexity", "perplexity"), ("perplexity_source", "perplexity"), ("mean_perplexity", "mean_perplexity")]
    {
        if sentences[key].is_null() {
            return Err(format!("no {key} in {sentences}"));
        }
        near(key, number(sentences, key)?, number(&both, expected)?, 1e-5)?;
    }
    Ok(())
}
