//! What a run leaves: keys that others rely on, files, exit codes of thresholds.

use crate::{bard, demand, near, number, plain, report, text};
use ggufsmith_tests::binary::{command, finish, ggufsmith};
use ggufsmith_tests::{fixture, json, outputs, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("reports::keys_and_files", files),
        plain("reports::the_same_run_and_other_threads_give_the_same", same),
        plain("reports::thresholds", thresholds),
        plain("reports::without_a_forward_pass", no_forward),
        plain("reports::of_several_files", several),
    ]
}

fn verify<'a>(file: &'a Path, source: &'a Path) -> Result<Vec<&'a str>, String> {
    Ok(vec!["verify", text(file)?, "--against", text(source)?, "--chunks", "2", "--n-ctx", "256"])
}

fn files() -> Result<(), String> {
    let (folder, elsewhere) = (scratch(), scratch());
    let file = folder.path().join("my model.gguf");
    std::fs::copy(bard("Q4_0")?, &file).map_err(|e| e.to_string())?;
    let source = fixture("bard");
    let args = verify(&file, &source)?;
    let printed = report(&ggufsmith(&[&args[..], &["--json"]].concat()), 0)?;
    let names = ["html", "json", "md"].map(|ending| format!("my model.gguf.report.{ending}"));
    let mut expected = names.to_vec();
    expected.insert(0, "my model.gguf".to_owned());
    demand(outputs::names(folder.path()) == expected, || format!("{:?}", outputs::names(folder.path())))?;
    demand(json(&folder.path().join(&names[1])) == printed, || "the printed report is not the one in the file".to_owned())?;

    demand(printed["faithful"] == true, || format!("faithful is {}", printed["faithful"]))?;
    demand(printed["sha256"] == outputs::sha256(&file).as_str(), || format!("sha256 is {}", printed["sha256"]))?;
    for key in ["perplexity_source", "perplexity", "kld_mean", "kld_max", "same_top1"] {
        demand(number(&printed, key)? > 0.0, || format!("{key} is {}", printed[key]))?;
    }
    near(
        "ratio",
        number(&printed, "perplexity_ratio")?,
        number(&printed, "perplexity")? / number(&printed, "perplexity_source")?,
        1e-9,
    )?;
    for side in ["source", "file"] {
        demand(printed["latency"][side].is_object(), || format!("no speed of the {side}: {}", printed["latency"]))?;
    }
    let sources = printed["source"]["files"].as_array().cloned().unwrap_or_default();
    let weights = sources.iter().find(|file| file["name"] == "model.safetensors").ok_or("no model.safetensors")?;
    demand(weights["sha256"] == outputs::sha256(&source.join("model.safetensors")).as_str(), || format!("{weights}"))?;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).map_err(|e| format!("{name}: {e}"));
    let (page, markdown) = (read(&names[0])?, read(&names[2])?);
    demand(page.contains("<html") && page.contains("my model.gguf") && markdown.contains("Q4_0"), || page.clone())?;

    for name in &names {
        std::fs::remove_file(folder.path().join(name)).map_err(|e| e.to_string())?;
    }
    // A folder that is not there yet.
    let target = elsewhere.path().join("new/reports");
    ggufsmith(&[&args[..], &["--no-latency", "--quiet", "--report-dir", text(&target)?]].concat()).ok()?;
    demand(outputs::names(&target) == names && outputs::names(folder.path()).len() == 1, || {
        format!("{:?} and {:?}", outputs::names(&target), outputs::names(folder.path()))
    })?;
    ggufsmith(&[&args[..], &["--no-latency", "--quiet", "--no-report"]].concat()).ok()?;
    demand(outputs::names(folder.path()).len() == 1, || format!("{:?}", outputs::names(folder.path())))
}

/// Without what depends on the run: its arguments and its speed.
fn figures(mut report: Value) -> Value {
    report["command"] = Value::Null;
    report["latency"] = Value::Null;
    report
}

