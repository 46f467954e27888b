//! Descriptions of real checkpoints against the F32 files that the reference converter made of them: keys of the architecture's
//! section, tensor names, shapes and data, all in order.

use ggufsmith_arch::{Hparam, Model, Options, describe};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::{TensorExpr, TensorSource, Words, float};
use ggufsmith_gguf::{Gguf, GgufTensor, Limits, Value};
use std::path::{Path, PathBuf};

const MODELS: &[&str] = &[
    "llama",
    "llama-256",
    "llama3-rope",
    "llama-spm",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen2moe",
    "qwen3moe",
    "olmo",
    "olmo2",
    "phi3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "gemma3-vision",
    "granite",
    "mistral3",
    "olmo3",
    "phi3-long",
    "phi3-partial",
    "smollm3",
    "gpt2",
    "gpt2-buffers",
    "gptneox",
    "stablelm",
    "stablelm-12b",
    "falcon",
    "falcon-mq",
    "phi2",
    "starcoder2",
    "command-r",
    "command-r-plus",
    "cohere2",
];

/// Checkpoints that transformers 5 saved, of those above.
const SAVED_BY_5: &[&str] =
    &["llama", "llama3-rope", "mixtral", "qwen3", "qwen2moe", "qwen3moe", "phi3-long", "gemma3", "gemma3-vision"];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn open(name: &str) -> (Checkpoint, Model) {
    open_in("tiny", name)
}

fn open_in(folder: &str, name: &str) -> (Checkpoint, Model) {
    let dir = ModelDir::open(&fixture(&format!("{folder}/{name}/hf"))).unwrap();
    let source = Checkpoint::open(&dir).unwrap();
    let model = describe(dir.config(), source.tensors(), &Options { strict_config: true }).unwrap();
    (source, model)
}

/// All elements of an expression as F32.
fn floats(expr: &TensorExpr, source: &dyn TensorSource) -> Vec<f32> {
    let mut bytes = Vec::new();
    expr.append(source, 0..expr.elems(), &mut bytes).unwrap();
    let half = |to_f32: fn(u16) -> f32| bytes.as_chunks().0.iter().map(|w| to_f32(u16::from_le_bytes(*w))).collect();
    match expr.words() {
        Words::F32 => bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect(),
        Words::F16 => half(float::f16_to_f32),
        Words::BF16 => half(float::bf16_to_f32),
    }
}

/// What differs between a description and the golden file; empty where nothing does.
fn differences(model: &Model, source: &dyn TensorSource, golden: &Golden) -> Vec<String> {
    let mut found = Vec::new();
    let section = format!("{}.", model.arch);
    let wanted: Vec<Hparam> = golden
        .keys
        .iter()
        .filter_map(|(key, value)| match key.as_str() {
            "general.file_type" => Some(Hparam::FileType),
            // Phi-2's class writes it among the hyper-parameters, the tokenizer's part fills it in.
            "tokenizer.ggml.add_bos_token" if model.arch == "phi2" => Some(Hparam::Set(key.clone(), value.clone())),
            key if key.starts_with(&section) => Some(Hparam::Set(key.to_owned(), value.clone())),
            _ => None,
        })
        .collect();
    let first = model.first.iter().map(|(key, value)| Hparam::Set(key.clone(), value.clone()));
    let hparams: Vec<Hparam> = first.chain(model.hparams.iter().cloned()).collect();
    if hparams != wanted {
        found.push(format!("keys: {hparams:?}\nwanted: {wanted:?}"));
    }
    if model.tensors.len() != golden.tensors.len() {
        found.push(format!("{} tensors, not {}", model.tensors.len(), golden.tensors.len()));
    }
    for (tensor, (name, shape, data)) in model.tensors.iter().zip(&golden.tensors) {
        if tensor.name != *name || tensor.expr.shape() != *shape {
            found.push(format!("{} {:?}, not {name} {shape:?}", tensor.name, tensor.expr.shape()));
        } else if floats(&tensor.expr, source).iter().map(|x| x.to_bits()).ne(data.iter().map(|x| x.to_bits())) {
            found.push(format!("the data of {name}"));
        }
    }
    found
}

#[test]
fn every_model_is_what_the_converter_makes_of_it() {
    for name in MODELS {
        let (source, model) = open(name);
        let golden = Golden::read(&fixture(&format!("tiny/{name}/f32.gguf")));
        assert_eq!(differences(&model, &source, &golden), [""; 0], "{name}");
        assert_eq!(model.warnings, [""; 0], "{name}");
        let dropped = match *name {
            // A causal mask and a constant of it in each of two layers.
            "gpt2-buffers" => 4,
            "gemma3-vision" => 34,
            "mistral3" => 15,
            _ => 0,
        };
        assert_eq!(model.dropped.len(), dropped, "{name}: {:?}", model.dropped);
        let first: Vec<_> = golden.keys[1..].iter().take(model.first.len()).cloned().collect();
        assert_eq!(model.first, first, "{name}");
        assert_eq!(model.first.is_empty(), !name.starts_with("phi3-"), "{name}");
        assert_eq!(model.vocab_size, 512);
    }
}

/// Other names of config keys, fused experts, another order of the tensors: the same file but for that order.
#[test]
fn transformers_5_saves_the_same_model() {
    for name in SAVED_BY_5 {
        let (source, mut model) = open_in("tiny5", name);
        let mut golden = Golden::read(&fixture(&format!("tiny/{name}/f32.gguf")));
        model.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        golden.tensors.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(differences(&model, &source, &golden), [""; 0], "{name}");
        assert_eq!(model.warnings, [""; 0], "{name}");
    }
}

#[test]
fn the_comparison_sees_a_changed_key_order_name_or_bit() {
    let (source, model) = open("llama3-rope");
    let golden = Golden::read(&fixture("tiny/llama3-rope/f32.gguf"));
    let differs = |change: &dyn Fn(&mut Model, &mut Golden)| {
        let (mut model, mut golden) = (model.clone(), golden.clone());
        change(&mut model, &mut golden);
        assert_eq!(differences(&model, &source, &golden).len(), 1);
    };
    differs(&|model, _| model.hparams.swap(0, 1));
    differs(&|model, _| model.hparams.retain(|h| *h != Hparam::FileType));
    differs(&|_, golden| golden.tensors[0].2[7] = f32::from_bits(golden.tensors[0].2[7].to_bits() ^ 1));
    differs(&|_, golden| golden.tensors.last_mut().unwrap().2[1] += 1.0);
    differs(&|model, _| model.tensors[3].name.push('x'));
    differs(&|_, golden| drop(golden.tensors.pop()));
    differs(&|model, _| {
        let q = model.tensors.iter_mut().find(|t| t.name == "blk.0.attn_q.weight").unwrap();
        let TensorExpr::PermuteRows { axes, .. } = &mut q.expr else { panic!("not permuted") };
        *axes = vec![0, 1, 2];
    });
}

/// Keys, and tensors with their data, of an F32 file.
#[derive(Clone)]
struct Golden {
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let file = Gguf::open(path, &Limits::default()).unwrap();
        let keys = file.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let tensor = |tensor: &GgufTensor| {
            let mut bytes = vec![0; tensor.bytes as usize];
            file.read_at(tensor, 0, &mut bytes).unwrap();
            let data = bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect();
            (tensor.name.clone(), tensor.shape.clone(), data)
        };
        let tensors = file.tensors().iter().map(tensor).collect();
        Golden { keys, tensors }
    }
}
