//! The arguments with which transformers constructs a tokenizer, and the tokens that its constructor adds.

use super::TokenizerError;
use super::classes::{self, Class};
use super::files::Files;
use super::json::{self, Kind, TokenizerJson, truthy};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use tokenizers::AddedToken;

/// `SPECIAL_TOKENS_ATTRIBUTES` without the list at its end.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizers.AddedToken` of Python: `normalized` follows `special` until it is said.
#[derive(Debug, Clone)]
pub(super) struct Token {
    token: AddedToken,
    normalized: Option<bool>,
}

impl Token {
    pub(super) fn new(content: &str, special: bool) -> Self {
        Token { token: AddedToken::from(content, special), normalized: None }
    }

    pub(super) fn read(value: &Map<String, Value>) -> Option<Self> {
        let flag = |key| value.get(key).is_some_and(truthy);
        let token = AddedToken::from(value.get("content")?.as_str()?, flag("special"))
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"));
        Some(Token { token, normalized: value.get("normalized").and_then(Value::as_bool) })
    }

    fn made_special(mut self, special: bool) -> Self {
        self.token.special |= special;
        self
    }

    pub(super) fn finish(&self) -> AddedToken {
        self.token.clone().normalized(self.normalized.unwrap_or(!self.token.special))
    }
}

/// A special token as the constructor gets it.
#[derive(Debug, Clone)]
pub(super) enum Special {
    Text(String),
    Token(Token),
}

impl Special {
    pub(super) fn content(&self) -> &str {
        match self {
            Special::Text(text) => text,
            Special::Token(token) => &token.token.content,
        }
    }

    /// Text or token object; anything else is no special token.
    pub(super) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Special::Text(text.clone())),
            Value::Object(map) => Token::read(map).map(Special::Token),
            _ => None,
        }
    }
}

/// The arguments of the constructor.
pub(super) struct Arguments {
    pub(super) class: &'static Class,
    /// tokenizer_config.json, with special_tokens_map.json over it where that is read.
    pub(super) config: Map<String, Value>,
    /// `added_tokens_decoder`, by id.
    decoder: Vec<(u64, Token)>,
    /// Which token stands for a special token of this text.
    flags: HashMap<String, Token>,
}

impl Arguments {
    /// What the files say.
    pub(super) fn read(files: &Files, json: &TokenizerJson) -> Result<Self, TokenizerError> {
        let class = classes::pick(files.tokenizer_config.as_ref(), files.config);
        let mut config = files.tokenizer_config.clone().unwrap_or_default();
        let mut out = match config.remove("added_tokens_decoder") {
            Some(entries) => {
                let decoder = listed(&entries)?;
                let flags = decoder.iter().map(|(_, t)| (t.token.content.clone(), t.clone())).collect();
                Arguments { class, config, decoder, flags }
            }
            None => Arguments::legacy(files, json, class, config)?,
        };
        out.decoder.sort_by_key(|(id, _)| *id);
        Ok(out)
    }

    /// What transformers wrote before tokenizer_config.json listed the added tokens.
    fn legacy(
        files: &Files,
        json: &TokenizerJson,
        class: &'static Class,
        mut config: Map<String, Value>,
    ) -> Result<Self, TokenizerError> {
        const ADDITIONAL: &str = "additional_special_tokens";
        let mut last_additional = None;
        for (key, mut value) in json::object(files.dir, "special_tokens_map.json")?.unwrap_or_default() {
            if let Value::Object(token) = &mut value {
                token.insert("special".into(), true.into());
            }
            if key == ADDITIONAL {
                last_additional = value.as_array().and_then(|list| list.last()).and_then(Special::read);
                if let (Some(Value::Array(known)), Value::Array(more)) = (config.get_mut(&key), &value) {
                    for token in more {
                        if !known.contains(token) {
                            known.push(token.clone());
                        }
                    }
                    continue;
                }
            }
            config.insert(key, value);
        }
        let (mut decoder, mut at, mut flags) = (Vec::<(u64, Token)>::new(), HashMap::new(), HashMap::new());
        let additional = config.get(ADDITIONAL).and_then(Value::as_array).into_iter().flatten();
        let special = ROLES.iter().filter_map(|role| config.get(*role)).chain(additional).filter_map(Special::read);
        let special: HashSet<String> = special.map(|s| s.content().to_owned()).collect();
        for (text, id) in json::object(files.dir, "added_tokens.json")?.unwrap_or_default() {
            let token = Token::new(&text, special.contains(&text));
            // transformers looks the flags of these tokens up under the name of another token.
            if let Some(other) = &last_additional {
                flags.insert(other.content().to_owned(), token.clone());
            }
            if let Some(id) = id.as_u64() {
                at.insert(id, decoder.len());
                decoder.push((id, token));
            }
        }
        for entry in &json.added_tokens {
            if let (Some(id), Some(token)) = (entry.get("id").and_then(Value::as_u64), entry.as_object().and_then(Token::read)) {
                flags.insert(token.token.content.clone(), token.clone());
                match at.get(&id) {
                    Some(&at) => decoder[at] = (id, token),
                    None => {
                        at.insert(id, decoder.len());
                        decoder.push((id, token));
                    }
                }
            }
        }
        Ok(Arguments { class, config, decoder, flags })
    }

