//! Every way of writing a config.json in fixtures/configs against the section of keys and the list of tensors that the reference
//! converter makes of it.

use ggufsmith_arch::{FAMILIES, Hparam, Model, Options, by_class, class_names, describe};
use ggufsmith_core::{DType, TensorExpr, TensorInfo};
use ggufsmith_gguf::Value;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn cases() -> serde_json::Map<String, Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/configs/configs.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn shape(entry: &Json) -> (String, Vec<u64>) {
    let dims = entry[1].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
    (entry[0].as_str().unwrap().to_owned(), dims)
}

fn source(case: &Json) -> Vec<TensorInfo> {
    let info = |entry| {
        let (name, shape) = shape(entry);
        TensorInfo { name, dtype: DType::BF16, shape, file: PathBuf::new(), offset: 0 }
    };
    case["source"].as_array().unwrap().iter().map(info).collect()
}

fn described(case: &Json) -> Model {
    describe(&case["config"], &source(case), &Options::default()).unwrap()
}

fn hparam(entry: &Json) -> Hparam {
    let key = entry[0].as_str().unwrap();
    let value = match entry[1].as_str().unwrap() {
        _ if key == "general.file_type" => return Hparam::FileType,
        "UINT32" => Value::U32(entry[2].as_u64().unwrap().try_into().unwrap()),
        "FLOAT32" => Value::F32(entry[2].as_f64().unwrap() as f32),
        "STRING" => Value::String(entry[2].as_str().unwrap().to_owned()),
        other => panic!("{other}"),
    };
    Hparam::Set(key.to_owned(), value)
}

#[test]
fn keys_and_tensors_are_those_of_the_reference_converter() {
    let cases = cases();
    assert!(cases.len() > 30);
    for (name, case) in &cases {
        let model = described(case);
        let keys: Vec<Hparam> = case["keys"].as_array().unwrap().iter().map(hparam).collect();
        assert_eq!(model.hparams, keys, "{name}");
        let tensors: Vec<_> = case["tensors"].as_array().unwrap().iter().map(shape).collect();
        let found: Vec<_> = model.tensors.iter().map(|t| (t.name.clone(), t.expr.shape())).collect();
        assert_eq!(found, tensors, "{name}");
        let factors = model.tensors.iter().find(|t| t.name == "rope_freqs.weight").map(|t| match &t.expr {
            TensorExpr::Values(_, values) => values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        let wanted =
            case.get("rope_freqs").map(|list| list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>());
        assert_eq!(factors, wanted, "{name}");
    }
}

#[test]
fn what_is_noticed_on_the_way() {
    let cases = cases();
    let count = |name: &str| described(&cases[name]).warnings.len();
    for quiet in ["minimal", "llama3, as Llama 3.1", "transformers 5", "biases", "rotary buffers"] {
        assert_eq!(count(quiet), 0, "{quiet}");
    }
    for noted in ["longrope", "dynamic", "unknown model_type", "unknown key", "mistral, window"] {
        assert_eq!(count(noted), 1, "{noted}");
    }
    let dropped = described(&cases["rotary buffers"]).dropped;
    assert_eq!(
        dropped.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    );
}

#[test]
fn query_and_key_rows_are_reordered_biases_too_and_nothing_else() {
    let model = described(&cases()["biases"]);
    for tensor in &model.tensors {
        let heads = match tensor.name.as_str() {
            "blk.0.attn_q.weight" | "blk.0.attn_q.bias" => Some(4),
            "blk.0.attn_k.weight" | "blk.0.attn_k.bias" => Some(2),
            _ => None,
        };
        match (&tensor.expr, heads) {
            (TensorExpr::PermuteRows { dims, axes, .. }, Some(heads)) => {
                assert_eq!((dims.as_slice(), axes.as_slice()), ([heads, 2, 4].as_slice(), [0, 2, 1].as_slice()));
            }
            (TensorExpr::Read(_), None) => {}
            (expr, _) => panic!("{}: {expr:?}", tensor.name),
        }
    }
}

#[test]
fn vectors_stay_f32_and_matrices_do_not() {
    for tensor in described(&cases()["biases"]).tensors {
        assert_eq!(tensor.keep_f32, tensor.expr.shape().len() == 1, "{}", tensor.name);
    }
}

#[test]
fn names_go_both_ways() {
    let (family, _) = by_class("LlamaForCausalLM").unwrap();
    let names = family.names();
    for case in cases().values() {
        let model = described(case);
        for tensor in model.tensors.iter().filter(|t| !t.expr.reads().is_empty()) {
            let hf = &tensor.expr.reads()[0].name;
            assert_eq!(names.gguf(hf).as_ref(), Some(&tensor.name));
            assert_eq!(names.hf(&tensor.name).as_ref(), Some(hf));
        }
    }
    assert_eq!(names.gguf("model.layers.31.mlp.up_proj.weight").unwrap(), "blk.31.ffn_up.weight");
    for unknown in
        ["model.layers.{}.mlp.up_proj.weight", "model.layers.01.mlp.up_proj.weight", "model.layers.mlp.up_proj.weight", "x", ""]
    {
        assert_eq!(names.gguf(unknown), None, "{unknown}");
    }
    assert_eq!(names.hf("blk.{}.ffn_up.weight"), None);
}

#[test]
fn recipe_inputs_and_classes() {
    let model = described(&cases()["mistral, default heads"]);
    assert_eq!((model.recipe.n_layer, model.recipe.n_head, model.recipe.n_head_kv, model.recipe.n_expert), (1, 8, 8, 0));
    assert_eq!((model.arch, model.vocab_size), ("llama", 512));
}

#[test]
fn defaults_are_json_objects_and_no_name_is_there_twice() {
    let mut model_types = Vec::new();
    for defaults in FAMILIES.iter().flat_map(|family| family.about().defaults) {
        assert!(serde_json::from_str::<serde_json::Map<String, Json>>(defaults.json).is_ok(), "{}", defaults.model_type);
        model_types.push(defaults.model_type);
    }
    for mut names in [model_types, class_names().collect(), FAMILIES.iter().map(|family| family.name()).collect()] {
        let len = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), len, "{names:?}");
    }
}
