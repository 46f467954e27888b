//! The file by its own metadata: good files, and files with one thing wrong.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{Edit, convert, convert_with, fixture};
use ggufsmith_convert::plan::Via;
use ggufsmith_core::formats;
use ggufsmith_gguf::{Array, Limits, Metadata, Shards, SplitLimits, Value};
use ggufsmith_verify::report::{Check, Status};
use ggufsmith_verify::structure;
use std::path::Path;

fn check(file: &Path) -> Check {
    structure::check(&Shards::open(file, &Limits::default()).unwrap())
}

#[test]
fn good_files_pass() {
    for name in ["llama", "llama-256", "llama3-rope", "llama-spm", "mistral"] {
        let found = check(&fixture(&format!("tiny/{name}/f32.gguf")));
        assert_eq!((found.status, found.problems), (Status::Passed, vec![]), "{name}");
    }
    for model in ["bard", "tiny/llama/hf", "tiny/llama3-rope/hf"] {
        let types = common::plain_types(model);
        let (_out, files) = convert_with(model, &types, Via::Auto, SplitLimits::default());
        for file in files {
            let found = check(&file);
            assert_eq!((found.status, found.problems), (Status::Passed, vec![]), "{}", file.display());
        }
    }
    let (_out, shards) = convert_with("bard", &["Q4_0"], Via::Auto, SplitLimits { max_tensors: 10, ..Default::default() });
    assert_eq!(check(&shards[2]).status, Status::Passed);
}

/// A bard changed by `edit`; the one finding must have all the words, and without the edit there is none.
fn sabotage(file_type: &str, edit: impl FnOnce(&mut Edit), words: &[&str]) {
    let (out, file) = convert("bard", file_type);
    let mut gguf = Edit::read(&file);
    let bad = out.path().join("bad.gguf");
    gguf.write(&bad);
    assert_eq!(check(&bad).status, Status::Passed);
    edit(&mut gguf);
    gguf.write(&bad);
    let found = check(&bad);
    assert_eq!((found.status, found.problems.len()), (Status::Failed, 1), "{words:?}: {found:#?}");
    for word in words {
        assert!(found.problems[0].contains(word), "{word:?} is not in {:?}", found.problems[0]);
    }
}

fn keys(edit: impl FnOnce(&mut Metadata), words: &[&str]) {
    sabotage("Q8_0", |gguf| edit(&mut gguf.metadata), words);
}

#[test]
fn hyper_parameters() {
    keys(|m| _ = m.remove("llama.context_length"), &["llama.context_length is missing"]);
    keys(|m| _ = m.remove("llama.attention.layer_norm_rms_epsilon"), &["llama.attention.layer_norm_rms_epsilon is missing"]);
    keys(|m| m.set("llama.context_length", 256i32), &["llama.context_length", "i32", "u32"]);
    keys(|m| m.set("llama.rope.freq_base", 10000u32), &["llama.rope.freq_base", "u32", "f32"]);
    keys(|m| m.set("llama.rope.freq_base", f32::NAN), &["llama.rope.freq_base is NaN"]);
    keys(|m| m.set("llama.attention.layer_norm_rms_epsilon", 0f32), &["llama.attention.layer_norm_rms_epsilon is 0"]);
    keys(|m| m.set("llama.rope.scaling.type", "ntk"), &["llama.rope.scaling.type", "ntk", "longrope"]);
    keys(|m| m.set("llama.attention.head_count_kv", 3u32), &["llama.attention.head_count is 4", "head_count_kv", "3"]);
    keys(|m| m.set("llama.attention.head_count_kv", vec![2u32, 2, 2]), &["head_count_kv has 3 entries, block_count is 4"]);
    keys(|m| m.set("llama.attention.head_count_kv", vec![2f32; 4]), &["head_count_kv", "[f32]"]);
    keys(|m| m.set("llama.attention.head_count", 0u32), &["head_count 0"]);
    keys(|m| m.set("llama.embedding_length", 0u32), &["llama.embedding_length is 0"]);
    keys(|m| m.set("llama.rope.dimension_count", 128u32), &["llama.rope.dimension_count is 128", "head size of 64"]);
    keys(|m| m.set("llama.rope.dimension_count", 32u32), &["llama.rope.dimension_count is 32", "head size of 64"]);
    keys(|m| m.set("llama.attention.value_length", 32u32), &["key_length comes to 64", "value_length to 32"]);
    keys(|m| m.set("llama.vocab_size", 1000u32), &["llama.vocab_size is 1000", "1024"]);
    keys(|m| m.set("general.architecture", 7u32), &["general.architecture", "u32", "str"]);
}

