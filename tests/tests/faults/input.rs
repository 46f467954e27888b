//! Models and wishes that are wrong in one way each. Every message names the file or tensor and says what to do.

use crate::{plain, refused};
use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::checkpoint::{Checkpoint, Tensor};
use ggufsmith_tests::{fixture, outputs, scratch};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::path::Path;

/// A wrong model directory: its name, what makes it wrong, and what the message must say.
struct Case {
    name: &'static str,
    /// Writes the model; the folder does not exist yet.
    make: fn(&Path),
    /// Arguments beside the source, `--out` and `--type F16`.
    extra: &'static [&'static str],
    words: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { name: "directory_missing", make: |_| {}, extra: &[], words: &["there is no directory"] },
    Case {
        name: "config_missing",
        make: |dir| edit(dir, |_| {}, |dir| remove(dir, "config.json")),
        extra: &[],
        words: &["config.json"],
    },
    Case {
        name: "config_not_json",
        make: |dir| edit(dir, |_| {}, |dir| write(dir, "config.json", b"{\"architectures\": [\"LlamaForCausalLM\",")),
        extra: &[],
        words: &["config.json", "JSON"],
    },
    Case {
        name: "config_without_architecture",
        make: |dir| edit_config(dir, |config| drop(config.remove("architectures"))),
        extra: &[],
        words: &["config.json", "architectures"],
    },
    Case {
        name: "architecture_unknown",
        make: |dir| edit_config(dir, |config| set(config, "architectures", serde_json::json!(["LlamoForCausalLM"]))),
        extra: &[],
        words: &["LlamoForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "CONTRIBUTING"],
    },
    Case {
        name: "config_key_of_wrong_type",
        make: |dir| edit_config(dir, |config| set(config, "hidden_size", "many".into())),
        extra: &[],
        words: &["hidden_size", "config.json"],
    },
    Case {
        name: "config_key_missing",
        make: |dir| edit_config(dir, |config| drop(config.remove("num_hidden_layers").and(config.remove("n_layers")))),
        extra: &[],
        // The default of 32 layers then asks for tensors that are not there.
        words: &["model.layers.2."],
    },
    Case {
        name: "tensor_maps_to_nothing",
        make: |dir| edit(dir, |c| rename(c, "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.upp_proj.weight"), |_| {}),
        extra: &[],
        words: &["model.layers.1.mlp.upp_proj.weight"],
    },
    Case {
        name: "tensor_of_a_layer_too_many",
        make: |dir| {
            edit(dir, |c| copy(c, "model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"), |_| {});
        },
        extra: &[],
        words: &["model.layers.2.mlp.up_proj.weight"],
    },
    Case {
        name: "tensor_missing",
        make: |dir| edit(dir, |c| drop(c.tensors.remove("model.layers.1.self_attn.k_proj.weight")), |_| {}),
        extra: &[],
        words: &["layers.1.self_attn.k_proj.weight"],
    },
    Case {
        name: "tensor_of_wrong_shape",
        make: |dir| edit(dir, |c| of(c, "model.layers.0.self_attn.q_proj.weight").shape = vec![32, 128], |_| {}),
        extra: &[],
        words: &["model.layers.0.self_attn.q_proj.weight", "[32, 128]", "[64, 64]"],
    },
    Case {
        name: "tensor_twice_across_shards",
        make: |dir| {
            let checkpoint = Checkpoint::load(&fixture("tiny/llama/hf"));
            checkpoint.write_shards(dir, 2);
            // Both shards hold everything; the index says otherwise.
            let all: Vec<_> = checkpoint.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
                write(dir, shard, &ggufsmith_tests::checkpoint::safetensors(&all));
            }
        },
        extra: &[],
        words: &["model-00001-of-00002", "model-00002-of-00002", "model.embed_tokens.weight"],
    },
    Case {
        name: "shard_missing",
        make: |dir| {
            Checkpoint::load(&fixture("tiny/llama/hf")).write_shards(dir, 3);
            remove(dir, "model-00002-of-00003.safetensors");
        },
        extra: &[],
        words: &["model-00002-of-00003.safetensors"],
    },
    Case {
        name: "index_names_a_file_outside",
        make: |dir| {
            Checkpoint::load(&fixture("tiny/llama/hf")).write_shards(dir, 2);
            let index = std::fs::read_to_string(dir.join("model.safetensors.index.json")).unwrap();
            let hostile = index.replace("model-00002-of-00002", "../model-00002-of-00002");
            write(dir, "model.safetensors.index.json", hostile.as_bytes());
        },
        extra: &[],
        words: &["../model-00002-of-00002.safetensors"],
    },
    Case {
        name: "weights_missing",
        make: |dir| edit(dir, |_| {}, |dir| remove(dir, "model.safetensors")),
        extra: &[],
        words: &["safetensors"],
    },
    Case {
        name: "weights_truncated",
        make: |dir| edit(dir, |_| {}, |dir| cut(dir, "model.safetensors", 1000)),
        extra: &[],
        words: &["model.safetensors"],
    },
    Case {
        name: "weights_header_too_long",
        make: |dir| edit(dir, |_| {}, |dir| write(dir, "model.safetensors", &[0xff; 64])),
        extra: &[],
        words: &["model.safetensors", "header"],
    },
    Case {
        name: "weights_of_an_unknown_type",
        make: |dir| {
            edit(
                dir,
                |c| {
                    let tensor = of(c, "model.norm.weight");
                    tensor.dtype = "F8_E8M0".to_owned();
                    tensor.bytes.truncate(64);
                },
                |_| {},
            );
        },
        extra: &[],
        words: &["model.norm.weight", "F8_E8M0"],
    },
    Case {
        name: "weights_unreadable",
        // A file that can be opened and not read, even by root.
        make: |dir| {
            edit(
                dir,
                |_| {},
                |dir| {
                    remove(dir, "model.safetensors");
                    std::fs::create_dir(dir.join("model.safetensors")).unwrap();
                },
            );
        },
        extra: &[],
        words: &["model.safetensors"],
    },
    Case {
        name: "weights_are_pickled",
        make: |dir| {
            edit(
                dir,
                |_| {},
                |dir| {
                    remove(dir, "model.safetensors");
                    write(dir, "pytorch_model.bin", b"PK\x03\x04");
                },
            );
        },
        extra: &[],
        words: &["pytorch_model.bin", "safetensors"],
    },
    Case {
        name: "tokenizer_missing",
        make: |dir| edit(dir, |_| {}, |dir| remove(dir, "tokenizer.json")),
        extra: &[],
        words: &["tokenizer.json"],
    },
    Case {
        name: "tokenizer_not_json",
        make: |dir| edit(dir, |_| {}, |dir| cut(dir, "tokenizer.json", 5000)),
        extra: &[],
        words: &["tokenizer.json"],
    },
    Case {
        name: "vocabulary_larger_than_the_embedding",
        make: |dir| {
            edit(
                dir,
                |c| {
                    set(c.config.as_object_mut().unwrap(), "vocab_size", 400.into());
                    for tensor in c.tensors.values_mut().filter(|tensor| tensor.shape[0] == 512) {
                        tensor.bytes.truncate(tensor.bytes.len() / 512 * 400);
                        tensor.shape[0] = 400;
                    }
                },
                |_| {},
            );
        },
        extra: &[],
        words: &["tokenizer.json", "vocab_size is 400", "the embedding has no row"],
    },
    Case {
        name: "pieces_more_than_the_embedding",
        make: |dir| {
            let mut checkpoint = Checkpoint::load(&fixture("tiny/llama-spm/hf"));
            set(checkpoint.config.as_object_mut().unwrap(), "vocab_size", 400.into());
            for tensor in checkpoint.tensors.values_mut().filter(|tensor| tensor.shape[0] == 512) {
                tensor.bytes.truncate(tensor.bytes.len() / 512 * 400);
                tensor.shape[0] = 400;
            }
            checkpoint.write(dir);
        },
        extra: &[],
        words: &["tokenizer.model", "vocab_size is 400", "the embedding has no row"],
    },
    Case {
        name: "experts_incomplete",
        make: |dir| {
            let mut checkpoint = Checkpoint::load(&fixture("tiny/mixtral/hf"));
            checkpoint.tensors.remove("model.layers.1.block_sparse_moe.experts.2.w1.weight");
            checkpoint.write(dir);
        },
        extra: &[],
        words: &["model.layers.1.block_sparse_moe.experts.2.w1.weight"],
    },
    Case {
        name: "config_key_of_another_family",
        make: |dir| edit_config(dir, |config| set(config, "final_logit_softcapping", 30.0.into())),
        extra: &[],
        words: &["final_logit_softcapping"],
    },
    Case {
        name: "pre_tokenizer_unknown",
        make: |dir| edit(dir, |_| {}, |_| {}),
        extra: &["--pre", "gpt-3"],
        words: &["gpt-3", "gpt-2"],
    },
    Case {
        name: "weight_is_nan",
        make: |dir| edit(dir, |c| c.set_bf16("model.layers.1.mlp.down_proj.weight", 130, 0x7fc0), |_| {}),
        extra: &[],
        words: &["ffn_down", "--allow-nonfinite"],
    },
    Case {
        name: "weight_is_infinite",
        make: |dir| edit(dir, |c| c.set_bf16("model.layers.1.input_layernorm.weight", 0, 0xff80), |_| {}),
        extra: &[],
        words: &["attn_norm", "--allow-nonfinite"],
    },
    Case {
        name: "weight_beyond_f16",
        // 131,072: finite in BF16 and F32.
        make: |dir| edit(dir, |c| c.set_bf16("model.layers.0.mlp.up_proj.weight", 7, 0x4800), |_| {}),
        extra: &[],
        words: &["ffn_up", "F16", "--allow-nonfinite"],
    },
    Case { name: "type_unknown", make: |dir| edit(dir, |_| {}, |_| {}), extra: &["--type", "Q4_9"], words: &["Q4_9", "Q4_0"] },
    Case {
        name: "metadata_file_missing",
        make: |dir| edit(dir, |_| {}, |_| {}),
        extra: &["--metadata", "no-such-file.json"],
        words: &["no-such-file.json"],
    },
];

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> =
        CASES.iter().map(|case| Trial::test(format!("input::{}", case.name), || check(case).map_err(Failed::from))).collect();
    trials.extend([
        plain("input::nonfinite_weights_are_counted_where_allowed", allowed),
        plain("input::an_output_that_exists_is_kept", exists),
        plain("input::an_output_never_replaces_an_input", replaces_input),
        plain("input::a_single_file_is_no_model", single_file),
        plain("input::no_type", no_type),
        plain("input::out_directory_missing", out_missing),
    ]);
    trials
}

