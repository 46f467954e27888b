//! The tokenizer that transformers 4.57.6's `AutoTokenizer` makes of the files: tokenizer.json in the `tokenizers` library, with
//! the tokens, flags and frames that tokenizer_config.json, special_tokens_map.json, added_tokens.json and the class add to it.

use super::classes::{self, Class};
use super::files::Files;
use super::json::{self, Kind, Merges, TokenizerJson, truthy};
use super::{TokenizerError, json::Model};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::models::bpe::{BPE, Vocab as EngineVocab};
use tokenizers::{AddedToken, Tokenizer};

/// `SPECIAL_TOKENS_ATTRIBUTES` without the list at its end.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A loaded tokenizer.
pub(super) struct AutoTokenizer {
    engine: Tokenizer,
    /// Added tokens by id.
    pub(super) added: Vec<(u32, AddedToken)>,
    /// `all_special_tokens`.
    pub(super) specials: Vec<String>,
    /// Ids before and after a text; `None`: what tokenizer.json's post-processor adds.
    frame: Option<(Option<u32>, Option<u32>)>,
    clean_up: bool,
}

/// `tokenizers.AddedToken` of Python: `normalized` follows `special` until it is said.
#[derive(Debug, Clone)]
struct Token {
    token: AddedToken,
    normalized: Option<bool>,
}

impl Token {
    fn new(content: &str, special: bool) -> Self {
        Token { token: AddedToken::from(content, special), normalized: None }
    }

    fn read(value: &Map<String, Value>) -> Option<Self> {
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

    fn finish(&self) -> AddedToken {
        self.token.clone().normalized(self.normalized.unwrap_or(!self.token.special))
    }
}

/// A special token as the constructor gets it.
#[derive(Debug, Clone)]
enum Special {
    Text(String),
    Token(Token),
}

impl Special {
    fn content(&self) -> &str {
        match self {
            Special::Text(text) => text,
            Special::Token(token) => &token.token.content,
        }
    }

    /// Text or token object; anything else is no special token.
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Special::Text(text.clone())),
            Value::Object(map) => Token::read(map).map(Special::Token),
            _ => None,
        }
    }
}

/// The arguments of the constructor.
struct Arguments {
    class: &'static Class,
    /// tokenizer_config.json, with special_tokens_map.json over it where that is read.
    config: Map<String, Value>,
    /// `added_tokens_decoder`, by id.
    decoder: Vec<(u64, Token)>,
}

impl AutoTokenizer {
    /// Load what `files` describe. `vocab` are the tokens of tokenizer.json's model; `merges`: whether text will be encoded.
    pub(super) fn load(
        files: &Files,
        json: &TokenizerJson,
        vocab: &[(String, u32)],
        merges: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TokenizerError> {
        let arguments = Arguments::read(files, json)?;
        let mut engine = engine(json, vocab, merges, &arguments)?;
        let from_json = json.added_tokens.iter().map(|entry| {
            let token = entry.as_object().and_then(Token::read).map(|t| t.finish());
            token.ok_or_else(|| TokenizerError::Type {
                file: "tokenizer.json",
                key: "added_tokens".into(),
                expected: "a list of objects with `content`",
                found: Kind::of(entry),
            })
        });
        let from_json = from_json.collect::<Result<Vec<_>, _>>()?;
        guarded("added tokens", || Ok(engine.add_tokens(&from_json)))?;

        let roles = arguments.specials(json);
        let specials: Vec<String> = roles.iter().map(|s| s.content().to_owned()).collect();
        let more = arguments.tokens_to_add(&roles, &from_json);
        guarded("added tokens", || Ok(engine.add_tokens(&more)))?;
        let mut added: Vec<_> = engine.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);

        let flag = |key: &str, default: bool| arguments.config.get(key).map_or(default, truthy);
        let frame = arguments.class.frame.map(|(bos, eos)| {
            let mut id = |key: &str, role: &str, default: bool| {
                if !flag(key, default) {
                    return None;
                }
                let id = arguments.role(role).and_then(|token| engine.token_to_id(token.content()));
                if id.is_none() {
                    warnings.push(format!("{} wants {key}, but there is no {role}: none is added", arguments.class.name));
                }
                id
            };
            (id("add_bos_token", "bos_token", bos), id("add_eos_token", "eos_token", eos))
        });
        engine.set_encode_special_tokens(flag("split_special_tokens", false));
        Ok(AutoTokenizer { engine, added, specials, frame, clean_up: flag("clean_up_tokenization_spaces", false) })
    }

