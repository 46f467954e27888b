//! Merges, special token ids, add-token flags and chat templates: gguf-py's `SpecialVocab`.

use super::files::Files;
use super::json::{Kind, Merges, truthy};
use super::template::Frame;
use super::{TokenizerError, chat, python};
use ggufsmith_gguf::Value;
use serde_json::Value as Json;

/// The kinds that gguf-py looks for unless told otherwise.
pub(super) const KINDS: &[&str] = &["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

/// Which GGUF key holds the id of a kind of special token. Kinds without a key (`cls`, `prefix`, ...) are found and dropped.
fn id_key(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bos" => "tokenizer.ggml.bos_token_id",
        "eos" => "tokenizer.ggml.eos_token_id",
        "unk" => "tokenizer.ggml.unknown_token_id",
        "sep" => "tokenizer.ggml.seperator_token_id",
        "pad" => "tokenizer.ggml.padding_token_id",
        "mask" => "tokenizer.ggml.mask_token_id",
        "eot" => "tokenizer.ggml.eot_token_id",
        "eom" => "tokenizer.ggml.eom_token_id",
        _ => return None,
    })
}

fn add_key(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bos" => "tokenizer.ggml.add_bos_token",
        "eos" => "tokenizer.ggml.add_eos_token",
        "sep" => "tokenizer.ggml.add_sep_token",
        _ => return None,
    })
}