fn check(case: &Case) -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    (case.make)(&model);
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    let (source, target) = (model.to_string_lossy(), out.to_string_lossy());
    // Two types: none of them may appear when one fails.
    let mut args = vec!["convert", &source, "--out", &target, "--type", "F16", "--type", "Q8_0"];
    args.extend(case.extra);
    refused(&ggufsmith(&args), case.words)?;
    match outputs::names(&out) {
        names if names.is_empty() => Ok(()),
        names => Err(format!("{names:?} was left behind")),
    }
}

fn edit(dir: &Path, change: impl FnOnce(&mut Checkpoint), after: impl FnOnce(&Path)) {
    let mut checkpoint = Checkpoint::load(&fixture("tiny/llama/hf"));
    change(&mut checkpoint);
    checkpoint.write(dir);
    after(dir);
}

fn edit_config(dir: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    edit(dir, |checkpoint| change(checkpoint.config.as_object_mut().unwrap()), |_| {});
}

fn set(config: &mut serde_json::Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn of<'a>(checkpoint: &'a mut Checkpoint, name: &str) -> &'a mut Tensor {
    checkpoint.tensors.get_mut(name).unwrap()
}

fn rename(checkpoint: &mut Checkpoint, from: &str, to: &str) {
    let tensor = checkpoint.tensors.remove(from).unwrap();
    checkpoint.tensors.insert(to.to_owned(), tensor);
}

