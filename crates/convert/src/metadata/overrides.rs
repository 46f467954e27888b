//! The metadata file: GGUF keys and values that replace what was found (gguf-py's `load_metadata_override`).
//!
//! It is written by the user for this conversion, so a value of the wrong type is an error; null removes what was found.

use super::collected::{Collected, SAMPLING_KEYS, TEXT_KEYS, sampling_value};
use super::node::{Fields, Node};
use super::{MetadataError, MetadataWarning, Origin};
use serde_json::Value as Json;
use std::rc::Rc;

/// Replace by the file's values; keys that the reference does not look up (`general.license` is one) are warned about.
pub(super) fn apply(file: &serde_json::Map<String, Json>, collected: &mut Collected) -> Result<(), MetadataError> {
    for (key, value) in file {
        let wrong = |expected| MetadataError::FileValue { key: key.clone(), expected };
        let node = Rc::new(Node::from_json(value));
        let short = key.strip_prefix("general.").unwrap_or_default();
        if let Some(name) = TEXT_KEYS.into_iter().find(|k| *k == short && *k != "license") {
            if !node.is_null() && node.as_text().is_none() {
                return Err(wrong("a text"));
            }
            collected.set(name, Origin::File, node);
        } else if let Some((name, sampling_type, _)) =
            SAMPLING_KEYS.into_iter().find(|(k, _, _)| short.strip_prefix("sampling.") == Some(k))
        {
            if !node.is_null() && sampling_value(&node, sampling_type).is_none() {
                return Err(wrong("a value of its type"));
            }
            collected.set_sampling(name, Origin::File, node);
        } else {
            match short {
                "base_models" => collected.base_models = sources(&node).map_err(wrong)?,
                "datasets" => collected.datasets = sources(&node).map_err(wrong)?,
                "tags" => collected.tags = texts(&node).map_err(wrong)?,
                "languages" => collected.languages = texts(&node).map_err(wrong)?,
                _ => collected.warnings.push(MetadataWarning::UnknownKey { key: key.clone() }),
            }
        }
    }
    Ok(())
}

fn texts(node: &Node) -> Result<Option<Vec<Rc<Node>>>, &'static str> {
    match node {
        node if node.is_null() => Ok(None),
        Node::List(list) if list.iter().all(|n| n.as_text().is_some()) => Ok(Some(list.clone())),
        _ => Err("a list of texts"),
    }
}

fn sources(node: &Node) -> Result<Option<Vec<Fields>>, &'static str> {
    let list = match node {
        node if node.is_null() => return Ok(None),
        Node::List(list) => list,
        _ => return Err("a list of objects"),
    };
    let text_only = |map: &Fields| map.values().all(|v| v.is_null() || v.as_text().is_some());
    list.iter()
        .map(|entry| match &**entry {
            Node::Map(map) if text_only(map) => Ok(map.clone()),
            _ => Err("a list of objects whose values are texts"),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}
