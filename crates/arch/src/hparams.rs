//! The hyper-parameters that most text models share, in the order of the reference converter.

use crate::Hparam;
use crate::rope::Rope;
use ggufsmith_gguf::Value;

/// What `TextModel.set_gguf_parameters` of the reference converter writes.
#[derive(Debug, Clone)]
pub(crate) struct TextParams {
    pub(crate) n_layer: u32,
    pub(crate) n_ctx: u32,
    pub(crate) n_embd: u32,
    pub(crate) n_ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    /// Where the config has one of its own: not what follows from `n_embd` and `n_head`.
    pub(crate) head_dim: Option<u32>,
    pub(crate) rms_eps: f64,
    pub(crate) rope: Rope,
}

impl TextParams {
    /// The keys of architecture `arch`, up to and including the place of `general.file_type`.
    pub(crate) fn hparams(&self, arch: &str) -> Vec<Hparam> {
        let mut list: Vec<(&str, Value)> = vec![
            ("block_count", self.n_layer.into()),
            ("context_length", self.n_ctx.into()),
            ("embedding_length", self.n_embd.into()),
            ("feed_forward_length", self.n_ff.into()),
            ("attention.head_count", self.n_head.into()),
            ("attention.head_count_kv", self.n_head_kv.into()),
        ];
        list.extend(self.rope.hparams());
        list.push(("attention.layer_norm_rms_epsilon", Value::F32(self.rms_eps as f32)));
        if let Some(head_dim) = self.head_dim {
            list.extend([("attention.key_length", head_dim.into()), ("attention.value_length", head_dim.into())]);
        }
        let mut hparams: Vec<Hparam> = list.into_iter().map(|(key, value)| set(arch, key, value)).collect();
        hparams.push(Hparam::FileType);
        hparams
    }
}

/// `arch.key = value`.
pub(crate) fn set(arch: &str, key: &str, value: impl Into<Value>) -> Hparam {
    Hparam::Set(format!("{arch}.{key}"), value.into())
}
