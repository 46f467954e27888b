//! The hyper-parameters that most text models share, in the order of the reference converter.

use crate::rope::{Reads, Rope};
use crate::tensors::Dims;
use crate::{ArchError, Config, Hparam};
use ggufsmith_gguf::Value;

/// What `TextModel.set_gguf_parameters` of the reference converter writes.
#[derive(Debug, Clone)]
pub(crate) struct TextParams {
    pub(crate) vocab: u32,
    pub(crate) n_layer: u32,
    pub(crate) n_ctx: u32,
    pub(crate) n_embd: u32,
    pub(crate) n_ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    /// Size of a head.
    pub(crate) head_dim: u32,
    /// `attention.key_length` and `value_length`, where they are written: where the config has a `head_dim`.
    pub(crate) key_length: Option<u32>,
    pub(crate) rms_eps: Option<f64>,
    pub(crate) rope: Rope,
    pub(crate) experts: Option<Experts>,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Experts {
    pub(crate) count: u32,
    /// Experts that each token uses.
    pub(crate) used: u32,
}

impl TextParams {
    /// Read the keys under the names that most config classes give them, for an architecture in which the engine divides frequencies by
    /// no factors.
    pub(crate) fn read(config: &Config, rope: Reads) -> Result<Self, ArchError> {
        let params = TextParams::with_factors(config, rope)?;
        params.rope.check_unfactored(config)?;
        Ok(params)
    }

    /// The same where it may divide them.
    pub(crate) fn with_factors(config: &Config, rope: Reads) -> Result<Self, ArchError> {
        let n_embd = config.positive_u32("hidden_size")?;
        let n_head = config.positive_u32("num_attention_heads")?;
        let n_head_kv = match config.opt_u32("num_key_value_heads")? {
            // Every config class makes null the number of heads.
            None if config.filled().is_some() => n_head,
            _ => config.positive_u32("num_key_value_heads")?,
        };
        if n_head % n_head_kv != 0 {
            return Err(config.wrong("num_key_value_heads", "a divisor of num_attention_heads", &n_head_kv.into()));
        }
        let own_head_dim = config.opt_u32("head_dim")?;
        let head_dim = own_head_dim.unwrap_or(n_embd / n_head);
        if head_dim == 0 || head_dim % 2 != 0 {
            let expected = "even and above 0 (hidden_size / num_attention_heads where absent)";
            return Err(config.wrong("head_dim", expected, &head_dim.into()));
        }
        Ok(TextParams {
            vocab: config.positive_u32("vocab_size")?,
            n_layer: config.positive_u32("num_hidden_layers")?,
            n_ctx: config.positive_u32("max_position_embeddings")?,
            n_embd,
            n_ff: config.positive_u32("intermediate_size")?,
            n_head,
            n_head_kv,
            head_dim,
            // LlamaConfig fills it in; others leave it null.
            key_length: if config.is_filled_as("llama") { Some(head_dim) } else { own_head_dim },
            rms_eps: config.opt_f64("rms_norm_eps")?,
            rope: Rope::read(config, rope)?,
            experts: None,
        })
    }

    /// The sizes that tensors have.
    pub(crate) fn dims(&self) -> Dims {
        Dims {
            vocab: self.vocab,
            embd: self.n_embd,
            ff: self.n_ff,
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            head_dim: self.head_dim,
            n_ctx: self.n_ctx,
            n_expert: self.experts.map_or(0, |experts| experts.count),
            ..Dims::default()
        }
    }

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
        list.extend(self.rms_eps.map(|eps| ("attention.layer_norm_rms_epsilon", float(eps))));
        if let Some(experts) = self.experts {
            list.extend([("expert_count", experts.count.into()), ("expert_used_count", experts.used.into())]);
        }
        if let Some(head_dim) = self.key_length {
            list.extend([("attention.key_length", head_dim.into()), ("attention.value_length", head_dim.into())]);
        }
        let mut hparams: Vec<Hparam> = list.into_iter().map(|(key, value)| set(arch, key, value)).collect();
        hparams.push(Hparam::FileType);
        hparams
    }
}

impl Experts {
    /// Read the number of experts under `count`, and how many a token uses.
    pub(crate) fn read(config: &Config, count: &str) -> Result<Self, ArchError> {
        let (key, used_key) = (count, "num_experts_per_tok");
        let experts = Experts { count: config.positive_u32(key)?, used: config.positive_u32(used_key)? };
        if experts.used > experts.count {
            return Err(config.wrong(used_key, "at most the number of experts", &experts.used.into()));
        }
        Ok(experts)
    }
}

/// The activation is one of `known`, and absent means the first.
pub(crate) fn check_activation(config: &Config, key: &str, known: &[&str], expected: &'static str) -> Result<(), ArchError> {
    match config.opt_str(key)? {
        Some(found) if !known.contains(&found) => Err(config.wrong(key, expected, &found.into())),
        _ => Ok(()),
    }
}

/// [`check_activation`] for the models whose gate is SiLU.
pub(crate) fn check_silu(config: &Config) -> Result<(), ArchError> {
    check_activation(config, "hidden_act", &["silu", "swish"], "silu: the engine computes nothing else in this architecture")
}

/// A setting that the engine knows one value of in this architecture; absent, it has that value.
pub(crate) fn check_flag(config: &Config, key: &str, known: bool) -> Result<(), ArchError> {
    let expected = if known {
        "true: the engine knows nothing else in this architecture"
    } else {
        "false: the engine knows nothing else in this architecture"
    };
    match config.opt_bool(key)? {
        Some(found) if found != known => Err(config.wrong(key, expected, &found.into())),
        _ => Ok(()),
    }
}

/// `layer_types` as flags, true for layers with a window; `default` says what a layer is where the config does not.
pub(crate) fn windowed_layers(config: &Config, n_layer: u32, default: impl Fn(u32) -> bool) -> Result<Vec<bool>, ArchError> {
    const KEY: &str = "layer_types";
    const EXPECTED: &str = "one of sliding_attention and full_attention for each of num_hidden_layers";
    let Some(types) = config.opt_strings(KEY)? else {
        if n_layer > MAX_LAYERS {
            return Err(config.wrong("num_hidden_layers", "at most 512: the engine takes no more", &n_layer.into()));
        }
        return Ok((0..n_layer).map(default).collect());
    };
    let sliding = |name: &&str| match *name {
        "sliding_attention" => Some(true),
        "full_attention" => Some(false),
        _ => None,
    };
    let flags: Option<Vec<bool>> = types.iter().map(sliding).collect();
    match flags {
        Some(flags) if flags.len() as u64 == u64::from(n_layer) => Ok(flags),
        _ => Err(config.wrong(KEY, EXPECTED, &types.into())),
    }
}

/// That a description of every layer may be made.
pub(crate) fn check_layers(config: &Config) -> Result<(), ArchError> {
    for key in ["num_hidden_layers", "n_layer"] {
        if let Some(n) = config.opt_u32(key)?.filter(|&n| n > MAX_LAYERS) {
            return Err(config.wrong(key, "at most 512: the engine takes no more", &n.into()));
        }
    }
    Ok(())
}

/// llama.cpp's `LLAMA_MAX_LAYERS`.
pub(crate) const MAX_LAYERS: u32 = 512;

/// `arch.key = value`.
pub(crate) fn set(arch: &str, key: &str, value: impl Into<Value>) -> Hparam {
    Hparam::Set(format!("{arch}.{key}"), value.into())
}

/// A number as GGUF stores it.
pub(crate) fn float(value: f64) -> Value {
    Value::F32(value as f32)
}