#[test]
fn a_value_per_block_is_as_good_as_one_for_all() {
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    gguf.metadata.set("llama.attention.head_count_kv", vec![2i32; 4]);
    gguf.metadata.set("llama.feed_forward_length", vec![512u32; 4]);
    let good = out.path().join("good.gguf");
    gguf.write(&good);
    assert_eq!(check(&good).status, Status::Passed, "{:#?}", check(&good));
}

#[test]
fn blocks() {
    // More blocks than there are: also every tensor of the block that is not there.
    let (out, file) = convert("bard", "Q8_0");
    for (count, first) in
        [(5u32, "llama.block_count is 5, the highest block of a tensor is 3"), (0, "llama.block_count is 0"), (513, "1 to 512")]
    {
        let mut gguf = Edit::read(&file);
        gguf.metadata.set("llama.block_count", count);
        let bad = out.path().join("bad.gguf");
        gguf.write(&bad);
        let found = check(&bad);
        assert_eq!(found.status, Status::Failed);
        assert!(found.problems.iter().any(|p| p.contains(first)), "{count}: {found:#?}");
        assert_eq!(count == 5, found.problems.iter().any(|p| p.contains("blk.4.attn_norm.weight is missing")), "{found:#?}");
    }
    // A layer that is missing at the end.
    let mut gguf = Edit::read(&file);
    gguf.tensors.retain(|(spec, _)| !spec.name.starts_with("blk.3."));
    let bad = out.path().join("bad.gguf");
    gguf.write(&bad);
    let found = check(&bad);
    assert!(found.problems.iter().any(|p| p.contains("the highest block of a tensor is 2")), "{found:#?}");
    assert!(found.problems.iter().any(|p| p.contains("and 5 more missing tensors")), "{found:#?}");
}

#[test]
fn tensors() {
    sabotage("Q8_0", |gguf| gguf.remove("blk.2.ffn_up.weight"), &["blk.2.ffn_up.weight is missing"]);
    sabotage("Q8_0", |gguf| gguf.remove("output_norm.weight"), &["output_norm.weight is missing"]);
    let rename = |gguf: &mut Edit| {
        let mut copy = gguf.tensors[gguf.at("blk.1.attn_norm.weight")].clone();
        copy.0.name = "blk.1.attn_norm_2.weight".into();
        gguf.tensors.push(copy);
    };
    sabotage("Q8_0", rename, &["blk.1.attn_norm_2.weight has no place"]);
    let transpose = |gguf: &mut Edit| {
        let at = gguf.at("blk.1.ffn_up.weight");
        gguf.tensors[at].0.shape.reverse();
    };
    sabotage("Q8_0", transpose, &["blk.1.ffn_up.weight has the shape [256, 512]", "[512, 256]"]);
    // Output.weight may be there or not, and so may biases.
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    let mut copy = gguf.tensors[gguf.at("token_embd.weight")].clone();
    copy.0.name = "output.weight".into();
    gguf.tensors.push(copy);
    let good = out.path().join("good.gguf");
    gguf.write(&good);
    assert_eq!(check(&good).status, Status::Passed);
}

#[test]
fn types() {
    keys(|m| m.set("general.file_type", 2u32), &["general.file_type is 2", "Q4_0", "most weights are Q8_0"]);
    keys(|m| m.set("general.file_type", 15u32), &["general.file_type is 15", "Q4_K", "most weights are Q8_0"]);
    keys(|m| m.set("general.file_type", 99u32), &["general.file_type is 99", "does not define"]);
    keys(|m| m.set("general.file_type", "Q8_0"), &["general.file_type", "str", "u32"]);
    keys(|m| m.set("general.quantization_version", 1u32), &["general.quantization_version is 1"]);
    keys(|m| _ = m.remove("general.quantization_version"), &["general.quantization_version is missing", "Q8_0"]);
}

fn strings(metadata: &Metadata, key: &str) -> Vec<String> {
    let Some(Value::Array(Array::String(values))) = metadata.get(key) else { panic!("{key}") };
    values.clone()
}

fn numbers(metadata: &Metadata, key: &str) -> Vec<i32> {
    let Some(Value::Array(Array::I32(values))) = metadata.get(key) else { panic!("{key}") };
    values.clone()
}

