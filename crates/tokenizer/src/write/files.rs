//! What both kinds of tokenizers write the same way: added tokens, the frame of a text, tokenizer_config.json and its kin.

use super::{Added, Role, Source, WriteError, Written, chat_templates};
use serde_json::{Map, Value, json};

/// What is put before and after a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    bos: Option<Role<'a>>,
    eos: Option<Role<'a>>,
    /// What stands between two texts, where the file says anything about it.
    between: Between<'a>,
    /// The file's keys are in the order that a byte-level post-processor before the template gives.
    bytes_first: bool,
}

#[derive(Debug, Clone, Copy)]
enum Between<'a> {
    Nothing,
    /// The end of the first text and the start of the second one.
    Ends,
    Separator(Role<'a>),
}

impl<'a> Frame<'a> {
    /// From `add_bos_token` and `add_eos_token`; `add_bos` where the first is not there.
    pub(super) fn read(source: &Source<'a>, add_bos: bool, warnings: &mut Vec<String>) -> Result<Self, WriteError> {
        let mut role = |name: &str, key: &str, default: bool| {
            if !source.flag(key)?.unwrap_or(default) {
                return Ok(None);
            }
            let role = source.role(name);
            // Where no key says so it is the engine's habit, not the model's.
            if role.is_none() && source.flag(key)?.is_some() {
                warnings.push(format!("tokenizer.ggml.{key} is true, but the file names no {name}: none is added"));
            }
            Ok::<_, WriteError>(role)
        };
        let (bos, eos) = (role("bos_token", "add_bos_token", add_bos)?, role("eos_token", "add_eos_token", false)?);
        let place = |key: &str| source.place(&format!("tokenizer.ggml.{key}"));
        let between = match source.flag("add_sep_token")? {
            None => Between::Nothing,
            Some(false) => Between::Ends,
            Some(true) => source.role("sep_token").or(source.role("eos_token")).map_or(Between::Ends, Between::Separator),
        };
        let bytes_first = match (place("add_eos_token"), place("add_sep_token")) {
            (Some(eos), Some(sep)) => eos < sep,
            _ => false,
        };
        Ok(Frame { bos, eos, between, bytes_first })
    }

    /// tokenizer.json's `post_processor`.
    pub(super) fn post_processor(&self, byte_level: bool) -> Value {
        if self.bos.is_none() && self.eos.is_none() {
            return Value::Null;
        }
        let special = |role: &Role<'_>, text: u8| json!({"SpecialToken": {"id": role.text, "type_id": text}});
        let sequence = |name: &str, text: u8| json!({"Sequence": {"id": name, "type_id": text}});
        let (bos, eos) = (self.bos.as_ref(), self.eos.as_ref());
        let text = |name: &str, number: u8, open: bool, close: bool| {
            let bos = bos.filter(|_| open).map(|role| special(role, number));
            let eos = eos.filter(|_| close).map(|role| special(role, number));
            bos.into_iter().chain([sequence(name, number)]).chain(eos).collect::<Vec<_>>()
        };
        let ends = matches!(self.between, Between::Ends);
        let mut pair = text("A", 0, true, !matches!(self.between, Between::Nothing));
        let separator = if let Between::Separator(role) = &self.between { Some(role) } else { None };
        pair.extend(separator.map(|role| special(role, 1)));
        pair.extend(text("B", 1, ends, true));
        let mut tokens = Map::new();
        for role in bos.into_iter().chain(eos).chain(separator) {
            tokens.insert(role.text.to_owned(), json!({"id": role.text, "ids": [role.id], "tokens": [role.text]}));
        }
        let template = json!({
            "type": "TemplateProcessing",
            "single": text("A", 0, true, true),
            "pair": pair,
            "special_tokens": tokens,
        });
        if !(byte_level && self.bytes_first) {
            return template;
        }
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
        json!({"type": "Sequence", "processors": [bytes, template]})
    }
}

