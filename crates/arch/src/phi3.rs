//! Phi 3, 3.5 and 4: `general.architecture` = `phi3`.
//!
//! As Llama, with queries, keys and values in one matrix and gate and up in another. Long-context variants divide each rotary
//! frequency by a factor of its own, with one list for texts within the original context and one for longer ones.

use crate::decoder::{self, Activation, Decoder, DecoderError, Ffn, GatedFfn, Linear, Matrix, Rope, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::gated::{GGUF, Gated, HF, RMS_EPS, Shape};
use crate::hparams::{self, TextParams, float, set};
use crate::keys::text_keys;
use crate::rope::{LongRope, Reads, Scaling};
use crate::tensors::Dim::{Embd, Ff, Q, Qkv, TwoFf, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign, frequencies};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use ggufsmith_gguf::Value;

/// The family.
pub(crate) struct Phi3;

static ABOUT: About = About {
    name: "phi3",
    classes: &[Class::of("Phi3ForCausalLM", "phi3")],
    defaults: &[Defaults {
        model_type: "phi3",
        json: r#"{"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null,
            "partial_rotary_factor": 1.0, "sliding_window": null, "tie_word_embeddings": false}"#,
    }],
    keys: Keys {
        used: text_keys!("partial_rotary_factor", "sliding_window"),
        // attention_bias and mlp_bias are in published configs; transformers' Phi 3 has neither, whatever they say.
        irrelevant: &[
            "attention_bias",
            "embd_pdrop",
            "full_attn_mod",
            "interpolate_factor",
            "lm_head_bias",
            "mlp_bias",
            "resid_pdrop",
        ],
    },
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::optional("attention.sliding_window", KeyType::U32),
    ],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.self_attn.qkv_proj.weight", "blk.{}.attn_qkv.weight", &[Qkv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_up_proj.weight", "blk.{}.ffn_up.weight", &[TwoFf, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
    ],
    base: "model.",
    dropped: &[],
};

const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";

impl Family for Phi3 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let phi = Phi::read(config)?;
        let dims = phi.params.dims();
        let assigned = assign::assign(&TABLE, &dims, phi.params.n_layer, config, tensors)?;
        let mut model = Model::new(ABOUT.name, phi.params.n_layer, &dims, VocabRoute::Phi3, phi.hparams(), assigned);
        if let Some(LongRope { long, short, .. }) = phi.long_rope() {
            model.first.push((format!("{}.rope.scaling.attn_factor", ABOUT.name), float(phi.attn_factor())));
            model = model.with_table(SHORT, Some(short.clone())).with_table(LONG, Some(long.clone()));
        }
        Ok(model.warn(phi.warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let phi = Phi::read(config)?;
        let shape = Shape { n_rot: phi.rotated, ..Shape::of_params(&phi.params) };
        let magnitude = phi.long_rope().map_or(1.0, |long| long.attention.unwrap_or_else(|| phi.attn_factor()));
        let plain = frequencies::unscaled(phi.params.rope.theta, phi.rotated, RopeLayout::Halves);
        let divided = |by: &[f32]| plain.inv_freq.iter().zip(by).map(|(freq, by)| freq / f64::from(*by)).collect::<Vec<_>>();
        let rope = match phi.long_rope() {
            None => plain.clone(),
            Some(long) => Rope {
                inv_freq: divided(&long.short),
                magnitude,
                long: Some(decoder::LongRope { beyond: phi.original_context, inv_freq: divided(&long.long), factors: None }),
                ..plain.clone()
            },
        };
        let tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(false);
        let gated = Gated { shape, names: HF, rope, act: Activation::Silu, tied, biased: &|_| false };
        let parts = Parts { qkv: "self_attn.qkv_proj", gate_up: "mlp.gate_up_proj", down: "mlp.down_proj" };
        Ok(fused(&gated, &parts, phi.window))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let shape = Shape::of_gguf(metadata, arch, RMS_EPS)?;
        let mut rope = frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Halves, None)?;
        if has(LONG) && has(SHORT) {
            let original = metadata.lookup::<u32>(&format!("{arch}.rope.scaling.original_context_length"))?;
            let beyond = original.unwrap_or(shape.n_ctx);
            rope.long = Some(decoder::LongRope { beyond, inv_freq: rope.inv_freq.clone(), factors: Some(LONG.to_owned()) });
            rope.factors = Some(SHORT.to_owned());
        }
        let gated = Gated { shape, names: GGUF, rope, act: Activation::Silu, tied: !has(GGUF.output), biased: &|_| false };
        // The loader switches a window off.
        Ok(fused(&gated, &Parts { qkv: "attn_qkv", gate_up: "ffn_up", down: "ffn_down" }, None))
    }
}

/// How a side calls what is fused.
struct Parts {
    qkv: &'static str,
    gate_up: &'static str,
    down: &'static str,
}

