//! NF4 and FP4 in GGUF, plain 8-bit codes in safetensors, plans of what cannot be written: from the command line.

mod common;

use common::{fixture, names, run};
use serde_json::Value;

fn read(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn nf4_in_gguf_is_named_said_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (here, bard) = (folder.path(), fixture("bard"));
    let converted = run(here, &["convert", &bard, "--type", "nf4", "--type", "NF4"]);
    assert_eq!(converted.code, Some(2), "twice is two types");
    for (arguments, name, bits) in [
        (&["--type", "NF4"][..], "NF4-in-Q8_0.gguf", "8.5 bits per weight on disk, NF4 values"),
        (
            &["--type", "fp4", "--nf4-carrier", "f16", "--skip-modules", "down_proj"],
            "FP4-in-F16.gguf",
            "16 bits per weight on disk, FP4 values",
        ),
    ] {
        let all = [&["convert", &bard][..], arguments].concat();
        let planned = run(here, &[&all[..], &["--dry-run"]].concat());
        assert!(planned.stdout.starts_with(bits) && planned.stdout.contains("in blocks of 64"), "{}", planned.stdout);
        let converted = run(here, &all);
        assert_eq!(converted.code, Some(0), "{}", converted.stderr);
        let first = converted.stderr.lines().find(|line| line.contains("bits per weight")).unwrap();
        assert!(first.starts_with(bits) && first.contains("IQ4_NL, which has a smaller error"), "{first}");
        let file = names(here).into_iter().find(|file| file.ends_with(name)).unwrap();

        // The manifest beside the file tells.
        let verify =
            ["verify", &file, "--against", &bard, "--no-report", "--json", "--chunks", "1", "--n-ctx", "64", "--no-latency"];
        let report = run(here, &verify).json();
        assert_eq!(report["faithful"], true, "{report:#}");
        let tensors = report["tensors"].as_array().unwrap();
        let scheme = &name[..3];
        let holding = tensors.iter().filter(|tensor| tensor["via"] == scheme);
        assert!(
            holding.clone().count() > 5 && holding.into_iter().all(|tensor| tensor["relative_rmse"].as_f64().unwrap() > 0.05)
        );
        // Without it the option does; without either the report says what is missing.
        std::fs::remove_file(here.join(format!("{file}.manifest.json"))).unwrap();
        let silent = run(here, &verify);
        assert_eq!(silent.code, Some(1), "{}", silent.stderr);
        assert!(silent.stdout.contains(&format!("--values {scheme}")), "{}", silent.stdout);
        if scheme == "NF4" {
            assert_eq!(run(here, &[&verify[..], &["--values", scheme]].concat()).json()["faithful"], true);
            let other = run(here, &[&verify[..], &["--values", "NF4/128"]].concat());
            assert_eq!(other.code, Some(1));
        }
    }
}

