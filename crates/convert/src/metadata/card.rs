//! README.md: the model card's YAML front matter, and what of it describes the model (gguf-py's `Metadata.load_model_card` and
//! the first part of `apply_metadata_heuristic`).

use super::collected::Collected;
use super::model_id::{ModelId, title};
use super::node::{Fields, Node};
use super::yaml::{self, YamlError};
use super::{MetadataWarning, Origin};
use ggufsmith_checkpoint::{CheckpointError, ModelDir};
use std::rc::Rc;

/// The model card's file name.
pub(super) const FILE: &str = "README.md";
/// The longest front matter that is parsed; those on the Hub stay below 64 KiB.
const MAX_FRONT_MATTER_BYTES: usize = 1 << 20;
/// The most base models or datasets that are written, nine keys each.
pub(super) const MAX_SOURCES: usize = 1000;

/// Why a model card is not used. The reference stops there; a conversion need not.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CardError {
    #[error(transparent)]
    File(#[from] CheckpointError),
    #[error("the front matter is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("{key} has more than {limit} entries")]
    TooManySources { key: &'static str, limit: usize },
    #[error("the front matter is no mapping")]
    NotAMapping,
    #[error("the front matter is not YAML 1.1: {0}")]
    Yaml(#[from] YamlError),
}

/// The front matter's keys; none where there is no card or no front matter.
pub(super) fn load(dir: &ModelDir) -> Result<Fields, CardError> {
    let Some(text) = dir.text(FILE)? else { return Ok(Fields::new()) };
    let Some(front_matter) = front_matter(&text)? else { return Ok(Fields::new()) };
    match &*yaml::load(&front_matter)? {
        Node::Map(map) => {
            for key in BASE_MODEL_KEYS.into_iter().chain(DATASET_KEYS) {
                if matches!(map.get(key).map(|v| &**v), Some(Node::List(list)) if list.len() > MAX_SOURCES) {
                    return Err(CardError::TooManySources { key, limit: MAX_SOURCES });
                }
            }
            Ok(map.clone())
        }
        _ => Err(CardError::NotAMapping),
    }
}

/// The lines between a first line `---` and the next one, or the end of the file.
fn front_matter(text: &str) -> Result<Option<String>, CardError> {
    // What ends a line for Python's text files and its `str.splitlines`.
    const LINE_ENDS: [char; 10] = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut out = String::new();
    let (mut rest, mut first) = (text, true);
    while !rest.is_empty() {
        let end = rest.find(LINE_ENDS).unwrap_or(rest.len());
        let line = &rest[..end];
        let after = &rest[end..];
        rest = after
            .strip_prefix("\r\n")
            .unwrap_or_else(|| after.get(after.chars().next().map_or(0, char::len_utf8)..).unwrap_or(""));
        match (first, line == "---") {
            (true, false) => return Ok(None),
            (true, true) => first = false,
            (false, true) => break,
            (false, false) => {
                out.push_str(line);
                out.push('\n');
                if out.len() > MAX_FRONT_MATTER_BYTES {
                    return Err(CardError::TooLong { limit: MAX_FRONT_MATTER_BYTES });
                }
            }
        }
    }
    if first {
        return Ok(None); // an empty file
    }
    // The reference repairs two frequent faults: Norwegian read as false, and tabs.
    Ok(Some(out.replace("- no\n", "- \"no\"\n").replace('\t', "  ")))
}

/// GGUF key (without `general.`) and the card's keys that give it, in order of precedence.
pub(super) const TEXT_KEYS: &[(&str, &[&str])] = &[
    ("name", &["name", "model_name"]),
    ("author", &["author", "model_author", "model_creator"]),
    ("version", &["version", "model_version"]),
    ("organization", &["organization", "model_organization"]),
    ("description", &["description", "model_description"]),
    ("finetune", &["finetune", "model_finetune"]),
    ("basename", &["basename", "model_basename", "model_type"]),
    ("size_label", &["size_label", "model_size_label"]),
    ("source.url", &["url", "model_url"]),
    ("source.doi", &["doi", "model_doi"]),
    ("source.uuid", &["uuid", "model_uuid"]),
    ("source.repo_url", &["repo_url", "model_repo_url"]),
    ("license", &["license"]),
    ("license.name", &["license_name"]),
    ("license.link", &["license_link"]),
];

const BASE_MODEL_KEYS: [&str; 3] = ["base_model", "base_models", "base_model_sources"];
const DATASET_KEYS: [&str; 3] = ["datasets", "dataset", "dataset_sources"];

/// Put what the card says into `collected`.
pub(super) fn apply(card: &Fields, total_params: u64, collected: &mut Collected) {
    for (key, card_keys) in TEXT_KEYS {
        if let Some(value) = card_keys.iter().filter_map(|k| card.get(*k)).find(|v| !v.is_null()) {
            collected.set(key, Origin::Card, value.clone());
        }
    }
    collected.base_models = sources(card, BASE_MODEL_KEYS, total_params, collected);
    collected.datasets = sources(card, DATASET_KEYS, total_params, collected);
    collected.tags = lists(card, ["tags", "pipeline_tag"]);
    collected.languages = lists(card, ["languages", "language"]);
}

/// Texts and lists under several keys, joined; `None` where every key is absent or null.
fn lists(card: &Fields, keys: [&str; 2]) -> Option<Vec<Rc<Node>>> {
    let present: Vec<&Rc<Node>> = keys.iter().filter_map(|k| card.get(*k)).filter(|v| !v.is_null()).collect();
    (!present.is_empty()).then(|| present.into_iter().flat_map(text_or_list).collect())
}

/// One text as a list of one; anything that is neither text nor list says nothing.
fn text_or_list(node: &Rc<Node>) -> Vec<Rc<Node>> {
    match &**node {
        Node::List(list) => list.clone(),
        _ if node.as_text().is_some() => vec![node.clone()],
        _ => Vec::new(),
    }
}

/// Base models or datasets, under the first of three keys that is there.
fn sources(card: &Fields, keys: [&'static str; 3], total_params: u64, collected: &mut Collected) -> Option<Vec<Fields>> {
    let (key, value) = keys.iter().find_map(|k| Some((*k, card.get(*k)?)))?;
    let entries = text_or_list(value);
    Some(
        entries
            .iter()
            .map(|entry| match (&**entry, entry.as_text()) {
                (_, Some(id)) => source(id, total_params),
                (Node::Map(map), _) => map.clone(),
                _ => {
                    collected.warnings.push(MetadataWarning::UnknownSource { key });
                    Fields::new()
                }
            })
            .collect(),
    )
}

/// What a Hub id, or a URL, says about a base model or a dataset.
pub(super) fn source(id: &str, total_params: u64) -> Fields {
    let mut fields = Fields::new();
    let mut set = |key: &str, value: String| drop(fields.insert(key.to_owned(), Rc::new(Node::text(value))));
    let is_url = ["http://", "https://", "ssh://"].iter().any(|scheme| id.starts_with(scheme));
    let parsed = if is_url {
        set("repo_url", id.to_owned());
        hub_id(id).map(|hub_id| ModelId::parse(hub_id, total_params))
    } else {
        Some(ModelId::parse(id, total_params))
    };
    let Some(parsed) = parsed else { return fields };
    if !is_url && let (Some(org), Some(name)) = (&parsed.organization, &parsed.full_name) {
        set("repo_url", format!("https://huggingface.co/{org}/{name}"));
    }
    for (key, value) in [
        ("name", parsed.full_name.as_deref().map(title)),
        ("organization", parsed.organization.as_deref().map(title)),
        ("version", parsed.version),
    ] {
        if let Some(value) = value {
            set(key, value);
        }
    }
    fields
}

/// `org/name` out of `https://huggingface.co/org/name`.
fn hub_id(url: &str) -> Option<&str> {
    let host_and_path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (org, name) = host_and_path.strip_prefix("huggingface.co/")?.split_once('/')?;
    if org.is_empty() || name.is_empty() || name.contains('/') {
        return None;
    }
    host_and_path.strip_prefix("huggingface.co/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_lines_end_where_pythons_do() {
        let of = |text| front_matter(text).unwrap();
        assert_eq!(of("---\r\na: 1\rb:\t2\u{85}---\r\nc: 3\n").as_deref(), Some("a: 1\nb:  2\n"));
        assert_eq!(of("---\na: 1").as_deref(), Some("a: 1\n"), "no closing line");
        assert_eq!(of("---\n- no\n- not\n").as_deref(), Some("- \"no\"\n- not\n"));
        for none in ["", "# Title\n", "--- \na: 1\n", "\u{feff}---\na: 1\n", "\n---\na: 1\n"] {
            assert_eq!(of(none), None, "{none:?}");
        }
        let long = format!("---\n{}", "a: 1\n".repeat(MAX_FRONT_MATTER_BYTES));
        assert!(matches!(front_matter(&long), Err(CardError::TooLong { .. })));
    }
}
