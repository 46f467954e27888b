//! `--prune-layers` (llama-quant.cpp, `remap_layer`): layers left out, the ones behind them renumbered.

use super::RequantizeError;
use crate::plan::block_number;
use std::collections::BTreeMap;

/// The new number of every layer; `None` of one that is left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Pruning {
    layers: BTreeMap<u64, Option<u64>>,
    /// `block_count` of what is left, where anything is left out.
    pub block_count: Option<u64>,
}

impl Pruning {
    /// For a model of these tensors.
    ///
    /// # Errors
    /// [`RequantizeError::NoLayer`] where a layer to leave out is not there: `llama-quantize` would not notice.
    pub fn new<'a>(prune: &[u64], names: impl Iterator<Item = &'a str>) -> Result<Self, RequantizeError> {
        if prune.is_empty() {
            return Ok(Pruning::default());
        }
        let mut layers: BTreeMap<u64, Option<u64>> = names.filter_map(block_number).map(|number| (number, None)).collect();
        if let Some(&layer) = prune.iter().find(|layer| !layers.contains_key(layer)) {
            return Err(RequantizeError::NoLayer { layer, last: layers.keys().next_back().copied() });
        }
        let first = prune.iter().copied().min().unwrap_or(0);
        let mut next = 0;
        for (&number, new) in &mut layers {
            if prune.contains(&number) {
                continue;
            }
            // Layers in front of the first that is left out keep their numbers, whether they begin at 0 or not.
            let renumbered = if number < first { number } else { next };
            (*new, next) = (Some(renumbered), renumbered + 1);
        }
        Ok(Pruning { layers, block_count: Some(next) })
    }

    /// A tensor's new name; `None` of one that is left out.
    pub fn rename(&self, name: &str) -> Option<String> {
        let Some((number, new)) = block_number(name).and_then(|number| Some((number, self.layers.get(&number)?))) else {
            return Some(name.to_owned());
        };
        let rest = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or("", |(_, rest)| rest);
        match *new {
            Some(new) if new != number => Some(format!("blk.{new}.{rest}")),
            Some(_) => Some(name.to_owned()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["output.weight", "blk.0.a", "blk.1.a", "blk.1.b", "blk.2.a", "blk.10.a"];

    fn renamed(prune: &[u64]) -> (Vec<String>, Option<u64>) {
        let pruning = Pruning::new(prune, NAMES.into_iter()).unwrap();
        (NAMES.iter().filter_map(|name| pruning.rename(name)).collect(), pruning.block_count)
    }

    #[test]
    fn layers_behind_move_up() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(renamed(&[]), (names(&NAMES), None));
        assert_eq!(renamed(&[1]), (names(&["output.weight", "blk.0.a", "blk.1.a", "blk.2.a"]), Some(3)));
        assert_eq!(renamed(&[2, 0]), (names(&["output.weight", "blk.0.a", "blk.0.b", "blk.1.a"]), Some(2)));
        assert_eq!(renamed(&[10]), (names(&NAMES[..5]), Some(3)));
    }

    #[test]
    fn a_layer_that_is_not_there_is_named() {
        let error = Pruning::new(&[0, 3], NAMES.into_iter()).unwrap_err();
        assert!(matches!(error, RequantizeError::NoLayer { layer: 3, last: Some(10) }), "{error}");
    }
}
