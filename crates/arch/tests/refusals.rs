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

/// A one-layer Mixtral of two experts.
fn mixtral() -> (Value, Vec<TensorInfo>) {
    let (mut config, mut tensors) = llama();
    config["architectures"] = json!(["MixtralForCausalLM"]);
    config["model_type"] = json!("mixtral");
    config["num_local_experts"] = json!(2);
    config["num_experts_per_tok"] = json!(1);
    tensors.retain(|info| !info.name.contains(".mlp."));
    tensors.push(info("model.layers.0.block_sparse_moe.gate.weight", &[2, 32]));
    for expert in 0..2 {
        for (part, shape) in [("w1", [48, 32]), ("w2", [32, 48]), ("w3", [48, 32])] {
            tensors.push(info(&format!("model.layers.0.block_sparse_moe.experts.{expert}.{part}.weight"), &shape));
        }
    }
    (config, tensors)
}

#[test]
fn experts_that_are_incomplete_too_many_or_stored_in_two_ways() {
    let with = |change: &dyn Fn(&mut Value, &mut Vec<TensorInfo>)| {
        let (mut config, mut tensors) = mixtral();
        change(&mut config, &mut tensors);
        describe(&config, &tensors, &Options::default())
    };
    let model = with(&|_, _| {}).unwrap();
    let stack = model.tensors.iter().find(|tensor| tensor.name == "blk.0.ffn_down_exps.weight").unwrap();
    assert_eq!((stack.expr.shape(), stack.expr.reads().len(), model.recipe.n_expert), (vec![2, 32, 48], 2, 2));
    let (_, all) = mixtral();
    for gone in all.iter().filter(|info| info.name.contains("experts")) {
        let error = refused(with(&|_, tensors| tensors.retain(|info| info.name != gone.name)));
        assert!(matches!(&error, ArchError::MissingTensor { tensor, .. } if *tensor == gone.name), "{error}");
    }
    let name = "model.layers.0.block_sparse_moe.experts.2.w1.weight";
    let error = refused(with(&|_, tensors| tensors.push(info(name, &[48, 32]))));
    assert!(matches!(&error, ArchError::NumberBeyond { tensor, .. } if tensor == name), "{error}");
    let again = all.iter().position(|info| info.name.contains("experts.1.w2")).unwrap();
    let error = refused(with(&|_, tensors| tensors.insert(again, all[again].clone())));
    assert!(matches!(&error, ArchError::TensorTwice { first, second, .. } if first == second), "{error}");
    let error = refused(with(&|_, tensors| tensors.push(info("model.layers.0.mlp.experts.down_proj", &[2, 32, 48]))));
    assert!(matches!(&error, ArchError::TensorTwice { output, .. } if output == "blk.0.ffn_down_exps.weight"), "{error}");
    let error = refused(with(&|config, _| config["num_experts_per_tok"] = json!(3)));
    assert!(matches!(error, ArchError::KeyValue { key, .. } if key == "num_experts_per_tok"));
}

#[test]
fn a_tower_of_a_class_that_wraps_nothing_is_unknown() {
    let error = refused(with(|_, tensors| tensors.push(info("vision_tower.norm.weight", &[32]))));
    assert!(matches!(&error, ArchError::UnknownTensor { tensor, .. } if tensor == "vision_tower.norm.weight"), "{error}");
    // The same model inside a wrapper, its settings under text_config.
    let (config, tensors) = llama();
    let outer = json!({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": config,
        "vision_config": {"hidden_size": 8}, "image_token_index": 7});
    let mut wrapped: Vec<_> =
        tensors.iter().map(|inner| TensorInfo { name: format!("language_model.{}", inner.name), ..inner.clone() }).collect();
    wrapped.push(info("vision_tower.norm.weight", &[8]));
    let model = describe(&outer, &wrapped, &Options { strict_config: true }).unwrap();
    assert_eq!((model.tensors.len(), model.dropped.len()), (12, 1));
    let error = refused(describe(
        &json!({"architectures": ["LlavaForConditionalGeneration"], "text_config": 7}),
        &wrapped,
        &Options::default(),
    ));
    assert!(matches!(error, ArchError::KeyValue { key, .. } if key == "text_config"));
}

