//! What tokenizer.json's post-processor says about the tokens that frame a text, read as gguf-py reads it.

use super::TokenizerError;
use super::json::{Kind, truthy};
use super::special::{Roles, SpecialVocab};
use serde_json::Value as Json;

const FILE: &str = "tokenizer.json";

/// The four special tokens on which the post-processor has a say, in the type they have in tokenizer_config.json (a text, an
/// object with `content`, null).
#[derive(Debug)]
pub(super) struct Frame<'a, 'b> {
    bos: Json,
    cls: Json,
    eos: Json,
    sep: Json,
    roles: &'a mut Roles<'b>,
    out: &'a mut SpecialVocab,
}

impl Frame<'_, '_> {
    /// Add to `out.add`, and change `roles` where the post-processor knows better.
    pub(super) fn read(post_processor: &Json, roles: &mut Roles, out: &mut SpecialVocab) -> Result<(), TokenizerError> {
        let get = |key: &str| roles.get(key).cloned().unwrap_or(Json::Null);
        let (bos, cls, eos, sep) = (get("bos_token"), get("cls_token"), get("eos_token"), get("sep_token"));
        let mut frame = Frame { bos, cls, eos, sep, roles, out };
        if !truthy(&frame.bos) && truthy(&frame.cls) && frame.roles.has_config() {
            frame.bos = frame.cls.clone();
            frame.roles.set("bos_token", frame.bos.clone());
        }
        if !truthy(&frame.eos) && truthy(&frame.sep) && frame.roles.has_config() {
            frame.eos = frame.sep.clone();
            frame.roles.set("eos_token", frame.eos.clone());
        }
        if !truthy(post_processor) {
            return Ok(());
        }
        match post_processor.get("processors") {
            None => frame.processor(post_processor),
            Some(Json::Array(list)) => list.iter().try_for_each(|p| frame.processor(p)),
            Some(other) => Err(TokenizerError::Type {
                file: FILE,
                key: "post_processor.processors".into(),
                expected: "an array",
                found: Kind::of(other),
            }),
        }
    }

    fn processor(&mut self, processor: &Json) -> Result<(), TokenizerError> {
        match processor.get("type").and_then(Json::as_str) {
            Some("ByteLevel") => {
                for kind in ["bos", "eos"] {
                    if !self.out.add.iter().any(|(k, _)| *k == kind) {
                        self.add(kind, false);
                    }
                }
            }
            Some("RobertaProcessing") => {
                for kind in ["bos", "eos", "sep"] {
                    self.add(kind, true);
                }
                let named = |key| processor.get(key).map(|pair| pair.get(0).cloned().unwrap_or(Json::Null));
                if !truthy(&self.cls) && self.roles.has_config() {
                    self.cls = named("cls").unwrap_or_else(|| self.bos.clone());
                    self.roles.set("cls_token", self.cls.clone());
                }
                if !truthy(&self.sep) && self.roles.has_config() {
                    self.sep = named("sep").unwrap_or_else(|| self.eos.clone());
                    self.roles.set("sep_token", self.sep.clone());
                }
            }
            Some("TemplateProcessing") => {
                let single = pieces(processor, "single")?;
                let (first, last) = if single.len() > 1 { self.single(single) } else { (None, None) };
                self.pair(pieces(processor, "pair")?, first, last);
            }
            _ => {}
        }
        Ok(())
    }

    fn single<'p>(&mut self, pieces: &'p [Json]) -> (Option<&'p str>, Option<&'p str>) {
        let first = pieces.first().and_then(special);
        if let Some(token) = first {
            if !self.roles.has_config() {
                self.bos = token.into();
            } else if self.bos != token && self.cls != token {
                if !truthy(&self.bos) {
                    self.bos = token.into();
                    self.roles.set("bos_token", self.bos.clone());
                }
                if !truthy(&self.cls) {
                    self.cls = token.into();
                    self.roles.set("cls_token", self.cls.clone());
                }
            }
            let known = self.bos == token || self.cls == token;
            if !known {
                self.out.warnings.push(format!("the post-processor's leading token {token:?} is neither bos nor cls"));
            }
            self.add("bos", known);
        }
        let last = pieces.last().and_then(special);
        if let Some(token) = last {
            if !self.roles.has_config() {
                self.eos = token.into();
            } else if self.eos != token {
                // The old end of sequence becomes end of turn, or end of message where that is taken.
                for (kind, key) in [("eot", "eot_token"), ("eom", "eom_token")] {
                    if !self.roles.kinds.contains(&kind) {
                        self.roles.kinds.push(kind);
                        self.roles.set(key, self.eos.clone());
                        break;
                    }
                }
                self.eos = token.into();
                self.roles.set("eos_token", self.eos.clone());
            }
            self.add("eos", true);
        }
        (first, last)
    }

    /// `pair`: whether a separator stands between two texts.
    fn pair(&mut self, pieces: &[Json], first: Option<&str>, last: Option<&str>) {
        let mut pieces = pieces;
        // Both ends are looked at before either is cut off, and a lone piece may be both.
        let stop = match (last, pieces.last().and_then(special)) {
            (Some(last), Some(token)) if last == token => pieces.len() - 1,
            _ => pieces.len(),
        };
        let start = usize::from(first.is_some() && pieces.first().and_then(special) == first);
        pieces = pieces.get(start..stop).unwrap_or_default();
        let (Some(a), Some(b)) = (pieces.first(), pieces.last()) else { return };
        if sequence(a) != Some("A") || sequence(b) != Some("B") {
            return;
        }
        // A and B are two pieces.
        let between = &pieces[1..pieces.len() - 1];
        let Some(separator) = between.first() else { return };
        let separates = |piece: &Json| special(piece).is_some_and(|token| self.sep == token || self.eos == token);
        let mut add = separates(separator) && last.is_none();
        if let [_, second] = between {
            add |= separates(second);
        }
        self.add("sep", add);
        if add && !truthy(&self.sep) && self.roles.has_config() {
            self.roles.set("sep_token", self.eos.clone());
        }
    }

    fn add(&mut self, kind: &'static str, flag: bool) {
        match self.out.add.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, old)) => *old = flag,
            None => self.out.add.push((kind, flag)),
        }
    }
}

fn pieces<'p>(processor: &'p Json, key: &str) -> Result<&'p [Json], TokenizerError> {
    match processor.get(key) {
        None => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(other) => Err(TokenizerError::Type {
            file: FILE,
            key: format!("post_processor.{key}"),
            expected: "an array of pieces",
            found: Kind::of(other),
        }),
    }
}

fn named<'p>(piece: &'p Json, kind: &str) -> Option<&'p str> {
    piece.get(kind)?.get("id")?.as_str().filter(|id| !id.is_empty())
}

fn special(piece: &Json) -> Option<&str> {
    named(piece, "SpecialToken")
}

fn sequence(piece: &Json) -> Option<&str> {
    named(piece, "Sequence")
}
