//! Against goldens of the pinned converter (`fixtures/metadata`), and what the conversion does where the reference stops.

use super::node::{Kind, Node, Scalar};
use super::*;
use ggufsmith_gguf::{Array, Value};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/metadata")
}

fn json(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A GGUF value as make.py writes it.
fn typed(value: &Value) -> (Json, Json) {
    fn list<T: Clone + Into<Json>>(name: &str, items: &[T]) -> (Json, Json) {
        (serde_json::json!(["ARRAY", name]), Json::Array(items.iter().cloned().map(Into::into).collect()))
    }
    match value {
        Value::String(s) => (serde_json::json!(["STRING"]), s.clone().into()),
        Value::U32(n) => (serde_json::json!(["UINT32"]), (*n).into()),
        Value::I32(n) => (serde_json::json!(["INT32"]), (*n).into()),
        Value::F32(f) => (serde_json::json!(["FLOAT32"]), f64::from(*f).into()),
        Value::Array(Array::String(v)) => list("STRING", v),
        Value::Array(Array::I32(v)) => list("INT32", v),
        Value::Array(Array::Bool(v)) => list("BOOL", v),
        Value::Array(Array::F32(v)) => list("FLOAT32", &v.iter().map(|f| f64::from(*f)).collect::<Vec<_>>()),
        other => panic!("no general.* key has the type of {other:?}"),
    }
}

/// The keys as make.py dumps them.
fn dump(general: &General) -> Json {
    let mut metadata = Metadata::new();
    general.write(&mut metadata);
    let row = |(key, value): (&str, &Value)| {
        let (types, value) = typed(value);
        serde_json::json!([key, types, value])
    };
    metadata.iter().map(row).collect()
}

struct Case {
    name: String,
    dir: ModelDir,
    overrides: Overrides,
    tensors: Vec<(String, Vec<u64>)>,
    expected: Json,
}

fn cases() -> Vec<Case> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(fixtures()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.join("expected.json").is_file());
    paths.sort();
    let case = |path: PathBuf| {
        let expected = json(&path.join("expected.json"));
        let file = path.join("override.json");
        let overrides = Overrides {
            model_name: expected["model_name"].as_str().map(str::to_owned),
            metadata_file: file.is_file().then(|| json(&file).as_object().unwrap().clone()),
            directory_name: expected["directory"].as_str().map(str::to_owned),
        };
        let tensor = |t: &Json| {
            let shape = t[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            (t[0].as_str().unwrap().to_owned(), shape)
        };
        Case {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            dir: ModelDir::open(&path).unwrap(),
            overrides,
            tensors: expected["tensors"].as_array().unwrap().iter().map(tensor).collect(),
            expected,
        }
    };
    paths.into_iter().map(case).collect()
}

fn count(case: &Case) -> ParameterCount {
    ParameterCount::of(case.tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))).unwrap()
}

#[test]
fn every_case_has_the_converters_keys_and_file_names() {
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases found", cases.len());
    for case in &cases {
        let (general, _) = load(&case.dir, &case.overrides, &count(case)).unwrap();
        assert_eq!(dump(&general), case.expected["keys"], "{}", case.name);
        assert_eq!(general.file_name("F32"), case.expected["file_name"], "{}", case.name);
        let (vocabulary, _) = load(&case.dir, &case.overrides, &ParameterCount::default()).unwrap();
        assert_eq!(vocabulary.vocabulary_file_name(), case.expected["vocabulary_file_name"], "{}", case.name);
    }
}

#[test]
fn the_case_comparison_notices_a_changed_name_order_or_type() {
    let case = cases().into_iter().find(|c| c.name == "card-full").unwrap();
    let mut other = case.overrides.clone();
    other.directory_name = Some("zephyr-7b-beta2".into());
    let (general, _) = load(&case.dir, &other, &count(&case)).unwrap();
    assert_ne!(dump(&general), case.expected["keys"]);
    let (general, _) = load(&case.dir, &case.overrides, &count(&case)).unwrap();
    let mut keys = case.expected["keys"].clone();
    keys.as_array_mut().unwrap().swap(3, 4);
    assert_ne!(dump(&general), keys);
    assert_ne!(typed(&Value::I32(1)), typed(&Value::U32(1)));
}

