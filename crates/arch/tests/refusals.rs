//! Configs and tensor lists that make no model: each gives the error that names its fault.

use ggufsmith_arch::{ArchError, Model, Options, describe};
use ggufsmith_core::{DType, TensorInfo};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A one-layer Llama, and its tensors.
fn llama() -> (Value, Vec<TensorInfo>) {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100});
    let layer = [
        ("input_layernorm", vec![32]),
        ("post_attention_layernorm", vec![32]),
        ("self_attn.q_proj", vec![32, 32]),
        ("self_attn.k_proj", vec![16, 32]),
        ("self_attn.v_proj", vec![16, 32]),
        ("self_attn.o_proj", vec![32, 32]),
        ("mlp.gate_proj", vec![48, 32]),
        ("mlp.up_proj", vec![48, 32]),
        ("mlp.down_proj", vec![32, 48]),
    ];
    let mut tensors =
        vec![info("lm_head.weight", &[100, 32]), info("model.embed_tokens.weight", &[100, 32]), info("model.norm.weight", &[32])];
    tensors.extend(layer.iter().map(|(part, shape)| info(&format!("model.layers.0.{part}.weight"), shape)));
    (config, tensors)
}

fn info(name: &str, shape: &[u64]) -> TensorInfo {
    TensorInfo { name: name.to_owned(), dtype: DType::BF16, shape: shape.to_vec(), file: PathBuf::new(), offset: 0 }
}

fn with(change: impl Fn(&mut Value, &mut Vec<TensorInfo>)) -> Result<Model, ArchError> {
    let (mut config, mut tensors) = llama();
    change(&mut config, &mut tensors);
    describe(&config, &tensors, &Options::default())
}

fn with_key(key: &str, value: Value) -> Result<Model, ArchError> {
    with(|config, _| config[key] = value.clone())
}

fn refused(result: Result<Model, ArchError>) -> ArchError {
    result.map(|_| ()).unwrap_err()
}

#[test]
fn the_model_itself_is_fine() {
    let model = with(|_, _| {}).unwrap();
    assert_eq!((model.tensors.len(), model.warnings.len()), (12, 0));
}

#[test]
fn a_config_without_a_known_class() {
    let none: [TensorInfo; 0] = [];
    for config in [json!([]), json!(null), json!("LlamaForCausalLM")] {
        assert_eq!(refused(describe(&config, &none, &Options::default())), ArchError::NotAnObject);
    }
    for architectures in [json!(null), json!([]), json!([7]), json!({})] {
        assert_eq!(refused(with_key("architectures", architectures)), ArchError::NoClass);
    }
    let error = refused(with_key("architectures", json!(["LLamaForCausalLM"])));
    let ArchError::UnknownClass { class, supported, nearest } = &error else { panic!("{error}") };
    assert_eq!((class.as_str(), nearest[0]), ("LLamaForCausalLM", "LlamaForCausalLM"));
    assert!(supported.contains(&"MistralForCausalLM"));
    let ArchError::UnknownClass { nearest, .. } = refused(with_key("architectures", json!(["BertModel"]))) else { panic!() };
    assert!(nearest.is_empty());
}

#[test]
fn a_key_of_the_wrong_type_or_range() {
    let wrong = [
        ("num_hidden_layers", json!(-1)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1.0)),
        ("num_hidden_layers", json!("1")),
        ("num_hidden_layers", json!(true)),
        ("num_hidden_layers", json!(1_u64 << 32)),
        ("hidden_size", json!([32])),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(0)),
        ("head_dim", json!(7)),
        ("rms_norm_eps", json!("1e-5")),
        ("rope_theta", json!(1e300)),
        ("tie_word_embeddings", json!(1)),
        ("hidden_act", json!("gelu")),
        ("rope_scaling", json!("linear")),
    ];
    for (key, value) in wrong {
        let error = refused(with_key(key, value.clone()));
        assert!(matches!(&error, ArchError::KeyValue { key: k, .. } if k == key), "{key} = {value}: {error}");
    }
    let error = refused(with_key("rope_scaling", json!({"type": "linear", "factor": "2"})));
    assert!(matches!(error, ArchError::KeyValue { key, .. } if key == "rope_scaling.factor"));
    let error = refused(with_key("rope_scaling", json!({"rope_type": "spiral"})));
    assert!(matches!(error, ArchError::KeyValue { key, .. } if key == "rope_scaling.rope_type"));
}

#[test]
fn a_key_that_is_missing() {
    let missing = |result, wanted: &str| {
        let error = refused(result);
        assert!(matches!(&error, ArchError::MissingKey { key, .. } if key == wanted), "{wanted}: {error}");
    };
    missing(with_key("hidden_size", json!(null)), "hidden_size");
    missing(with_key("rope_theta", json!(null)), "rope_theta");
    // Without a known model_type there are no defaults.
    missing(with_key("model_type", json!("other")), "max_position_embeddings");
    missing(with_key("rope_scaling", json!({"type": "linear"})), "rope_scaling.factor");
    missing(with_key("rope_scaling", json!({"type": "yarn", "factor": 2.0})), "original_max_position_embeddings");
    missing(with_key("rope_scaling", json!({"type": "llama3", "factor": 2.0})), "rope_scaling.low_freq_factor");
}

