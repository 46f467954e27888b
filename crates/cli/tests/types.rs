//! `convert` with options that decide types, and with importance matrices.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{fixture, names, run};
use sha2::{Digest, Sha256};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bard.imatrix.gguf", "bard.imatrix.dat"] {
        std::fs::copy(fixture(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn sha256(path: &Path) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn options_give_the_bytes_of_llama_quantize_with_the_same_options() {
    let dir = folder();
    let bard = fixture("bard");
    let text = std::fs::read_to_string(fixture("recipes/options.tsv")).unwrap();
    let (mut compared, mut not_yet) = (0, 0);
    for line in text.lines() {
        let [file_type, options, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut arguments = vec!["convert", &bard, "-t", file_type, "-o", "out.gguf", "-q", "-f", "--no-manifest"];
        arguments.extend(options.split_whitespace());
        let run = run(dir.path(), &arguments);
        if run.stderr.contains("cannot write it yet") || run.stderr.contains("cannot be written yet") {
            not_yet += 1;
            continue;
        }
        run.quiet();
        assert_eq!(sha256(&dir.path().join("out.gguf")), expected, "{line}");
        compared += 1;
    }
    assert!(compared >= 12 && compared + not_yet == 18, "{compared} compared, {not_yet} not yet written");
}

#[test]
fn a_file_of_tensor_types_follows_the_command_line() {
    let dir = folder();
    let bard = fixture("bard");
    std::fs::write(dir.path().join("types.txt"), "attn_v=q8_0\n  ffn=q5_1 ffn_up=q8_0\n").unwrap();
    let arguments = ["convert", &bard, "-t", "Q4_0", "--tensor-type", "ffn_down=q5_0", "--tensor-type-file", "types.txt"];
    let plan = run(dir.path(), &[&arguments[..], &["--explain", "--json"]].concat()).json();
    let tensors = plan["outputs"][0]["tensors"].as_array().unwrap();
    let of = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor["name"] == name).unwrap();
        (tensor["type"].as_str().unwrap(), tensor["rule"].as_str().unwrap())
    };
    assert_eq!(of("blk.0.attn_v.weight"), ("Q8_0", "--tensor-type attn_v=Q8_0"));
    assert_eq!(of("blk.0.ffn_up.weight"), ("Q5_1", "--tensor-type ffn=Q5_1"));
    assert_eq!(of("blk.0.ffn_down.weight"), ("Q5_0", "--tensor-type ffn_down=Q5_0"));
    assert_eq!(of("blk.0.attn_q.weight"), ("Q4_0", "file type"));
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn only_what_is_selected_is_quantized() {
    let dir = folder();
    let bard = fixture("bard");
    let types = |options: &[&str]| {
        let plan = run(dir.path(), &[&["convert", &bard, "-t", "Q4_0", "-n", "--json"], options].concat()).json();
        let tensors = plan["outputs"][0]["tensors"].as_array().unwrap().clone();
        let quantized = tensors.iter().filter(|t| !["F32", "BF16", "F16"].contains(&t["type"].as_str().unwrap()));
        let names: Vec<_> = quantized.map(|t| t["name"].as_str().unwrap().to_owned()).collect();
        names
    };
    assert_eq!(types(&["--only", "token_embd"]), ["token_embd.weight"]);
    assert_eq!(types(&["--only", "layers=1-2", "--only", "attn_q,attn_k"]).len(), 4);
    let ffn = types(&["--only", "ffn"]);
    assert_eq!(ffn.len(), 12);
    assert!(ffn.iter().all(|name| name.contains(".ffn_")));

    // What was not selected is what the whole intermediate file would hold, what was selected what the whole file would.
    let convert = |file_type: &str, options: &[&str], out: &str| {
        run(dir.path(), &[&["convert", &bard, "-t", file_type, "-o", out, "-q", "--no-manifest"], options].concat()).quiet();
        let inspect = run(dir.path(), &["inspect", out, "--json"]).json();
        let bytes = std::fs::read(dir.path().join(out)).unwrap();
        let data = |tensor: &serde_json::Value| {
            let (offset, len) = (tensor["offset"].as_u64().unwrap() as usize, tensor["bytes"].as_u64().unwrap() as usize);
            (tensor["name"].as_str().unwrap().to_owned(), bytes[offset..offset + len].to_vec())
        };
        inspect["tensors"].as_array().unwrap().iter().map(data).collect::<std::collections::BTreeMap<_, _>>()
    };
    let part = convert("Q4_0", &["--only", "layers=2-3,ffn_up"], "part.gguf");
    let (whole, kept) = (convert("Q4_0", &[], "whole.gguf"), convert("BF16", &[], "bf16.gguf"));
    assert_eq!(part.len(), whole.len());
    for (name, bytes) in &part {
        let selected = ["blk.2.ffn_up.weight", "blk.3.ffn_up.weight"].contains(&name.as_str());
        assert_eq!(*bytes, if selected { &whole } else { &kept }[name], "{name}");
        assert!(!selected || *bytes != kept[name], "{name}");
    }
}

#[test]
fn the_summary_counts_what_has_no_importance() {
    let dir = folder();
    let bard = fixture("bard");
    let arguments = ["convert", &bard, "-t", "Q4_0,F16", "--imatrix", "bard.imatrix.gguf"];
    let summary = run(dir.path(), &[&arguments[..], &["--json", "-q"]].concat()).json();
    let importance = &summary["outputs"][0]["importance"];
    assert_eq!(*importance, serde_json::json!({"imatrix": "bard.imatrix.gguf", "tensors": 28, "without": ["token_embd.weight"]}));
    assert!(summary["outputs"][1].get("importance").is_none(), "F16 is the converter's");
    let text = run(dir.path(), &[&arguments[..], &["-f"]].concat()).stderr;
    let line = "importance: 28 tensors by bard.imatrix.gguf; 1 quantized without: token_embd.weight";
    assert!(text.contains(line), "{text}");
}

#[test]
fn outputs_with_importance_are_verified_with_it() {
    let dir = folder();
    let arguments = ["-t", "Q4_0", "--imatrix", "bard.imatrix.gguf", "--verify", "--no-forward", "--no-report", "--json", "-q"];
    let run = run(dir.path(), &[&["convert", &fixture("bard")], &arguments[..]].concat());
    let text = run.json()["reports"].to_string();
    assert!(!text.contains("have other bytes"), "{text}");
}

#[test]
fn wishes_that_cannot_be_met() {
    let dir = folder();
    let bard = fixture("bard");
    std::fs::write(dir.path().join("types.txt"), "attn_v").unwrap();
    let before = names(dir.path());
    let cases: &[(&[&str], &str)] = &[
        (&["--tensor-type", "attn_v"], "is not of the form REGEX=TYPE"),
        (&["--tensor-type", "attn_v=q4_k_m"], "\"q4_k_m\" is no tensor type; there are F32"),
        (&["--tensor-type", "(=q4_0"], "is no regular expression"),
        (&["--tensor-type", "ffn_up=nvfp4"], "cannot be written yet"),
        (&["--tensor-type-file", "types.txt"], "--tensor-type-file types.txt: \"attn_v\" is not of the form"),
        (&["--tensor-type-file", "missing"], "--tensor-type-file missing: "),
        (&["--output-tensor-type", "q9"], "no such type"),
        (&["--token-embedding-type", "q8_1"], "cannot write it yet"),
        (&["--only", "layers=4-1"], "selects nothing"),
        (&["--only", "ffm"], "--only ffm: the model has no such tensor; there are attn_k"),
        (&["--only", "layers=4"], "there are layers=0-3"),
        (&["--imatrix", "missing"], "the importance matrix missing: "),
        (&["--imatrix", "types.txt"], "neither GGUF nor an importance matrix"),
    ];
    for (options, message) in cases {
        run(dir.path(), &[&["convert", &bard, "-t", "Q4_0"], *options].concat()).refused(message);
        assert_eq!(names(dir.path()), before, "{options:?}");
    }
}
