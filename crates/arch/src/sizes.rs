//! Sizes of the decoders with layer normalization, read from either side: GPT-2, GPT-NeoX, StableLM, Falcon, Phi-2, StarCoder2,
//! Command-R.

use crate::decoder::{Activation, DecoderError, Rope as RotaryPositions, RopeLayout};
use crate::rope::{Reads, Rope};
use crate::tensors::Dims;
use crate::{ArchError, Config, Hparam, frequencies};
use ggufsmith_gguf::{FromValue, Metadata, Value};

/// The sizes of a decoder whose query heads together are as wide as the residual stream: llama.cpp's loaders of these architectures
/// ask for nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) n_vocab: u32,
    pub(crate) n_ctx: u32,
    pub(crate) n_layer: u32,
    pub(crate) n_embd: u32,
    pub(crate) n_ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    /// Elements of a head that turn with the position.
    pub(crate) n_rot: u32,
    /// Of the layer norms.
    pub(crate) eps: f64,
}

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u32 = 512;
/// Tables are made by the size of a head before its tensors are looked at; the largest in use is 512.
const MAX_HEAD: u32 = 1 << 16;
/// Some descriptions name tensors or rows head by head; the largest number in use is 256.
const MAX_HEADS: u32 = 1 << 12;
/// What the engine takes without `rope.freq_base`.
const ENGINE_THETA: f32 = 10_000.0;

impl Sizes {
    /// Width of a head.
    pub(crate) fn head_dim(&self) -> u32 {
        self.n_embd.checked_div(self.n_head).unwrap_or_default()
    }

    /// The sizes that tensors have.
    pub(crate) fn dims(&self) -> Dims {
        Dims {
            vocab: self.n_vocab,
            embd: self.n_embd,
            ff: self.n_ff,
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            head_dim: self.head_dim(),
            n_ctx: self.n_ctx,
            ..Dims::default()
        }
    }

    /// Check what was read of a config.json; `heads` and `kv_heads` are the keys of the head counts.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`]: heads do not divide the width, key heads not the heads, or an odd number of elements turns.
    pub(crate) fn checked(self, config: &Config, heads: &str, kv_heads: &str) -> Result<Self, ArchError> {
        if self.n_head > MAX_HEADS {
            return Err(config.wrong(heads, "at most 4096", &self.n_head.into()));
        }
        if self.n_head == 0 || !self.n_embd.is_multiple_of(self.n_head) {
            return Err(config.wrong(heads, "a divisor of the model's width (hidden_size, n_embd)", &self.n_head.into()));
        }
        if self.n_head_kv == 0 || !self.n_head.is_multiple_of(self.n_head_kv) {
            return Err(config.wrong(kv_heads, "a divisor of the number of heads", &self.n_head_kv.into()));
        }
        if let Some(own) = config.opt_u32("head_dim")?.filter(|&own| own != self.head_dim()) {
            let expected = "the model's width by the number of heads (hidden_size / num_attention_heads): the engine has no other size in this architecture";
            return Err(config.wrong("head_dim", expected, &own.into()));
        }
        if !self.n_rot.is_multiple_of(2) || self.n_rot > self.head_dim() {
            let expected = "such that an even number of a head's elements (hidden_size / num_attention_heads) turns";
            return Err(config.wrong("partial_rotary_factor", expected, &self.n_rot.into()));
        }
        Ok(self)
    }