#[test]
fn model_ids_come_apart_as_in_the_reference() {
    let rows = json(&fixtures().join("names.json"));
    assert!(rows.as_array().unwrap().len() > 300);
    for row in rows.as_array().unwrap() {
        let text = |i: usize| row[i].as_str().map(str::to_owned);
        let id = row[0].as_str().unwrap();
        let parsed = ModelId::parse(id, row[1].as_u64().unwrap());
        let expected = ModelId {
            full_name: text(2),
            organization: text(3),
            basename: text(4),
            finetune: text(5),
            version: text(6),
            size_label: text(7),
        };
        assert_eq!(parsed, expected, "{id:?}");
        let name = title(parsed.full_name.as_deref().unwrap());
        assert_eq!(Some(&name), text(8).as_ref(), "{id:?}");
        let parts = NameParts {
            name: Some(name),
            basename: parsed.basename,
            finetune: parsed.finetune,
            version: parsed.version,
            size_label: parsed.size_label,
        };
        // The reference would write a slash that is left in a part into the file name, and fail.
        assert_eq!(parts.file_name("q8_0"), row[9].as_str().unwrap().replace('/', "-") + ".gguf", "{id:?}");
    }
}

#[test]
fn size_labels_round_as_in_the_reference() {
    for row in json(&fixtures().join("sizes.json")).as_array().unwrap() {
        let n = |i: usize| row[i].as_u64().unwrap();
        let count = ParameterCount { total: n(0), shared: n(1), per_expert: n(2), experts: n(3) };
        assert_eq!(count.label(), row[4].as_str().unwrap(), "{count:?}");
    }
}

/// A node as make.py writes Python values; floats are compared as numbers, since their spelling differs.
fn same(node: &Node, expected: &Json) -> bool {
    match (node, expected) {
        (Node::List(list), Json::Array(e)) => list.len() == e.len() && list.iter().zip(e).all(|(n, e)| same(n, e)),
        (Node::Map(map), Json::Object(e)) => e
            .get("map")
            .and_then(Json::as_object)
            .is_some_and(|e| map.len() == e.len() && map.iter().all(|(k, n)| e.get(k).is_some_and(|e| same(n, e)))),
        (Node::Scalar(Scalar { kind, written }), e) => match kind {
            Kind::Null => e.is_null(),
            Kind::Bool(b) => e.as_bool() == Some(*b),
            Kind::Text => e.as_str() == Some(written),
            Kind::Int(i) => e["int"].as_str() == Some(&i.to_string()),
            Kind::Float(f) => e["float"]
                .as_str()
                .and_then(|t| t.parse::<f64>().ok())
                .is_some_and(|e| e.to_bits() == f.to_bits() || (e.is_nan() && f.is_nan())),
            Kind::Other => e.get("other").is_some(),
        },
        _ => false,
    }
}

#[test]
fn yaml_means_what_pyyaml_reads() {
    let rows = json(&fixtures().join("yaml.json"));
    assert!(rows.as_array().unwrap().len() > 150);
    for row in rows.as_array().unwrap() {
        let text = row[0].as_str().unwrap();
        match (yaml::load(text), row[1].get("is")) {
            (Ok(node), Some(expected)) => assert!(same(&node, expected), "{text:?}: {node:?} is not {expected}"),
            (Err(error), Some(expected)) => panic!("{text:?}: {error}, PyYAML reads {expected}"),
            // Where PyYAML stops, this reader may go on; a card that it understands is of use.
            (_, None) => {}
        }
    }
    assert!(!same(&Node::text("1"), &serde_json::json!({"int": "1"})) && !same(&Node::text("a"), &"b".into()));
}

