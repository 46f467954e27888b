//! Files that are damaged in one way: the right check fails and names what is wrong, and no other check crashes over it.

use crate::{bard, check, convert, demand, plain, report, text};
use ggufsmith_tests::binary::{Run, ggufsmith};
use ggufsmith_tests::checkpoint::Checkpoint;
use ggufsmith_tests::gguf::Gguf;
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    vec![
        plain("sabotage::the_files_are_faithful_before", untouched),
        plain("sabotage::weights", weights),
        plain("sabotage::keys", keys),
        plain("sabotage::keys_of_other_families", keys_of_families),
        plain("sabotage::one_expert", one_expert),
        plain("sabotage::structure", structure),
        plain("sabotage::flipped_bits", flipped_bits),
        plain("sabotage::tokenizer", tokenizer),
        plain("sabotage::chat_template", chat_template),
    ]
}

/// What a file is damaged in, and what has to be said: in a check, each of the words.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Gguf), &'a [(&'a str, &'a [&'a str])]);

/// Where damaged files and their model lie.
struct Bench {
    folder: tempfile::TempDir,
    original: PathBuf,
    source: PathBuf,
}

impl Bench {
    fn bard(file_type: &str) -> Result<Self, String> {
        Ok(Bench { folder: scratch(), original: bard(file_type)?, source: fixture("bard") })
    }

    fn tiny() -> Self {
        Bench { folder: scratch(), original: fixture("tiny/llama/f32.gguf"), source: fixture("tiny/llama/hf") }
    }

    /// A file of a small model, in a folder that is to be kept.
    fn of(model: &str, file_type: &str) -> Result<(Self, tempfile::TempDir), String> {
        let (folder, source) = (scratch(), fixture(&format!("tiny/{model}/hf")));
        convert(&source, folder.path(), file_type)?;
        let original = outputs::of_type(folder.path(), file_type)?;
        Ok((Bench { folder: scratch(), original, source }, folder))
    }

    fn run(&self, damage: &dyn Fn(&mut Gguf), extra: &[&str]) -> Result<Run, String> {
        let path = self.folder.path().join("damaged.gguf");
        let mut file = Gguf::load(&self.original);
        damage(&mut file);
        file.write(&path);
        let args = ["verify", text(&path)?, "--against", text(&self.source)?, "--json", "--quiet", "--no-report"];
        Ok(ggufsmith(&[&args[..], extra].concat()))
    }

    fn verify(&self, damage: &dyn Fn(&mut Gguf)) -> Result<Run, String> {
        let eval = fixture("bard/eval.txt");
        self.run(damage, &["--text", text(&eval)?, "--n-ctx", "128", "--chunks", "1", "--no-latency"])
    }