    /// As llama.cpp reads a file of architecture `arch` (`llama_model_base::load_hparams`, and the epsilon of the architecture's own
    /// function).
    ///
    /// # Errors
    /// [`DecoderError`]: a key is missing or has another type, or sizes do not fit together.
    pub(crate) fn of_gguf(metadata: &Metadata, arch: &str) -> Result<Self, DecoderError> {
        let key = |name: &str| format!("{arch}.{name}");
        let positive = |name: &str, max: u32| match metadata.require::<u32>(&key(name))? {
            n if (1..=max).contains(&n) => Ok(n),
            n => Err(value(&key(name), &format!("from 1 to {max}"), n)),
        };
        let (n_embd, n_head) = (positive("embedding_length", u32::MAX)?, positive("attention.head_count", MAX_HEADS)?);
        let head_dim = n_embd / n_head;
        if n_embd % n_head != 0 || head_dim > MAX_HEAD {
            let expected = format!("a divisor of embedding_length {n_embd}, heads no wider than {MAX_HEAD}");
            return Err(value(&key("attention.head_count"), &expected, n_head));
        }
        let n_head_kv = optional(metadata, &key("attention.head_count_kv"))?.unwrap_or(n_head);
        if n_head_kv == 0 || n_head % n_head_kv != 0 {
            return Err(value(&key("attention.head_count_kv"), &format!("a divisor of head_count {n_head}"), n_head_kv));
        }
        for name in ["attention.key_length", "attention.value_length"] {
            if let Some(own) = optional::<u32>(metadata, &key(name))?.filter(|&own| own != head_dim) {
                return Err(value(&key(name), &format!("embedding_length by head_count, {head_dim}"), own));
            }
        }
        let n_rot = optional(metadata, &key("rope.dimension_count"))?.unwrap_or(head_dim);
        if n_rot % 2 != 0 || n_rot > head_dim {
            return Err(value(&key("rope.dimension_count"), &format!("even and at most the head size {head_dim}"), n_rot));
        }
        let n_vocab = match optional(metadata, &key("vocab_size"))? {
            Some(n) => n,
            None => metadata.require::<&[String]>("tokenizer.ggml.tokens")?.len() as u32,
        };
        Ok(Sizes {
            n_vocab,
            n_ctx: positive("context_length", u32::MAX)?,
            n_layer: positive("block_count", MAX_LAYERS)?,
            n_embd,
            n_ff: positive("feed_forward_length", u32::MAX)?,
            n_head,
            n_head_kv,
            n_rot,
            eps: metadata.require::<f32>(&key("attention.layer_norm_epsilon"))?.into(),
        })
    }

    /// Rotary positions of such a file.
    ///
    /// # Errors
    /// As [`Sizes::of_gguf`].
    pub(crate) fn rope_of_gguf(
        &self,
        metadata: &Metadata,
        arch: &str,
        layout: RopeLayout,
    ) -> Result<RotaryPositions, DecoderError> {
        frequencies::llama_cpp(metadata, arch, self.n_rot, self.n_ctx, layout, None)
    }
}

impl Sizes {
    /// Read the sizes under the names that most config classes give them; `eps` is the key of the norms' epsilon.
    ///
    /// # Errors
    /// [`ArchError`]: a key is missing or wrong, or sizes do not fit together.
    pub(crate) fn read(config: &Config, rope: &Rope, eps: &str) -> Result<Self, ArchError> {
        let (n_embd, n_head) = (config.positive_u32("hidden_size")?, config.positive_u32("num_attention_heads")?);
        let sizes = Sizes {
            n_vocab: config.positive_u32("vocab_size")?,
            n_ctx: config.positive_u32("max_position_embeddings")?,
            n_layer: config.positive_u32("num_hidden_layers")?,
            n_embd,
            n_ff: config.positive_u32("intermediate_size")?,
            n_head,
            n_head_kv: kv_heads(config, "num_key_value_heads", n_head)?,
            n_rot: rotated(rope.partial, n_embd / n_head),
            eps: config.f64(eps)?,
        };
        sizes.checked(config, "num_attention_heads", "num_key_value_heads")
    }

