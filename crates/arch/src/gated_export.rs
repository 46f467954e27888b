//! What config.json files of Llama's relatives have in common, from a GGUF file.

use crate::Class;
use crate::export::{ExportError, GgufModel, HparamReader};
use ggufsmith_gguf::{Array, Value};
use serde_json::{Map, Value as Json};

/// The key, below the architecture's name, that says which layers have a window.
const PATTERN: &str = "attention.sliding_window_pattern";

/// The class that was asked for, else the first.
pub(crate) fn class_of(classes: &'static [Class], asked: Option<&str>) -> &'static Class {
    classes.iter().find(|class| Some(class.name) == asked).unwrap_or(&classes[0])
}

impl HparamReader<'_> {
    /// Sizes, the norms' epsilon, rotary positions, and whether the embedding is the head, too.
    pub(crate) fn gated(&self, file: &GgufModel<'_>, class: &Class) -> Result<Map<String, Json>, ExportError> {
        let mut config = self.standard(file, class)?;
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("hidden_act", "silu".into());
        set("num_key_value_heads", self.kv_heads()?);
        if let Some(eps) = self.opt_float("attention.layer_norm_rms_epsilon")? {
            set("rms_norm_eps", eps);
        }
        if let Some(head_dim) = self.opt_u32("attention.key_length")? {
            set("head_dim", head_dim.into());
        }
        set("tie_word_embeddings", (!file.has("output.weight")).into());
        self.rope(0, None, &mut config)?;
        Ok(config)
    }

    /// The size of a head.
    pub(crate) fn head_dim(&self) -> Result<u32, ExportError> {
        let (n_embd, n_head) = (self.u32("embedding_length")?, self.u32("attention.head_count")?);
        Ok(self.opt_u32("attention.key_length")?.unwrap_or(n_embd.checked_div(n_head).unwrap_or_default()))
    }

    /// `layer_types`, where the file says which layers have a window.
    pub(crate) fn layer_types(&self) -> Option<Json> {
        match self.metadata.get(&format!("{}.{PATTERN}", self.arch))? {
            Value::Array(Array::Bool(layers)) => {
                let name = |&window: &bool| if window { "sliding_attention" } else { "full_attention" };
                Some(layers.iter().map(name).collect::<Vec<_>>().into())
            }
            _ => None,
        }
    }

    /// How many experts there are, under `count`, and how many a token uses.
    pub(crate) fn experts(&self, count: &str, config: &mut Map<String, Json>) -> Result<(), ExportError> {
        config.insert(count.to_owned(), self.u32("expert_count")?.into());
        config.insert("num_experts_per_tok".to_owned(), self.u32("expert_used_count")?.into());
        Ok(())
    }
}
