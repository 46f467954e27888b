//! Phi 3, 3.5 and 4: `general.architecture` = `phi3`.
//!
//! As Llama, with queries, keys and values in one matrix and gate and up in another. Long-context variants divide each rotary
//! frequency by a factor of its own, with one list for texts within the original context and one for longer ones.

use crate::expected::{FileKey, KeyType};
use crate::hparams::{self, TextParams, float, set};
use crate::keys::text_keys;
use crate::rope::{LongRope, Reads, Scaling};
use crate::tensors::Dim::{Embd, Ff, Q, Qkv, TwoFf, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
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
        let params = TextParams::read(config, Reads::Partial)?;
        let share = params.rope.partial.unwrap_or(1.0);
        // As the reference converter has it: a whole number of elements of the stream, then of each head.
        let rotated = (share * f64::from(params.n_embd)) as u32 / params.n_head;
        if rotated == 0 || rotated % 2 != 0 || rotated > params.head_dim {
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
