//! GPT-2, GPT-NeoX, StableLM, Falcon, Phi-2, StarCoder2 and Command-R: dialects of config.json, what the reference converter gets
//! wrong, the way back, and what is refused. That files equal the converter's is in golden.rs.

use ggufsmith_arch::{ArchError, GgufModel, Hparam, Model, Options, describe, export};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::{DType, TensorInfo, TensorSource};
use ggufsmith_gguf::{Gguf, Limits, Value};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// config.json and tensors of a tiny checkpoint.
fn tiny(name: &str) -> (Json, Vec<TensorInfo>) {
    let dir = ModelDir::open(&fixture(&format!("tiny/{name}/hf"))).unwrap();
    (dir.config().clone(), Checkpoint::open(&dir).unwrap().tensors().to_vec())
}

fn described(config: &Json, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
    describe(config, tensors, &Options { strict_config: true })
}

/// A tiny model with some keys changed; null takes a key away.
fn changed(name: &str, changes: &Json) -> Result<Model, ArchError> {
    let (mut config, tensors) = tiny(name);
    change(&mut config, changes);
    described(&config, &tensors)
}

fn change(config: &mut Json, changes: &Json) {
    let config = config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Json::Null => drop(config.remove(key)),
            value => drop(config.insert(key.clone(), value.clone())),
        }
    }
}

fn value(model: &Model, key: &str) -> Option<Value> {
    let full = format!("{}.{key}", model.arch);
    model.hparams.iter().find_map(|hparam| match hparam {
        Hparam::Set(key, value) if *key == full => Some(value.clone()),
        _ => None,
    })
}

fn summary(model: &Model) -> (Vec<Hparam>, Vec<(String, Vec<u64>)>) {
    (model.hparams.clone(), model.tensors.iter().map(|t| (t.name.clone(), t.expr.shape())).collect())
}

#[test]
fn both_dialects_of_transformers_describe_the_same() {
    for name in ["gpt2", "gptneox", "falcon", "falcon-mq", "stablelm", "phi2", "starcoder2", "command-r", "cohere2"] {
        let (old, tensors) = tiny(name);
        let text = std::fs::read_to_string(fixture(&format!("configs/transformers5/{name}.json"))).unwrap();
        let new: Json = serde_json::from_str(&text).unwrap();
        assert!(new["transformers_version"].as_str().unwrap().starts_with("5."), "{name}");
        let [old, new] = [&old, &new].map(|config| described(config, &tensors).unwrap());
        assert_eq!(summary(&old), summary(&new), "{name}");
    }
}

#[test]
fn gpt2_without_n_ctx_with_buffers_and_without_a_prefix() {
    let (with, without) = (changed("gpt2", &json!({})).unwrap(), changed("gpt2", &json!({"n_ctx": null})).unwrap());
    assert_eq!(summary(&with), summary(&without));
    let (config, tensors) = tiny("gpt2");
    let bare = tensors.iter().cloned().map(|mut info| {
        info.name = info.name.trim_start_matches("transformer.").to_owned();
        info
    });
    let mut bare: Vec<_> = bare.collect();
    let buffer = |name: &str, dtype, shape: &[u64]| TensorInfo {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        file: PathBuf::new(),
        offset: 0,
    };
    for dtype in [DType::F32, DType::U8, DType::Bool] {
        bare.push(buffer("h.0.attn.bias", dtype, &[1, 1, 256, 256]));
        bare.push(buffer("h.0.attn.masked_bias", DType::F32, &[]));
        let model = described(&config, &bare).unwrap();
        assert_eq!((summary(&model), model.dropped.len()), (summary(&with), 2));
        bare.truncate(tensors.len());
    }
    // `.attn.c_attn.bias` is no buffer.
    assert!(with.tensors.iter().any(|tensor| tensor.name == "blk.0.attn_qkv.bias"));
}

