//! Model directories with one defect each: index, shards, links, config.json. What is legitimate although it looks odd is accepted.

use crate::{Verdict, bad, demand, judge, limited, text, trial};
use Verdict::Good;
use ggufsmith_tests::checkpoint::{Checkpoint, safetensors};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Name, how the model is made (its directory does not exist yet), and what `convert` makes of it: nothing, or the words of a refusal.
struct Case(&'static str, fn(&Path), &'static [&'static str]);

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
/// What makes a case that is accepted.
const ACCEPTED: &[&str] = &[];

const INDEXES: &[Case] = &[
    Case("shards", |dir| sharded(dir, |_| {}), ACCEPTED),
    Case("name_that_climbs", |dir| second_shard(dir, "../hf/model-00002-of-00002.safetensors"), &["../hf/", "no plain name"]),
    Case(
        "name_that_is_absolute",
        |dir| second_shard(dir, "/etc/model.safetensors"),
        &["/etc/model.safetensors", "no plain name"],
    ),
    Case("name_with_a_backslash", |dir| second_shard(dir, "..\\model.safetensors"), &["model.safetensors", "no plain name"]),
    Case("name_with_a_drive", |dir| second_shard(dir, "C:model.safetensors"), &["C:model.safetensors", "no plain name"]),
    Case("name_with_nul", |dir| second_shard(dir, "model\0.safetensors"), &["model\\0.safetensors", "no plain name"]),
    Case(
        "name_of_another_kind",
        |dir| second_shard(dir, "config.json"),
        &["config.json", "no plain name of a .safetensors file"],
    ),
    Case("name_that_is_a_number", |dir| map(dir, |map| map["model.norm.weight"] = json!(7)), &[INDEX, "model.norm.weight"]),
    Case("shard_missing", |dir| sharded(dir, |dir| remove(dir, SECOND)), &[SECOND, "does not exist"]),
    Case(
        "shard_that_is_a_directory",
        |dir| replaced(dir, SECOND, |path| fs::create_dir(path).unwrap()),
        &[SECOND, "a directory"],
    ),
    Case("shard_that_is_a_fifo", |dir| replaced(dir, SECOND, fifo), &[SECOND, "a FIFO"]),
    Case("shard_that_is_dev_zero", |dir| replaced(dir, SECOND, |path| link("/dev/zero", path)), &[SECOND, "a device"]),
    Case("shard_that_is_a_dangling_link", |dir| replaced(dir, SECOND, |path| link("absent", path)), &[SECOND, "No such file"]),
    Case("shard_that_is_a_loop_of_links", |dir| replaced(dir, SECOND, |path| link(SECOND, path)), &[SECOND, "symbolic links"]),
    Case("shard_linked_to_outside", linked_outside, &[SECOND, "outside", "--follow-symlinks"]),
    Case("shard_linked_to_inside", linked_inside, ACCEPTED),
    Case("shard_empty", |dir| sharded(dir, |dir| write(dir, SECOND, b"")), &[SECOND, "at least 8"]),
    Case(
        "shard_that_the_index_does_not_name",
        |dir| sharded(dir, unnamed),
        &["model-00003-of-00002.safetensors", "is not named"],
    ),
    Case("tensor_absent_from_its_shard", |dir| map(dir, absent), &["\"a.b\"", FIRST, "does not hold it"]),
    Case("tensor_in_the_other_shard", |dir| map(dir, swapped), &["is said to be in", "it is in"]),
    Case("tensor_that_the_index_does_not_name", |dir| map(dir, unnamed_tensor), &["model.norm.weight", "not in weight_map"]),
    Case("tensor_in_two_shards", in_two_shards, &["is in two files", FIRST, SECOND]),
    Case("weight_map_missing", |dir| index(dir, b"{}"), &[INDEX, "weight_map is missing or no object"]),
    Case("weight_map_that_is_a_list", |dir| index(dir, br#"{"weight_map": []}"#), &[INDEX, "weight_map is missing or no object"]),
    Case("weight_map_empty", |dir| index(dir, br#"{"weight_map": {}}"#), &[INDEX, "weight_map is empty"]),
    Case(
        "index_with_a_key_twice",
        |dir| index(dir, br#"{"weight_map": {"a": "b", "a": "c"}}"#),
        &[INDEX, "\"a\" is there twice"],
    ),
    Case("index_that_is_no_json", |dir| index(dir, b"{\"weight_map\": {"), &[INDEX, "JSON"]),
    Case("index_that_is_nested", |dir| index(dir, "[".repeat(100_000).as_bytes()), &[INDEX, "recursion limit"]),
    Case("index_that_is_a_fifo", |dir| replaced(dir, INDEX, fifo), &[INDEX, "a FIFO"]),
    Case("index_above_100_mb", |dir| index(dir, &spaced(br#"{"weight_map": {}}"#, 100_000_001)), &[INDEX, "at most 100000000"]),
    Case("index_of_four_million_tensors", |dir| index(dir, &long_index()), &[INDEX, "more than 4000000 values"]),
];

const CONFIGS: &[Case] = &[
    Case("layers_a_billion", |dir| layers(dir, json!(1_000_000_000)), &["model.layers.2.", "no tensor"]),
    Case("layers_of_minus_one", |dir| layers(dir, json!(-1)), &["config.json: num_hidden_layers", "-1"]),
    Case("layers_a_fraction", |dir| layers(dir, json!(2.5)), &["config.json: num_hidden_layers", "2.5"]),
    Case("layers_a_string", |dir| layers(dir, json!("2")), &["config.json: num_hidden_layers", "\"2\""]),
    Case("layers_0", |dir| layers(dir, json!(0)), &["config.json: num_hidden_layers", "above 0"]),
    Case("layers_null", |dir| layers(dir, Value::Null), &["config.json has no num_hidden_layers"]),
    Case(
        "layers_beyond_64_bits",
        |dir| config_text(dir, "\"num_hidden_layers\":2", "\"num_hidden_layers\":1000000000000000000000"),
        &["config.json: num_hidden_layers"],
    ),
    Case(
        "number_of_1e999",
        |dir| config_text(dir, "\"num_hidden_layers\":2", "\"num_hidden_layers\":1e999"),
        &["config.json", "number out of range"],
    ),
    Case("heads_0", |dir| config(dir, "num_attention_heads", json!(0)), &["config.json: num_attention_heads", "above 0"]),
    Case("heads_that_do_not_divide", |dir| config(dir, "num_key_value_heads", json!(3)), &["config.json: num_key_value_heads"]),
    Case("hidden_size_2^63", |dir| config(dir, "hidden_size", json!(1u64 << 63)), &["config.json: hidden_size"]),
    Case(
        "vocabulary_below_the_rows",
        |dir| config(dir, "vocab_size", json!(100)),
        &["model.embed_tokens.weight", "[512, 64]", "[100, 64]"],
    ),
    Case(
        "vocabulary_above_the_rows",
        |dir| config(dir, "vocab_size", json!(5000)),
        &["model.embed_tokens.weight", "[512, 64]", "[5000, 64]"],
    ),
    Case("vocabulary_2^32-1", |dir| config(dir, "vocab_size", json!(u32::MAX)), &["model.embed_tokens.weight", "4294967295"]),
    Case("architectures_empty", |dir| config(dir, "architectures", json!([])), &["config.json", "architectures"]),
    Case("config_that_is_a_list", |dir| plain(dir, |dir| write(dir, "config.json", b"[]")), &["config.json"]),
    Case(
        "config_with_a_key_twice",
        |dir| config_text(dir, "{", "{\"vocab_size\":512,"),
        &["config.json", "\"vocab_size\" is there twice"],
    ),
    Case("config_nested_100000_deep", |dir| plain(dir, |dir| nested(dir, "config.json")), &["config.json", "recursion limit"]),
    Case(
        "config_of_arrays",
        |dir| plain(dir, |dir| write(dir, "config.json", &repeated("{\"a\":[", "[],", 20_000_000, "0]}"))),
        &["config.json"],
    ),
    Case(
        "config_above_64_mib",
        |dir| plain(dir, |dir| write(dir, "config.json", &spaced(b"{}", (64 << 20) + 1))),
        &["config.json", "at most"],
    ),
    Case("config_that_is_a_fifo", |dir| plain(dir, |dir| replace(dir, "config.json", fifo)), &["config.json", "a FIFO"]),
    Case(
        "config_that_is_dev_zero",
        |dir| plain(dir, |dir| replace(dir, "config.json", |path| link("/dev/zero", path))),
        &["config.json", "a device"],
    ),
    Case(
        "config_with_bytes_that_are_no_text",
        |dir| plain(dir, |dir| write(dir, "config.json", b"{\"a\":\"\xff\"}")),
        &["config.json", "UTF-8"],
    ),
];

pub fn trials() -> Vec<Trial> {
    let one = |group: &'static str, cases: &'static [Case]| {
        cases.iter().map(move |case| trial(format!("{group}::{}", case.0), || check(case.1, case.2)))
    };
    let mut trials: Vec<Trial> = one("index", INDEXES).chain(one("config", CONFIGS)).collect();
    trials.push(trial("links::hub_cache".to_owned(), hub_cache));
    trials.push(trial("links::hub_cache_to_another_repository".to_owned(), another_repository));
    trials.push(trial("links::followed_where_asked".to_owned(), follow));
    trials
}

/// `convert` accepts the model, or refuses it and writes nothing; what else reads it ends in order.
pub fn check(make: fn(&Path), words: &[&str]) -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    make(&model);
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    converted(&model, &out, &[], words)?;
    let (model, gguf) = (text(&model)?, fixture("tiny/llama/f32.gguf"));
    for args in [
        &["inspect", model][..],
        &["verify", text(&gguf)?, "--against", model, "--no-forward", "--no-report"],
        &["perplexity", model, "--chunks", "1", "--n-ctx", "64"],
    ] {
        let run = limited(args);
        let ended = matches!(run.code, Some(0..=2)) && !run.stderr.contains("panicked");
        demand(ended, || run.describe("exit code 0 to 2"))?;
    }
    Ok(())
}

/// What `convert` makes of a model, into an empty folder.
fn converted(model: &Path, out: &Path, more: &[&str], words: &[&str]) -> Result<(), String> {
    // Two types: of neither anything may be left.
    let args = ["convert", text(model)?, "--out", text(out)?, "--type", "F16", "--type", "Q8_0"];
    let run = limited(&[&args[..], more].concat());
    if words.is_empty() {
        judge(&run, &Good)?;
        return demand(outputs::ggufs(out).len() == 2, || format!("{:?}", outputs::names(out)));
    }
    judge(&run, &bad(words))?;
    demand(outputs::names(out).is_empty(), || format!("{:?} was left", outputs::names(out)))
}

/// Files are links into the repository's blobs.
fn cached(folder: &Path) -> std::path::PathBuf {
    let repository = folder.join("models--org--name");
    let (snapshot, blobs) = (repository.join("snapshots/0123abcd"), repository.join("blobs"));
    plain(&blobs, |_| {});
    fs::create_dir_all(&snapshot).unwrap();
    for name in outputs::names(&blobs) {
        link(&format!("../../blobs/{name}"), &snapshot.join(name));
    }
    snapshot
}

fn hub_cache() -> Result<(), String> {
    let folder = scratch();
    let out = folder.path().join("out");
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    converted(&cached(folder.path()), &out, &[], ACCEPTED)
}

fn another_repository() -> Result<(), String> {
    let folder = scratch();
    let out = folder.path().join("out");
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    let snapshot = cached(folder.path());
    plain(&folder.path().join("models--org--other"), |_| {});
    remove(&snapshot, "model.safetensors");
    link("../../../models--org--other/model.safetensors", &snapshot.join("model.safetensors"));
    converted(&snapshot, &out, &[], &["model.safetensors", "outside", "--follow-symlinks"])
}

fn follow() -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    linked_outside(&model);
    converted(&model, &out, &["--follow-symlinks"], ACCEPTED)
}

/// A model in one file, changed afterwards.
pub fn plain(dir: &Path, change: impl FnOnce(&Path)) {
    Checkpoint::load(&fixture("tiny/llama/hf")).write(dir);
    change(dir);
}

fn sharded(dir: &Path, change: impl FnOnce(&Path)) {
    Checkpoint::load(&fixture("tiny/llama/hf")).write_shards(dir, 2);
    change(dir);
}

/// A model in shards, whose weight_map is changed.
fn map(dir: &Path, change: impl FnOnce(&mut Value)) {
    sharded(dir, |dir| {
        let mut index = ggufsmith_tests::json(&dir.join(INDEX));
        change(&mut index["weight_map"]);
        write(dir, INDEX, index.to_string().as_bytes());
    });
}

/// The second shard under another name in the index.
fn second_shard(dir: &Path, name: &str) {
    map(dir, |map| {
        for shard in map.as_object_mut().unwrap().values_mut().filter(|shard| *shard == SECOND) {
            *shard = name.into();
        }
    });
}

fn index(dir: &Path, bytes: &[u8]) {
    sharded(dir, |dir| write(dir, INDEX, bytes));
}

fn replaced(dir: &Path, name: &str, by: impl FnOnce(&Path)) {
    sharded(dir, |dir| replace(dir, name, by));
}

pub fn replace(dir: &Path, name: &str, by: impl FnOnce(&Path)) {
    remove(dir, name);
    by(&dir.join(name));
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
}

pub fn write(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}

pub fn link(target: &str, path: &Path) {
    symlink(target, path).unwrap();
}

pub fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

pub fn nested(dir: &Path, name: &str) {
    write(dir, name, "{\"a\":".repeat(100_000).as_bytes());
}

/// `text` with spaces at its end, so many bytes in all.
pub fn spaced(text: &[u8], bytes: usize) -> Vec<u8> {
    let mut all = text.to_vec();
    all.resize(bytes, b' ');
    all
}

/// `part` many times between two others.
pub fn repeated(start: &str, part: &str, times: usize, end: &str) -> Vec<u8> {
    [start, &part.repeat(times), end].concat().into_bytes()
}

fn linked_outside(dir: &Path) {
    sharded(dir, |dir| {
        let outside = dir.parent().unwrap().join("elsewhere");
        fs::rename(dir.join(SECOND), &outside).unwrap();
        link("../elsewhere", &dir.join(SECOND));
    });
}

fn linked_inside(dir: &Path) {
    sharded(dir, |dir| {
        fs::create_dir(dir.join("store")).unwrap();
        fs::rename(dir.join(SECOND), dir.join("store/blob")).unwrap();
        link("store/blob", &dir.join(SECOND));
    });
}

fn unnamed(dir: &Path) {
    fs::copy(dir.join(SECOND), dir.join("model-00003-of-00002.safetensors")).unwrap();
}

fn absent(map: &mut Value) {
    map["a.b"] = FIRST.into();
}

fn swapped(map: &mut Value) {
    let shard = map["model.norm.weight"] == FIRST;
    map["model.norm.weight"] = if shard { SECOND } else { FIRST }.into();
}

fn unnamed_tensor(map: &mut Value) {
    map.as_object_mut().unwrap().remove("model.norm.weight").unwrap();
}

fn in_two_shards(dir: &Path) {
    sharded(dir, |dir| {
        let model = Checkpoint::load(&fixture("tiny/llama/hf"));
        let all: Vec<_> = model.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        write(dir, FIRST, &safetensors(&all));
    });
}

fn long_index() -> Vec<u8> {
    let entries: Vec<String> = (0..4_000_000).map(|i| format!("\"{i}\":\"{i}\"")).collect();
    format!("{{\"weight_map\":{{{}}}}}", entries.join(",")).into_bytes()
}

pub fn config(dir: &Path, key: &str, value: Value) {
    let mut model = Checkpoint::load(&fixture("tiny/llama/hf"));
    model.config[key] = value;
    model.write(dir);
}

fn layers(dir: &Path, value: Value) {
    config(dir, "num_hidden_layers", value);
}

/// What no JSON value can hold.
fn config_text(dir: &Path, from: &str, to: &str) {
    plain(dir, |dir| {
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(text.contains(from), "{text}");
        write(dir, "config.json", text.replacen(from, to, 1).as_bytes());
    });
}