#[test]
fn hostile_yaml_is_an_error_and_costs_no_memory() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..60 {
        laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
    }
    assert!(matches!(yaml::load(&laughs), Err(YamlError::Expansion { .. })));
    let chain: String = (1..50_000).map(|i| format!("a{i}: &a{i} [*a{}]\n", i - 1)).collect();
    assert!(matches!(yaml::load(&format!("a0: &a0 x\n{chain}")), Err(YamlError::Expansion { .. })));
    let copies = format!("a: &a {}\ntags: [{}]\n", "x".repeat(500_000), "*a, ".repeat(100_000));
    assert!(matches!(yaml::load(&copies), Err(YamlError::Expansion { .. })));
    assert!(yaml::load(&format!("a: &a {}\ntags: [*a, *a]\n", "x".repeat(1000))).is_ok());
    assert!(matches!(yaml::load(&"[".repeat(100_000)), Err(YamlError::Depth { .. })));
    assert!(matches!(yaml::load(&"- ".repeat(100_000)), Err(YamlError::Depth { .. })));
    assert!(matches!(yaml::load("a: &a [*a]"), Err(YamlError::Alias { .. })));
    assert!(matches!(yaml::load("a: 1\n--- \nb: 2\n"), Err(YamlError::SecondDocument { line: 2 })));
    assert!(matches!(yaml::load("a: !!python/none x"), Err(YamlError::Tag { .. })));
    assert!(matches!(yaml::load("? [a]\n: b"), Err(YamlError::Key { .. })));
    assert!(matches!(yaml::load("a: [1"), Err(YamlError::Syntax(_))));
}

#[test]
fn what_the_parser_panics_on_is_an_error() {
    assert!(matches!(yaml::load("[!,"), Err(yaml::YamlError::Panicked)));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_yaml_reader_panic(text in "[a-c0-9:\\-\\[\\]{}&*!|>'\"%@#?, \n\u{e9}~=<]{0,80}") {
        let _ = yaml::load(&text);
    }

    #[test]
    fn no_name_makes_the_heuristics_panic(id in "([a-zA-Z0-9_.\\-/ é７K]|[0-9]b|v[0-9]|\\PC){0,24}", total in 0u64..) {
        let parsed = ModelId::parse(&id, total);
        let name = title(parsed.full_name.as_deref().unwrap_or_default());
        let file = NameParts { name: Some(name), basename: parsed.basename, finetune: parsed.finetune, version: parsed.version,
            size_label: parsed.size_label }.file_name("F16");
        proptest::prop_assert!(!file.contains('/') && file.ends_with(".gguf"));
    }
}

/// A model directory with a card and a generation_config.json.
fn model(card: &[u8], generation_config: &str) -> (tempfile::TempDir, ModelDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    std::fs::write(folder.path().join("README.md"), card).unwrap();
    std::fs::write(folder.path().join("generation_config.json"), generation_config).unwrap();
    let dir = ModelDir::open(folder.path()).unwrap();
    (folder, dir)
}

fn read(card: &[u8], generation_config: &str) -> (Metadata, Vec<MetadataWarning>) {
    let (_folder, dir) = model(card, generation_config);
    let overrides = Overrides { directory_name: Some("m".into()), ..Default::default() };
    let (general, warnings) = load(&dir, &overrides, &ParameterCount::default()).unwrap();
    let mut metadata = Metadata::new();
    general.write(&mut metadata);
    (metadata, warnings)
}

#[test]
fn a_card_that_cannot_be_read_is_a_warning() {
    let many = format!("---\ndatasets: [{}]\n---\n", "a, ".repeat(1001));
    for card in [many.as_bytes(), b"---\na: [1\n---\n", b"---\nlicense: \xff\n---\n", b"---\na: b: c\n---\n", b"---\n- a\n---\n"]
    {
        let (metadata, warnings) = read(card, "{}");
        assert!(matches!(warnings[..], [MetadataWarning::Card(_)]), "{warnings:?}");
        assert_eq!(metadata.len(), 2, "type and name only");
    }
}

