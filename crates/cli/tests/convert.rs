//! `convert` and `list` as a user meets them.

mod common;

use common::{command, fixture, names, run};
use std::process::Stdio;

fn expected_sha256(list: &str, file_type: &str) -> String {
    let text = std::fs::read_to_string(fixture("bard.expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    expected[list][file_type].as_str().unwrap().to_owned()
}

#[test]
fn files_by_the_naming_convention_and_a_summary_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), &["convert", &fixture("bard"), "--type", "q8_0", "--outtype", "Q4_0"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{}", run.stderr);
    let files = ["Bard-2.6M-Q4_0.gguf", "Bard-2.6M-Q8_0.gguf"];
    let manifests = files.map(|file| format!("{file}.manifest.json"));
    assert_eq!(names(dir.path()), [files[0], &manifests[0], files[1], &manifests[1]]);
    for part in [
        "Q8_0: 2.82 MB, 8.52 bits per weight\n  Bard-2.6M-Q8_0.gguf\n  sha256 ",
        &expected_sha256("sha256_converter", "Q8_0"),
        &expected_sha256("sha256_llama_quantize_from_bf16", "Q4_0"),
        "pre-tokenizer default",
        "5.25 MB of source",
    ] {
        assert!(run.stderr.contains(part), "{part:?} is not in\n{}", run.stderr);
    }
}

#[test]
fn json_holds_what_the_summary_says() {
    let dir = tempfile::tempdir().unwrap();
    let bard = fixture("bard");
    let run = run(dir.path(), &["convert", &bard, "-t", "Q8_0,F16", "--json", "--quiet", "--no-manifest", "-j", "3"]);
    assert_eq!(run.stderr, "");
    let summary = run.json();
    let [q8_0, f16] = summary["outputs"].as_array().unwrap().as_slice() else { panic!("{summary}") };
    assert_eq!((&q8_0["type"], &f16["type"]), (&"Q8_0".into(), &"F16".into()));
    assert_eq!(q8_0["files"][0]["sha256"], expected_sha256("sha256_converter", "Q8_0"));
    let bytes = std::fs::metadata(dir.path().join("Bard-2.6M-F16.gguf")).unwrap().len();
    assert_eq!((&f16["files"][0]["bytes"], &f16["manifest"]), (&bytes.into(), &serde_json::Value::Null));
    assert_eq!(summary["workers"][0]["threads"], 3);
    assert_eq!(summary["workers"][0]["source_bytes"], summary["source_bytes"]);
    assert_eq!(names(dir.path()).len(), 2, "no manifests were asked for");
}

#[test]
fn quiet_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["convert", &fixture("bard"), "-t", "Q8_0", "-q"]).quiet(), "");
}

#[test]
fn existing_files_are_kept_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x-q8_0.gguf");
    std::fs::write(&file, "mine").unwrap();
    let bard = fixture("bard");
    let arguments = ["convert", &bard, "-t", "Q8_0", "-o", "x-{ftype}.gguf", "-q"];
    run(dir.path(), &arguments).refused("x-q8_0.gguf exists");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert_eq!(names(dir.path()), ["x-q8_0.gguf"]);
    let dry = run(dir.path(), &["convert", &bard, "-t", "Q8_0", "-o", "x-{ftype}.gguf", "-n"]);
    assert!(dry.stderr.starts_with("warning: x-q8_0.gguf exists"), "{}", dry.stderr);
    run(dir.path(), &[&arguments[..], &["--force"]].concat()).quiet();
    assert!(std::fs::read(&file).unwrap().starts_with(b"GGUF"));
}

#[test]
fn dry_run_decides_everything_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bard = fixture("bard");
    let plan = run(dir.path(), &["convert", &bard, "-t", "Q4_0", "--dry-run", "--json"]).json();
    let text = run(dir.path(), &["convert", &bard, "-t", "Q4_0", "--dry-run"]).quiet();
    assert!(names(dir.path()).is_empty());
    assert!(text.contains("  token_embd.weight         [1024, 256]  BF16    Q6_K  215,040  output matrix"), "{text}");

    run(dir.path(), &["convert", &bard, "-t", "Q4_0", "-q"]).quiet();
    let output = &plan["outputs"][0];
    let real = run(dir.path(), &["inspect", "Bard-2.6M-Q4_0.gguf", "--json"]).json();
    assert_eq!((&output["files"][0]["bytes"], &output["via"]), (&real["files"][0]["bytes"], &"BF16".into()));
    let planned = output["tensors"].as_array().unwrap();
    let written = real["tensors"].as_array().unwrap();
    assert_eq!(planned.len(), written.len());
    for (planned, written) in planned.iter().zip(written) {
        for key in ["name", "shape", "type", "bytes", "offset"] {
            assert_eq!(planned[key], written[key], "{key} of {}", planned["name"]);
        }
    }
}

