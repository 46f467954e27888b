//! `model.safetensors.index.json`: which shard holds which tensor.

use crate::error::IndexDefect;
use crate::{CheckpointError, ModelDir, file, json};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

/// The index's file name.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A parsed and checked index.
pub(crate) struct Index {
    pub(crate) path: PathBuf,
    /// Tensor name and shard name, in file order.
    pub(crate) weight_map: Vec<(String, String)>,
}

impl Index {
    /// Read the index of a directory; `None` where there is none.
    pub(crate) fn read(dir: &ModelDir) -> Result<Option<Self>, CheckpointError> {
        let Some(bytes) = dir.bytes_up_to(INDEX, dir.options().limits.index_bytes)? else { return Ok(None) };
        let path = dir.path().join(INDEX);
        let defect = |defect| CheckpointError::Index { path: path.clone(), defect };
        let mut value = json::parse(&path, &dir.utf8(INDEX, bytes)?, dir.options().limits.json_values)?;
        let Some(serde_json::Value::Object(entries)) = value.get_mut("weight_map").map(serde_json::Value::take) else {
            return Err(defect(IndexDefect::NoWeightMap));
        };
        let mut weight_map = Vec::with_capacity(entries.len());
        for (tensor, shard) in entries {
            let serde_json::Value::String(name) = shard else { return Err(defect(IndexDefect::NotAName { tensor })) };
            if !file::is_plain_name(&name) || !name.ends_with(".safetensors") {
                return Err(defect(IndexDefect::ShardName { tensor, name }));
            }
            weight_map.push((tensor, name));
        }
        if weight_map.is_empty() {
            return Err(defect(IndexDefect::Empty));
        }
        Ok(Some(Index { path, weight_map }))
    }

    /// The shards, sorted by name.
    pub(crate) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.iter().map(|(_, shard)| shard.as_str()).collect()
    }

    /// Whether `found` (tensor name and the shard that holds it) is what the index says, no more and no less.
    pub(crate) fn check<'a>(&self, found: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), CheckpointError> {
        let defect = |defect| Err(CheckpointError::Index { path: self.path.clone(), defect });
        let mut said: HashMap<&str, &str> = self.weight_map.iter().map(|(t, s)| (t.as_str(), s.as_str())).collect();
        for (tensor, shard) in found {
            match said.remove(tensor) {
                None => return defect(IndexDefect::ExtraTensor { tensor: tensor.into(), shard: shard.into() }),
                Some(said) if said != shard => {
                    let (tensor, said, found) = (tensor.into(), said.into(), shard.into());
                    return defect(IndexDefect::WrongShard { tensor, said, found });
                }
                Some(_) => {}
            }
        }
        // In the index's order, so that the same input gives the same message.
        match self.weight_map.iter().find(|(tensor, _)| said.contains_key(tensor.as_str())) {
            Some((tensor, shard)) => defect(IndexDefect::MissingTensor { tensor: tensor.clone(), shard: shard.clone() }),
            None => Ok(()),
        }
    }
}