    /// How many tokens the files list, beside special ones.
    pub(super) fn listed_tokens(&self) -> usize {
        self.decoder.len()
    }

    /// The token of a role: tokenizer_config.json's, with the flags of `added_tokens_decoder`, else the class's.
    pub(super) fn role(&self, role: &str) -> Option<Special> {
        let given = match self.config.get(role) {
            Some(value) => self.with_flags(Special::read(value)?),
            None => {
                let default = self.class.roles.iter().find(|(name, _)| *name == role)?;
                Special::Text(default.1?.to_owned())
            }
        };
        let wrapped = self.class.wrapped.iter().find(|(name, _)| *name == role);
        Some(match (given, wrapped) {
            (Special::Text(text), Some((_, lstrip))) => {
                Special::Token(Token { token: AddedToken::from(text, true).lstrip(*lstrip), normalized: Some(false) })
            }
            (other, _) => other,
        })
    }

    fn with_flags(&self, token: Special) -> Special {
        self.flags.get(token.content()).map_or(token, |t| Special::Token(t.clone()))
    }

    /// `all_special_tokens_extended`: roles, then lists; a token that an earlier entry has is left out.
    pub(super) fn specials(&self, json: &TokenizerJson) -> Vec<Special> {
        let (mut all, mut seen) = (Vec::new(), HashSet::<String>::new());
        // What is in a list twice stays there twice.
        let mut push = |mut entry: Vec<Special>| {
            entry.retain(|token| !token.content().is_empty() && !seen.contains(token.content()));
            seen.extend(entry.iter().map(|token| token.content().to_owned()));
            all.append(&mut entry);
        };
        for role in ROLES {
            let said = self.config.contains_key(role) || self.class.roles.iter().any(|(name, _)| *name == role);
            if role == "pad_token" && !said {
                // A tokenizer.json that pads brings its padding token with it.
                push(json.padding.get("pad_token").and_then(Special::read).into_iter().collect());
            }
            push(self.role(role).into_iter().collect());
        }
        let list = |key: &str| self.config.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Special::read);
        let infill = self.class.infill.iter().filter_map(|(key, default)| match self.config.get(*key) {
            None => Some(Special::Text((*default).to_owned())),
            Some(value) => Special::read(value),
        });
        push(list("additional_special_tokens").chain(infill).collect());
        // An object of names here; a list in files of transformers 5.
        push(list("extra_special_tokens").collect());
        for (_, value) in self.config.get("extra_special_tokens").and_then(Value::as_object).into_iter().flatten() {
            push(Special::read(value).into_iter().collect());
        }
        all
    }

    /// What the constructor adds to the tokens that tokenizer.json adds: all of `added_tokens_decoder` (for its flags), and special
    /// tokens that are not there yet.
    pub(super) fn tokens_to_add(&self, specials: &[Special], known: &[AddedToken]) -> Vec<AddedToken> {
        let special: HashSet<&str> = specials.iter().map(Special::content).collect();
        let listed: HashSet<AddedToken> = self.decoder.iter().map(|(_, token)| token.finish()).collect();
        let texts: HashSet<&str> = known.iter().chain(&listed).map(|token| token.content.as_str()).collect();
        let with_role = |token: &Token| token.clone().made_special(special.contains(token.token.content.as_str())).finish();
        let listed_again = self.decoder.iter().map(|(_, token)| with_role(token));
        let missing = specials.iter().filter_map(|special| match special {
            Special::Text(text) => (!texts.contains(text.as_str())).then(|| Token::new(text, true).finish()),
            Special::Token(token) => (!listed.contains(&token.finish())).then(|| with_role(token)),
        });
        listed_again.chain(missing).collect()
    }

    /// tokenizer.json's pre-tokenizer, with `add_prefix_space` as the constructor sets it.
    pub(super) fn pre_tokenizer(&self, json: &TokenizerJson) -> Value {
        let mut out = json.pre_tokenizer.clone();
        let space = match self.config.get("add_prefix_space") {
            None => self.class.prefix_space,
            Some(value) => value.as_bool(),
        };
        let set = |value: &mut Value, flag: bool| {
            if value.get("type").and_then(Value::as_str) == Some("ByteLevel") {
                value["add_prefix_space"] = flag.into();
            }
        };
        if let Some(flag) = space {
            set(&mut out, flag);
            if flag
                && self.class.prefix_space_nested
                && let Some(members) = out.get_mut("pretokenizers").and_then(Value::as_array_mut)
            {
                members.iter_mut().for_each(|member| set(member, true));
            }
        }
        out
    }
}

/// tokenizer_config.json's `added_tokens_decoder`.
fn listed(entries: &Value) -> Result<Vec<(u64, Token)>, TokenizerError> {
    let file = "tokenizer_config.json";
    let mut out = Vec::new();
    for (id, entry) in entries.as_object().into_iter().flatten() {
        let key = || format!("added_tokens_decoder.{id}");
        let why = "no id (an integer, 0 or more)";
        let number = id.parse().map_err(|_| TokenizerError::Number { file, key: key(), value: id.clone(), why })?;
        let token = entry.as_object().and_then(Token::read);
        let found = Kind::of(entry);
        let expected = "an object with `content`";
        out.push((number, token.ok_or_else(|| TokenizerError::Type { file, key: key(), expected, found })?));
    }
    Ok(out)
}
