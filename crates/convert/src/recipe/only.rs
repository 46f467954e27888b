//! `--only`: which tensors are quantized at all.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// A selection of tensors: by layers, by what they are, or by both.
///
/// Written as words separated by commas. `layers=0-11` and `layers=3` name layers (further ranges may follow: `layers=0-3,28-31`);
/// any other word names tensors by the beginning of what stands between `blk.N.` and `.weight`, at an underscore: `ffn` means all
/// feed-forward matrices, `attn_q` not `attn_qkv`. Where both kinds are given, a tensor must be in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    layers: Vec<RangeInclusive<u64>>,
    roles: Vec<String>,
}

/// Why a selection is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum OnlyError {
    #[error("{0:?} selects nothing: name layers as in layers=0-11, or tensors as in ffn or attn_q")]
    Word(String),
    #[error("--only {word}: the model has no such tensor; there are {known}")]
    NoTensor { word: String, known: String },
    #[error("--only: no tensor is in these layers and has one of these names")]
    Nothing,
}

impl Only {
    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.layers.is_empty() && self.roles.is_empty()
    }

    /// Add what another one names.
    pub fn extend(&mut self, other: Only) {
        self.layers.extend(other.layers);
        self.roles.extend(other.roles);
    }

    /// Whether a tensor is selected.
    pub fn selects(&self, tensor: &str) -> bool {
        let (layer, role) = parts(tensor);
        let in_layers =
            self.layers.is_empty() || layer.is_some_and(|layer| self.layers.iter().any(|range| range.contains(&layer)));
        in_layers && (self.roles.is_empty() || self.roles.iter().any(|wanted| is_role(role, wanted)))
    }

    /// Whether every word selects one of these tensors, and the whole selection does.
    ///
    /// # Errors
    /// [`OnlyError`] otherwise: a misspelt word must not go unnoticed.
    pub fn check<'a>(&self, tensors: impl Iterator<Item = &'a str> + Clone) -> Result<(), OnlyError> {
        let unknown = |word: String, mut known: Vec<String>| {
            known.dedup();
            Err(OnlyError::NoTensor { word, known: known.join(", ") })
        };
        for range in &self.layers {
            let mut layers = tensors.clone().filter_map(|tensor| parts(tensor).0);
            if !layers.any(|layer| range.contains(&layer)) {
                let last = tensors.clone().filter_map(|tensor| parts(tensor).0).max();
                let known = last.map_or("no layers".to_owned(), |last| format!("layers=0-{last}"));
                return unknown(format!("layers={}-{}", range.start(), range.end()), vec![known]);
            }
        }
        for wanted in &self.roles {
            // Vectors are never quantized: naming them alone would select nothing.
            if !tensors.clone().filter(|tensor| is_matrix(tensor)).any(|tensor| is_role(parts(tensor).1, wanted)) {
                let mut known: Vec<String> = tensors.clone().filter(|t| is_matrix(t)).map(|t| parts(t).1.to_owned()).collect();
                known.sort();
                return unknown(wanted.clone(), known);
            }
        }
        if !self.is_everything() && !tensors.clone().any(|tensor| self.selects(tensor)) {
            return Err(OnlyError::Nothing);
        }
        Ok(())
    }
}

impl FromStr for Only {
    type Err = OnlyError;

    fn from_str(text: &str) -> Result<Self, OnlyError> {
        let mut only = Only::default();
        let mut in_layers = false;
        for word in text.split(',').map(str::trim) {
            let fault = || OnlyError::Word(word.to_owned());
            let layers = word.strip_prefix("layers=");
            let is_number = word.starts_with(|c: char| c.is_ascii_digit());
            match layers.or(Some(word).filter(|_| in_layers && is_number)) {
                Some(range) => {
                    in_layers = true;
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    let (first, last): (u64, u64) =
                        first.parse().ok().zip(last.parse().ok()).filter(|(first, last)| first <= last).ok_or_else(fault)?;
                    only.layers.push(first..=last);
                }
                None => {
                    in_layers = false;
                    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
                    if word.is_empty() || is_number || !word.chars().all(plain) {
                        return Err(fault());
                    }
                    only.roles.push(word.to_owned());
                }
            }
        }
        Ok(only)
    }
}

/// The layer of a tensor, and its name without `blk.N.` and `.weight`.
fn parts(tensor: &str) -> (Option<u64>, &str) {
    let in_block = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let (layer, role) = match in_block.and_then(|(number, role)| Some((number.parse().ok()?, role))) {
        Some((layer, role)) => (Some(layer), role),
        None => (None, tensor),
    };
    (layer, role.strip_suffix(".weight").unwrap_or(role))
}

/// By its name: what may be quantized at all.
fn is_matrix(tensor: &str) -> bool {
    tensor.ends_with(".weight") && !tensor.ends_with("norm.weight")
}

fn is_role(role: &str, wanted: &str) -> bool {
    role.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSORS: &[&str] = &[
        "output.weight",
        "token_embd.weight",
        "blk.0.attn_q.weight",
        "blk.0.attn_qkv.weight",
        "blk.0.ffn_up_exps.weight",
        "blk.1.attn_q.weight",
        "blk.1.ffn_down.weight",
        "blk.12.ffn_down.weight",
    ];

    fn selected(words: &str) -> Vec<&'static str> {
        let only: Only = words.parse().unwrap();
        TENSORS.iter().copied().filter(|tensor| only.selects(tensor)).collect()
    }

    #[test]
    fn layers_and_names_narrow_each_other() {
        assert_eq!(selected("ffn"), ["blk.0.ffn_up_exps.weight", "blk.1.ffn_down.weight", "blk.12.ffn_down.weight"]);
        assert_eq!(selected("attn_q"), ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]);
        assert_eq!(selected("layers=1"), ["blk.1.attn_q.weight", "blk.1.ffn_down.weight"]);
        assert_eq!(selected("layers=0-0,12,output"), [""; 0]);
        assert_eq!(selected("layers=0,2-12,ffn"), ["blk.0.ffn_up_exps.weight", "blk.12.ffn_down.weight"]);
        assert_eq!(selected("output,token_embd"), ["output.weight", "token_embd.weight"]);
        let mut only: Only = "layers=1-12".parse().unwrap();
        only.extend("ffn_down".parse().unwrap());
        assert!(only.selects("blk.12.ffn_down.weight") && !only.selects("blk.1.attn_q.weight"));
        assert!(Only::default().is_everything() && Only::default().selects("anything"));
    }

    #[test]
    fn words_without_a_meaning_are_refused() {
        for text in ["", "layers=", "layers=3-1", "layers=a", "0-3", "ffn,", "FFN", "blk/0", "layers=0,-1"] {
            assert!(matches!(text.parse::<Only>(), Err(OnlyError::Word(_))), "{text:?}");
        }
        let check = |text: &str| text.parse::<Only>().unwrap().check(TENSORS.iter().copied());
        assert_eq!(check("ffn,layers=0-99"), Ok(()));
        assert!(
            matches!(check("ffm"), Err(OnlyError::NoTensor { word, known }) if word == "ffm" && known.contains("ffn_up_exps"))
        );
        assert!(matches!(check("layers=13"), Err(OnlyError::NoTensor { known, .. }) if known == "layers=0-12"));
        assert_eq!(check("layers=12,attn_q"), Err(OnlyError::Nothing));
        let tied = ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight"];
        let error = "output".parse::<Only>().unwrap().check(tied.into_iter());
        assert!(matches!(error, Err(OnlyError::NoTensor { known, .. }) if known == "attn_q, token_embd"), "a norm is no output");
    }
}
