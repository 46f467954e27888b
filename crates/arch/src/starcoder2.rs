//! StarCoder2: `general.architecture` = `starcoder2`.
//!
//! Layer norms with biases, one part behind the other, grouped-query attention over whole turning heads, GELU feed-forward without
//! gate.

use crate::classic::{Names, Qkv, SPLIT, Side};
use crate::decoder::{Activation, Decoder, DecoderError, Residual, Rope as RotaryPositions, RopeLayout};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::rope::{Reads, Rope};
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Embd, Ff, Kv, Q, Vocab};
use crate::tensors::{Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct StarCoder2;

const ARCH: &str = "starcoder2";

const CLASSES: &[Class] = &[Class::of("Starcoder2ForCausalLM", "starcoder2")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "starcoder2",
    json: r#"{"vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
        "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096, "norm_epsilon": 1e-05, "rope_theta": 10000.0, "rope_scaling": null,
        "sliding_window": null, "use_bias": true, "tie_word_embeddings": true}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "norm_epsilon",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "use_bias",
        "vocab_size",
    ],
    // The last two: StarCoder2's own config.json has them, nothing reads them.
    irrelevant: &[
        "embedding_dropout",
        "residual_dropout",
        "activation_function",
        "norm_type",
        "attention_softmax_in_fp32",
        "mlp_type",
        "scale_attention_softmax_in_fp32",
        "scale_attn_weights",
    ],
};

const BIAS: &str = "use_bias";

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", &[Vocab, Embd]),
        row("model.norm.weight", "output_norm.weight", &[Embd]),
        row("model.norm.bias", "output_norm.bias", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("model.layers.{}.input_layernorm.bias", "blk.{}.attn_norm.bias", &[Embd]),
        row("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", &[Q, Embd]),
        row("model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias", &[Q]).only_if(BIAS),
        row("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias", &[Kv]).only_if(BIAS),
        row("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight", &[Kv, Embd]),
        row("model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias", &[Kv]).only_if(BIAS),
        row("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight", &[Embd, Q]),
        row("model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias", &[Embd]).only_if(BIAS),
        row("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("model.layers.{}.post_attention_layernorm.bias", "blk.{}.ffn_norm.bias", &[Embd]),
        row("model.layers.{}.mlp.c_fc.weight", "blk.{}.ffn_up.weight", &[Ff, Embd]),
        row("model.layers.{}.mlp.c_fc.bias", "blk.{}.ffn_up.bias", &[Ff]).only_if(BIAS),
        row("model.layers.{}.mlp.c_proj.weight", "blk.{}.ffn_down.weight", &[Embd, Ff]),
        row("model.layers.{}.mlp.c_proj.bias", "blk.{}.ffn_down.bias", &[Embd]).only_if(BIAS),
    ],
    base: "model.",
    dropped: &[],
};

static ABOUT: About = About {
    name: ARCH,
    classes: CLASSES,
    defaults: DEFAULTS,
    keys: KEYS,
    table: &TABLE,
    file_keys: &[FileKey::required("attention.layer_norm_epsilon", KeyType::F32)],
};

const SOURCE: Names = Names {
    token_embd: "model.embed_tokens",
    output_norm: "model.norm",
    output: "lm_head",
    blocks: "model.layers",
    attn_norm: "input_layernorm",
    ffn_norm: Some("post_attention_layernorm"),
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attn_output: "self_attn.o_proj",
    ffn_gate: None,
    ffn_up: "mlp.c_fc",
    ffn_down: "mlp.c_proj",
};

impl Family for StarCoder2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let (sizes, rope) = read(config)?;
        let hparams = sizes.base(ARCH, &rope, config.get("head_dim").is_some());
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        let mut warnings = rope.engine_warnings();
        if let Some(window) = config.opt_u32("sliding_window")?.filter(|&window| window < sizes.n_ctx) {
            let whole = format!("in this architecture the engine attends to the whole context of {} tokens", sizes.n_ctx);
            warnings.push(format!("sliding_window = {window}: {whole}"));
        }
        Ok(Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned).warn(warnings))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let (sizes, rope) = read(config)?;
        let flag = |key| Ok::<_, ArchError>(config.opt_bool(key)?.unwrap_or(false));
        let names = if flag("tie_word_embeddings")? { Names { output: SOURCE.token_embd, ..SOURCE } } else { SOURCE };
        let (act, bias) = (sizes::gelu(config, "hidden_act")?, flag(BIAS)?);
        let rope = rope.transformers(sizes.n_rot, sizes.n_ctx)?;
        let mut decoder = decoder(&sizes, names, &|_| bias, act, rope);
        let window = config.opt_u32("sliding_window")?;
        decoder.layers.iter_mut().for_each(|layer| layer.attn.window = window);
        Ok(decoder)
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = Sizes::of_gguf(metadata, ARCH)?;
        let rope = sizes.rope_of_gguf(metadata, ARCH, RopeLayout::Halves)?;
        let names = Names::gguf(SPLIT);
        let names = if has("output.weight") { names } else { Names { output: names.token_embd, ..names } };
        Ok(decoder(&sizes, names, &|part| has(&format!("blk.0.{part}.bias")), Activation::GeluTanh, rope))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        _class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = keys.standard(file, &CLASSES[0])?;
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("hidden_act", "gelu_pytorch_tanh".into());
        set("num_key_value_heads", keys.kv_heads()?);
        set("norm_epsilon", keys.float("attention.layer_norm_epsilon")?);
        // In this architecture the engine attends to everything.
        set("sliding_window", Json::Null);
        set(BIAS, file.has("blk.0.attn_q.bias").into());
        set("tie_word_embeddings", (!file.has("output.weight")).into());
        if let Some(head_dim) = keys.opt_u32("attention.key_length")? {
            set("head_dim", head_dim.into());
        }
        keys.rope(0, None, &mut config)?;
        Ok(config)
    }
}

fn read(config: &Config) -> Result<(Sizes, Rope), ArchError> {
    sizes::gelu(config, "hidden_act")?;
    let rope = sizes::rope(config, Reads::Plain)?;
    Ok((Sizes::read(config, &rope, "norm_epsilon")?, rope))
}

fn decoder(sizes: &Sizes, names: Names, bias: &dyn Fn(&str) -> bool, act: Activation, rope: RotaryPositions) -> Decoder {
    let in_blocks = |part: &str| part != names.output && bias(part);
    let (bias, residual): (&dyn Fn(&str) -> bool, _) = (&in_blocks, Residual::Sequential);
    Side { names, norm_bias: true, bias, conv: false, act, rope: Some(rope), residual }.decoder(sizes)
}
