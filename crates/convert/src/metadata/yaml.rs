//! YAML 1.1 as PyYAML's `safe_load` reads it: plain `no` is false, `017` is 15, `1:30` is 90, `2024-01-01` is a date.
//!
//! The syntax is libyaml's, of which PyYAML and the parser used here are ports; the meaning of plain scalars is decided here,
//! since no crate offers the 1.1 rules.

use super::node::{Fields, Kind, Node, Scalar};
use fancy_regex::Regex;
use libyaml_safer::{Event, EventData, Parser, ScalarStyle};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::LazyLock;

/// Deepest nesting that is followed; a model card has about six levels.
const MAX_DEPTH: usize = 64;
/// Most bytes of text, one more per node, with every alias written out. It bounds what a value can grow to, how deep aliases of
/// aliases go, and the time to walk them.
const MAX_EXPANDED_BYTES: usize = 4 << 20;
const TAG_PREFIX: &str = "tag:yaml.org,2002:";

/// Why a YAML text is not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum YamlError {
    #[error("{0}")]
    Syntax(#[from] libyaml_safer::Error),
    #[error("line {line}: the tag {tag} is not supported")]
    Tag { tag: String, line: u64 },
    #[error("line {line}: the alias *{anchor} stands for nothing that is complete here")]
    Alias { anchor: String, line: u64 },
    #[error("line {line}: a list or mapping is used as a key, or something else is merged with <<")]
    Key { line: u64 },
    #[error("line {line}: nested deeper than {limit} levels")]
    Depth { line: u64, limit: usize },
    #[error("line {line}: more than {limit} bytes with its aliases written out")]
    Expansion { line: u64, limit: usize },
    #[error("line {line}: a second document begins")]
    SecondDocument { line: u64 },
    #[error("the YAML parser gave up on it without a reason")]
    Panicked,
}

/// The one document of a text; null where it is empty. Aliases are shared, so memory is bounded by the text's length.
pub(super) fn load(text: &str) -> Result<Rc<Node>, YamlError> {
    let mut parser = Parser::new();
    parser.set_input(std::io::Cursor::new(text.as_bytes()));
    let mut composer = Composer { parser, anchors: BTreeMap::new(), expanded_bytes: 0 };
    let mut document = None;
    loop {
        let event = composer.next()?;
        match event.data {
            EventData::StreamEnd => break,
            EventData::DocumentStart { .. } if document.is_some() => {
                return Err(YamlError::SecondDocument { line: event.start_mark.line + 1 });
            }
            EventData::StreamStart { .. } | EventData::DocumentStart { .. } | EventData::DocumentEnd { .. } => {}
            _ => document = Some(composer.node(event, 0)?),
        }
    }
    Ok(document.unwrap_or_else(|| Rc::new(resolve(String::new(), true))))
}

struct Composer<'a> {
    parser: Parser<std::io::Cursor<&'a [u8]>>,
    /// Nodes by anchor, with their expanded bytes.
    anchors: BTreeMap<String, (Rc<Node>, usize)>,
    expanded_bytes: usize,
}

impl Composer<'_> {
    /// The parser panics on some texts (`[!,`); that is caught, and nothing of it is used afterwards.
    fn next(&mut self) -> Result<Event, YamlError> {
        let event = catch_unwind(AssertUnwindSafe(|| self.parser.parse()));
        Ok(event.map_err(|_| YamlError::Panicked)??)
    }

    fn charge(&mut self, bytes: usize, line: u64) -> Result<(), YamlError> {
        self.expanded_bytes = self.expanded_bytes.saturating_add(bytes);
        if self.expanded_bytes > MAX_EXPANDED_BYTES {
            return Err(YamlError::Expansion { line, limit: MAX_EXPANDED_BYTES });
        }
        Ok(())
    }

    /// The node that an event begins, with all its children.
    fn node(&mut self, event: Event, depth: usize) -> Result<Rc<Node>, YamlError> {
        let line = event.start_mark.line + 1;
        if depth > MAX_DEPTH {
            return Err(YamlError::Depth { line, limit: MAX_DEPTH });
        }
        let before = self.expanded_bytes;
        self.charge(1, line)?;
        let (node, anchor) = match event.data {
            EventData::Alias { anchor } => {
                let (node, bytes) = self.anchors.get(&anchor).cloned().ok_or(YamlError::Alias { anchor, line })?;
                self.charge(bytes, line)?;
                return Ok(node);
            }
            EventData::Scalar { anchor, tag, value, plain_implicit, style, .. } => {
                self.charge(value.len(), line)?;
                // A lone `!` is null, while `! x` is text.
                let plain = plain_implicit || (value.is_empty() && style == ScalarStyle::Plain);
                (tagged(tag, resolve(value.clone(), plain), value, line)?, anchor)
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                no_other_tag(tag, "seq", line)?;
                (self.list(depth)?, anchor)
            }
            EventData::MappingStart { anchor, tag, .. } => {
                no_other_tag(tag, "map", line)?;
                (self.map(depth)?, anchor)
            }
            // The parser's grammar has no other event where a node begins.
            _ => return Err(YamlError::Key { line }),
        };
        let node = Rc::new(node);
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, (node.clone(), self.expanded_bytes - before));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, YamlError> {
        let mut list = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::SequenceEnd) {
                return Ok(Node::List(list));
            }
            list.push(self.node(event, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, YamlError> {
        let (mut own, mut merged) = (Fields::new(), Fields::new());
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::MappingEnd) {
                merged.extend(own); // a mapping's own keys win over merged ones
                return Ok(Node::Map(merged));
            }
            let line = event.start_mark.line + 1;
            let is_merge = matches!(&event.data, EventData::Scalar { value, plain_implicit: true, .. } if value == "<<");
            let key = self.node(event, depth + 1)?;
            let value_event = self.next()?;
            let value = self.node(value_event, depth + 1)?;
            if is_merge {
                merge(&mut merged, &value, line)?;
                continue;
            }
            match &*key {
                Node::Scalar(Scalar { kind: Kind::Text, written }) => drop(own.insert(written.clone(), value)),
                Node::Scalar(_) => {} // no key that anybody looks up
                _ => return Err(YamlError::Key { line }),
            }
        }
    }
}