    /// `tokenizer.encode(text)`.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let Some((before, after)) = self.frame else { return self.ids(text, true) };
        let ids = self.ids(text, false)?;
        Ok(before.into_iter().chain(ids).chain(after).collect())
    }

    /// `tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))`.
    pub(super) fn normalize(&self, text: &str) -> Result<String, TokenizerError> {
        let ids = self.ids(text, false)?;
        let mut text = guarded("decode", || self.engine.decode(&ids, false).map_err(|e| e.to_string()))?;
        if self.clean_up {
            let artifacts = [
                (" .", "."),
                (" ?", "?"),
                (" !", "!"),
                (" ,", ","),
                (" ' ", "'"),
                (" n't", "n't"),
                (" 'm", "'m"),
                (" 's", "'s"),
                (" 've", "'ve"),
                (" 're", "'re"),
            ];
            for (from, to) in artifacts {
                text = text.replace(from, to);
            }
        }
        Ok(text)
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        guarded("encode", || self.engine.encode(text, special).map(|e| e.get_ids().to_vec()).map_err(|e| e.to_string()))
    }

    /// `convert_tokens_to_ids` for a token that is there.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.engine.token_to_id(token)
    }
}

impl Arguments {
    fn read(files: &Files, json: &TokenizerJson) -> Result<Self, TokenizerError> {
        let class = classes::pick(files.tokenizer_config.as_ref(), files.config);
        let mut config = files.tokenizer_config.clone().unwrap_or_default();
        let mut decoder = Vec::new();
        if let Some(entries) = config.remove("added_tokens_decoder") {
            let file = "tokenizer_config.json";
            for (id, entry) in entries.as_object().into_iter().flatten() {
                let key = || format!("added_tokens_decoder.{id}");
                let number = id.parse::<u64>().map_err(|_| TokenizerError::Number {
                    file,
                    key: key(),
                    value: id.clone(),
                    why: "no id (an integer, 0 or more)",
                })?;
                let token = entry.as_object().and_then(Token::read);
                let found = Kind::of(entry);
                let wrong = || TokenizerError::Type { file, key: key(), expected: "an object with `content`", found };
                decoder.push((number, token.ok_or_else(wrong)?));
            }
        } else {
            // What transformers wrote before tokenizer_config.json listed the added tokens.
            for (key, mut value) in json::object(files.dir, "special_tokens_map.json")?.unwrap_or_default() {
                if let Value::Object(token) = &mut value {
                    token.insert("special".into(), true.into());
                }
                if key == "additional_special_tokens"
                    && let (Some(Value::Array(known)), Value::Array(more)) = (config.get_mut(&key), &value)
                {
                    for token in more {
                        if !known.contains(token) {
                            known.push(token.clone());
                        }
                    }
                    continue;
                }
                config.insert(key, value);
            }
            for (token, id) in json::object(files.dir, "added_tokens.json")?.unwrap_or_default() {
                let special = ROLES.iter().any(|role| config.get(*role).and_then(Value::as_str) == Some(token.as_str()));
                if let Some(id) = id.as_u64() {
                    decoder.push((id, Token::new(&token, special)));
                }
            }
            for entry in &json.added_tokens {
                if let (Some(id), Some(token)) =
                    (entry.get("id").and_then(Value::as_u64), entry.as_object().and_then(Token::read))
                {
                    match decoder.iter_mut().find(|(known, _)| *known == id) {
                        Some((_, old)) => *old = token,
                        None => decoder.push((id, token)),
                    }
                }
            }
        }
        decoder.sort_by_key(|(id, _)| *id);
        Ok(Arguments { class, config, decoder })
    }

    /// The token of a role: tokenizer_config.json's, with the flags of `added_tokens_decoder`, else the class's.
    fn role(&self, role: &str) -> Option<Special> {
        let given = match self.config.get(role) {
            Some(value) => self.with_flags(Special::read(value)?),
            None => {
                let default = self.class.roles.iter().find(|(name, _)| *name == role)?;
                Special::Text(default.1?.to_owned())
            }
        };
        Some(match given {
            Special::Text(text) if self.class.wraps_roles => Special::Token(Token::new(&text, true)),
            other => other,
        })
    }

    fn with_flags(&self, token: Special) -> Special {
        let known = self.decoder.iter().rev().find(|(_, t)| t.token.content == token.content());
        known.map_or(token, |(_, t)| Special::Token(t.clone()))
    }

