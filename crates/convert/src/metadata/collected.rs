//! What was found about a model, before it is written as GGUF keys.

use super::model_id::{ModelId, title};
use super::naming::NameParts;
use super::node::{Fields, Kind, Node, Scalar};
use super::{MetadataWarning, Origin};
use ggufsmith_gguf::{Array, Metadata, Value};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The text keys below `general.`, in file order.
pub(super) const TEXT_KEYS: [&str; 20] = [
    "name",
    "author",
    "version",
    "organization",
    "finetune",
    "basename",
    "description",
    "quantized_by",
    "size_label",
    "license",
    "license.name",
    "license.link",
    "url",
    "doi",
    "uuid",
    "repo_url",
    "source.url",
    "source.doi",
    "source.uuid",
    "source.repo_url",
];

/// The keys of a base model or dataset, in file order.
pub(super) const SOURCE_KEYS: [&str; 9] =
    ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// The type that a sampling parameter has in GGUF.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SamplingType {
    Text,
    I32,
    F32,
}

/// The sampling keys below `general.sampling.`, in file order, with their types and their names in generation_config.json.
pub(super) const SAMPLING_KEYS: [(&str, SamplingType, &[&str]); 12] = [
    ("sequence", SamplingType::Text, &["sequence"]),
    ("top_k", SamplingType::I32, &["top_k"]),
    ("top_p", SamplingType::F32, &["top_p"]),
    ("min_p", SamplingType::F32, &["min_p"]),
    ("xtc_probability", SamplingType::F32, &["xtc_probability"]),
    ("xtc_threshold", SamplingType::F32, &["xtc_threshold"]),
    ("temp", SamplingType::F32, &["temperature"]),
    ("penalty_last_n", SamplingType::I32, &["penalty_last_n"]),
    ("penalty_repeat", SamplingType::F32, &["penalty_repeat", "repetition_penalty"]),
    ("mirostat", SamplingType::I32, &["mirostat"]),
    ("mirostat_tau", SamplingType::F32, &["mirostat_tau"]),
    ("mirostat_eta", SamplingType::F32, &["mirostat_eta"]),
];

/// Everything found, by key below `general.`; a key that is not there is unknown.
#[derive(Debug, Default)]
pub(super) struct Collected {
    fields: BTreeMap<&'static str, (Origin, Rc<Node>)>,
    sampling: BTreeMap<&'static str, (Origin, Rc<Node>)>,
    pub base_models: Option<Vec<Fields>>,
    pub datasets: Option<Vec<Fields>>,
    pub tags: Option<Vec<Rc<Node>>>,
    pub languages: Option<Vec<Rc<Node>>>,
    pub warnings: Vec<MetadataWarning>,
}

impl Collected {
    /// Set a text key, or unset it where the value is null.
    pub fn set(&mut self, key: &'static str, origin: Origin, value: Rc<Node>) {
        if value.is_null() {
            self.fields.remove(key);
        } else {
            self.fields.insert(key, (origin, value));
        }
    }

    /// Set a sampling key, or unset it where the value is null.
    pub fn set_sampling(&mut self, key: &'static str, origin: Origin, value: Rc<Node>) {
        if value.is_null() {
            self.sampling.remove(key);
        } else {
            self.sampling.insert(key, (origin, value));
        }
    }

    /// Set a text key unless it is known.
    pub fn set_default(&mut self, key: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.fields.entry(key).or_insert_with(|| (Origin::Name, Rc::new(Node::text(value))));
        }
    }

    /// Whether a text key is known.
    pub fn knows(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Fill what is still unknown from a model id.
    pub fn apply_model_id(&mut self, id: &str, total_params: u64) {
        let parsed = ModelId::parse(id, total_params);
        self.set_default("name", parsed.full_name.as_deref().map(title));
        self.set_default("organization", parsed.organization.as_deref().map(title));
        self.set_default("basename", parsed.basename);
        self.set_default("finetune", parsed.finetune);
        self.set_default("version", parsed.version);
        self.set_default("size_label", parsed.size_label);
    }

    /// The parts of the default file name.
    pub fn name_parts(&self) -> NameParts {
        let part = |key: &str| match &*self.fields.get(key)?.1 {
            node if node.as_text().is_some() || node.is_truthy() => written(node),
            _ => None,
        };
        NameParts {
            name: part("name"),
            basename: part("basename"),
            finetune: part("finetune"),
            version: part("version"),
            size_label: part("size_label"),
        }
    }

    /// The GGUF keys, in the order of gguf-py's `set_gguf_meta_model`.
    pub fn into_keys(mut self) -> (Metadata, Vec<MetadataWarning>) {
        let mut out = Metadata::new();
        for (key, sampling_type, _) in SAMPLING_KEYS {
            let Some((origin, node)) = self.sampling.get(key) else { continue };
            match sampling_value(node, sampling_type) {
                Some(value) => drop(value.map(|v| out.set(format!("general.sampling.{key}"), v))),
                None => self.warnings.push(MetadataWarning::Sampling { key, origin: *origin, value: describe(node) }),
            }
        }
        for key in TEXT_KEYS {
            if let Some((origin, node)) = self.fields.get(key) {
                let full = format!("general.{key}");
                put_text(&mut out, full, key == "license", *origin, node, &mut self.warnings);
            }
        }
        for (kind, sources) in [("base_model", &self.base_models), ("dataset", &self.datasets)] {
            let Some(sources) = sources else { continue };
            // Cards are limited to 1000; a metadata file of 2^32 entries does not fit the memory of its reader.
            out.set(format!("general.{kind}.count"), u32::try_from(sources.len()).unwrap_or(u32::MAX));
            for (i, fields) in sources.iter().enumerate() {
                for key in SOURCE_KEYS {
                    if let Some(node) = fields.get(key) {
                        let full = format!("general.{kind}.{i}.{key}");
                        put_text(&mut out, full, false, Origin::Card, node, &mut self.warnings);
                    }
                }
            }
        }
        for (key, list) in [("tags", &self.tags), ("languages", &self.languages)] {
            if let Some(array) = list.as_deref().and_then(|list| array(key, list, &mut self.warnings)) {
                out.set(format!("general.{key}"), Value::Array(array));
            }
        }
        (out, self.warnings)
    }
}