#[test]
fn keys_that_contradict_each_other() {
    let error = refused(with_key("rope_scaling", json!({"type": "linear", "rope_type": "yarn", "factor": 2.0})));
    assert!(matches!(error, ArchError::KeyConflict { .. }));
    let both = with(|config, _| {
        config["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        config["rope_parameters"] = json!({"rope_type": "default"});
    });
    assert!(matches!(refused(both), ArchError::KeyConflict { .. }));
}

#[test]
fn a_key_that_means_something_elsewhere() {
    for (key, value) in [
        ("num_local_experts", json!(8)),
        ("attn_logit_softcapping", json!(50.0)),
        ("embedding_multiplier", json!(12.0)),
        ("partial_rotary_factor", json!(0.5)),
        ("n_layers", json!(2)),
        ("text_config", json!({"hidden_size": 1})),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0, "mscale_all_dim": 1.0})),
        ("rope_parameters", json!({"full_attention": {"rope_theta": 1e4}})),
    ] {
        let error = refused(with_key(key, value));
        assert!(matches!(&error, ArchError::ForeignKey { key: k, .. } if k.starts_with(key)), "{key}: {error}");
    }
    for (key, value) in [
        ("num_local_experts", json!(0)),
        ("embedding_multiplier", json!(1)),
        ("partial_rotary_factor", json!(null)),
        ("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 1.0})),
    ] {
        assert!(with_key(key, value).unwrap().warnings.is_empty(), "{key}");
    }
}

#[test]
fn an_unknown_key_is_a_warning_and_with_strict_an_error() {
    let (mut config, tensors) = llama();
    config["some_note"] = json!("x");
    assert_eq!(describe(&config, &tensors, &Options::default()).unwrap().warnings.len(), 1);
    let error = refused(describe(&config, &tensors, &Options { strict_config: true }));
    assert!(matches!(error, ArchError::UnknownKeys { keys, .. } if keys == ["some_note"]));
}

#[test]
fn a_tensor_that_belongs_to_nothing() {
    for name in ["model.layers.0.mlp.router.weight", "model.layers.0.self_attn.q_proj", "model.layers.{}.mlp.up_proj.weight", "0"]
    {
        let error = refused(with(|_, tensors| tensors.push(info(name, &[32]))));
        assert!(matches!(&error, ArchError::UnknownTensor { tensor, .. } if tensor == name), "{error}");
    }
}

#[test]
fn a_tensor_of_a_layer_that_is_not_there() {
    let error = refused(with(|_, tensors| tensors.push(info("model.layers.1.mlp.up_proj.weight", &[48, 32]))));
    assert!(matches!(error, ArchError::LayerBeyond { layer: 1, n_layer: 1, .. }));
}

#[test]
fn a_tensor_that_is_there_twice() {
    let error = refused(with(|_, tensors| tensors.push(info("model.norm.weight", &[32]))));
    assert!(matches!(error, ArchError::TensorTwice { output, .. } if output == "output_norm.weight"));
}

#[test]
fn any_tensor_that_is_missing() {
    let (_, all) = llama();
    for info in &all {
        let error = refused(with(|_, tensors| tensors.retain(|t| t.name != info.name)));
        assert!(matches!(&error, ArchError::MissingTensor { tensor, .. } if *tensor == info.name), "{error}");
    }
    // Biases are asked for by the config.
    let error = refused(with_key("attention_bias", json!(true)));
    assert!(matches!(error, ArchError::MissingTensor { tensor, .. } if tensor == "model.layers.0.self_attn.q_proj.bias"));
    // A layer count beyond all reason costs nothing.
    let error = refused(with_key("num_hidden_layers", json!(1_000_000_000)));
    assert!(matches!(error, ArchError::MissingTensor { tensor, .. } if tensor == "model.layers.1.input_layernorm.weight"));
}

#[test]
fn any_shape_that_the_config_does_not_allow() {
    let (_, all) = llama();
    for at in 0..all.len() {
        for change in [
            |shape: &mut Vec<u64>| shape[0] += 1,
            |shape: &mut Vec<u64>| shape.push(1),
            |shape: &mut Vec<u64>| shape.truncate(shape.len() - 1),
        ] {
            let error = refused(with(|_, tensors| change(&mut tensors[at].shape)));
            assert!(matches!(&error, ArchError::Shape { tensor, .. } if *tensor == all[at].name), "{error}");
        }
    }
    let error = refused(with_key("vocab_size", json!(101)));
    let ArchError::Shape { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!((expected, found), (vec![101, 32], vec![100, 32]));
}

/// Whatever a config says, there is an answer, and soon.
#[test]
fn no_value_of_any_key_panics() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(4),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(-1e-300),
        json!(""),
        json!("llama3"),
        json!([]),
        json!([[1]]),
        json!({}),
        json!({"rope_type": "llama3", "factor": 0, "low_freq_factor": 0,
        "high_freq_factor": 0, "original_max_position_embeddings": 0}),
        json!({"type": "yarn", "factor": -1, "original_max_position_embeddings": 0}),
    ];
    let keys = [
        "architectures",
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "vocab_size",
    ];
    for first in keys {
        for second in keys {
            for value in &values {
                for other in &values {
                    let _ = with(|config, _| {
                        config[first] = value.clone();
                        config[second] = other.clone();
                    });
                }
            }
        }
    }
}

#[test]
fn tensors_that_the_config_does_not_ask_for_are_written_with_a_warning() {
    let model = with_key("tie_word_embeddings", json!(true)).unwrap();
    assert_eq!((model.tensors.len(), model.warnings.len()), (12, 1));
    let model = with(|_, tensors| {
        tensors.push(info("model.layers.0.self_attn.q_proj.bias", &[32]));
        tensors.push(info("model.layers.0.self_attn.v_proj.bias", &[16]));
    })
    .unwrap();
    assert_eq!((model.tensors.len(), model.warnings.len()), (14, 1));
}