#[test]
fn one_key_head_whatever_the_config_class_fills_in() {
    let without = changed("falcon-mq", &json!({})).unwrap();
    for kv in [1, 4] {
        let with = changed("falcon-mq", &json!({"num_kv_heads": kv})).unwrap();
        assert_eq!(summary(&with), summary(&without));
    }
    assert_eq!(value(&without, "attention.head_count_kv"), Some(Value::U32(1)));
    assert_eq!(without.recipe.n_head_kv, 1);
}

/// RefinedWeb, as Falcon's first checkpoints called themselves.
#[test]
fn refined_web_is_falcon() {
    for (name, kv) in [("falcon-mq", json!(null)), ("falcon", json!(2))] {
        let (config, tensors) = tiny(name);
        let old = json!({"architectures": ["RWForCausalLM"], "model_type": "RefinedWebModel", "alibi": false,
            "apply_residual_connection_post_layernorm": false, "bias": false, "hidden_size": 64, "layer_norm_epsilon": 1e-5,
            "multi_query": true, "n_head": 4, "n_head_kv": kv, "n_layer": 2, "parallel_attn": true, "vocab_size": 512});
        let (old, new) = (described(&old, &tensors).unwrap(), described(&config, &tensors).unwrap());
        assert_eq!(summary(&old), summary(&new), "{name}");
    }
}

#[test]
fn stablelm_epoch_is_stablelm() {
    let epoch = json!({"architectures": ["StableLMEpochForCausalLM"], "model_type": "stablelm_epoch", "norm_eps": 1e-5,
        "rope_pct": 0.25, "layer_norm_eps": null, "partial_rotary_factor": null, "qk_layernorm": null});
    let (old, new) = (changed("stablelm", &epoch).unwrap(), changed("stablelm", &json!({})).unwrap());
    assert_eq!(summary(&old), summary(&new));
}

/// Constants of the reference converter that these models set themselves.
#[test]
fn what_the_reference_converter_takes_for_constant() {
    let falcon = changed("falcon-11b", &json!({})).unwrap();
    assert_eq!(value(&falcon, "context_length"), Some(Value::U32(256)));
    assert_eq!(value(&falcon, "feed_forward_length"), Some(Value::U32(192)));
    assert_eq!(value(&falcon, "rope.freq_base"), Some(Value::F32(500_042.0)));
    assert!(falcon.tensors.iter().any(|tensor| tensor.name == "output.weight"));

    for (name, base) in [
        ("gptneox", json!({"rotary_emb_base": 1e6, "rope_theta": 1e6})),
        ("stablelm", json!({"rope_theta": 1e6})),
        ("phi2", json!({"rope_theta": 1e6})),
    ] {
        assert_eq!(value(&changed(name, &base).unwrap(), "rope.freq_base"), Some(Value::F32(1e6)), "{name}");
        assert_eq!(value(&changed(name, &json!({})).unwrap(), "rope.freq_base"), None, "{name}");
    }

    let scaled = json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}});
    for name in ["gptneox", "stablelm", "falcon", "phi2", "command-r"] {
        let model = changed(name, &scaled).unwrap();
        assert_eq!(value(&model, "rope.scaling.type"), Some("linear".into()), "{name}");
        assert_eq!(value(&model, "rope.scaling.factor"), Some(Value::F32(4.0)), "{name}");
    }

    let layers = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"];
    let cohere = changed("cohere2", &json!({"layer_types": layers})).unwrap();
    assert_eq!(value(&cohere, "attention.sliding_window_pattern"), Some(vec![false, true, true, false].into()));
    let long = changed("command-r", &json!({"model_max_length": 131072})).unwrap();
    assert_eq!(value(&long, "context_length"), Some(Value::U32(131_072)));
}

/// A width of the feed-forward part that is not four times the model's.
#[test]
fn feed_forward_parts_of_any_width() {
    for (name, key, up) in
        [("gpt2", "n_inner", "c_fc"), ("falcon", "ffn_hidden_size", "h_to_4h"), ("phi2", "intermediate_size", "fc1")]
    {
        let (mut config, mut tensors) = tiny(name);
        config[key] = 96.into();
        for info in tensors.iter_mut().filter(|info| info.name.contains(".mlp.")) {
            let is_up = info.name.contains(up);
            info.shape.iter_mut().filter(|n| **n == 256 && (is_up || info.name.ends_with("weight"))).for_each(|n| *n = 96);
        }
        let model = described(&config, &tensors).unwrap();
        assert_eq!(value(&model, "feed_forward_length"), Some(Value::U32(96)), "{name}");
    }
}

