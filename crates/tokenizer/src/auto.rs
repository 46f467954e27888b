//! The tokenizer that transformers 4.57.6's `AutoTokenizer` makes of the files: tokenizer.json in the `tokenizers` library, with
//! the tokens, flags and frames that tokenizer_config.json, special_tokens_map.json, added_tokens.json and the class add to it.

use super::TokenizerError;
use super::arguments::{Arguments, Token};
use super::engine::{engine, guarded};
use super::files::Files;
use super::json::{Kind, MAX_ADDED_TOKENS, TokenizerJson, truthy};
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

/// A loaded tokenizer.
pub(super) struct AutoTokenizer {
    engine: Tokenizer,
    /// Tokens of the model, each counted once.
    pub(super) base: usize,
    /// tokenizer.json's pre-tokenizer as the class leaves it.
    pub(super) pre_tokenizer: Value,
    /// Added tokens by id.
    pub(super) added: Vec<(u32, AddedToken)>,
    /// `all_special_tokens`.
    pub(super) specials: Vec<String>,
    /// Ids before and after a text; `None`: what tokenizer.json's post-processor adds.
    frame: Option<(Option<u32>, Option<u32>)>,
    clean_up: bool,
    /// The id of `bos_token`.
    pub(super) bos: Option<u32>,
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
        let pre_tokenizer = arguments.pre_tokenizer(json);
        let listed = arguments.listed_tokens();
        if listed > MAX_ADDED_TOKENS {
            let what = "added tokens in tokenizer_config.json and its kin";
            return Err(TokenizerError::Limit { what, count: listed as u64, limit: MAX_ADDED_TOKENS as u64 });
        }
        let mut engine = engine(json, vocab, merges, pre_tokenizer.clone())?;
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
        let bos = arguments.role("bos_token").and_then(|token| engine.token_to_id(token.content()));
        engine.set_encode_special_tokens(flag("split_special_tokens", false));
        let clean_up = flag("clean_up_tokenization_spaces", false);
        Ok(AutoTokenizer { base: engine.get_vocab_size(false), engine, pre_tokenizer, added, specials, frame, clean_up, bos })
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

    /// `tokenizer.encode(text, add_special_tokens=special)` but for a frame of the class.
    pub(super) fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        guarded("encode", || self.engine.encode(text, special).map(|e| e.get_ids().to_vec()).map_err(|e| e.to_string()))
    }

    /// `convert_ids_to_tokens` for an id that is there.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.engine.id_to_token(id)
    }

    /// `convert_tokens_to_ids` for a token that is there.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.engine.token_to_id(token)
    }
}
