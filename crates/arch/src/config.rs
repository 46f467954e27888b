//! config.json with the defaults of its class filled in.

use crate::{ArchError, Class};
use serde_json::{Map, Value};

/// A model's config.json, laid over the defaults of its class.
#[derive(Debug, Clone)]
pub struct Config {
    map: Map<String, Value>,
}

impl Config {
    /// Lay `config` over the class's defaults.
    ///
    /// # Errors
    /// [`ArchError`] where `config` is no JSON object.
    pub fn new(config: &Value, class: &Class) -> Result<Self, ArchError> {
        let _ = (config, class);
        Ok(Self { map: Map::new() })
    }

    /// A key that is present and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }
}
