//! Numbers that are not finite: JSON has none, they are written as `null` and come back as NaN.

use super::Figures;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A number, or `null` for NaN.
pub(super) fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A list of [`one`].
pub(super) fn many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers: Vec<Option<f64>> = Vec::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}

/// Figures among a report's other keys. With serde's own `flatten` of an `Option` a damaged figure would read as "not run".
pub(super) fn figures<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Figures>, D::Error> {
    let rest = Map::deserialize(deserializer)?;
    if !["text", "perplexity", "kld_mean"].iter().any(|key| rest.contains_key(*key)) {
        return Ok(None);
    }
    Figures::deserialize(Value::Object(rest)).map(Some).map_err(D::Error::custom)
}