/// A scalar as it was written.
fn written(node: &Node) -> Option<String> {
    match node {
        Node::Scalar(Scalar { written, .. }) => Some(written.clone()),
        _ => None,
    }
}

/// A value for a message.
fn describe(node: &Node) -> String {
    match node {
        Node::Scalar(Scalar { written, .. }) => written.chars().take(80).collect(),
        Node::List(_) => "a list".to_owned(),
        Node::Map(_) => "a mapping".to_owned(),
    }
}

/// Write a text key. What Python counts as false is left out, as gguf-py does; what is no text, where gguf-py fails, is written
/// the way it was spelled, with a warning.
fn put_text(out: &mut Metadata, key: String, joins: bool, origin: Origin, node: &Node, warnings: &mut Vec<MetadataWarning>) {
    let text = match node {
        node if !node.is_truthy() => {
            if !node.is_null() && node.as_text().is_none() {
                warnings.push(MetadataWarning::ReadAsFalse { key, value: describe(node) });
            }
            return;
        }
        Node::Scalar(Scalar { kind: Kind::Text, written }) => Some(written.clone()),
        Node::List(list) if joins => {
            let parts: Option<Vec<&str>> = list.iter().map(|n| n.as_text()).collect();
            match parts {
                Some(parts) if parts.join(",").is_empty() => return,
                Some(parts) => Some(parts.join(",")),
                None => None,
            }
        }
        _ => None,
    };
    if let Some(text) = text {
        out.set(key, text);
        return;
    }
    let spelled = written(node);
    warnings.push(MetadataWarning::NotText { key: key.clone(), origin, value: describe(node), written: spelled.is_some() });
    if let Some(spelled) = spelled {
        out.set(key, spelled);
    }
}

/// A sampling parameter: `None` where it does not fit its type, `Some(None)` where it is empty and left out.
pub(super) fn sampling_value(node: &Node, sampling_type: SamplingType) -> Option<Option<Value>> {
    let Node::Scalar(Scalar { kind, written }) = node else { return None };
    Some(Some(match (sampling_type, *kind) {
        (SamplingType::Text, Kind::Text) if written.is_empty() => return Some(None),
        (SamplingType::Text, Kind::Text) => Value::String(written.clone()),
        (SamplingType::I32, Kind::Int(i)) => Value::I32(i32::try_from(i).ok()?),
        (SamplingType::I32, Kind::Bool(b)) => Value::I32(i32::from(b)),
        (SamplingType::F32, Kind::Bool(b)) => Value::F32(f32::from(u8::from(b))),
        (SamplingType::F32, Kind::Int(i)) => Value::F32(finite_f32(i as f64)?),
        (SamplingType::F32, Kind::Float(f)) => Value::F32(finite_f32(f)?),
        _ => return None,
    }))
}

/// f64 to f32, unless that turns a finite number into an infinity.
fn finite_f32(f: f64) -> Option<f32> {
    let narrow = f as f32;
    (narrow.is_finite() || !f.is_finite()).then_some(narrow)
}

/// A list as a GGUF array; `None` where it is empty. gguf-py types an array by its elements and fails on a mixed one, which
/// becomes text here, with a warning.
fn array(key: &'static str, list: &[Rc<Node>], warnings: &mut Vec<MetadataWarning>) -> Option<Array> {
    fn all<T>(list: &[Rc<Node>], get: impl Fn(Kind) -> Option<T>) -> Option<Vec<T>> {
        let kind = |node: &Rc<Node>| match &**node {
            Node::Scalar(Scalar { kind, .. }) => Some(*kind),
            _ => None,
        };
        list.iter().map(|node| kind(node).and_then(&get)).collect()
    }
    if list.is_empty() {
        return None;
    }
    if let Some(texts) = list.iter().map(|n| n.as_text().map(str::to_owned)).collect() {
        return Some(Array::String(texts));
    }
    let as_i32 = |kind| if let Kind::Int(i) = kind { i32::try_from(i).ok() } else { None };
    let as_f32 = |kind| if let Kind::Float(f) = kind { finite_f32(f) } else { None };
    let as_bool = |kind| if let Kind::Bool(b) = kind { Some(b) } else { None };
    let typed = all(list, as_i32).map(Array::I32).or_else(|| all(list, as_f32).map(Array::F32));
    if let Some(typed) = typed.or_else(|| all(list, as_bool).map(Array::Bool)) {
        return Some(typed);
    }
    for node in list.iter().filter(|n| n.as_text().is_none()) {
        let written = matches!(&**node, Node::Scalar(_)) && !node.is_null();
        let key = format!("general.{key}");
        warnings.push(MetadataWarning::NotText { key, origin: Origin::Card, value: describe(node), written });
    }
    let texts: Vec<String> = list.iter().filter(|n| !n.is_null()).filter_map(|n| written(n)).collect();
    (!texts.is_empty()).then_some(Array::String(texts))
}