#[test]
fn files_lead_back_to_their_checkpoints() {
    for name in [
        "gpt2",
        "gptneox",
        "stablelm",
        "stablelm-12b",
        "falcon-mq",
        "phi2",
        "starcoder2",
        "command-r",
        "command-r-plus",
        "cohere2",
    ] {
        let file = Gguf::open(&fixture(&format!("tiny/{name}/f32.gguf")), &Limits::default()).unwrap();
        let tensors: Vec<_> = file.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let model = GgufModel { metadata: file.metadata(), tensors: &tensors, tables: &BTreeMap::new() };
        let exported = export(&model, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (config, sources) = tiny(name);
        let original = described(&config, &sources).unwrap();
        assert_eq!(exported.model.hparams, original.hparams, "{name}");
        let names = |model: &Model| -> BTreeSet<(String, Vec<u64>)> {
            let reads = model.tensors.iter().flat_map(|tensor| tensor.expr.reads());
            reads.map(|info| (info.name.clone(), info.shape.clone())).collect()
        };
        assert_eq!(names(&exported.model), names(&original), "{name}");
        assert_eq!(exported.warnings, [""; 0], "{name}");
        for (key, value) in &exported.config {
            let given = config.get(key).filter(|given| !given.is_null());
            // Keys that are a matter of taste: the class fills them in, or nothing computes with them.
            if let Some(given) = given.filter(|_| !["hidden_act", "activation"].contains(&key.as_str())) {
                let same = given == value || given.as_f64().is_some() && given.as_f64() == value.as_f64();
                assert!(same, "{name}: {key} = {value}, not {given}");
            }
        }
    }
    let file = Gguf::open(&fixture("tiny/falcon/f32.gguf"), &Limits::default()).unwrap();
    let tensors: Vec<_> = file.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let model = GgufModel { metadata: file.metadata(), tensors: &tensors, tables: &BTreeMap::new() };
    assert!(export(&model, None).unwrap_err().to_string().contains("no way back"));
}

/// Settings under which the engine would compute something else, or refuse the file.
#[test]
fn settings_that_the_engine_does_not_have() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let long = json!({"rope_type": "longrope", "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.0],
        "original_max_position_embeddings": 64});
    for (name, key, found) in [
        ("gpt2", "activation_function", json!("relu")),
        ("gpt2", "scale_attn_weights", json!(false)),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true)),
        ("gpt2", "add_cross_attention", json!(true)),
        ("gpt2", "n_head", json!(3)),
        ("gptneox", "hidden_act", json!("silu")),
        ("gptneox", "attention_bias", json!(false)),
        ("gptneox", "tie_word_embeddings", json!(true)),
        ("gptneox", "rope_scaling", llama3.clone()),
        ("gptneox", "num_attention_heads", json!(5)),
        ("stablelm", "hidden_act", json!("gelu")),
        ("stablelm", "num_key_value_heads", json!(3)),
        ("stablelm", "partial_rotary_factor", json!(0.2)),
        ("stablelm", "rope_scaling", long),
        ("falcon", "alibi", json!(true)),
        ("falcon", "bias", json!(true)),
        ("falcon", "parallel_attn", json!(false)),
        ("falcon", "num_ln_in_parallel_attn", json!(3)),
        ("falcon", "activation", json!("relu")),
        ("falcon", "num_kv_heads", json!(3)),
        ("phi2", "qk_layernorm", json!(true)),
        ("phi2", "tie_word_embeddings", json!(true)),
        ("phi2", "rope_scaling", llama3.clone()),
        ("starcoder2", "head_dim", json!(32)),
        ("starcoder2", "hidden_act", json!("silu")),
        ("command-r", "attention_bias", json!(true)),
        ("command-r", "tie_word_embeddings", json!(false)),
        ("command-r", "use_qk_norm", json!(true)),
        ("command-r-plus", "use_qk_norm", json!(false)),
        ("command-r", "rope_scaling", llama3),
        ("cohere2", "rotary_pct", json!(0.5)),
        ("cohere2", "sliding_window", json!(0)),
    ] {
        let error = changed(name, &json!({key: found})).map(|_| ()).unwrap_err();
        assert!(matches!(&error, ArchError::KeyValue { key: named, .. } if named == key), "{name}, {key} = {found}: {error}");
    }
    for (new, value) in [("partial_rotary_factor", json!(0.5)), ("rope_theta", json!(5e5))] {
        let error = changed("gptneox", &json!({new: value})).map(|_| ()).unwrap_err();
        assert!(matches!(&error, ArchError::KeyConflict { second, .. } if second == new), "{error}");
    }
}

