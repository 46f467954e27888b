//! A value of a model card or a JSON file, with the text it was written as.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Keys that are text and their values; the last of equal keys counts.
pub(super) type Fields = BTreeMap<String, Rc<Node>>;

/// A value. Children are shared, so that an alias costs nothing however often it is repeated.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// One value.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Rc<Node>>),
    /// A mapping.
    Map(Fields),
}

/// A scalar: what it means and how it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub kind: Kind,
    pub written: String,
}

/// What a scalar means to a YAML 1.1 or JSON reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
    /// A date, or a number beyond 128 bits: nothing that a key of ours can hold except as text.
    Other,
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<String>) -> Node {
        Node::Scalar(Scalar { kind: Kind::Text, written: text.into() })
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Node::Scalar(Scalar { kind: Kind::Null, .. }))
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Node::Scalar(Scalar { kind: Kind::Text, written }) => Some(written),
            _ => None,
        }
    }

    /// What Python's `bool()` says of it; gguf-py leaves a text key out where this is false.
    pub fn is_truthy(&self) -> bool {
        match self {
            Node::Scalar(Scalar { kind, written }) => match kind {
                Kind::Null => false,
                Kind::Bool(b) => *b,
                Kind::Int(i) => *i != 0,
                Kind::Float(f) => *f != 0.0,
                Kind::Text => !written.is_empty(),
                Kind::Other => true,
            },
            Node::List(list) => !list.is_empty(),
            Node::Map(map) => !map.is_empty(),
        }
    }

    /// A JSON value. serde_json bounds the depth.
    pub fn from_json(value: &serde_json::Value) -> Node {
        use serde_json::Value as Json;
        let kind = match value {
            Json::Array(list) => return Node::List(list.iter().map(|v| Rc::new(Node::from_json(v))).collect()),
            Json::Object(map) => return Node::Map(fields_from_json(map)),
            Json::String(text) => return Node::text(text.clone()),
            Json::Null => Kind::Null,
            Json::Bool(b) => Kind::Bool(*b),
            Json::Number(n) => match n.as_i128() {
                Some(i) => Kind::Int(i),
                None => n.as_f64().map_or(Kind::Other, Kind::Float),
            },
        };
        Node::Scalar(Scalar { kind, written: value.to_string() })
    }
}

/// The members of a JSON object.
pub(super) fn fields_from_json(map: &serde_json::Map<String, serde_json::Value>) -> Fields {
    map.iter().map(|(k, v)| (k.clone(), Rc::new(Node::from_json(v)))).collect()
}
