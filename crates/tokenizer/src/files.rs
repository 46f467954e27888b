//! The files of a model that its tokenizer is made of, each read once.

use super::json::{self, TokenizerJson};
use super::{Request, TokenizerError};
use ggufsmith_checkpoint::ModelDir;
use serde_json::{Map, Value};

/// The directory, and what of it more than one part needs.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) dir: &'a ModelDir,
    /// config.json.
    pub(super) config: &'a Value,
    /// tokenizer_config.json.
    pub(super) tokenizer_config: Option<Map<String, Value>>,
    pub(super) tokenizer_json: Option<TokenizerJson>,
}

impl<'a> Files<'a> {
    pub(super) fn read(dir: &'a ModelDir, request: &Request<'a>) -> Result<Self, TokenizerError> {
        Ok(Files {
            dir,
            config: request.config,
            tokenizer_config: json::object(dir, "tokenizer_config.json")?,
            tokenizer_json: TokenizerJson::read(dir)?,
        })
    }

    /// tokenizer_config.json, where it says anything: to Python an empty one is as good as none.
    pub(super) fn config_object(&self) -> Option<&Map<String, Value>> {
        self.tokenizer_config.as_ref().filter(|map| !map.is_empty())
    }
}