#[test]
fn a_tensor_that_is_missing_too_many_or_of_another_shape() {
    for name in
        ["gpt2", "gptneox", "stablelm", "stablelm-12b", "falcon", "falcon-mq", "falcon-11b", "phi2", "starcoder2", "cohere2"]
    {
        let (config, tensors) = tiny(name);
        for at in 0..tensors.len() {
            let mut without = tensors.clone();
            let gone = without.remove(at);
            let error = described(&config, &without).map(|_| ()).unwrap_err();
            assert!(
                matches!(&error, ArchError::MissingTensor { tensor, .. } if *tensor == gone.name),
                "{name}, {}: {error}",
                gone.name
            );
            let mut wrong = tensors.clone();
            wrong[at].shape[0] += 1;
            let error = described(&config, &wrong).map(|_| ()).unwrap_err();
            assert!(matches!(&error, ArchError::Shape { tensor, .. } if *tensor == gone.name), "{name}, {}: {error}", gone.name);
        }
        let mut more = tensors.clone();
        more.push(TensorInfo { name: "transformer.h.0.attn.rotary.weight".into(), ..tensors[0].clone() });
        assert!(matches!(described(&config, &more), Err(ArchError::UnknownTensor { .. })), "{name}");
    }
    let (config, mut tensors) = tiny("stablelm-12b");
    let norm = tensors.iter().find(|info| info.name.contains("k_layernorm.norms.1")).unwrap().clone();
    tensors.push(TensorInfo { name: norm.name.replace("norms.1", "norms.2"), ..norm });
    let error = described(&config, &tensors).map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchError::NumberBeyond { number: 2, count: 2, .. }), "{error}");
}

#[test]
fn a_window_that_the_engine_does_not_have_is_told() {
    let model = changed("starcoder2", &json!({"sliding_window": 16})).unwrap();
    assert!(model.warnings.iter().any(|warning| warning.contains("sliding_window = 16")), "{:?}", model.warnings);
}

/// Whatever stands in a config.json, there is a description or an error.
#[test]
fn no_value_of_any_key_panics() {
    let values = [
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(0.3),
        json!(-1e300),
        json!(1e-300),
        json!(true),
        json!(false),
        json!("x"),
        json!([]),
        json!({}),
        json!({"rope_type": "yarn", "factor": 0.0, "original_max_position_embeddings": 0}),
    ];
    let mut errors = 0;
    for name in ["gpt2", "gptneox", "stablelm-12b", "falcon", "falcon-mq", "phi2", "starcoder2", "command-r", "cohere2"] {
        let (config, tensors) = tiny(name);
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        for key in keys.iter().map(String::as_str).chain(["head_dim", "rope_parameters", "layer_types", "n_inner", "n_head_kv"]) {
            for value in values.iter().chain([&Json::Null]) {
                let mut config = config.clone();
                config[key] = value.clone();
                let described = described(&config, &tensors).is_ok();
                let computed = ggufsmith_arch::decoder(&config, &|name| tensors.iter().any(|info| info.name == name)).is_ok();
                errors += usize::from(!described) + usize::from(!computed);
            }
        }
    }
    assert!(errors > 1000, "{errors}");
}
