//! Chat templates: one text, or several with names.

use super::files::Files;
use super::{TokenizerError, json, python};
use ggufsmith_gguf::Value;
use serde_json::Value as Json;

/// Where transformers puts templates other than the default one.
const FOLDER: &str = "additional_chat_templates";

/// The templates of a model. They are data: nothing runs them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Templates {
    One(String),
    /// Names and texts.
    Named(Vec<(String, String)>),
}

/// tokenizer_config.json's `chat_template`, else chat_template.jinja with its folder, else chat_template.json.
///
/// # Errors
/// [`TokenizerError`] where a file cannot be read or a template is no text.
pub(super) fn load(files: &Files, warnings: &mut Vec<String>) -> Result<Option<Templates>, TokenizerError> {
    let Some(config) = files.config_object() else { return Ok(None) };
    match config.get("chat_template") {
        Some(template) => from_json(template, "tokenizer_config.json", warnings),
        None => from_files(files, warnings),
    }
}

fn from_files(files: &Files, warnings: &mut Vec<String>) -> Result<Option<Templates>, TokenizerError> {
    let read = |file: &str| Ok::<_, TokenizerError>(files.dir.text(file)?.map(python::universal_newlines));
    let Some(default) = read("chat_template.jinja")? else {
        let template = json::object(files.dir, "chat_template.json")?.and_then(|mut map| map.remove("chat_template"));
        return template.map_or(Ok(None), |t| from_json(&t, "chat_template.json", warnings));
    };
    let mut named = vec![("default".to_owned(), default.clone())];
    for file in files.dir.list(FOLDER)? {
        // `Path.glob` and `Path.stem` of Python: a name that starts with the dot is matched, too, and is its own stem.
        if let Some(stem) = file.strip_suffix(".jinja")
            && let Some(text) = read(&format!("{FOLDER}/{file}"))?
        {
            named.push((if stem.is_empty() { file } else { stem.to_owned() }, text));
        }
    }
    Ok(Some(if named.len() == 1 { Templates::One(default) } else { Templates::Named(named) }))
}

fn from_json(template: &Json, file: &'static str, warnings: &mut Vec<String>) -> Result<Option<Templates>, TokenizerError> {
    let wrong = |key: String, expected, found: &Json| TokenizerError::Type { file, key, expected, found: json::Kind::of(found) };
    match template {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(Templates::One(text.clone()))),
        Json::Array(list) => {
            let mut named = Vec::new();
            for (i, entry) in list.iter().enumerate() {
                if !entry.is_object() {
                    return Err(wrong(format!("chat_template[{i}]"), "an object with name and template", entry));
                }
                let text = |key: &str| match entry.get(key) {
                    None => Ok(None),
                    Some(Json::String(text)) => Ok(Some(text.clone())),
                    Some(Json::Null) if key == "template" => Ok(None),
                    Some(other) => Err(wrong(format!("chat_template[{i}].{key}"), "a string", other)),
                };
                if let (Some(name), Some(template)) = (text("name")?, text("template")?) {
                    named.push((name, template));
                }
            }
            Ok(Some(Templates::Named(named)))
        }
        other => {
            warnings.push(format!("{file}: chat_template is {}, neither text nor list: left out", json::Kind::of(other)));
            Ok(None)
        }
    }
}

impl Templates {
    /// gguf-py's `add_chat_template`. Names are listed in the order in which they are found; gguf-py lists them in the order of
    /// a Python set, which differs from run to run.
    pub(super) fn write(self, out: &mut Vec<(String, Value)>) {
        let mut default = None;
        match self {
            Templates::One(text) => default = Some(text),
            Templates::Named(list) => {
                let mut names = Vec::<String>::new();
                for (name, text) in list {
                    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                    match name.as_str() {
                        "" => {}
                        "default" => default = Some(text),
                        _ => {
                            set_text(out, &format!("tokenizer.chat_template.{name}"), text);
                            if !names.contains(&name) {
                                names.push(name);
                            }
                        }
                    }
                }
                if !names.is_empty() {
                    super::set(out, "tokenizer.chat_templates", names);
                }
            }
        }
        if let Some(text) = default {
            set_text(out, "tokenizer.chat_template", text);
        }
    }
}

/// gguf-py writes no empty text.
fn set_text(out: &mut Vec<(String, Value)>, key: &str, text: String) {
    if !text.is_empty() {
        super::set(out, key, text);
    }
}