/// With queries, keys and values in one matrix, gate and up in another.
fn fused(gated: &Gated<'_>, parts: &Parts, window: Option<u32>) -> Decoder {
    let shape = &gated.shape;
    let (q, kv) = shape.widths();
    let rows_of = |layer, part: &str, all: u32, from: u32, len: u32| {
        let rows = u64::from(from)..u64::from(from) + u64::from(len);
        Linear { weight: Matrix::whole(gated.name(layer, part), all, shape.n_embd).rows([rows]), bias: None }
    };
    let (all, two_ff) = (q.saturating_add(kv.saturating_mul(2)), shape.n_ff.saturating_mul(2));
    gated.decoder(|number, layer| {
        let attn = &mut layer.attn;
        attn.q = rows_of(number, parts.qkv, all, 0, q);
        attn.k = rows_of(number, parts.qkv, all, q, kv);
        attn.v = rows_of(number, parts.qkv, all, q.saturating_add(kv), kv);
        attn.window = window;
        layer.ffn = Ffn::Gated(GatedFfn {
            act: gated.act,
            gate: rows_of(number, parts.gate_up, two_ff, 0, shape.n_ff),
            up: rows_of(number, parts.gate_up, two_ff, shape.n_ff, shape.n_ff),
            down: gated.linear(number, parts.down, shape.n_embd, shape.n_ff),
        });
    })
}

struct Phi {
    params: TextParams,
    original_context: u32,
    /// Elements of a head that turn.
    rotated: u32,
    window: Option<u32>,
}

impl Phi {
    fn read(config: &Config) -> Result<Self, ArchError> {
        hparams::check_silu(config)?;
        let params = TextParams::with_factors(config, Reads::Partial)?;
        if params.head_dim != params.n_embd / params.n_head {
            let expected = "hidden_size / num_attention_heads: the engine has no other size in this architecture";
            return Err(config.wrong("head_dim", expected, &params.head_dim.into()));
        }
        let share = params.rope.partial.unwrap_or(1.0);
        // As the reference converter has it: a whole number of elements of the stream, then of each head.
        let rotated = (share * f64::from(params.n_embd)) as u32 / params.n_head;
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > params.head_dim {
            return Err(config.wrong("partial_rotary_factor", "one that makes an even part of a head turn", &share.into()));
        }
        match &params.rope.scaling {
            Scaling::None => {}
            Scaling::LongRope(LongRope { long, short, .. }) => {
                let len = rotated as usize / 2;
                if (long.len(), short.len()) != (len, len) {
                    let found = format!("long_factor of {}, short_factor of {}", long.len(), short.len());
                    return Err(config.wrong(
                        "rope_scaling",
                        "with half as many factors as elements of a head turn",
                        &found.into(),
                    ));
                }
            }
            other => return Err(config.wrong("rope_scaling", "of type longrope or su", &format!("{other:?}").into())),
        }
        let (original_context, window) =
            (config.positive_u32("original_max_position_embeddings")?, config.opt_u32("sliding_window")?);
        Ok(Phi { params, original_context, rotated, window })
    }

    fn long_rope(&self) -> Option<&LongRope> {
        match &self.params.rope.scaling {
            Scaling::LongRope(long) => Some(long),
            _ => None,
        }
    }

    /// What rotated elements are multiplied by: `sqrt(1 + ln(scale) / ln(original context))`.
    fn attn_factor(&self) -> f64 {
        let original = f64::from(self.original_context);
        let scale = f64::from(self.params.n_ctx) / original;
        if scale > 1.0 { (1.0 + scale.ln() / original.ln()).sqrt() } else { 1.0 }
    }

    /// `Phi3MiniModel.set_gguf_parameters`.
    fn hparams(&self) -> Vec<Hparam> {
        let params = &self.params;
        let list: Vec<(&str, Value)> = vec![
            ("context_length", params.n_ctx.into()),
            ("rope.scaling.original_context_length", self.original_context.into()),
            ("embedding_length", params.n_embd.into()),
            ("feed_forward_length", params.n_ff.into()),
            ("block_count", params.n_layer.into()),
            ("attention.head_count", params.n_head.into()),
            ("attention.head_count_kv", params.n_head_kv.into()),
            ("attention.layer_norm_rms_epsilon", float(params.rms_eps.unwrap_or_default())),
            ("rope.dimension_count", self.rotated.into()),
            ("rope.freq_base", float(params.rope.theta)),
        ];
        let mut hparams: Vec<Hparam> = list.into_iter().map(|(key, value)| set(ABOUT.name, key, value)).collect();
        hparams.push(Hparam::FileType);
        // 0 marks Phi 4: no window.
        hparams.push(set(ABOUT.name, "attention.sliding_window", self.window.unwrap_or(0)));
        hparams
    }

    fn warnings(&self) -> Vec<String> {
        let n_ctx = self.params.n_ctx;
        let window = self.window.filter(|&window| window < n_ctx);
        let text = |window| {
            format!("sliding_window = {window}: in this architecture the engine attends to the whole context of {n_ctx} tokens")
        };
        window.map(text).into_iter().collect()
    }
}
