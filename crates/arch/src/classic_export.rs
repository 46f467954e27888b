//! What config.json files of decoders with layer normalization have in common, from a GGUF file.

use crate::export::{ExportError, GgufModel, HparamReader};
use crate::{Class, sizes};
use ggufsmith_gguf::Value;
use serde_json::{Map, Value as Json};

impl GgufModel<'_> {
    /// Whether the file has a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|(found, _)| found == name)
    }
}

impl HparamReader<'_> {
    /// `vocab_size`, else the rows of the embedding matrix.
    pub(crate) fn vocab(&self, file: &GgufModel<'_>, class: &'static str) -> Result<u64, ExportError> {
        let rows = || file.tensors.iter().find(|(name, _)| name == "token_embd.weight").and_then(|(_, shape)| shape.first());
        let missing = || ExportError::MissingTensor { tensor: "token_embd.weight".into(), class };
        self.opt_u32("vocab_size")?.map(u64::from).or_else(|| rows().copied()).ok_or_else(missing)
    }

    /// Class and sizes under the names that most config classes have for them, but for the number of key heads.
    pub(crate) fn standard(&self, file: &GgufModel<'_>, class: &Class) -> Result<Map<String, Json>, ExportError> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("architectures", vec![class.name].into());
        set("model_type", class.model_type.into());
        set("vocab_size", self.vocab(file, class.name)?.into());
        set("hidden_size", self.u32("embedding_length")?.into());
        set("num_attention_heads", self.u32("attention.head_count")?.into());
        set("num_hidden_layers", self.u32("block_count")?.into());
        set("intermediate_size", self.u32("feed_forward_length")?.into());
        set("max_position_embeddings", self.u32("context_length")?.into());
        Ok(config)
    }

    /// The number of key heads.
    pub(crate) fn kv_heads(&self) -> Result<Json, ExportError> {
        let heads = self.opt_u32("attention.head_count_kv")?;
        Ok(heads.map_or_else(|| self.u32("attention.head_count"), Ok)?.into())
    }

    /// `partial_rotary_factor`: the number that gives `rope.dimension_count`.
    pub(crate) fn rotary_share(&self) -> Result<Json, ExportError> {
        let (n_embd, n_head) = (self.u32("embedding_length")?, self.u32("attention.head_count")?);
        let head_dim = n_embd.checked_div(n_head).filter(|&head_dim| head_dim > 0).unwrap_or(1);
        let n_rot = self.opt_u32("rope.dimension_count")?.unwrap_or(head_dim);
        let share = f64::from(n_rot) / f64::from(head_dim);
        // Products are truncated: 0.57 * 100 is 56.99...
        let enough = sizes::rotated(Some(share), head_dim) == n_rot;
        Ok(if enough { share } else { share * (1.0 + f64::EPSILON) }.into())
    }

    /// True or false.
    pub(crate) fn bool(&self, key: &str) -> Result<bool, ExportError> {
        let full = format!("{}.{key}", self.arch);
        match self.metadata.get(&full) {
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(ExportError::KeyValue { key: full, expected: "true or false", found: other.short(60) }),
            None => Err(ExportError::MissingKey { key: full }),
        }
    }
}