#[test]
fn a_directory_of_codes_is_a_model_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (here, bard) = (folder.path(), fixture("bard"));
    for (number, arguments) in [
        &["--type", "INT8_AFFINE"][..],
        &["--type", "int8_affine", "--unsigned", "--granularity", "row"],
        &["--type", "INT8_ABSMAX", "--granularity", "row", "--max-shard-size", "1M"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("m{number}");
        let all = [&["convert", &bard, "--format", "safetensors", "--out", &out][..], arguments].concat();
        let plan = run(here, &[&all[..], &["--explain", "--json"]].concat()).json();
        assert!(!here.join(&out).exists());
        let rules: Vec<&str> = plan["tensors"].as_array().unwrap().iter().map(|t| t["rule"].as_str().unwrap()).collect();
        assert!(rules.contains(&"kept: embedding") && rules.contains(&"matrix of a linear layer"), "{rules:?}");
        let text = run(here, &[&all[..], &["--dry-run"]].concat()).stdout;
        assert!(text.contains("bits per weight") && text.contains("kept: no matrix of a linear layer"), "{text}");

        let summary = run(here, &[&all[..], &["--verify", "--json"]].concat()).json();
        assert_eq!(summary["verified"]["tensors"], summary["verified"]["equal"]);
        assert_eq!(summary["bytes"], plan["bytes"]);
        let manifest = read(&here.join(&out).join("ggufsmith.manifest.json"));
        assert_eq!(manifest["outputs"].as_array().unwrap().len(), summary["files"].as_array().unwrap().len());
        assert!(names(&here.join(&out)).iter().all(|name| !name.starts_with('.')));

        // A source of all commands.
        let perplexity = |model: &str| {
            let run = run(here, &["perplexity", model, "--chunks", "1", "-c", "64", "--json", "--quiet"]);
            run.json()["perplexity"].as_f64().unwrap()
        };
        let ratio = perplexity(&out) / perplexity(&bard);
        assert!((0.95..1.05).contains(&ratio) && ratio != 1.0, "{ratio}");
        let generated = run(here, &["generate", &out, "To be", "--max-tokens", "4", "--json", "--quiet"]).json();
        assert!(!generated["models"].as_array().unwrap().is_empty());
        let converted = run(here, &["convert", &out, "--type", "Q8_0", "--out", &format!("{out}.gguf")]);
        assert!(
            converted.code == Some(0) && converted.stderr.contains("the source is quantized already"),
            "{}",
            converted.stderr
        );
        let file = format!("{out}.gguf");
        let report = run(
            here,
            &["verify", &file, "--against", &out, "--no-report", "--json", "--chunks", "1", "--n-ctx", "64", "--no-latency"],
        );
        assert_eq!(report.json()["faithful"], true);
        // Damage is found, with exit code 2 where a state means nothing.
        let index = names(&here.join(&out)).into_iter().find(|name| name.ends_with(".safetensors")).unwrap();
        let path = here.join(&out).join(index);
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        assert_eq!(run(here, &["perplexity", &out]).code, Some(2));
    }
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (here, bard) = (folder.path(), fixture("bard"));
    let directory = ["--format", "safetensors", "--out", "m"];
    for (arguments, message) in [
        (&["-t", "NF4", "--nf4-carrier", "Q4_0"][..], "cannot carry NF4's values; Q8_0 and F16 can"),
        (&["-t", "Q8_0", "--nf4-carrier", "F16"], "--nf4-carrier has no meaning"),
        (&["-t", "NF4", "--block-size", "96"], "96 is no block length"),
        (&["-t", "NF4", "--unsigned"], "--unsigned has no meaning for GGUF files"),
        (&["-t", "NF4,Q4_0"], "is a run of its own"),
        (&["-t", "NF4", "--pure"], "--pure does not go with NF4 in GGUF"),
        (&["-t", "INT8_AFFINE"], "GGUF has no type INT8_AFFINE"),
        (&["-t", "INT8"], "GGUF has no type INT8"),
        (&["-t", "IQ2_XS"], "cannot write it yet"),
    ] {
        let run = run(here, &[&["convert", &bard][..], arguments].concat());
        assert!(run.code == Some(2) && run.stderr.contains(message), "{arguments:?}: {}", run.stderr);
    }
    for (arguments, message) in [
        (&["-t", "INT8_ABSMAX", "--unsigned"][..], "--unsigned is for INT8_AFFINE"),
        (&["-t", "INT8", "--granularity", "row"], "--granularity is for INT8_AFFINE"),
        (&["-t", "INT8_AFFINE", "--block-size", "64"], "has no blocks"),
        (&["-t", "NF4", "--granularity", "row"], "--granularity is for INT8_AFFINE and INT8_ABSMAX"),
        (&["-t", "NF4", "--nf4-carrier", "F16"], "--nf4-carrier is for GGUF files"),
        (&["-t", "NF4", "--tensor-type", "attn_v=q8_0"], "--tensor-type is for GGUF files"),
        (&["-t", "NF4", "--verify", "--max-kld", "1"], "--max-kld is for GGUF files"),
        (&["-t", "NF4", "--only", "ffm"], "no such tensor"),
        (&["-t", "Q8_0"], "has no type Q8_0"),
    ] {
        let run = run(here, &[&["convert", &bard][..], &directory, arguments].concat());
        assert!(run.code == Some(2) && run.stderr.contains(message), "{arguments:?}: {}", run.stderr);
    }
    assert!(names(here).is_empty());
}

#[test]
fn what_cannot_be_written_can_be_planned() {
    let folder = tempfile::tempdir().unwrap();
    let (here, model) = (folder.path(), fixture("tiny/llama-256/hf"));
    let plan = run(here, &["convert", &model, "--type", "IQ2_XS", "--explain", "--dry-run", "--json"]).json();
    let tensors = plan["outputs"][0]["tensors"].as_array().unwrap();
    assert!(tensors.iter().any(|tensor| tensor["type"] == "IQ2_XS"));
    assert!(plan["warnings"].to_string().contains("can be planned, but not written"));
    assert!(names(here).is_empty());
}
