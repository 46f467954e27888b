//! GGUF files whose structure is sound and whose meaning is not: lengths and types that llama.cpp once read beyond, sizes that contradict
//! the tensors. `verify` names each defect; every other command does what it can or says why not, and nothing crashes.

use crate::{Verdict, demand, judge, limited, text, trial};
use ggufsmith_tests::binary::{Run, ggufsmith};
use ggufsmith_tests::gguf::{Entry, Gguf, Tensor};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is damaged.
#[derive(Clone, Copy)]
enum Base {
    /// A byte-level BPE vocabulary, F32.
    Bpe,
    /// A SentencePiece vocabulary, F32.
    Spm,
    /// As `Bpe`, in a quantized type.
    Typed(&'static str),
}

/// Name, what is damaged, how, and the words of the one finding.
struct Case(&'static str, Base, fn(&mut Gguf), &'static [&'static str]);

use Base::{Bpe, Spm, Typed};

/// Value types: of scalars, and of arrays of them.
const U8: u32 = 0;
const U16: u32 = 2;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
/// Tokens of both vocabularies.
const VOCAB: usize = 512;

const CASES: &[Case] = &[
    Case("tokens_missing", Bpe, |g| remove(g, TOKENS), &["the key tokenizer.ggml.tokens is missing"]),
    Case("tokens_that_are_numbers", Bpe, |g| array(g, TOKENS, I32, &[[7, 0, 0, 0]; VOCAB]), &[TOKENS, "[i32]", "[str]"]),
    Case("tokens_that_are_no_array", Bpe, |g| set(g, TOKENS, STRING, &text_of("a")), &[TOKENS, "type str"]),
    Case("tokens_fewer_than_embedding_rows", Bpe, fewer_tokens, &["token_embd.weight has the shape [512, 64]", "[511, 64]"]),
    Case("scores_as_u8", Spm, |g| array(g, SCORES, U8, &[[0]; VOCAB]), &[SCORES, "[u8]", "[f32]"]),
    Case("scores_that_are_strings", Spm, |g| array(g, SCORES, STRING, &[[0; 8]; VOCAB]), &[SCORES, "[str]", "[f32]"]),
    Case("scores_too_short", Spm, |g| array(g, SCORES, F32, &[[0; 4]; VOCAB - 1]), &[SCORES, "511 entries", "512"]),
    Case("scores_empty", Spm, |g| array::<4>(g, SCORES, F32, &[]), &[SCORES, "0 entries", "512"]),
    Case("scores_nan", Spm, |g| array(g, SCORES, F32, &[[0, 0, 0xc0, 0x7f]; VOCAB]), &[SCORES, "NaN"]),
    Case("token_type_as_u8", Spm, |g| array(g, TYPES, U8, &[[1]; VOCAB]), &[TYPES, "[u8]", "[i32]"]),
    Case("token_type_as_u32", Spm, |g| array(g, TYPES, U32, &[[1, 0, 0, 0]; VOCAB]), &[TYPES, "[u32]", "[i32]"]),
    Case("token_type_too_long", Bpe, |g| array(g, TYPES, I32, &[[1, 0, 0, 0]; VOCAB + 1]), &[TYPES, "513 entries", "512"]),
    Case("token_type_missing", Spm, |g| remove(g, TYPES), &["the key tokenizer.ggml.token_type is missing"]),
    Case("token_type_0", Bpe, |g| token_type(g, 9, 0), &["token_type holds 0 at token 9"]),
    Case("token_type_7", Bpe, |g| token_type(g, 9, 7), &["token_type holds 7 at token 9"]),
    Case("token_type_negative", Bpe, |g| token_type(g, 9, -1), &["token_type holds -1 at token 9"]),
    Case("merges_missing", Bpe, |g| remove(g, MERGES), &["the key tokenizer.ggml.merges is missing"]),
    Case("merges_that_are_numbers", Bpe, |g| array(g, MERGES, F32, &[[0; 4]; 9]), &[MERGES, "[f32]", "[str]"]),
    Case("merge_that_is_no_pair", Bpe, |g| g.set_strings(MERGES, &["ab".to_owned()]), &[MERGES, "\"ab\" at 0", "no pair"]),
    Case("byte_token_of_no_byte", Spm, |g| rename_byte(g, "<0x-1>"), &["<0x-1>", "is not <0x00> to <0xFF>"]),
    Case("byte_token_beyond_a_byte", Spm, |g| rename_byte(g, "<0x100>"), &["<0x100>", "is not <0x00> to <0xFF>"]),
    Case("byte_token_missing", Spm, |g| rename_byte(g, "<0x42>"), &["the 256 byte tokens are missing", "<0x41>"]),
    Case("token_twice", Bpe, twice, &["tokens 300 and 301 are both"]),
    Case("bos_beyond_the_vocabulary", Bpe, |g| number(g, "tokenizer.ggml.bos_token_id", 512), &["bos_token_id is 512"]),
    Case("eos_of_minus_one", Bpe, |g| number(g, "tokenizer.ggml.eos_token_id", u32::MAX), &["eos_token_id is 4294967295"]),
    Case("padding_as_i32", Bpe, |g| set(g, "tokenizer.ggml.padding_token_id", I32, &[1; 4]), &["padding_token_id", "i32", "u32"]),
    Case(
        "suppress_tokens_as_u8",
        Bpe,
        |g| array(g, "tokenizer.ggml.suppress_tokens", U8, &[[1]; 4]),
        &["suppress_tokens", "[u8]", "[i32]"],
    ),
    Case(
        "suppress_tokens_beyond_the_vocabulary",
        Bpe,
        |g| array(g, "tokenizer.ggml.suppress_tokens", I32, &[[0xff; 4]; 4]),
        &["suppress_tokens holds -1"],
    ),
    Case("charsmap_of_3_bytes", Spm, |g| array(g, CHARSMAP, U8, &[[1], [0], [0]]), &["precompiled_charsmap has 3 bytes"]),
    Case("charsmap_shorter_than_its_table", Spm, |g| array(g, CHARSMAP, U8, &[[255]; 8]), &["precompiled_charsmap has 8 bytes"]),
    Case("charsmap_that_is_a_string", Spm, |g| set(g, CHARSMAP, STRING, &text_of("abcd")), &[CHARSMAP, "str", "[u8]"]),
    Case("tokenizer_model_unknown", Bpe, |g| words(g, "tokenizer.ggml.model", "abacus"), &["tokenizer.ggml.model is \"abacus\""]),
    Case("tokenizer_model_missing", Bpe, |g| remove(g, "tokenizer.ggml.model"), &["tokenizer.ggml.model is missing"]),
    Case("chat_template_that_is_a_number", Bpe, |g| number(g, "tokenizer.chat_template", 3), &["chat_template", "u32", "str"]),
    Case("architecture_missing", Bpe, |g| remove(g, "general.architecture"), &["general.architecture is missing"]),
    Case("architecture_as_u32", Bpe, |g| number(g, "general.architecture", 3), &["general.architecture", "u32", "str"]),
    Case("architecture_unknown", Bpe, |g| words(g, "general.architecture", "lama"), &["lama.block_count is missing"]),
    Case("block_count_0", Bpe, |g| number(g, "llama.block_count", 0), &["llama.block_count is 0, llama.cpp takes 1 to 512"]),
    Case(
        "block_count_513",
        Bpe,
        |g| number(g, "llama.block_count", 513),
        &["llama.block_count is 513, llama.cpp takes 1 to 512"],
    ),
    Case("block_count_of_minus_one", Bpe, |g| number(g, "llama.block_count", u32::MAX), &["llama.block_count is 4294967295"]),
    Case(
        "block_count_above_the_tensors",
        Bpe,
        |g| number(g, "llama.block_count", 3),
        &["is 3, the highest block of a tensor is 1"],
    ),
    Case(
        "block_count_below_the_tensors",
        Bpe,
        |g| number(g, "llama.block_count", 1),
        &["is 1, the highest block of a tensor is 1"],
    ),
    Case("block_number_of_2^32-1", Bpe, |g| rename(g, "blk.1.ffn_up.weight", "blk.4294967295.ffn_up.weight"), &["4294967295"]),
    Case(
        "block_number_beyond_32_bits",
        Bpe,
        |g| rename(g, "blk.1.ffn_up.weight", "blk.99999999999.ffn_up.weight"),
        &["99999999999"],
    ),
    Case(
        "heads_that_do_not_divide",
        Bpe,
        |g| number(g, "llama.attention.head_count_kv", 3),
        &["head_count is 4, no multiple of", "3"],
    ),
    Case("heads_0", Bpe, |g| number(g, "llama.attention.head_count", 0), &["head_count 0"]),
    Case("heads_per_block_too_few", Bpe, heads_per_block, &["head_count_kv has 1 entries, block_count is 2"]),
    Case("embedding_length_0", Bpe, |g| number(g, "llama.embedding_length", 0), &["llama.embedding_length is 0"]),
    Case(
        "embedding_length_2^31",
        Bpe,
        |g| number(g, "llama.embedding_length", 1 << 31),
        &["has the shape [512, 64]", "2147483648"],
    ),
    Case("feed_forward_length_2^32-1", Bpe, |g| number(g, "llama.feed_forward_length", u32::MAX), &["blk.0.ffn_", "4294967295"]),
    Case("key_length_2^32-1", Bpe, huge_heads, &["has the shape"]),
    Case("context_length_0", Bpe, |g| number(g, "llama.context_length", 0), &["llama.context_length is 0"]),
    Case("context_length_missing", Bpe, |g| remove(g, "llama.context_length"), &["llama.context_length is missing"]),
    Case("vocab_size_of_another_vocabulary", Bpe, |g| number(g, "llama.vocab_size", 513), &["llama.vocab_size is 513", "512"]),
    Case(
        "rope_dimensions_above_the_head",
        Bpe,
        |g| number(g, "llama.rope.dimension_count", 32),
        &["dimension_count is 32", "16"],
    ),
    Case("rope_dimensions_odd", Bpe, |g| number(g, "llama.rope.dimension_count", 15), &["dimension_count is 15"]),
    Case("rope_base_nan", Bpe, |g| set(g, "llama.rope.freq_base", F32, &f32::NAN.to_le_bytes()), &["rope.freq_base is NaN"]),
    Case(
        "epsilon_negative",
        Bpe,
        |g| set(g, "llama.attention.layer_norm_rms_epsilon", F32, &(-1f32).to_le_bytes()),
        &["layer_norm_rms_epsilon is -1"],
    ),
    Case("rope_scaling_unknown", Bpe, |g| words(g, "llama.rope.scaling.type", "ntk"), &["rope.scaling.type is \"ntk\""]),
    Case("experts_of_which_more_are_used", Bpe, experts, &["expert_used_count is 9"]),
    Case("tensor_missing", Bpe, |g| rename_away(g, "blk.1.ffn_up.weight"), &["the tensor blk.1.ffn_up.weight is missing"]),
    Case("embedding_missing", Bpe, |g| rename_away(g, "token_embd.weight"), &["the tensor token_embd.weight is missing"]),
    Case(
        "tensor_unknown",
        Bpe,
        |g| copy(g, "output_norm.weight", "output_norm_2.weight"),
        &["output_norm_2.weight has no place"],
    ),
    Case("tensor_transposed", Bpe, |g| g.tensor("blk.1.ffn_up.weight").dims.reverse(), &["blk.1.ffn_up.weight has the shape"]),
    Case("tensor_of_one_dimension", Bpe, flat, &["blk.1.ffn_up.weight has the shape"]),
    Case("file_type_of_another_type", Bpe, |g| number(g, "general.file_type", 2), &["general.file_type is 2", "Q4_0", "F32"]),
    Case("file_type_undefined", Bpe, |g| number(g, "general.file_type", 999), &["general.file_type is 999"]),
    Case("file_type_as_string", Bpe, |g| words(g, "general.file_type", "F32"), &["general.file_type", "str", "u32"]),
    Case(
        "quantization_version_missing",
        Typed("Q8_0"),
        |g| remove(g, "general.quantization_version"),
        &["general.quantization_version is missing", "Q8_0"],
    ),
    Case(
        "quantization_version_1",
        Typed("Q8_0"),
        |g| number(g, "general.quantization_version", 1),
        &["general.quantization_version is 1"],
    ),
    Case("scale_nan", Typed("Q8_0"), |g| first_word(g, 0x7e00), &["blk.0.ffn_up.weight", "NaN"]),
    Case("scale_infinite", Typed("Q4_0"), |g| first_word(g, 0x7c00), &["blk.0.ffn_up.weight", "infinit"]),
    Case("weight_nan", Bpe, |g| last_bytes(g, f32::NAN), &["blk.0.ffn_up.weight", "NaN"]),
    Case("weight_infinite", Bpe, |g| last_bytes(g, f32::INFINITY), &["blk.0.ffn_up.weight", "infinit"]),
];

pub fn trials() -> Vec<Trial> {
    let one = |case: &'static Case| trial(format!("metadata::{}", case.0), || check(case));
    let mut trials: Vec<Trial> = CASES.iter().map(one).collect();
    trials.push(trial("metadata::what_is_damaged_is_sound".to_owned(), sound));
    for (name, key, kind, raw, words) in SHARDS {
        trials.push(trial(format!("metadata::{name}"), || shards(key, *kind, raw, words)));
    }
    trials
}

/// The model that a base was made from.
fn source(base: Base) -> PathBuf {
    fixture(if matches!(base, Spm) { "tiny/llama-spm/hf" } else { "tiny/llama/hf" })
}

/// Files that `convert` wrote once for all tests; `main` removes the folder.
pub static CONVERTED: OnceLock<Result<tempfile::TempDir, String>> = OnceLock::new();

fn file(base: Base) -> Result<PathBuf, String> {
    let Typed(file_type) = base else {
        return Ok(fixture(if matches!(base, Spm) { "tiny/llama-spm/f32.gguf" } else { "tiny/llama/f32.gguf" }));
    };
    let make = || {
        let folder = scratch();
        let (model, out) = (source(Bpe), folder.path().join("out"));
        std::fs::create_dir(&out).map_err(|e| e.to_string())?;
        let args = ["convert", text(&model)?, "--out", text(&out)?, "--type", "Q8_0,Q4_0", "--quiet", "--no-manifest"];
        ggufsmith(&args).ok()?;
        Ok(folder)
    };
    let folder = CONVERTED.get_or_init(make).as_ref().map_err(Clone::clone)?;
    outputs::of_type(&folder.path().join("out"), file_type)
}

fn check(Case(_, base, edit, words): &Case) -> Result<(), String> {
    let folder = scratch();
    let damaged = folder.path().join("damaged.gguf");
    let mut gguf = Gguf::load(&file(*base)?);
    edit(&mut gguf);
    gguf.write(&damaged);
    found(&damaged, &source(*base), words)?;
    others(&damaged, folder.path())
}

/// `verify` ends with exit code 1, and one of its findings has all the words.
fn found(damaged: &Path, source: &Path, words: &[&str]) -> Result<(), String> {
    let run = verify(damaged, source)?;
    let problems = problems(&run, 1)?;
    let one = problems.iter().any(|problem| words.iter().all(|word| problem.contains(word)));
    demand(one, || run.describe(&format!("a finding with {words:?}")))
}

fn verify(file: &Path, source: &Path) -> Result<Run, String> {
    Ok(limited(&["verify", text(file)?, "--against", text(source)?, "--no-forward", "--no-report", "--json", "--quiet"]))
}

/// All that a run of `verify` found.
fn problems(run: &Run, code: i32) -> Result<Vec<String>, String> {
    if run.code != Some(code) || run.stderr.contains("panicked") {
        return Err(run.describe(&format!("exit code {code}")));
    }
    let report: Value = serde_json::from_str(&run.stdout).map_err(|e| run.describe(&format!("JSON ({e})")))?;
    let checks = report["checks"].as_array().into_iter().flatten();
    let problems = checks.flat_map(|check| check["problems"].as_array().into_iter().flatten());
    Ok(problems.map(|problem| problem.as_str().unwrap_or_default().to_owned()).collect())
}

/// Every other command that reads the file: done or refused, and of a refusal nothing is left.
fn others(damaged: &Path, folder: &Path) -> Result<(), String> {
    let (quantized, exported) = (folder.join("quantized.gguf"), folder.join("exported"));
    let (damaged, quantized_at, exported_at) = (text(damaged)?, text(&quantized)?, text(&exported)?);
    judge(&limited(&["inspect", damaged]), &Verdict::Good)?;
    for args in [
        &["perplexity", damaged, "--chunks", "1", "--n-ctx", "64"][..],
        &["generate", damaged, "To be", "--max-tokens", "4"],
        &["quantize", "--allow-requantize", damaged, quantized_at, "Q4_0"],
        &["export", damaged, "--out", exported_at],
    ] {
        let run = limited(args);
        if !matches!(run.code, Some(0 | 2)) || run.stderr.contains("panicked") {
            return Err(run.describe("exit code 0 or 2"));
        }
        let refused = run.code == Some(2);
        let left = |path: &Path| path.is_file() || path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        let stray = refused && ((args[0] == "quantize" && left(&quantized)) || (args[0] == "export" && left(&exported)));
        demand(!stray, || run.describe("nothing written"))?;
    }
    Ok(())
}

/// Without the damage nothing is found: what is found otherwise is the damage.
fn sound() -> Result<(), String> {
    for base in [Bpe, Spm, Typed("Q8_0"), Typed("Q4_0")] {
        let folder = scratch();
        let copy = folder.path().join("copy.gguf");
        Gguf::load(&file(base)?).write(&copy);
        let run = verify(&copy, &source(base))?;
        let problems = problems(&run, 0)?;
        demand(problems.is_empty(), || format!("{problems:?}"))?;
        others(&copy, folder.path())?;
    }
    Ok(())
}

/// What the second of several shards says wrongly: name, key, type, value, words.
type Shard = (&'static str, &'static str, u32, &'static [u8], &'static [&'static str]);

const SHARDS: &[Shard] = &[
    ("split_no_of_another_shard", "split.no", U16, &[0, 0], &["the file name says shard 2", "the metadata says 1"]),
    ("split_no_beyond_the_count", "split.no", U16, &[9, 0], &["the file name says shard 2", "the metadata says 10"]),
    ("split_no_as_u32", "split.no", U32, &[1, 0, 0, 0], &["split.no", "u32", "u16"]),
    (
        "split_count_of_another_model",
        "split.count",
        U16,
        &[3, 0],
        &["the file name says shard 2 of 2", "the metadata says 2 of 3"],
    ),
    ("split_count_0", "split.count", U16, &[0, 0], &["00002-of-00002.gguf"]),
    ("split_tensors_count_of_another_model", "split.tensors.count", I32, &[7, 0, 0, 0], &["split.tensors.count says 7"]),
    ("split_tensors_count_negative", "split.tensors.count", I32, &[0xff; 4], &["split.tensors.count says -1"]),
];

/// A shard that contradicts its name or the others is refused by every command.
fn shards(key: &str, kind: u32, raw: &[u8], words: &[&str]) -> Result<(), String> {
    let folder = scratch();
    let model = source(Bpe);
    let args = ["convert", text(&model)?, "--out", text(folder.path())?, "--type", "F32", "--split-max-tensors", "10"];
    ggufsmith(&[&args[..], &["--quiet", "--no-manifest"]].concat()).ok()?;
    let files: Vec<PathBuf> = outputs::ggufs(folder.path()).into_values().collect();
    demand(files.len() > 1, || "one file is no model in shards".to_owned())?;
    judge(&limited(&["inspect", text(&files[0])?]), &Verdict::Good)?;
    let mut second = Gguf::load(&files[1]);
    set(&mut second, key, kind, raw);
    second.write(&files[1]);
    let bad = crate::bad(words);
    for file in [&files[0], &files[1]] {
        let path = text(file)?;
        judge(&limited(&["inspect", path]), &bad)?;
        judge(&limited(&["perplexity", path, "--chunks", "1", "--n-ctx", "64"]), &bad)?;
        judge(&limited(&["verify", path, "--against", text(&model)?, "--no-forward", "--no-report"]), &bad)?;
    }
    Ok(())
}

/// Give a key a value; it may be new.
fn set(gguf: &mut Gguf, key: &str, kind: u32, raw: &[u8]) {
    let raw = raw.to_vec();
    match gguf.entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => (entry.kind, entry.raw) = (kind, raw),
        None => gguf.entries.push(Entry { key: key.to_owned(), kind, raw }),
    }
}

fn number(gguf: &mut Gguf, key: &str, value: u32) {
    set(gguf, key, U32, &value.to_le_bytes());
}

fn text_of(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn words(gguf: &mut Gguf, key: &str, value: &str) {
    set(gguf, key, STRING, &text_of(value));
}

fn array<const N: usize>(gguf: &mut Gguf, key: &str, element: u32, elements: &[[u8; N]]) {
    let raw = [&element.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes(), elements.as_flattened()].concat();
    set(gguf, key, ARRAY, &raw);
}

fn remove(gguf: &mut Gguf, key: &str) {
    let before = gguf.entries.len();
    gguf.entries.retain(|entry| entry.key != key);
    assert_eq!(gguf.entries.len() + 1, before, "{key}");
}

fn fewer_tokens(gguf: &mut Gguf) {
    let mut tokens = gguf.strings(TOKENS);
    tokens.pop();
    gguf.set_strings(TOKENS, &tokens);
    let types = vec![[1, 0, 0, 0]; tokens.len()];
    array(gguf, TYPES, I32, &types);
    remove(gguf, "llama.vocab_size");
}

/// The type of one token; the array's head has 12 bytes.
fn token_type(gguf: &mut Gguf, token: usize, value: i32) {
    gguf.raw(TYPES)[12 + 4 * token..][..4].copy_from_slice(&value.to_le_bytes());
}

fn rename_byte(gguf: &mut Gguf, to: &str) {
    let mut tokens = gguf.strings(TOKENS);
    let at = tokens.iter().position(|token| token == "<0x41>").expect("a byte token");
    if let Some(other) = tokens.iter().position(|token| token == to) {
        tokens[other] = "<0x42> was here".to_owned();
        token_type(gguf, other, 1);
    }
    tokens[at] = to.to_owned();
    gguf.set_strings(TOKENS, &tokens);
}

fn twice(gguf: &mut Gguf) {
    let mut tokens = gguf.strings(TOKENS);
    tokens[301] = tokens[300].clone();
    gguf.set_strings(TOKENS, &tokens);
}

fn rename(gguf: &mut Gguf, from: &str, to: &str) {
    gguf.tensor(from).name = to.to_owned();
}

fn rename_away(gguf: &mut Gguf, name: &str) {
    gguf.tensor(name);
    gguf.tensors.retain(|tensor| tensor.name != name);
}

fn copy(gguf: &mut Gguf, from: &str, to: &str) {
    let copy = Tensor { name: to.to_owned(), ..gguf.tensor(from).clone() };
    gguf.tensors.push(copy);
}

fn flat(gguf: &mut Gguf) {
    let tensor = gguf.tensor("blk.1.ffn_up.weight");
    tensor.dims = vec![tensor.dims.iter().product()];
}

fn heads_per_block(gguf: &mut Gguf) {
    array(gguf, "llama.attention.head_count_kv", U32, &[[2, 0, 0, 0]]);
}

fn huge_heads(gguf: &mut Gguf) {
    let huge = u32::MAX - 1;
    for key in ["llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"] {
        number(gguf, key, huge);
    }
}

fn experts(gguf: &mut Gguf) {
    number(gguf, "llama.expert_count", 8);
    number(gguf, "llama.expert_used_count", 9);
}

/// The scale of the first block, F16.
fn first_word(gguf: &mut Gguf, word: u16) {
    gguf.tensor("blk.0.ffn_up.weight").bytes[..2].copy_from_slice(&word.to_le_bytes());
}

fn last_bytes(gguf: &mut Gguf, value: f32) {
    let bytes = &mut gguf.tensor("blk.0.ffn_up.weight").bytes;
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&value.to_le_bytes());
}