    /// The keys that `TextModel.set_gguf_parameters` of the reference converter writes, up to and including the place of
    /// `general.file_type`; `head_dim`: whether the config has a key of that name.
    pub(crate) fn base(&self, arch: &str, rope: &Rope, head_dim: bool) -> Vec<Hparam> {
        let mut keys = vec![
            ("block_count", self.n_layer.into()),
            ("context_length", self.n_ctx.into()),
            ("embedding_length", self.n_embd.into()),
            ("feed_forward_length", self.n_ff.into()),
            ("attention.head_count", self.n_head.into()),
            ("attention.head_count_kv", self.n_head_kv.into()),
        ];
        keys.extend(rope.hparams());
        keys.push(("attention.layer_norm_epsilon", Value::F32(self.eps as f32)));
        if head_dim {
            let head_dim = self.head_dim();
            keys.extend([("attention.key_length", head_dim.into()), ("attention.value_length", head_dim.into())]);
        }
        let mut hparams = section(arch, keys);
        hparams.push(Hparam::FileType);
        hparams
    }
}

/// A key that may be missing.
pub(crate) fn optional<'a, T: FromValue<'a>>(metadata: &'a Metadata, key: &str) -> Result<Option<T>, DecoderError> {
    Ok(metadata.lookup(key)?)
}

fn value(key: &str, expected: &str, found: u32) -> DecoderError {
    DecoderError::Value { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string() }
}

/// The number of heads for keys: `key`, or all heads where a known config class leaves it null.
pub(crate) fn kv_heads(config: &Config, key: &str, n_head: u32) -> Result<u32, ArchError> {
    match config.opt_u32(key)? {
        None if config.filled().is_some() => Ok(n_head),
        _ => config.u32(key),
    }
}

/// `int(share * head_dim)`, as transformers computes it: how much of a head turns.
pub(crate) fn rotated(share: Option<f64>, head_dim: u32) -> u32 {
    (share.unwrap_or(1.0) * f64::from(head_dim)) as u32
}

/// The rotary parameters of an architecture in which the engine divides frequencies by no factors.
///
/// # Errors
/// [`ArchError`] as of [`Rope::read`], and where the scaling needs factors.
pub(crate) fn rope(config: &Config, reads: Reads) -> Result<Rope, ArchError> {
    let rope = Rope::read(config, reads)?;
    rope.check_unfactored(config)?;
    Ok(rope)
}

/// The keys of rotary parameters that the reference converter leaves out in some architectures; none where they are those that the
/// engine takes by itself.
pub(crate) fn own_rope(rope: &Rope) -> impl Iterator<Item = (&'static str, Value)> {
    rope.hparams().into_iter().filter(|(key, value)| *key != "rope.freq_base" || *value != Value::F32(ENGINE_THETA))
}

/// Keys below the architecture's name.
pub(crate) fn section(arch: &str, keys: Vec<(&'static str, Value)>) -> Vec<Hparam> {
    keys.into_iter().map(|(key, value)| Hparam::Set(format!("{arch}.{key}"), value)).collect()
}

/// The activation of a feed-forward part without gate. The engine computes GELU by its approximation with tanh, whichever is asked
/// for; that is its own rounding.
///
/// # Errors
/// [`ArchError::KeyValue`] where it is no GELU.
pub(crate) fn gelu(config: &Config, key: &str) -> Result<Activation, ArchError> {
    match config.opt_str(key)? {
        Some("gelu" | "gelu_python") => Ok(Activation::GeluErf),
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        found => {
            let expected =
                "gelu, gelu_new, gelu_fast or gelu_pytorch_tanh: the engine computes nothing else in this architecture";
            Err(config.wrong(key, expected, &found.map_or(serde_json::Value::Null, Into::into)))
        }
    }
}

/// That a key, where it is given, has the one value under which the engine computes what the model does.
///
/// # Errors
/// [`ArchError::KeyValue`] where it is the other.
pub(crate) fn only(config: &Config, key: &str, value: bool, why: &'static str) -> Result<(), ArchError> {
    match config.opt_bool(key)? {
        Some(found) if found != value => Err(config.wrong(key, why, &found.into())),
        _ => Ok(()),
    }
}