/// What gguf-py's `SpecialVocab` finds, in the order in which it is written.
#[derive(Debug, Default)]
pub(super) struct SpecialVocab {
    pub(super) merges: Vec<String>,
    pub(super) ids: Vec<(&'static str, u32)>,
    pub(super) add: Vec<(&'static str, bool)>,
    pub(super) chat: Option<chat::Templates>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    pub(super) warnings: Vec<String>,
}

impl SpecialVocab {
    /// Look for special tokens of these kinds. `merges`: whether to take the merges, too (they are moved out of `files`).
    /// `tokens`: ids at or above it are ignored.
    pub(super) fn load(
        files: &mut Files,
        kinds: &[&'static str],
        merges: bool,
        tokens: Option<usize>,
    ) -> Result<Self, TokenizerError> {
        let mut out = SpecialVocab::default();
        if merges {
            out.take_merges(files)?;
        }
        let files = &*files;
        let mut roles = Roles { kinds: kinds.to_vec(), config: files.config_object(), changed: Vec::new() };
        let mut added_tokens: &[Json] = &[];
        if let Some(json) = &files.tokenizer_json {
            if truthy(&json.normalizer) {
                out.normalizer(&json.normalizer)?;
            }
            added_tokens = &json.added_tokens;
            Frame::read(&json.post_processor, &mut roles, &mut out)?;
        }
        if roles.has_config() {
            out.chat = chat::load(files, &mut out.warnings)?;
            for kind in roles.kinds.clone() {
                out.read_tokenizer_config(kind, &roles, added_tokens, tokens)?;
            }
        }
        for kind in roles.kinds {
            let key = format!("{kind}_token_id");
            let top = files.config.get(&key).filter(|v| !v.is_null());
            let id = top.or_else(|| files.config.get("text_config")?.get(&key));
            if let Some(id) = id {
                out.set_id(kind, id, tokens, "config.json", &key)?;
            }
        }
        Ok(out)
    }

    fn read_tokenizer_config(
        &mut self,
        kind: &'static str,
        roles: &Roles,
        added_tokens: &[Json],
        tokens: Option<usize>,
    ) -> Result<(), TokenizerError> {
        if let Some(&Json::Bool(flag)) = roles.get(&format!("add_{kind}_token")) {
            match self.add.iter().find(|(k, _)| *k == kind) {
                None => self.add.push((kind, flag)),
                Some(&(_, other)) if other != flag => self.warnings.push(format!(
                    "tokenizer_config.json says add_{kind}_token = {flag}, tokenizer.json's post-processor says {other}: the latter is written, as llama.cpp's converter does"
                )),
                Some(_) => {}
            }
        }
        let content = match roles.get(&format!("{kind}_token")) {
            Some(Json::String(text)) => text,
            Some(Json::Object(token)) => match token.get("content") {
                Some(Json::String(text)) => text,
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        let found = added_tokens.iter().find(|t| t.get("content").and_then(Json::as_str) == Some(content));
        match found.and_then(|t| t.get("id")) {
            Some(id) => self.set_id(kind, id, tokens, "tokenizer.json", &format!("the id of the added token {content:?}")),
            None => Ok(()),
        }
    }

    /// `_set_special_token`: the first id of a kind stays; what is no integer is ignored.
    pub(super) fn set_id(
        &mut self,
        kind: &'static str,
        id: &Json,
        tokens: Option<usize>,
        file: &'static str,
        key: &str,
    ) -> Result<(), TokenizerError> {
        let number = match id {
            // A boolean is an integer in Python.
            Json::Bool(flag) => serde_json::Number::from(u8::from(*flag)),
            Json::Number(n) if n.is_i64() || n.is_u64() => n.clone(),
            _ => return Ok(()),
        };
        let bad = |why| TokenizerError::Number { file, key: key.to_owned(), value: number.to_string(), why };
        let Some(id) = number.as_u64() else { return Err(bad("negative")) };
        if let Some(limit) = tokens
            && id >= limit as u64
        {
            self.warnings.push(format!("{file}: {key} is {id}, the vocabulary has {limit} tokens: left out"));
            return Ok(());
        }
        if !self.ids.iter().any(|(k, _)| *k == kind) {
            self.ids.push((kind, u32::try_from(id).map_err(|_| bad("larger than any token id"))?));
        }
        Ok(())
    }

    fn normalizer(&mut self, normalizer: &Json) -> Result<(), TokenizerError> {
        let flag = |key: &str| match normalizer.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(&Json::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(TokenizerError::Type {
                file: "tokenizer.json",
                key: format!("normalizer.{key}"),
                expected: "a boolean",
                found: Kind::of(other),
            }),
        };
        match normalizer.get("type").and_then(Json::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                if normalizer.get("lowercase").is_some() {
                    self.lowercase = flag("lowercase")?;
                }
                if normalizer.get("strip_accents").is_some() {
                    self.strip_accents = flag("strip_accents")?;
                }
            }
            Some("Sequence") => {
                for inner in normalizer.get("normalizers").and_then(Json::as_array).into_iter().flatten() {
                    self.normalizer(inner)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_merges(&mut self, files: &mut Files) -> Result<(), TokenizerError> {
        if let Some(json) = &mut files.tokenizer_json {
            self.merges = match std::mem::take(&mut json.model.merges) {
                Merges::Missing => Vec::new(),
                Merges::Joined(list) => list,
                // GGUF has the joined spelling only; a space inside a token becomes U+0120 there, its byte-level character.
                Merges::Pairs(list) => list
                    .into_iter()
                    .map(|(left, right)| match left.contains(' ') || right.contains(' ') {
                        false => [left.as_str(), right.as_str()].join(" "),
                        true => [left.replace(' ', "\u{120}"), right.replace(' ', "\u{120}")].join(" "),
                    })
                    .collect(),
            };
        }
        if self.merges.is_empty()
            && let Some(text) = files.dir.text("merges.txt")?
        {
            self.merges = merges_txt(&python::universal_newlines(text), &mut self.warnings);
        }
        if self.merges.is_empty() {
            self.warnings.push("no merges in tokenizer.json, and no merges.txt: llama.cpp will not load the file".into());
        }
        Ok(())
    }

    /// The keys, in the order of gguf-py's `add_to_gguf`.
    pub(super) fn write(self, out: &mut Vec<(String, Value)>) {
        if !self.merges.is_empty() {
            super::set(out, "tokenizer.ggml.merges", self.merges);
        }
        for (kind, id) in self.ids {
            if let Some(key) = id_key(kind) {
                super::set(out, key, id);
            }
        }
        for (kind, flag) in self.add {
            if let Some(key) = add_key(kind) {
                super::set(out, key, flag);
            }
        }
        if let Some(templates) = self.chat {
            templates.write(out);
        }
        if let Some(flag) = self.lowercase {
            super::set(out, "tokenizer.ggml.normalizer.lowercase", flag);
        }
        if let Some(flag) = self.strip_accents {
            super::set(out, "tokenizer.ggml.normalizer.strip_accents", flag);
        }
    }
}

/// tokenizer_config.json as far as special tokens go, with what the post-processor changes in it.
#[derive(Debug)]
pub(super) struct Roles<'a> {
    pub(super) kinds: Vec<&'static str>,
    config: Option<&'a serde_json::Map<String, Json>>,
    changed: Vec<(&'static str, Json)>,
}

impl Roles<'_> {
    /// Whether there is a tokenizer_config.json that says anything.
    pub(super) fn has_config(&self) -> bool {
        self.config.is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        let changed = self.changed.iter().find(|(k, _)| *k == key).map(|(_, v)| v);
        changed.or_else(|| self.config?.get(key))
    }

    pub(super) fn set(&mut self, key: &'static str, value: Json) {
        match self.changed.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.changed.push((key, value)),
        }
    }
}

/// merges.txt: one merge of two words a line, an optional first line that starts with `#`.
fn merges_txt(text: &str, warnings: &mut Vec<String>) -> Vec<String> {
    let mut merges = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let line = python::strip(line);
        if line.is_empty() || (number == 0 && line.starts_with('#')) {
            continue;
        }
        match python::words(line).collect::<Vec<_>>()[..] {
            [left, right] => merges.push(format!("{left} {right}")),
            _ => warnings.push(format!("merges.txt, line {}: not two tokens, ignored", number + 1)),
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_txt_lines() {
        let mut warnings = Vec::new();
        let merges = merges_txt("#version: 0.2\nĠ t\n\n a  b \nx y z\n# c\n", &mut warnings);
        assert_eq!(merges, ["Ġ t", "a b", "# c"]);
        assert_eq!(warnings, ["merges.txt, line 5: not two tokens, ignored"]);
    }

    #[test]
    fn ids_keep_their_first_value_and_their_type() {
        let mut vocab = SpecialVocab::default();
        let mut set = |id: Json| vocab.set_id("eos", &id, Some(10), "config.json", "eos_token_id");
        set(Json::from(vec![3, 4])).unwrap();
        set(Json::from(2.0)).unwrap();
        set(Json::from(11)).unwrap();
        assert!(matches!(set(Json::from(-1)), Err(TokenizerError::Number { .. })));
        set(Json::from(7)).unwrap();
        set(Json::from(8)).unwrap();
        assert_eq!(vocab.ids, [("eos", 7)]);
        assert!(matches!(
            vocab.set_id("bos", &Json::from(1u64 << 32), None, "config.json", "bos_token_id"),
            Err(TokenizerError::Number { .. })
        ));
    }
}