#[test]
fn values_on_which_the_reference_stops_are_written_as_spelled_with_a_warning() {
    let (metadata, warnings) = read(
        b"---\nversion: 1.10\nlicense: yes\nauthor: [a]\nauthor_: x\ntags: [nlp, 2024-01-01, ~, 7, [x]]\nlicense_link: 0\n---\n",
        "{}",
    );
    assert_eq!(metadata.get("general.version"), Some(&Value::from("1.10")));
    assert_eq!(metadata.get("general.license"), Some(&Value::from("yes")));
    assert_eq!(metadata.get("general.author"), None);
    let tags = vec!["nlp".to_owned(), "2024-01-01".to_owned(), "7".to_owned()];
    assert_eq!(metadata.get("general.tags"), Some(&Value::from(tags)));
    let not_text = |w: &&MetadataWarning| matches!(w, MetadataWarning::NotText { .. });
    assert_eq!(warnings.iter().filter(not_text).count(), 3 + 4, "{warnings:?}");
    assert!(warnings.iter().any(|w| matches!(w, MetadataWarning::ReadAsFalse { key, .. } if key == "general.license.link")));
}

#[test]
fn sampling_values_of_another_type_are_left_out_with_a_warning() {
    let (metadata, warnings) =
        read(b"", r#"{"top_k": 50.5, "top_p": "0.9", "temperature": 1e39, "penalty_last_n": 4294967296, "min_p": 0.5}"#);
    let keys: Vec<&str> = metadata.iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["general.type", "general.sampling.min_p", "general.name"]);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(matches!(read(b"", "[1]").1[..], [MetadataWarning::GenerationConfigNotAnObject]));
    assert!(matches!(read(b"", "{").1[..], [MetadataWarning::GenerationConfig(_)]));
}

#[test]
fn a_metadata_file_with_a_wrong_type_is_an_error() {
    let (_folder, dir) = model(b"", "{}");
    for (key, value) in [
        ("general.name", serde_json::json!(1)),
        ("general.tags", serde_json::json!("abc")),
        ("general.languages", serde_json::json!([1])),
        ("general.base_models", serde_json::json!(["org/name"])),
        ("general.datasets", serde_json::json!([{"name": 1}])),
        ("general.sampling.top_k", serde_json::json!(1.5)),
        ("general.sampling.sequence", serde_json::json!(1)),
    ] {
        let file = [(key.to_owned(), value)].into_iter().collect();
        let overrides = Overrides { metadata_file: Some(file), ..Default::default() };
        let error = load(&dir, &overrides, &ParameterCount::default()).unwrap_err();
        assert!(matches!(&error, MetadataError::FileValue { key: k, .. } if k == key), "{error}");
    }
    let file = [("general.license".to_owned(), serde_json::json!("mit"))].into_iter().collect();
    let overrides = Overrides { metadata_file: Some(file), ..Default::default() };
    let (_, warnings) = load(&dir, &overrides, &ParameterCount::default()).unwrap();
    assert!(matches!(&warnings[..], [MetadataWarning::UnknownKey { key }] if key == "general.license"));
}

#[test]
fn parameters_are_counted_with_checked_arithmetic() {
    let of = |name: &str, shape: &[u64]| ParameterCount::of([(name, shape)]);
    assert!(matches!(of("a", &[u64::MAX, 2]), Err(MetadataError::TooManyParameters { .. })));
    assert!(matches!(of("blk.0.ffn_up_exps.weight", &[0, 2, 2]), Err(MetadataError::NoExperts { .. })));
    let stacked = of("blk.0.ffn_up_exps.weight", &[4, 2, 3]).unwrap();
    assert_eq!(stacked, ParameterCount { total: 24, shared: 0, per_expert: 6, experts: 4 });
    assert_eq!(of("blk.0.ffn_up_exps.bias", &[4, 3]).unwrap().shared, 12);
}

#[test]
fn file_name_templates_are_filled() {
    assert_eq!(fill_template("m-{ftype}.{OUTTYPE}{}{{x}}.gguf", "Q8_0").unwrap(), "m-q8_0.Q8_0q8_0{x}.gguf");
    for bad in ["{", "}", "{type}", "{0", "a}b"] {
        assert!(matches!(fill_template(bad, "F16"), Err(MetadataError::Template { .. })), "{bad}");
    }
}