/// Add the keys of a merged mapping, or of a list of them, the first of which wins.
fn merge(into: &mut Fields, value: &Node, line: u64) -> Result<(), YamlError> {
    let maps: Vec<&Node> = match value {
        Node::List(list) => list.iter().rev().map(|node| &**node).collect(),
        node => vec![node],
    };
    for map in maps {
        let Node::Map(map) = map else { return Err(YamlError::Key { line }) };
        into.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    Ok(())
}

/// A scalar under an explicit tag.
fn tagged(tag: Option<String>, implicit: Node, value: String, line: u64) -> Result<Node, YamlError> {
    let Some(tag) = tag.filter(|t| t != "!") else { return Ok(implicit) };
    let short = tag.strip_prefix(TAG_PREFIX);
    if short == Some("str") {
        return Ok(Node::text(value));
    }
    let node = resolve(value, true);
    let fits = match &node {
        Node::Scalar(Scalar { kind, .. }) => match kind {
            Kind::Null => short == Some("null"),
            Kind::Bool(_) => short == Some("bool"),
            Kind::Int(_) => short == Some("int"),
            Kind::Float(_) => short == Some("float"),
            Kind::Text | Kind::Other => false,
        },
        _ => false,
    };
    if fits { Ok(node) } else { Err(YamlError::Tag { tag, line }) }
}

fn no_other_tag(tag: Option<String>, own: &str, line: u64) -> Result<(), YamlError> {
    match tag {
        Some(tag) if tag != "!" && tag.strip_prefix(TAG_PREFIX) != Some(own) => Err(YamlError::Tag { tag, line }),
        _ => Ok(()),
    }
}

macro_rules! pattern {
    ($name:ident, $regex:literal) => {
        // The pattern is a constant that the tests compile.
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($regex).expect("a valid pattern"));
    };
}
pattern!(INT, r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*(:[0-5]?[0-9])*)\z");
// Unlike YAML's own definition, PyYAML's wants a sign in the exponent.
pattern!(
    FLOAT,
    r"^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\z"
);
pattern!(
    DATE,
    r"^[0-9]{4}-([0-9]{2}-[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?)\z"
);

fn is(pattern: &Regex, text: &str) -> bool {
    // Only patterns with look-around or back-references can fail to decide; none of these has any.
    pattern.is_match(text).unwrap_or(false)
}

/// What a scalar without a tag means; quoted ones are text.
fn resolve(written: String, plain: bool) -> Node {
    let kind = match written.as_str() {
        _ if !plain => Kind::Text,
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Kind::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Kind::Bool(false),
        text if is(&FLOAT, text) => float(text).map_or(Kind::Other, Kind::Float),
        text if is(&INT, text) => int(text).map_or(Kind::Other, Kind::Int),
        text if is(&DATE, text) => Kind::Other,
        _ => Kind::Text,
    };
    Node::Scalar(Scalar { kind, written })
}

fn sign(text: &str) -> (bool, String) {
    let digits = text.replace('_', "");
    (digits.starts_with('-'), digits.trim_start_matches(['-', '+']).to_owned())
}

fn int(text: &str) -> Option<i128> {
    let (negative, digits) = sign(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(binary, 2).ok()?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()?
    } else if digits.starts_with('0') {
        i128::from_str_radix(&digits, 8).ok()?
    } else {
        digits.split(':').try_fold(0i128, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn float(text: &str) -> Option<f64> {
    let (negative, digits) = sign(text);
    let magnitude = match digits.to_ascii_lowercase().as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        // Base 60, summed from the last part to the first as PyYAML does.
        digits if digits.contains(':') => {
            let mut unit = 1.0;
            digits.rsplit(':').try_fold(0.0, |sum, part| {
                let value = sum + part.parse::<f64>().ok()? * unit;
                unit *= 60.0;
                Some(value)
            })?
        }
        digits => digits.parse().ok()?,
    };
    Some(if negative { -magnitude } else { magnitude })
}