#[test]
fn vocabulary() {
    let (tokens, scores, types) = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type");
    keys(|m| _ = m.remove("tokenizer.ggml.model"), &["tokenizer.ggml.model is missing"]);
    keys(|m| _ = m.remove(tokens), &["tokenizer.ggml.tokens is missing"]);
    keys(|m| m.set(scores, vec![0f32; 1023]), &["tokenizer.ggml.scores has 1023 entries", "1024"]);
    keys(|m| m.set(scores, vec![0u8; 1024]), &["tokenizer.ggml.scores", "[u8]", "[f32]"]);
    keys(|m| m.set(scores, vec![f32::NAN; 1024]), &["tokenizer.ggml.scores holds NaN at token 0"]);
    keys(|m| m.set(types, numbers(m, types).iter().map(|&x| x as u8).collect::<Vec<_>>()), &[types, "[u8]", "[i32]"]);
    let longer = |m: &mut Metadata| {
        let mut values = numbers(m, types);
        values.push(1);
        m.set(types, values);
    };
    keys(longer, &["tokenizer.ggml.token_type has 1025 entries", "1024"]);
    let strange = |m: &mut Metadata| {
        let mut values = numbers(m, types);
        values[700] = 7;
        m.set(types, values);
    };
    keys(strange, &["token_type holds 7 at token 700"]);
    let at = |m: &Metadata, token: &str| strings(m, tokens).iter().position(|t| t == token).unwrap();
    let no_byte = |m: &mut Metadata| {
        let (mut values, at) = (numbers(m, types), at(m, "<0x41>"));
        values[at] = 1;
        m.set(types, values);
    };
    keys(no_byte, &["1 of the 256 byte tokens are missing", "<0x41>"]);
    let twice = |m: &mut Metadata| {
        let mut values = strings(m, tokens);
        values[900] = values[800].clone();
        m.set(tokens, values);
    };
    keys(twice, &["tokens 800 and 900 are both"]);
    keys(|m| m.set("tokenizer.ggml.eos_token_id", 1024u32), &["tokenizer.ggml.eos_token_id is 1024", "1024 tokens"]);
    keys(|m| m.set("tokenizer.ggml.bos_token_id", 1i32), &["tokenizer.ggml.bos_token_id", "i32", "u32"]);
    keys(|m| m.set("tokenizer.ggml.suppress_tokens", vec![-1i32]), &["suppress_tokens holds -1"]);
    keys(|m| m.set("tokenizer.ggml.add_bos_token", 1u32), &["add_bos_token", "u32", "bool"]);
    keys(|m| m.set("tokenizer.ggml.precompiled_charsmap", vec![1u8, 2, 3]), &["precompiled_charsmap has 3 bytes"]);
    keys(|m| m.set("tokenizer.ggml.model", "unigram"), &["tokenizer.ggml.model is \"unigram\""]);
}

#[test]
fn a_malformed_byte_token_is_told() {
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    let mut tokens = strings(&gguf.metadata, "tokenizer.ggml.tokens");
    let at = tokens.iter().position(|t| t == "<0x41>").unwrap();
    tokens[at] = "<0x-1>".into();
    gguf.metadata.set("tokenizer.ggml.tokens", tokens);
    let bad = out.path().join("bad.gguf");
    gguf.write(&bad);
    let found = check(&bad);
    assert_eq!(found.problems.len(), 2, "{found:#?}");
    assert!(found.problems[0].contains("\"<0x-1>\""), "{found:#?}");
}

#[test]
fn merges() {
    let (out, file) = convert("tiny/llama/hf", "F32");
    let bad = out.path().join("bad.gguf");
    let mut gguf = Edit::read(&file);
    let mut merges = strings(&gguf.metadata, "tokenizer.ggml.merges");
    merges[3] = "ab".into();
    gguf.metadata.set("tokenizer.ggml.merges", merges);
    gguf.write(&bad);
    assert!(check(&bad).problems[0].contains("tokenizer.ggml.merges holds \"ab\" at 3"));
    gguf.metadata.remove("tokenizer.ggml.merges");
    gguf.write(&bad);
    assert!(check(&bad).problems[0].contains("tokenizer.ggml.merges is missing"));
    gguf.metadata.set("tokenizer.ggml.merges", vec![1u32]);
    gguf.write(&bad);
    assert!(check(&bad).problems[0].contains("[u32], it must be [str]"));
}

#[test]
fn a_vocabulary_of_another_length_than_the_embedding_is_told() {
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        match gguf.metadata.get(key).cloned() {
            Some(Value::Array(Array::String(values))) => gguf.metadata.set(key, values[..1000].to_vec()),
            Some(Value::Array(Array::F32(values))) => gguf.metadata.set(key, values[..1000].to_vec()),
            Some(Value::Array(Array::I32(values))) => gguf.metadata.set(key, values[..1000].to_vec()),
            other => panic!("{key}: {other:?}"),
        }
    }
    gguf.metadata.remove("llama.vocab_size");
    let bad = out.path().join("bad.gguf");
    gguf.write(&bad);
    let found = check(&bad);
    assert!(found.problems.iter().any(|p| p.contains("token_embd.weight has the shape [1024, 256]")), "{found:#?}");
}

