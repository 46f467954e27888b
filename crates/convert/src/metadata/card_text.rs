//! README.md from the `general.*` keys: the front matter that [`super::load`] reads them from again.

use super::card::{self, TEXT_KEYS};
use super::collected::SOURCE_KEYS;
use super::node::Node;
use ggufsmith_gguf::{Array, Metadata, Value};
use serde_json::{Map, Value as Json};

/// The front matter between its two lines; `None` where the file says nothing that a card could.
///
/// Values are written as JSON, which is YAML too. `total_params` is what a base model's id is read against.
pub(crate) fn front_matter(metadata: &Metadata, total_params: u64) -> Option<String> {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: &Json| lines.push(format!("{key}: {}\n", plain(&value.to_string())));
    for (key, card_keys) in TEXT_KEYS {
        if let Some(Value::String(text)) = metadata.get(&format!("general.{key}"))
            // Of several names in a card the one that says what it is about; for the basename not the architecture's.
            && let Some(name) = card_keys.iter().find(|name| name.starts_with("model_")).or(card_keys.first())
        {
            line(name, &Json::from(text.as_str()));
        }
    }
    for (kind, [id_key, map_key]) in
        [("base_model", ["base_model", "base_model_sources"]), ("dataset", ["datasets", "dataset_sources"])]
    {
        let Some(sources) = sources(metadata, kind) else { continue };
        let ids: Option<Vec<Json>> = sources.iter().map(|source| id_of(source, total_params)).collect();
        match ids {
            Some(ids) => line(id_key, &ids.into()),
            None => line(map_key, &sources.into_iter().map(Json::from).collect::<Vec<_>>().into()),
        }
    }
    for (key, name) in [("tags", "tags"), ("languages", "language")] {
        if let Some(Value::Array(Array::String(list))) = metadata.get(&format!("general.{key}")) {
            line(name, &list.as_slice().into());
        }
    }
    (!lines.is_empty()).then(|| lines.concat())
}

/// The keys of each base model or dataset.
fn sources(metadata: &Metadata, kind: &str) -> Option<Vec<Map<String, Json>>> {
    let Some(Value::U32(count)) = metadata.get(&format!("general.{kind}.count")) else { return None };
    // More are not read from a card either.
    let source = |i: u32| {
        let text = |key: &&str| match metadata.get(&format!("general.{kind}.{i}.{key}")) {
            Some(Value::String(text)) => Some(((*key).to_owned(), Json::from(text.as_str()))),
            _ => None,
        };
        SOURCE_KEYS.iter().filter_map(text).collect()
    };
    Some((0..(*count).min(card::MAX_SOURCES as u32)).map(source).collect())
}

/// The id on the Hub that says the same as these keys: how cards name their base models.
fn id_of(source: &Map<String, Json>, total_params: u64) -> Option<Json> {
    let id = source.get("repo_url")?.as_str()?.strip_prefix("https://huggingface.co/")?;
    let fields = card::source(id, total_params);
    let same = fields.len() == source.len()
        && source
            .iter()
            .all(|(key, value)| fields.get(key).and_then(|node: &std::rc::Rc<Node>| node.as_text()) == value.as_str());
    same.then(|| id.into())
}

/// JSON without what ends a line of Python's text, and what the reference repairs in a card: as escapes, which YAML has too.
fn plain(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, ParameterCount, load};
    use super::*;
    use ggufsmith_checkpoint::ModelDir;

    /// Keys as a conversion gives them, of a directory with this card, called `name`.
    fn keys(name: &str, card: &str) -> Metadata {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("config.json"), "{}").unwrap();
        std::fs::write(dir.join("README.md"), card).unwrap();
        let parameters = ParameterCount { total: 135_000_000, shared: 135_000_000, ..ParameterCount::default() };
        let (general, warnings) = load(&ModelDir::open(&dir).unwrap(), &Overrides::default(), &parameters).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let mut metadata = Metadata::new();
        general.write(&mut metadata);
        metadata
    }

    #[test]
    fn what_is_written_is_read_again_under_any_name() {
        let cards = [
            "",
            "---\nlicense: apache-2.0\nlanguage:\n- en\n- \"no\"\ntags: [a, 'b: c']\npipeline_tag: text-generation\n---\n",
            "---\nbase_model: HuggingFaceTB/SmolLM2-135M\ndatasets: [a/b-c, https://example.org/d]\n---\n",
            "---\nbase_model_sources:\n- {name: X, version: '1', repo_url: 'https://huggingface.co/a/b'}\n---\n",
            "---\nmodel_name: \"a \\\"b\\\"\\\\ \\u2028 \\t ü 🦙 \\x85\"\ndescription: \"two\\nlines\"\nlicense_name: other\nlicense_link: LICENSE\nurl: http://x\n---\n",
        ];
        for card in cards {
            let metadata = keys("SmolLM2-135M-Instruct-v1.0", card);
            let written = front_matter(&metadata, 135_000_000).unwrap();
            assert_eq!(keys("another-7B-name", &format!("---\n{written}---\n")), metadata, "{card}\n{written}");
        }
        assert_eq!(front_matter(&Metadata::new(), 0), None);
    }
}