/// tokenizer.json's `normalizer`, where the file says that text is normalized.
pub(super) fn normalizers(source: &Source<'_>) -> Result<Vec<Value>, WriteError> {
    let mut list = Vec::new();
    if source.flag("normalizer.lowercase")? == Some(true) {
        list.push(json!({"type": "Lowercase"}));
    }
    if source.flag("normalizer.strip_accents")? == Some(true) {
        // Only what is decomposed has accents to take away.
        list.extend([json!({"type": "NFD"}), json!({"type": "StripAccents"})]);
    }
    Ok(list)
}

/// tokenizer.json's `added_tokens`.
pub(super) fn added_tokens(added: &[Added<'_>]) -> Vec<Value> {
    let entry = |token: &Added<'_>| {
        let mut entry = json!({"id": token.id});
        entry.as_object_mut().into_iter().for_each(|map| map.extend(flags(token)));
        entry
    };
    added.iter().map(entry).collect()
}

/// Text is searched for as it stands, before anything is normalized.
fn flags(token: &Added<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("content".to_owned(), token.text.into());
    for flag in ["single_word", "lstrip", "rstrip"] {
        map.insert(flag.to_owned(), false.into());
    }
    map.insert("normalized".to_owned(), token.normalized.into());
    map.insert("special".to_owned(), token.special.into());
    map
}

/// The class without habits of its own.
pub(super) const PLAIN_CLASS: &str = "PreTrainedTokenizerFast";

/// JSON as transformers writes it.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// tokenizer_config.json over `config`, special_tokens_map.json, and what the caller has written already.
pub(super) fn finish(
    source: &Source<'_>,
    frame: &Frame<'_>,
    listed: &[Added<'_>],
    mut config: Map<String, Value>,
    mut files: Vec<(&'static str, Vec<u8>)>,
    warnings: Vec<String>,
) -> Result<Written, WriteError> {
    // The classes of the other kind have tokens of their own where none are named.
    let by_name = config.get("tokenizer_class").is_some_and(|class| class == PLAIN_CLASS);
    let template_at = source.place("tokenizer.chat_template").unwrap_or(usize::MAX);
    for key in ["add_bos_token", "add_eos_token", "add_sep_token"] {
        // Behind the chat template stands what the converter adds of itself, for vocabularies of 49,152 tokens.
        let own = source.place(&format!("tokenizer.ggml.{key}")).is_some_and(|place| place < template_at);
        if let Some(flag) = source.flag(key)?.filter(|_| own) {
            config.insert(key.to_owned(), flag.into());
        }
    }
    if source.flag("add_bos_token")?.unwrap_or(false) && frame.bos.is_none() {
        // transformers refuses to load a tokenizer that shall add a token which it does not have.
        config.insert("add_bos_token".to_owned(), false.into());
    }
    if let Some(flag) = source.flag("add_space_prefix")? {
        config.insert("add_prefix_space".to_owned(), flag.into());
    }
    if !listed.is_empty() {
        let entries: Map<String, Value> = listed.iter().map(|token| (token.id.to_string(), flags(token).into())).collect();
        config.insert("added_tokens_decoder".to_owned(), entries.into());
    }
    let mut map = Map::new();
    for role in source.roles.iter().filter(|role| role.named || !by_name) {
        config.insert(role.name.to_owned(), role.text.into());
        map.insert(role.name.to_owned(), role.text.into());
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    let (default, named) = chat_templates(source.metadata)?;
    if named.is_empty() {
        if let Some(text) = default {
            config.insert("chat_template".to_owned(), text.into());
        }
    } else {
        let all = default.map(|text| ("default", text)).into_iter().chain(named);
        let list: Vec<Value> = all.map(|(name, template)| json!({"name": name, "template": template})).collect();
        config.insert("chat_template".to_owned(), list.into());
    }
    config.sort_keys();
    map.sort_keys();
    files.push(("special_tokens_map.json", pretty(&map.into())));
    files.push(("tokenizer_config.json", pretty(&config.into())));
    files.sort_by_key(|(name, _)| *name);

    let eos = source.role("eos_token").map(|role| role.id);
    let eot = source.metadata.lookup::<u32>("tokenizer.ggml.eot_token_id")?;
    let eot = eot.filter(|&id| Some(id) != eos && (id as usize) < source.tokens.len());
    let ids = source.roles.iter().map(|role| (role.id_name, role.id)).collect();
    Ok(Written { files, ids, eot, warnings })
}