fn same() -> Result<(), String> {
    let (file, source) = (bard("Q4_0")?, fixture("bard"));
    let run = |extra: &[&str]| {
        let args = verify(&file, &source)?;
        report(&ggufsmith(&[&args[..], &["--json", "--quiet", "--no-report"], extra].concat()), 0).map(figures)
    };
    let one = run(&["--no-latency", "--threads", "1"])?;
    demand(number(&one, "kld_mean")? > 0.0, || format!("{one}"))?;
    for extra in [&["--no-latency", "--threads", "1"][..], &["--no-latency", "--threads", "2"], &["--no-latency", "-j", "5"], &[]]
    {
        // Bit for bit: JSON has every digit of a number.
        demand(run(extra)? == one, || format!("{extra:?} gives another report"))?;
    }
    // Smaller groups of windows: sums over all of them end in other last digits.
    let [one, small] = [one, run(&["--no-latency", "--memory", "1"])?].map(|mut report| {
        report["hidden_error"] = Value::Null;
        report
    });
    demand(small == one, || "--memory changes figures".to_owned())
}

fn thresholds() -> Result<(), String> {
    let (folder, file, source) = (scratch(), bard("Q4_0")?, fixture("bard"));
    let run = |extra: &[&str], code: i32| {
        let mut args = verify(&file, &source)?;
        args.extend(["--json", "--quiet", "--no-report", "--no-latency"]);
        args.extend(extra);
        let mut command = command(&args);
        command.current_dir(folder.path());
        let run = finish(command);
        report(&run, code).map(|report| (report, run.stderr))
    };
    let (passed, said) = run(&["--max-kld", "0.1", "--max-ppl-ratio", "1.1", "--min-top1", "0.5"], 0)?;
    demand(passed["gate"]["failures"] == Value::Array(Vec::new()) && said.is_empty(), || format!("{} {said}", passed["gate"]))?;
    for (extra, word) in [
        (["--max-kld", "0.0001"], "mean KL divergence in nats is"),
        (["--max-ppl-ratio", "0.5"], "perplexity"),
        (["--min-top1", "0.999"], "same top-1 is"),
    ] {
        let (failed, said) = run(&extra, 1)?;
        let failures = failed["gate"]["failures"].to_string();
        demand(failed["faithful"] == true && failures.contains(word) && said.contains("the gate failed"), || {
            format!("{extra:?}: {} {failures} {said}", failed["faithful"])
        })?;
    }
    // A file of thresholds in the current directory counts; the command line comes first.
    std::fs::write(folder.path().join("verify.toml"), "[gate]\nmax_kld = 1\n[gate.Q4_0]\nmax_kld = 0.0001\n")
        .map_err(|e| e.to_string())?;
    run(&[], 1)?;
    run(&["--max-kld", "0.1"], 0)?;
    // What was not measured is not within a threshold.
    run(&["--no-forward"], 1).map(|_| ())
}

fn no_forward() -> Result<(), String> {
    let (file, source) = (bard("Q4_0")?, fixture("bard"));
    let mut args = verify(&file, &source)?;
    args.extend(["--no-report", "--no-forward"]);
    let run = ggufsmith(&args);
    let shown = run.ok()?;
    demand(shown.contains("forward did not run: not asked for (--no-forward)") && !run.stderr.contains("error"), || {
        run.describe("so")
    })?;
    args.push("--json");
    let report = report(&ggufsmith(&args), 0)?;
    demand(report["faithful"] == false && report["checks"][3]["status"] == "skipped" && report["perplexity"].is_null(), || {
        format!("{}", report["checks"])
    })
}

fn several() -> Result<(), String> {
    let (folder, source) = (scratch(), fixture("bard"));
    let (a, b) = (bard("BF16")?, bard("Q8_0")?);
    let out = folder.path();
    let args = [
        "verify",
        text(&a)?,
        text(&b)?,
        "--against",
        text(&source)?,
        "--chunks",
        "2",
        "--no-latency",
        "--report-dir",
        text(out)?,
    ];
    let run = ggufsmith(&args);
    demand(run.ok()?.contains("All 2 files are faithful"), || run.describe("a verdict of both"))?;
    let list = json(&out.join("bard.report.json"));
    demand(list.as_array().is_some_and(|list| list.len() == 2) && outputs::names(out).len() == 9, || {
        format!("{:?}", outputs::names(out))
    })?;
    demand(list[1]["file_type"] == "Q8_0" && list[0]["sha256"] == outputs::sha256(&a).as_str(), || format!("{list}"))
}