fn copy(checkpoint: &mut Checkpoint, from: &str, to: &str) {
    let tensor = checkpoint.tensors[from].clone();
    checkpoint.tensors.insert(to.to_owned(), tensor);
}

fn remove(dir: &Path, name: &str) {
    std::fs::remove_file(dir.join(name)).unwrap();
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

fn cut(dir: &Path, name: &str, bytes: usize) {
    let all = std::fs::read(dir.join(name)).unwrap();
    write(dir, name, &all[..all.len() - bytes]);
}

/// One NaN, one infinity, and two values that F16 cannot hold, in F16 and BF16.
fn allowed() -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    edit(
        &model,
        |c| {
            c.set_bf16("model.layers.1.mlp.down_proj.weight", 130, 0x7fc0);
            c.set_bf16("model.layers.1.input_layernorm.weight", 0, 0xff80);
            c.set_bf16("model.layers.0.mlp.up_proj.weight", 7, 0x4800);
            c.set_bf16("model.layers.0.mlp.up_proj.weight", 900, 0xc800);
        },
        |_| {},
    );
    let (source, target) = (model.to_string_lossy(), out.to_string_lossy());
    let run = ggufsmith(&["convert", &source, "--out", &target, "--type", "F16,BF16", "--allow-nonfinite", "--json"]);
    let summary = run.json()?;
    let counts = |file_type: Value| -> u64 {
        let all = summary["nonfinite"].as_array().into_iter().flatten();
        all.filter(|entry| entry["type"] == file_type).filter_map(|entry| entry["count"].as_u64()).sum()
    };
    let found = (counts(Value::Null), counts("F16".into()), counts("BF16".into()));
    if found == (2, 2, 0) { Ok(()) } else { Err(run.describe(&format!("counts of 2, 2 and 0, not {found:?}"))) }
}