/// Qwen 2 has biases; KORMo, which is converted as one, has none, and other names for its norms.
#[test]
fn two_ways_of_naming_a_norm() {
    let (mut config, mut tensors) = llama();
    config["architectures"] = json!(["Qwen2ForCausalLM"]);
    config["model_type"] = json!("qwen2");
    let error = refused(describe(&config, &tensors, &Options::default()));
    assert!(matches!(&error, ArchError::MissingTensor { tensor, .. } if tensor.ends_with("q_proj.bias")), "{error}");
    config["architectures"] = json!(["KORMoForCausalLM"]);
    for tensor in &mut tensors {
        tensor.name = tensor.name.replace("input_layernorm", "pre_attention_layernorm");
        tensor.name = tensor.name.replace("post_attention_layernorm", "pre_mlp_layernorm");
    }
    let model = describe(&config, &tensors, &Options::default()).unwrap();
    for name in ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"] {
        assert!(model.tensors.iter().any(|tensor| tensor.name == name), "{name}");
    }
}

/// A class that nobody knows, taken for a Llama on the user's word, gets no defaults and is warned of.
#[test]
fn a_class_on_the_users_word() {
    let (mut config, tensors) = llama();
    config["model_type"] = json!("own");
    for (key, value) in [("max_position_embeddings", json!(64)), ("rms_norm_eps", json!(1e-5)), ("rope_theta", json!(1e4))] {
        config[key] = value;
    }
    let model = describe(&config, &tensors, &Options::default()).unwrap();
    assert!(model.warnings.iter().any(|warning| warning.contains("own")), "{:?}", model.warnings);
}

/// Settings that files of an architecture cannot say and its engine does not compute: refused, not converted wrongly.
#[test]
fn what_the_engine_does_not_compute() {
    let fixture = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/tiny/{name}/hf"));
        let dir = ggufsmith_checkpoint::ModelDir::open(&path).unwrap();
        let source = ggufsmith_checkpoint::Checkpoint::open(&dir).unwrap();
        (dir.config().clone(), ggufsmith_core::TensorSource::tensors(&source).to_vec())
    };
    for (name, key, value) in [
        ("qwen3", "attention_bias", json!(true)),
        ("qwen2moe", "norm_topk_prob", json!(true)),
        ("qwen2moe", "decoder_sparse_step", json!(2)),
        ("qwen3moe", "norm_topk_prob", json!(false)),
        ("qwen3moe", "mlp_only_layers", json!([0])),
        ("olmo2", "tie_word_embeddings", json!(true)),
        ("olmo3", "layer_types", json!(["full_attention"])),
        ("olmoe", "rms_norm_eps", json!(1e-6)),
        ("phi3", "partial_rotary_factor", json!(0.1)),
        ("phi3-long", "rope_scaling", json!({"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]})),
        ("gemma", "tie_word_embeddings", json!(false)),
        ("gemma", "hidden_act", json!("silu")),
        ("gemma2", "query_pre_attn_scalar", json!(64)),
        ("gemma3", "query_pre_attn_scalar", json!(16)),
        ("gemma3", "attn_logit_softcapping", json!(50.0)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("granite", "attention_multiplier", json!(0)),
        ("smollm3", "no_rope_layers", json!([1, 1, 1, 1])),
        ("smollm3", "mlp_bias", json!(true)),
    ] {
        let (mut config, tensors) = fixture(name);
        describe(&config, &tensors, &Options::default()).unwrap();
        config[key] = value;
        let error = refused(describe(&config, &tensors, &Options::default()));
        assert!(matches!(&error, ArchError::KeyValue { key: k, .. } if k == key), "{name} {key}: {error}");
    }
    // Which layers have a window is written where it is not what the engine takes for granted.
    let (mut config, tensors) = fixture("gemma2");
    config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    let model = describe(&config, &tensors, &Options::default()).unwrap();
    let key = "gemma2.attention.sliding_window_pattern".to_owned();
    assert!(model.hparams.contains(&ggufsmith_arch::Hparam::Set(key, vec![false, true].into())));
}

/// What stands below a root, is a base of powers, or is divided by.
#[test]
fn a_sign_that_makes_no_sense() {
    let linear = |factor: f64| json!({"rope_type": "linear", "factor": factor});
    for (key, value) in [
        ("rms_norm_eps", json!(-1e-5)),
        ("rope_theta", json!(0)),
        ("rope_theta", json!(-10000.0)),
        ("rope_scaling", linear(0.0)),
        ("rope_scaling", linear(-2.0)),
    ] {
        let error = refused(with_key(key, value.clone()));
        assert!(matches!(error, ArchError::KeyValue { .. }), "{key}: {value}: {error}");
    }
    assert!(with_key("rms_norm_eps", json!(0)).is_ok());
}