#[test]
fn an_unknown_architecture_is_not_called_good() {
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    gguf.metadata.set("general.architecture", "mamba");
    gguf.metadata.set("mamba.block_count", 4u32);
    gguf.metadata.set("mamba.context_length", 256u32);
    let other = out.path().join("other.gguf");
    gguf.write(&other);
    let found = check(&other);
    assert_eq!((found.status, found.problems.len()), (Status::Skipped, 0), "{found:#?}");
    assert!(found.summary.contains("\"mamba\" is not known here"), "{}", found.summary);
    // What can be checked is checked.
    gguf.metadata.set("mamba.block_count", 3u32);
    gguf.write(&other);
    assert_eq!((check(&other).status, check(&other).problems.len()), (Status::Failed, 1));
}

#[test]
fn a_mixture_of_experts_is_checked_as_one() {
    let fixture = |name: &str| fixture(&format!("tiny/{name}/f32.gguf"));
    for name in ["mixtral", "qwen2moe", "qwen3moe", "olmoe"] {
        let found = check(&fixture(name));
        assert_eq!((found.status, found.problems.as_slice()), (Status::Passed, [].as_slice()), "{name}: {found:#?}");
    }
    // A dense model that says it has experts, and experts of another number than their tensors have.
    let (out, file) = convert("bard", "Q8_0");
    let bad = out.path().join("bad.gguf");
    let mut gguf = Edit::read(&file);
    gguf.metadata.set("llama.expert_count", 8u32);
    gguf.write(&bad);
    let found = check(&bad);
    assert!(found.problems.iter().any(|p| p.contains("llama.expert_used_count is 0")), "{found:#?}");
    gguf.metadata.set("llama.expert_used_count", 2u32);
    gguf.write(&bad);
    let found = check(&bad);
    assert!(found.problems.iter().any(|p| p.contains("ffn_gate_inp.weight is missing")), "{found:#?}");
    let mut gguf = Edit::read(&fixture("mixtral"));
    gguf.metadata.set("llama.expert_count", 3u32);
    gguf.write(&bad);
    let found = check(&bad);
    assert!(found.problems.iter().any(|p| p.contains("by the file's keys and vocabulary it must be [3, ")), "{found:#?}");
}

#[test]
fn a_format_that_is_not_written_yet_is_no_obstacle() {
    let (out, file) = convert("bard", "Q8_0");
    let mut gguf = Edit::read(&file);
    let format = formats::by_id(16).unwrap();
    for (spec, data) in gguf.tensors.iter_mut().filter(|(spec, _)| spec.format.name == "Q8_0") {
        spec.format = format;
        *data = vec![0; format.bytes_for(spec.shape.iter().product()).unwrap() as usize];
    }
    gguf.metadata.set("general.file_type", 19u32);
    let other = out.path().join("other.gguf");
    gguf.write(&other);
    assert_eq!(check(&other).status, Status::Passed);
    let (found, figures) = common::Source::open("bard").check(&other);
    assert_eq!(found.status, Status::Skipped, "{found:#?}");
    assert!(found.summary.contains("of type IQ2_XXS cannot be judged yet"), "{}", found.summary);
    assert!(figures.iter().any(|f| f.format == "IQ2_XXS" && f.rmse.is_nan()));
}

/// Whatever stands in a key, the check comes to an end and says something of a wrong type.
#[test]
fn no_value_of_any_key_is_too_strange() {
    let strange: Vec<Value> = vec![
        u32::MAX.into(),
        0u32.into(),
        (-1i32).into(),
        f32::NAN.into(),
        true.into(),
        "".into(),
        Vec::<u32>::new().into(),
        vec![u32::MAX; 3].into(),
        vec![-1i32; 1024].into(),
        vec![f32::INFINITY; 4].into(),
        vec![String::new(); 2].into(),
        u64::MAX.into(),
    ];
    for model in ["bard", "tiny/llama3-rope/hf"] {
        let (out, file) = convert(model, "Q8_0");
        let gguf = Edit::read(&file);
        let changed = out.path().join("changed.gguf");
        let mut failed = 0;
        for (key, value) in gguf.metadata.iter() {
            for strange in strange.iter().filter(|strange| *strange != value) {
                let mut edit = gguf.clone();
                edit.metadata.set(key, strange.clone());
                edit.write(&changed);
                failed += usize::from(check(&changed).status == Status::Failed);
                let checked = key.starts_with("llama.") || key.starts_with("tokenizer.ggml.") || key == "general.file_type";
                if checked && strange.value_type() != value.value_type() && !strange.type_name().ends_with("32]") {
                    assert_eq!(check(&changed).status, Status::Failed, "{model}: {key} = {}", strange.short(40));
                }
            }
        }
        assert!(failed > 200, "{failed}");
    }
}
