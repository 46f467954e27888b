//! config.json from a file's keys and tensors: described again it gives the same keys, and what it cannot say is refused.

use ggufsmith_arch::{ExportError, Exported, GgufModel, Hparam, Options, describe, export};
use ggufsmith_core::{DType, TensorExpr, TensorInfo};
use ggufsmith_gguf::{Metadata, Value};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A file as it is known before its weights are read.
#[derive(Clone)]
struct File {
    metadata: Metadata,
    tensors: Vec<(String, Vec<u64>)>,
    tables: BTreeMap<String, Vec<f32>>,
}

/// The source tensors of a model with these settings.
fn sources(config: &Json) -> Vec<TensorInfo> {
    let number = |key: &str| config[key].as_u64().unwrap();
    let (embd, ff, vocab) = (number("hidden_size"), number("intermediate_size"), number("vocab_size"));
    let head = config["head_dim"].as_u64().unwrap_or(embd / number("num_attention_heads"));
    let (q, kv) = (number("num_attention_heads") * head, number("num_key_value_heads") * head);
    let mut list: Vec<(String, Vec<u64>)> =
        vec![("model.embed_tokens.weight".into(), vec![vocab, embd]), ("model.norm.weight".into(), vec![embd])];
    if config["tie_word_embeddings"] != true {
        list.push(("lm_head.weight".into(), vec![vocab, embd]));
    }
    for layer in 0..number("num_hidden_layers") {
        let mut add = |name: &str, shape: &[u64], bias: bool| {
            list.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
            if bias {
                list.push((format!("model.layers.{layer}.{name}.bias"), shape[..1].to_vec()));
            }
        };
        let (bias, mlp_bias) = (config["attention_bias"] == true, config["mlp_bias"] == true);
        add("input_layernorm", &[embd], false);
        add("post_attention_layernorm", &[embd], false);
        add("self_attn.q_proj", &[q, embd], bias);
        add("self_attn.k_proj", &[kv, embd], bias);
        add("self_attn.v_proj", &[kv, embd], bias);
        add("self_attn.o_proj", &[embd, q], bias);
        add("mlp.gate_proj", &[ff, embd], mlp_bias);
        add("mlp.up_proj", &[ff, embd], mlp_bias);
        add("mlp.down_proj", &[embd, ff], mlp_bias);
    }
    let info = |(name, shape)| TensorInfo { name, dtype: DType::F32, shape, file: PathBuf::new(), offset: 0 };
    list.into_iter().map(info).collect()
}

fn config(class: &str, changes: &Json) -> Json {
    let mut config = json!({
        "architectures": [class], "model_type": if class == "MistralForCausalLM" { "mistral" } else { "llama" },
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 50, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": false,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn file(config: &Json) -> File {
    let model = describe(config, &sources(config), &Options::default()).unwrap();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", model.arch);
    for hparam in &model.hparams {
        if let Hparam::Set(key, value) = hparam {
            metadata.set(key.clone(), value.clone());
        }
    }
    let mut file = File { metadata, tensors: Vec::new(), tables: BTreeMap::new() };
    for tensor in model.tensors {
        if let TensorExpr::Values(_, values) = &tensor.expr {
            file.tables.insert(tensor.name.clone(), values.to_vec());
        }
        file.tensors.push((tensor.name, tensor.expr.shape()));
    }
    file
}

impl File {
    fn export(&self, class: Option<&str>) -> Result<Exported, ExportError> {
        let File { metadata, tensors, tables } = self;
        export(&GgufModel { metadata, tensors, tables }, class)
    }

    fn with(&self, key: &str, value: impl Into<Value>) -> File {
        let mut file = self.clone();
        file.metadata.set(key, value);
        file
    }
}

/// The rebuilt config, described, gives the same keys, tensors and tables.
fn check(config: &Json) -> Exported {
    let file = file(config);
    let exported = file.export(Some(config["architectures"][0].as_str().unwrap())).unwrap();
    let original = describe(config, &sources(config), &Options::default()).unwrap();
    assert_eq!(exported.model.hparams, original.hparams, "{config}");
    let table = |model: &ggufsmith_arch::Model| {
        let of = |expr: &TensorExpr| if let TensorExpr::Values(_, v) = expr { Some(v.to_vec()) } else { None };
        model.tensors.iter().find_map(|tensor| of(&tensor.expr))
    };
    assert_eq!(table(&exported.model), table(&original), "{config}");
    assert!(exported.warnings.is_empty(), "{:?}", exported.warnings);
    exported
}

#[test]
fn settings_come_back() {
    for changes in [
        json!({}),
        json!({"tie_word_embeddings": true}),
        json!({"head_dim": 32}),
        json!({"attention_bias": true, "mlp_bias": true}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 32.0}}),
    ] {
        let exported = check(&config("LlamaForCausalLM", &changes));
        for (key, value) in changes.as_object().unwrap() {
            assert_eq!(&exported.config[key], value);
        }
        assert_eq!(exported.config["rms_norm_eps"], json!(1e-5), "the shortest digits");
        assert_eq!(exported.config["rope_theta"], json!(500000.0));
    }
    check(&config("MistralForCausalLM", &json!({"sliding_window": null})));
    check(&config("MistralForCausalLM", &json!({"sliding_window": null, "head_dim": 32})));
}