    fn all(&self, cases: &[Case<'_>]) -> Result<(), String> {
        let failures: Vec<_> = cases.iter().filter_map(|case| self.one(case).err()).collect();
        demand(failures.is_empty(), || failures.join("\n\n"))
    }

    /// Exit code 1; each check that has to fails with its words in one of its problems, others pass or were named too.
    fn one(&self, (name, damage, expected): &Case<'_>) -> Result<(), String> {
        let run = self.verify(damage)?;
        let report = report(&run, 1).map_err(|e| format!("{name}: {e}"))?;
        demand(report["faithful"] == false && !run.stderr.is_empty(), || format!("{name}: called faithful"))?;
        for (check_name, words) in *expected {
            let check = check(&report, check_name)?;
            let problems = check["problems"].to_string();
            let missing = words.iter().find(|word| !problems.contains(**word));
            demand(check["status"] == "failed" && missing.is_none(), || format!("{name}: no {missing:?} in {check:#}"))?;
            // The run is quiet and writes no report: what was found is in the error.
            demand(run.stderr.contains(&format!("; {check_name}: ")), || format!("{name}: {}", run.stderr))?;
        }
        let unexpected = |check: &&Value| {
            let named = expected.iter().any(|(name, _)| check["name"] == *name);
            !named && check["status"] != "passed"
        };
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        demand(checks.len() == 4, || format!("{name}: {} checks", checks.len()))?;
        match checks.iter().find(unexpected) {
            Some(check) => Err(format!("{name}: nothing is wrong with what this checks: {check:#}")),
            None => Ok(()),
        }
    }
}

/// Taken apart and put together again it is the same file, and faithful: what cases show is their damage.
fn untouched() -> Result<(), String> {
    for bench in [Bench::bard("BF16")?, Bench::bard("Q8_0")?, Bench::bard("Q4_0")?, Bench::tiny()] {
        let report = report(&bench.verify(&|_| ())?, 0)?;
        let same = report["sha256"] == outputs::sha256(&bench.original).as_str();
        demand(same && report["faithful"] == true, || format!("{}: {}", bench.original.display(), report["verdict"]))?;
    }
    Ok(())
}

/// Rows of query heads back in the checkpoint's order: the two halves of a head behind each other instead of in pairs.
fn unpermute(file: &mut Gguf, name: &str, heads: usize) {
    let tensor = file.tensor(name);
    let rows = tensor.dims[1] as usize;
    let (row_bytes, half) = (tensor.bytes.len() / rows, rows / heads / 2);
    let row = |at: usize| tensor.bytes[at * row_bytes..(at + 1) * row_bytes].to_vec();
    let order = (0..heads).flat_map(|head| (0..2).flat_map(move |part| (0..half).map(move |i| head * 2 * half + 2 * i + part)));
    let bytes: Vec<u8> = order.flat_map(row).collect();
    tensor.bytes = bytes;
}

fn layer_names(layer: u32) -> Vec<String> {
    let kinds = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down", "attn_norm", "ffn_norm"];
    kinds.iter().map(|kind| format!("blk.{layer}.{kind}.weight")).collect()
}

fn weights() -> Result<(), String> {
    let names: Vec<String> = (0..4).map(|layer| format!("blk.{layer}.attn_q.weight")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let permutation = |file: &mut Gguf| names.iter().for_each(|name| unpermute(file, name, 4));
    let norm = |file: &mut Gguf| file.tensor("blk.2.ffn_norm.weight").bytes.fill(0);
    let layers = |file: &mut Gguf| {
        layer_names(1).iter().zip(layer_names(2)).for_each(|(a, b)| file.swap(a, &b));
    };
    let swapped: Vec<String> = [1, 2].into_iter().flat_map(layer_names).collect();
    let swapped: Vec<&str> = swapped.iter().map(String::as_str).filter(|name| !name.contains("norm")).collect();
    let not_a_number =
        |file: &mut Gguf| file.tensor("blk.1.attn_norm.weight").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let different: &[&str] = &["computes something else than the source", "the order of rows"];
    let cases: [Case<'_>; 4] = [
        ("permutation", &permutation, &[("tensors", &names), ("forward", different)]),
        ("norm", &norm, &[("tensors", &["blk.2.ffn_norm.weight", "all its values are 0"]), ("forward", different)]),
        ("layers", &layers, &[("tensors", &swapped), ("forward", different)]),
        ("NaN", &not_a_number, &[("tensors", &["blk.1.attn_norm.weight", "NaN"]), ("forward", &["finite"])]),
    ];
    Bench::bard("BF16")?.all(&cases)?;
    // Where the source at the file's precision is another one than the source.
    Bench::bard("Q4_0")?.all(&cases[..2])
}

/// Settings that no tensor shows: the forward pass has to.
fn keys() -> Result<(), String> {
    let set = |key: &'static str, value: f32| move |file: &mut Gguf| *file.raw(key) = value.to_le_bytes().to_vec();
    let rope = set("llama.rope.freq_base", 5000.0);
    let eps = set("llama.attention.layer_norm_rms_epsilon", 1e-2);
    let message: &[&str] = &["a key (rope, norm, head counts)"];
    let cases: [Case<'_>; 2] = [("rope", &rope, &[("forward", message)]), ("eps", &eps, &[("forward", message)])];
    for file_type in ["BF16", "Q8_0", "Q4_0"] {
        Bench::bard(file_type)?.all(&cases)?;
    }
    Ok(())
}

/// The same where the file's layout is another one than the source's: experts in one tensor, norms with one added, transposed matrices,
/// heads in groups. Their forward passes are compared as tightly.
fn keys_of_families() -> Result<(), String> {
    for (model, key, value) in [
        ("mixtral", "llama.rope.freq_base", 5000.0f32),
        ("qwen3moe", "qwen3moe.rope.freq_base", 5000.0),
        ("qwen2moe", "qwen2moe.rope.freq_base", 5000.0),
        ("olmoe", "olmoe.rope.freq_base", 5000.0),
        ("gemma", "gemma.attention.layer_norm_rms_epsilon", 0.3),
        ("gemma2", "gemma2.attention.layer_norm_rms_epsilon", 0.3),
        ("gemma3", "gemma3.rope.freq_base", 5000.0),
        ("gpt2", "gpt2.attention.layer_norm_epsilon", 1e-2),
        ("falcon", "falcon.attention.layer_norm_epsilon", 1e-2),
        ("falcon-11b", "falcon.attention.layer_norm_epsilon", 1e-2),
        ("stablelm-12b", "stablelm.attention.layer_norm_epsilon", 1e-2),
        ("gptneox", "gptneox.attention.layer_norm_epsilon", 1e-2),
        ("phi3", "phi3.rope.freq_base", 50.0),
    ] {
        for file_type in ["F32", "Q8_0"] {
            let (bench, _folder) = Bench::of(model, file_type)?;
            let damage = |file: &mut Gguf| *file.raw(key) = value.to_le_bytes().to_vec();
            let found = report(&bench.verify(&damage)?, 1).map_err(|e| format!("{model} {file_type}: {e}"))?;
            let (forward, tensors) = (check(&found, "forward")?, check(&found, "tensors")?);
            let told = forward["status"] == "failed" && forward["problems"].to_string().contains("a key (rope, norm");
            demand(told && tensors["status"] == "passed", || format!("{model} {file_type}: {forward:#} {tensors:#}"))?;
            // What fails is the damage.
            let untouched =
                check(&report(&bench.verify(&|_| ())?, if other_tokenizer(model) { 1 } else { 0 })?, "forward")?.clone();
            demand(untouched["status"] == "passed", || format!("{model} {file_type}: {untouched:#}"))?;
        }
    }
    Ok(())
}

/// The fixtures name Llama's tokenizer class; verify says that it is another one than llama.cpp's.
fn other_tokenizer(model: &str) -> bool {
    model.starts_with("gemma") || model.starts_with("phi3")
}

/// One of four experts is some percent too large.
fn one_expert() -> Result<(), String> {
    const NAME: &str = "blk.1.ffn_down_exps.weight";
    for (model, file_type) in
        [("mixtral", "F32"), ("mixtral", "Q8_0"), ("qwen2moe", "Q8_0"), ("qwen3moe", "Q8_0"), ("olmoe", "Q8_0")]
    {
        let (bench, _folder) = Bench::of(model, file_type)?;
        let quantized = file_type == "Q8_0";
        let damage = |file: &mut Gguf| {
            let tensor = file.tensor(NAME);
            assert_eq!((tensor.kind == 8, tensor.dims[2]), (quantized, 4));
            let expert = tensor.bytes.len() / 4;
            if quantized {
                // An F16 in front of each block; 150 units of its last place are 7 to 15 percent.
                tensor.bytes[expert..2 * expert].chunks_exact_mut(34).for_each(|block| {
                    let scale = u16::from_le_bytes([block[0], block[1]]);
                    block[..2].copy_from_slice(&(scale + 150).to_le_bytes());
                });
            } else {
                tensor.bytes[expert..2 * expert].as_chunks_mut::<4>().0.iter_mut().for_each(|word| {
                    *word = (f32::from_le_bytes(*word) * 1.2).to_le_bytes();
                });
            }
        };
        let found = report(&bench.verify(&damage)?, 1).map_err(|e| format!("{model}: {e}"))?;
        let (tensors, forward) = (check(&found, "tensors")?, check(&found, "forward")?);
        let named = tensors["status"] == "failed" && tensors["problems"].to_string().contains(NAME);
        demand(named && forward["status"] == "failed", || format!("{model} {file_type}: {tensors:#} {forward:#}"))?;
    }
    Ok(())
}

fn structure() -> Result<(), String> {
    let heads = |file: &mut Gguf| *file.raw("llama.attention.head_count_kv") = 4u32.to_le_bytes().to_vec();
    let lost = |file: &mut Gguf| file.tensors.retain(|tensor| !tensor.name.starts_with("blk.3."));
    let cut = |file: &mut Gguf| {
        lost(file);
        *file.raw("llama.block_count") = 3u32.to_le_bytes().to_vec();
    };
    let missing = layer_names(3);
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    Bench::bard("Q8_0")?.all(&[
        ("head_count_kv", &heads, &[("structure", &["blk.0.attn_k.weight"]), ("forward", &["blk.0.attn_k.weight"])]),
        (
            "a layer is missing",
            &lost,
            &[("structure", &["blk.3.attn_norm.weight", "and 5 more"]), ("tensors", &missing), ("forward", &["blk.3."])],
        ),
        ("a layer is cut off", &cut, &[("tensors", &missing), ("forward", &["layers = 3", "the source has 4"])]),
    ])?;
    // Without head counts there is nothing that could be computed; that is not to be told twice.
    let no_heads = |file: &mut Gguf| file.remove_key("llama.attention.head_count");
    let found = report(&Bench::bard("Q8_0")?.verify(&no_heads)?, 1)?;
    let (structure, forward) = (check(&found, "structure")?, check(&found, "forward")?);
    let named = |check: &Value| check.to_string().contains("llama.attention.head_count");
    demand(structure["status"] == "failed" && forward["status"] == "skipped" && named(structure) && named(forward), || {
        format!("{structure:#} {forward:#}")
    })
}

/// Every bit of one block's scale, an F16 in front of the block.
fn flipped_bits() -> Result<(), String> {
    const NAME: &str = "blk.1.ffn_up.weight";
    for (file_type, block) in [("Q8_0", 34), ("Q4_0", 18)] {
        let bench = Bench::bard(file_type)?;
        for bit in 0..16 {
            let damage = |file: &mut Gguf| file.tensor(NAME).bytes[100 * block + bit / 8] ^= 1 << (bit % 8);
            let report = report(&bench.run(&damage, &["--no-forward"])?, 1)?;
            let check = check(&report, "tensors")?;
            let tensors = report["tensors"].as_array().cloned().unwrap_or_default();
            let verdict = tensors.iter().find(|tensor| tensor["name"] == NAME).map(|tensor| tensor["verdict"].clone());
            let named = check["problems"].to_string().contains(NAME);
            let others = check["summary"].to_string().contains("37 of 38 tensors are exact");
            demand(named && others && verdict == Some("wrong".into()), || {
                format!("{file_type}, bit {bit}: {verdict:?} {check:#}")
            })?;
        }
    }
    Ok(())
}

fn tokenizer() -> Result<(), String> {
    let merge = |file: &mut Gguf| {
        let mut merges = file.strings("tokenizer.ggml.merges");
        merges.pop();
        file.set_strings("tokenizer.ggml.merges", &merges);
    };
    let bench = Bench::tiny();
    let removed = Gguf::load(&bench.original).strings("tokenizer.ggml.merges").pop().unwrap_or_default();
    bench.all(&[("merge", &merge, &[("tokenizer", &["tokenizer.ggml.merges", &removed])])])?;
    // No text of the check needs it: the keys alone tell.
    let found = report(&bench.verify(&merge)?, 1)?;
    let problems = check(&found, "tokenizer")?["problems"].as_array().cloned().unwrap_or_default();
    demand(problems.len() == 1, || format!("{problems:?}"))?;

    let swap = |file: &mut Gguf| {
        let mut tokens = file.strings("tokenizer.ggml.tokens");
        tokens.swap(300, 301);
        file.set_strings("tokenizer.ggml.tokens", &tokens);
    };
    let no_bos = |file: &mut Gguf| *file.raw("tokenizer.ggml.add_bos_token") = vec![0];
    let swapped: Case<'_> = ("two tokens", &swap, &[("tokenizer", &["tokens 300 (", "and 301 (", "tokenizer.ggml.tokens"])]);
    bench.all(&[swapped])?;
    Bench::bard("Q8_0")?.all(&[swapped, ("no BOS", &no_bos, &[("tokenizer", &["tokenizer.ggml.add_bos_token"])])])
}

fn chat_template() -> Result<(), String> {
    let folder = scratch();
    let source = folder.path().join("hf");
    let mut model = Checkpoint::load(&fixture("tiny/llama/hf"));
    let config = model.files.get_mut("tokenizer_config.json").ok_or("no tokenizer_config.json")?;
    let mut json: Value = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    json["chat_template"] = "{% for message in messages %}{{ message['content'] }}{% endfor %}".into();
    *config = json.to_string().into_bytes();
    model.write(&source);
    convert(&source, folder.path(), "F32")?;
    let bench = Bench { folder: scratch(), original: outputs::of_type(folder.path(), "F32")?, source };
    report(&bench.verify(&|_| ())?, 0)?;
    let lost = |file: &mut Gguf| file.remove_key("tokenizer.chat_template");
    bench.all(&[("chat template", &lost, &[("tokenizer", &["tokenizer.chat_template"])])])
}
