//! `inspect` as a user meets it.

mod common;

use common::{fixture, names, run};
use std::path::Path;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_file_of_the_reference() {
    let file = fixture("tiny/llama/f32.gguf");
    let text = run(here(), &["inspect", &file]).quiet();
    for part in [
        ": GGUF version 3, 440 kB\n",
        "metadata (25 keys)\n",
        "  general.architecture                    str    \"llama\"\n",
        "… 512 elements]\n",
        "  token_embd.weight         [512, 64]  F32   131,072   12,704\n",
        "20 tensors, 106,816 parameters (107 k), 427 kB, 32.00 bits per weight\n",
        "  F32        20     106,816  427,264  100.0 %\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let short = run(here(), &["inspect", &file, "--no-tensors"]).quiet();
    assert!(!short.contains("token_embd.weight ") && short.ends_with("100.0 %\n"), "{short}");
}

#[test]
fn json_is_complete_with_full() {
    let file = fixture("tiny/llama/f32.gguf");
    let cut = run(here(), &["inspect", &file, "--json"]).json();
    let full = run(here(), &["inspect", &file, "--json", "--full", "--no-tensors"]).json();
    let tokens = |report: &serde_json::Value| report["metadata"]["tokenizer.ggml.tokens"].clone();
    assert_eq!((&tokens(&cut)["elements"], tokens(&cut)["first"].as_array().unwrap().len()), (&512.into(), 8));
    assert_eq!((tokens(&full)["value"].as_array().unwrap().len(), full.get("tensors")), (512, None));
    assert_eq!(cut["metadata"]["llama.attention.layer_norm_rms_epsilon"]["value"], 1e-6);
    assert_eq!(cut["totals"]["tensors"], cut["tensors"].as_array().unwrap().len());
}

#[test]
fn any_shard_leads_to_the_whole_model() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["convert", &fixture("bard"), "-t", "Q8_0", "--split-max-tensors", "20", "--no-manifest", "-q"]).quiet();
    let shards = ["Bard-2.6M-Q8_0-00001-of-00002.gguf", "Bard-2.6M-Q8_0-00002-of-00002.gguf"];
    assert_eq!(names(dir.path()), shards);
    let reports = shards.map(|shard| run(dir.path(), &["inspect", shard, "--json"]).json());
    assert_eq!(reports[0]["tensors"], reports[1]["tensors"]);
    assert_eq!((&reports[1]["totals"]["tensors"], &reports[1]["tensors"][37]["file"]), (&38.into(), &shards[1].into()));
    std::fs::remove_file(dir.path().join(shards[0])).unwrap();
    run(dir.path(), &["inspect", shards[1]]).refused(shards[0]);
}

#[test]
fn safetensors_and_model_directories() {
    let file = run(here(), &["inspect", &fixture("bard/model.safetensors"), "--json"]).json();
    let directory = run(here(), &["inspect", &fixture("bard"), "--json"]).json();
    assert_eq!((&file["kind"], &directory["kind"]), (&"safetensors".into(), &"model directory".into()));
    assert_eq!(file["totals"], directory["totals"]);
    assert_eq!((&file["metadata"]["format"], &directory["architecture"]), (&"pt".into(), &"llama".into()));
    assert_eq!(directory["tokenizer"]["kind"], "SentencePiece");
    let text = run(here(), &["inspect", &fixture("bard"), "--no-tensors"]).quiet();
    assert!(text.contains("class: LlamaForCausalLM, converted as llama\n"), "{text}");
}

#[test]
fn an_unknown_class_is_shown_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(fixture("bard/config.json")).unwrap();
    std::fs::write(dir.path().join("config.json"), config.replace("LlamaForCausalLM", "FooForCausalLM")).unwrap();
    std::fs::copy(fixture("bard/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let text = run(dir.path(), &["inspect", "."]).quiet();
    assert!(text.contains("class: FooForCausalLM, not supported"), "{text}");
    assert!(text.contains("tokenizer: none found"), "{text}");
}

#[test]
fn damaged_files_are_refused_by_their_defect() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("tiny/llama/f32.gguf")).unwrap();
    std::fs::write(dir.path().join("cut.gguf"), &bytes[..5000]).unwrap();
    std::fs::write(dir.path().join("short.gguf"), &bytes[..bytes.len() - 64]).unwrap();
    std::fs::write(dir.path().join("empty.gguf"), b"").unwrap();
    std::fs::write(dir.path().join("a.txt"), "hello").unwrap();
    std::fs::write(dir.path().join("b.safetensors"), b"\xff\0\0\0\0\0\0\0{}").unwrap();
    for (name, message) in [
        ("cut.gguf", "cut.gguf, byte 49"),
        ("short.gguf", "it is truncated"),
        ("empty.gguf", "byte 0"),
        ("a.txt", "is neither a GGUF nor a safetensors file"),
        ("b.safetensors", "cut off"),
        ("none", "there is no file or directory none"),
        (".", "has no config.json"),
    ] {
        run(dir.path(), &["inspect", name]).refused(message);
        let object = run(dir.path(), &["inspect", name, "--json"]);
        assert!(object.code == Some(2) && object.stdout.contains("\"error\""), "{name}");
    }
}

#[test]
fn a_file_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    // The name of a tensor and a value, in the same number of bytes.
    let mut bytes = std::fs::read(fixture("tiny/llama/f32.gguf")).unwrap();
    for (plain, hostile) in [(&b"blk.0.attn_norm.weight"[..], &b"blk.0.\x1b[31mnorm.weight"[..]), (b"107K", b"1\x1b[m")] {
        assert_eq!(plain.len(), hostile.len());
        let at = bytes.windows(plain.len()).position(|window| window == plain).unwrap();
        bytes[at..at + plain.len()].copy_from_slice(hostile);
    }
    std::fs::write(dir.path().join("x.gguf"), bytes).unwrap();
    let text = run(dir.path(), &["inspect", "x.gguf"]).quiet();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("blk.0.\\u{1b}[31mnorm.weight") && text.contains("\"1\\u{1b}[m\""), "{text}");
}