#[test]
fn wishes_that_cannot_be_met() {
    let dir = tempfile::tempdir().unwrap();
    let bard = fixture("bard");
    let weights = fixture("bard/model.safetensors");
    let not_here = match cfg!(feature = "hub") {
        true => "org/name@main is not in the cache empty-cache/hub",
        false => "hint: `hf download org/name --revision main --local-dir name`",
    };
    let cases: &[(&[&str], &str)] = &[
        (&[&bard], "Name one or more with --type\n\nhint: the types and their bits per weight: F32 (32 bits)"),
        (&[&bard, "-t", "Q80"], "no such type (did you mean Q8_0"),
        (&[&bard, "-t", "IQ2_XXS"], "llama.cpp has this type, ggufsmith cannot write it yet"),
        (&[&bard, "-t", "auto"], "name the type: F32, F16"),
        (&[&bard, "-t", "F16,F32", "-o", "x.gguf"], "hint: name a directory, or --out 'x-{ftype}.gguf'"),
        (&[&bard, "-t", "F16", "-o", "missing/x.gguf"], "missing"),
        (&[&bard, "-t", "F16", "-o", "-"], "it cannot go into a pipe"),
        (&["nowhere", "-t", "F16", "-o", "missing/"], "there is no directory nowhere"),
        (&[&bard, "-t", "F16", "--threads", "0"], "--threads"),
        (&[&bard, "-t", "F16", "--split-max-size", "5X"], "\"5X\" is no size"),
        (&[&bard, "-t", "F16", "--metadata", "none.json"], "--metadata none.json: "),
        (&["nowhere", "-t", "F16"], "there is no directory nowhere"),
        (&["org/name@main", "-t", "F16"], not_here),
        (&["org/name@../x", "-t", "F16"], if cfg!(feature = "hub") { "the revision \"../x\" cannot be used" } else { "" }),
        (&[&weights, "-t", "F16"], "is a file; convert takes a model's directory\n\nhint: name the directory it lies in: "),
        (&[".", "-t", "F16"], "has no config.json"),
    ];
    for (arguments, message) in cases {
        run(dir.path(), &[&["convert"], *arguments].concat()).refused(message);
        assert!(names(dir.path()).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_directory_that_is_named_as_one_is_made() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["convert", &fixture("bard"), "-t", "F16", "-o", "a/b/"]);
    assert!(names(&dir.path().join("a/b")).iter().any(|name| name.ends_with("F16.gguf")));
}

#[test]
fn a_folder_of_the_hub_cache_leads_to_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("models--a--b/snapshots/0123abcd")).unwrap();
    run(dir.path(), &["convert", "models--a--b", "-t", "F16"]).refused("models--a--b/snapshots/0123abcd");
}

#[test]
fn with_json_errors_are_json_too() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["convert", "org/name", "-t", "F16", "--json"][..], &["convert", "x", "-t", "Q9", "--json"]] {
        let run = run(dir.path(), arguments);
        assert_eq!(run.code, Some(2));
        let object: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let message = object["error"].as_str().unwrap();
        assert!(run.stderr.starts_with(&format!("error: {message}\n")), "{message:?}, {:?}", run.stderr);
    }
}

#[test]
fn a_name_that_misleads_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), &["convert", &fixture("tiny/llama/hf"), "-t", "Q4_0", "-q"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.contains("\nwarning: Q4_0 promises 4.50 bits per weight"), "{}", run.stderr);
}

#[test]
fn a_panic_of_a_library_is_told_as_what_it_means() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"] {
        std::fs::copy(format!("{}/{name}", fixture("bard")), model.join(name)).unwrap();
    }
    // The YAML reader panics on this.
    std::fs::write(model.join("README.md"), "---\nlicense: [!,\n---\n").unwrap();
    let run = run(dir.path(), &["convert", "model", "-t", "Q8_0", "-q"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.starts_with("warning: README.md is not used: ") && run.stderr.lines().count() == 1, "{}", run.stderr);
}

#[test]
fn whoever_stops_reading_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path(), &["convert", &fixture("bard"), "-t", "F32", "-n"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), &["list"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with(b"error: writing to standard output: "), "{:?}", output.stderr);
}

#[test]
fn lists() {
    let dir = tempfile::tempdir().unwrap();
    let all = run(dir.path(), &["list", "--json"]).json();
    let some = run(dir.path(), &["list", "pre-tokenizers", "--json"]).json();
    assert_eq!(some, serde_json::json!({ "pre_tokenizers": all["pre_tokenizers"] }));
    assert!(all["pre_tokenizers"].as_array().unwrap().contains(&"llama-bpe".into()));
    assert_eq!(all["architectures"][0]["name"], "llama");
    let text = run(dir.path(), &["list", "pre-tokenizers"]).quiet();
    assert_eq!(text.lines().count(), all["pre_tokenizers"].as_array().unwrap().len());
    assert!(run(dir.path(), &["list"]).quiet().starts_with("types\n  type"));
}

#[test]
fn versions_name_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let version = run(dir.path(), &["--version"]).quiet();
    assert!(version.starts_with("ggufsmith ") && version.contains("\nreference: llama.cpp "), "{version}");
    assert_eq!(run(dir.path(), &["-V"]).quiet().lines().count(), 1);
}