/// Parameters as published: Llama 3.1, 3.2, and others. They come back to the letter, not only in effect.
#[test]
fn published_rope_parameters_come_back() {
    for (head_dim, factor, low, high, original) in
        [(128, 8.0, 1.0, 4.0, 8192), (64, 32.0, 1.0, 4.0, 8192), (128, 32.0, 1.0, 4.0, 8192), (128, 16.0, 1.0, 4.0, 4096)]
    {
        let scaling = json!({"factor": factor, "high_freq_factor": high, "low_freq_factor": low,
            "original_max_position_embeddings": original, "rope_type": "llama3"});
        let exported = check(&config("LlamaForCausalLM", &json!({"head_dim": head_dim, "rope_scaling": scaling})));
        assert_eq!(exported.config["rope_scaling"], scaling);
    }
}

#[test]
fn factors_that_no_parameters_give_are_refused() {
    let scaling = json!({"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let good = file(&config("LlamaForCausalLM", &json!({"head_dim": 128, "rope_scaling": scaling})));
    for (at, value) in [(40, 3.0), (0, 2.0), (63, 0.5), (10, f32::NAN)] {
        let mut bad = good.clone();
        bad.tables.get_mut("rope_freqs.weight").unwrap()[at] = value;
        assert!(matches!(bad.export(None), Err(ExportError::RopeFactors { count: 64, .. })), "{at}");
    }
    // One unit in the last place is another build of torch: said, and exported.
    let mut near = good.clone();
    let factor = &mut near.tables.get_mut("rope_freqs.weight").unwrap()[30];
    assert!(*factor > 1.0 && *factor < 8.0);
    *factor = factor.next_up();
    let exported = near.export(None).unwrap();
    assert_eq!(exported.config["rope_scaling"], scaling);
    assert!(exported.warnings.iter().any(|w| w.contains("rope_freqs")), "{:?}", exported.warnings);
}

#[test]
fn the_class_is_asked_for_or_read_from_the_name() {
    let file = file(&config("LlamaForCausalLM", &json!({})));
    assert_eq!(file.export(None).unwrap().class, "LlamaForCausalLM");
    let named = file.with("general.name", "Mistral 7B Instruct");
    assert_eq!(named.export(None).unwrap().class, "MistralForCausalLM");
    assert_eq!(named.export(Some("LlamaForCausalLM")).unwrap().class, "LlamaForCausalLM");
    assert!(matches!(file.export(Some("GemmaForCausalLM")), Err(ExportError::UnknownClass { .. })));
    // A setting that Mistral's class does not have.
    let biased = self::file(&config("LlamaForCausalLM", &json!({"attention_bias": true, "mlp_bias": true})));
    assert_eq!(biased.with("general.name", "mistral").export(None).unwrap().class, "LlamaForCausalLM");
}

#[test]
fn what_config_json_cannot_say_is_refused() {
    let good = file(&config("LlamaForCausalLM", &json!({})));
    let error = |file: File| file.export(None).unwrap_err();
    assert!(
        matches!(error(good.with("general.architecture", "lama")), ExportError::UnknownArchitecture { nearest, .. } if nearest == ["llama"])
    );
    assert!(
        matches!(error(good.with("llama.expert_count", 8u32)), ExportError::MissingKey { key } if key == "llama.expert_used_count")
    );
    assert!(matches!(error(good.with("llama.logit_scale", 8f32)), ExportError::ForeignKey { .. }));
    assert!(matches!(error(good.with("llama.attention.value_length", 8u32)), ExportError::Differs { .. }));
    assert!(matches!(error(good.with("llama.rope.dimension_count", 8u32)), ExportError::Differs { .. }));
    assert!(matches!(error(good.with("llama.rope.scaling.type", "longrope")), ExportError::KeyValue { .. }));
    assert!(matches!(error(good.with("llama.attention.head_count_kv", vec![2u32, 2])), ExportError::KeyValue { .. }));
    assert!(matches!(error(good.with("llama.attention.head_count", 0u32)), ExportError::Describe(_)));
    assert!(matches!(error(good.with("llama.block_count", 3u32)), ExportError::Describe(_)));
    // What means nothing is no obstacle, and integers are integers.
    good.with("llama.expert_count", 0u32).with("llama.block_count", 2u64).export(None).unwrap();
    // Older files say less.
    let mut old = good.clone();
    for key in ["llama.vocab_size", "llama.attention.key_length", "llama.attention.value_length", "llama.rope.freq_base"] {
        old.metadata.remove(key).unwrap();
    }
    assert_eq!(old.export(None).unwrap().config["rope_theta"], json!(10000.0));

    for key in ["general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.layer_norm_rms_epsilon"] {
        let mut bad = good.clone();
        bad.metadata.remove(key).unwrap();
        assert!(matches!(error(bad), ExportError::MissingKey { key: missing } if missing == key));
    }
    let mut foreign = good.clone();
    foreign.tensors.push(("blk.0.attn_q_norm.weight".into(), vec![16]));
    assert!(matches!(error(foreign), ExportError::UnknownTensor { tensor, .. } if tensor == "blk.0.attn_q_norm.weight"));
    let mut missing = good.clone();
    missing.tensors.retain(|(name, _)| name != "blk.1.ffn_up.weight");
    assert!(matches!(error(missing), ExportError::Describe(_)));
    let mut shape = good;
    shape.tensors.iter_mut().find(|(name, _)| name == "blk.1.ffn_up.weight").unwrap().1 = vec![96, 65];
    assert!(matches!(error(shape), ExportError::Describe(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Any parameters: what comes back has the same effect, bit for bit or to within rounding.
    #[test]
    fn rope_factors_are_solved(
        head in 2u32..65, factor in 2u32..64, low in 1u32..4, width in 1u32..16, original in 256u32..40000, theta in 10_000u32..1_000_000,
    ) {
        let scaling = json!({"factor": f64::from(factor), "high_freq_factor": f64::from(low + width), "low_freq_factor": f64::from(low),
            "original_max_position_embeddings": original, "rope_type": "llama3"});
        let config = config("LlamaForCausalLM", &json!({"head_dim": 2 * head, "rope_scaling": scaling, "rope_theta": f64::from(theta)}));
        let file = file(&config);
        if let Ok(exported) = file.export(None) {
            let found = exported.model.tensors.iter().find_map(|tensor| match &tensor.expr {
                TensorExpr::Values(_, values) => Some(values.clone()),
                _ => None,
            });
            for (a, b) in found.unwrap().iter().zip(&file.tables["rope_freqs.weight"]) {
                prop_assert!((a - b).abs() <= 1e-6 * b, "{a} {b}");
            }
        } else {
            // Only few factors between the ends leave it open what they were; then it is refused, never guessed.
            let between = file.tables["rope_freqs.weight"].iter().filter(|f| **f > 1.0 && **f < factor as f32).count();
            prop_assert!(between < 3, "{between} factors between the ends of {scaling}");
        }
    }
}