fn exists() -> Result<(), String> {
    let out = scratch();
    let (source, target) = (fixture("bard").to_string_lossy().into_owned(), out.path().to_string_lossy().into_owned());
    let args = ["convert", &source, "--out", &target, "--type", "Q8_0"];
    ggufsmith(&args).ok()?;
    let path = outputs::of_type(out.path(), "Q8_0")?;
    std::fs::write(&path, "old").map_err(|e| e.to_string())?;
    let before = outputs::names(out.path());
    // One of two outputs exists: neither is written.
    let run = ggufsmith(&[&args[..], &["--type", "F16"]].concat());
    refused(&run, &[&path.file_name().unwrap_or_default().to_string_lossy(), "exists", "--force"])?;
    let unchanged = std::fs::read(&path).is_ok_and(|bytes| bytes == b"old") && outputs::names(out.path()) == before;
    if !unchanged {
        return Err(run.describe("the old file and no other"));
    }
    ggufsmith(&[&args[..], &["--force"]].concat()).ok()?;
    let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
    if bytes.starts_with(b"GGUF") { Ok(()) } else { Err("--force did not overwrite it".to_owned()) }
}

fn replaces_input() -> Result<(), String> {
    let folder = scratch();
    let model = folder.path().join("hf");
    edit(&model, |_| {}, |_| {});
    let weights = model.join("model.safetensors");
    let before = outputs::sha256(&weights);
    let (source, target) = (model.to_string_lossy(), weights.to_string_lossy());
    let run = ggufsmith(&["convert", &source, "--out", &target, "--type", "Q8_0", "--force"]);
    refused(&run, &["model.safetensors", "input"])?;
    if outputs::sha256(&weights) == before { Ok(()) } else { Err("the weights were overwritten".to_owned()) }
}

fn single_file() -> Result<(), String> {
    let weights = fixture("bard/model.safetensors").to_string_lossy().into_owned();
    refused(&ggufsmith(&["convert", &weights, "--type", "Q8_0"]), &["model.safetensors", "directory"])
}

fn no_type() -> Result<(), String> {
    refused(&ggufsmith(&["convert", &fixture("bard").to_string_lossy()]), &["--type", "Q8_0", "Q4_0"])
}

fn out_missing() -> Result<(), String> {
    let out = scratch();
    let missing = out.path().join("no/such/folder/x.gguf");
    let (source, target) = (fixture("bard"), missing.to_string_lossy().into_owned());
    refused(&ggufsmith(&["convert", &source.to_string_lossy(), "--out", &target, "--type", "Q8_0"]), &["no/such/folder"])
}