    /// `all_special_tokens_extended`.
    fn specials(&self, json: &TokenizerJson) -> Vec<Special> {
        let mut all: Vec<Special> = Vec::new();
        let mut push = |token: Special| {
            if !token.content().is_empty() && !all.iter().any(|t| t.content() == token.content()) {
                all.push(token);
            }
        };
        for role in ROLES {
            let said = self.config.contains_key(role) || self.class.roles.iter().any(|(name, _)| *name == role);
            if role == "pad_token" && !said {
                // A tokenizer.json that pads brings its padding token with it.
                json.padding.get("pad_token").and_then(Special::read).map(&mut push);
            }
            self.role(role).map(&mut push);
        }
        let list = |key: &str| self.config.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Special::read);
        list("additional_special_tokens").for_each(&mut push);
        for (key, default) in self.class.infill {
            match self.config.get(*key) {
                None => push(Special::Text((*default).to_owned())),
                Some(value) => drop(Special::read(value).map(&mut push)),
            }
        }
        // An object of names here; a list in files of transformers 5.
        list("extra_special_tokens").for_each(&mut push);
        let extra = self.config.get("extra_special_tokens").and_then(Value::as_object);
        extra.into_iter().flatten().filter_map(|(_, value)| Special::read(value)).for_each(&mut push);
        all
    }

    /// What the constructor adds to the tokens that tokenizer.json adds: all of `added_tokens_decoder` (for its flags), and special
    /// tokens that are not there yet.
    fn tokens_to_add(&self, specials: &[Special], known: &[AddedToken]) -> Vec<AddedToken> {
        let is_special = |content: &str| specials.iter().any(|s| s.content() == content);
        let listed: Vec<AddedToken> = self.decoder.iter().map(|(_, token)| token.finish()).collect();
        let mut out: Vec<AddedToken> =
            self.decoder.iter().map(|(_, t)| t.clone().made_special(is_special(&t.token.content)).finish()).collect();
        for special in specials {
            match special {
                Special::Text(text) => {
                    if !known.iter().chain(&listed).any(|t| t.content == *text) {
                        out.push(Token::new(text, true).finish());
                    }
                }
                Special::Token(token) => {
                    if !listed.contains(&token.finish()) {
                        out.push(token.clone().made_special(true).finish());
                    }
                }
            }
        }
        out
    }

    /// tokenizer.json's pre-tokenizer, with `add_prefix_space` as the constructor sets it.
    fn pre_tokenizer(&self, json: &TokenizerJson) -> Value {
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

fn engine(
    json: &TokenizerJson,
    vocab: &[(String, u32)],
    merges: bool,
    arguments: &Arguments,
) -> Result<Tokenizer, TokenizerError> {
    let merges = if merges { pairs(&json.model.merges)? } else { Vec::new() };
    let tokens: EngineVocab = vocab.iter().cloned().collect();
    let mut engine = guarded("model", || bpe(&json.model, tokens, merges).map(Tokenizer::new))?;
    engine.with_normalizer(part::<tokenizers::NormalizerWrapper>("normalizer", json.normalizer.clone())?);
    engine.with_pre_tokenizer(part::<tokenizers::PreTokenizerWrapper>("pre_tokenizer", arguments.pre_tokenizer(json))?);
    engine.with_post_processor(part::<tokenizers::PostProcessorWrapper>("post_processor", json.post_processor.clone())?);
    engine.with_decoder(part::<tokenizers::DecoderWrapper>("decoder", json.decoder.clone())?);
    Ok(engine)
}

fn bpe(model: &Model, tokens: EngineVocab, merges: Vec<(String, String)>) -> Result<BPE, String> {
    let text = |key: &str| model.options.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut builder = BPE::builder()
        .vocab_and_merges(tokens, merges)
        // Few words are encoded; dropout is left out, it is for training.
        .cache_capacity(0)
        .fuse_unk(model.flag("fuse_unk", false))
        .byte_fallback(model.flag("byte_fallback", false))
        .ignore_merges(model.flag("ignore_merges", false));
    if let Some(unk) = text("unk_token") {
        builder = builder.unk_token(unk);
    }
    if let Some(prefix) = text("continuing_subword_prefix") {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = text("end_of_word_suffix") {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder.build().map_err(|e| e.to_string())
}

fn pairs(merges: &Merges) -> Result<Vec<(String, String)>, TokenizerError> {
    match merges {
        Merges::Missing => Ok(Vec::new()),
        Merges::Pairs(list) => Ok(list.clone()),
        Merges::Joined(list) => list
            .iter()
            .filter(|line| !line.starts_with("#version"))
            .map(|line| match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
                _ => Err(TokenizerError::Library { stage: "merges", message: format!("{line:?} is no pair of tokens") }),
            })
            .collect(),
    }
}

fn part<T: DeserializeOwned>(stage: &'static str, value: Value) -> Result<Option<T>, TokenizerError> {
    guarded(stage, || serde_json::from_value(value).map_err(|e| e.to_string()))
}

/// Run a part of the `tokenizers` library. It unwraps in places on what a file says (an id without a token, a prefix that is no
/// prefix), so a panic is caught and becomes an error: nothing of it is used afterwards.
fn guarded<T>(stage: &'static str, run: impl FnOnce() -> Result<T, String>) -> Result<T, TokenizerError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(TokenizerError::Library { stage, message }),
        Err(_) => Err(TokenizerError::Panicked { stage }),
    }
}
