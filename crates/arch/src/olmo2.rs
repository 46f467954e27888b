//! OLMo 2 and 3: `general.architecture` = `olmo2`.
//!
//! Norms behind attention and feed-forward instead of in front, and over all query and all key heads together. In OLMo 3 three of
//! four layers have a window.

use crate::decoder::{Activation, Decoder, DecoderError, Rope, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::gated::{GGUF, Gated, HF, RMS_EPS, Shape};
use crate::gated_export::class_of;
use crate::hparams::{self, TextParams};
use crate::keys::text_keys;
use crate::rope::Reads;
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign, frequencies};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Olmo2;

static ABOUT: About = About {
    name: "olmo2",
    classes: &[Class::of("Olmo2ForCausalLM", "olmo2"), Class::of("Olmo3ForCausalLM", "olmo3")],
    defaults: &[
        Defaults {
            model_type: "olmo2",
            json: r#"{"vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false,
                "tie_word_embeddings": false}"#,
        },
        Defaults {
            model_type: "olmo3",
            json: r#"{"vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": null, "hidden_act": "silu", "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "attention_bias": false,
                "sliding_window": 4096, "layer_types": null, "tie_word_embeddings": false}"#,
        },
    ],
    keys: Keys { used: text_keys!("attention_bias", "layer_types", "sliding_window"), irrelevant: &[] },
    table: &TABLE,
    file_keys: &[
        FileKey::required("attention.layer_norm_rms_epsilon", KeyType::F32),
        FileKey::optional("attention.sliding_window", KeyType::U32),
        FileKey::optional("rope.freq_base_swa", KeyType::F32),
    ],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", &[Q]),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight", &[Kv]),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.post_attention_norm.weight", &[Embd]),
        row("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
        row("model.layers.{}.post_feedforward_layernorm.weight", "blk.{}.post_ffw_norm.weight", &[Embd]),
    ],
    base: "model.",
    dropped: &[],
};

impl Family for Olmo2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let params = read(config)?;
        let dims = params.dims();
        let assigned = assign::assign(&TABLE, &dims, params.n_layer, config, tensors)?;
        let mut hparams = params.hparams(ABOUT.name);
        if let Some((window, layers)) = window(config, params.n_layer)? {
            hparams.push(hparams::set(ABOUT.name, "attention.sliding_window", window));
            hparams.push(Hparam::Set(format!("{}.attention.sliding_window_pattern", ABOUT.name), layers.into()));
        }
        let model = Model::new(ABOUT.name, params.n_layer, &dims, VocabRoute::Bpe, hparams, assigned);
        Ok(model.warn(params.rope.engine_warnings()))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let params = read(config)?;
        let window = window(config, params.n_layer)?;
        let gated = Gated {
            shape: Shape::of_params(&params),
            names: HF,
            rope: params.rope.transformers(params.head_dim, params.n_ctx)?,
            act: Activation::Silu,
            tied: false,
            biased: &|_| false,
        };
        let swa = params.rope.unscaled().transformers(params.head_dim, params.n_ctx)?;
        Ok(decoder(&gated, window, &swa))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let arch = ABOUT.name;
        let key = |name: &str| format!("{arch}.{name}");
        let shape = Shape::of_gguf(metadata, arch, RMS_EPS)?.whole_heads(arch)?;
        let rope = frequencies::llama_cpp(metadata, arch, shape.n_rot, shape.n_ctx, RopeLayout::Halves, None)?;
        let theta = metadata.lookup::<f32>(&key("rope.freq_base"))?.unwrap_or(frequencies::THETA);
        let swa_theta = metadata.lookup::<f32>(&key("rope.freq_base_swa"))?.unwrap_or(theta);
        let swa = frequencies::unscaled(swa_theta.into(), shape.n_rot, RopeLayout::Halves);
        let window = match metadata.lookup::<u32>(&key("attention.sliding_window"))? {
            None | Some(0) => None,
            Some(window) => Some((window, frequencies::windowed_layers(metadata, arch, shape.n_layer, PATTERN)?)),
        };
        let biased = |part: &str| has(&format!("blk.0.{part}.bias"));
        let gated = Gated { shape, names: GGUF, rope, act: Activation::Silu, tied: false, biased: &biased };
        Ok(decoder(&gated, window, &swa))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        // A window is OLMo 3's.
        let window = keys.opt_u32("attention.sliding_window")?.filter(|&window| window > 0);
        let usual = ABOUT.classes[usize::from(window.is_some())].name;
        let mut config = keys.gated(file, class_of(ABOUT.classes, class.or(Some(usual))))?;
        config.insert("attention_bias".to_owned(), false.into());
        if let Some(window) = window {
            config.insert("sliding_window".to_owned(), window.into());
            config.extend(keys.layer_types().map(|types| ("layer_types".to_owned(), types)));
        }
        Ok(config)
    }
}

/// The engine's every how many-th layer has no window, where the file does not say.
const PATTERN: u32 = 4;

/// Norms behind the parts; layers with a window turn by `swa`.
fn decoder(gated: &Gated<'_>, window: Option<(u32, Vec<bool>)>, swa: &Rope) -> Decoder {
    gated.decoder(|number, layer| {
        layer.attn_norm = None;
        layer.ffn_norm = None;
        layer.attn_post_norm = Some(gated.norm(number, gated.names.attn_post_norm));
        layer.ffn_post_norm = Some(gated.norm(number, gated.names.ffn_post_norm));
        gated.projection_norms(number, &mut layer.attn);
        if let Some((window, layers)) = &window
            && layers[number as usize]
        {
            layer.attn.window = Some(*window);
            layer.attn.rope = Some(swa.clone());
        }
    })
}

fn read(config: &Config) -> Result<TextParams, ArchError> {
    hparams::check_silu(config)?;
    hparams::check_flag(config, "attention_bias", false)?;
    hparams::check_flag(config, "tie_word_embeddings", false)?;
    TextParams::read(config, Reads::ByLayer)
}

/// OLMo 3's window, and the layers that have it.
fn window(config: &Config, n_layer: u32) -> Result<Option<(u32, Vec<bool>)>, ArchError> {
    let Some(window) = config.opt_u32("sliding_window")? else { return Ok(None) };
    if config.is_filled_as("olmo2") {
        // transformers ignores the key, the engine would not.
        return Err(config.wrong("sliding_window", "null: OLMo 2 has no window", &window.into()));
    }
    Ok(Some((window, hparams::windowed_layers(config, n_layer, |layer| (layer + 1) % 4 != 0)?)))
}
