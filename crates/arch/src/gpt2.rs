//! GPT-2: `general.architecture` = `gpt2`.
//!
//! Learned positions, layer norms in front of both parts, queries, keys and values from one matrix, matrices stored as `Conv1D`
//! (`[inputs, outputs]`), the embedding matrix as the head.

use crate::classic::{FUSED, Names, Qkv, Side};
use crate::decoder::{Activation, Decoder, DecoderError, Matrix, Residual};
use crate::expected::{FileKey, KeyType};
use crate::export::{ExportError, GgufModel, HparamReader};
use crate::fused::Layout;
use crate::hparams::float;
use crate::sizes::{self, Sizes};
use crate::tensors::Dim::{Ctx, Embd, Ff, Qkv as AllQkv, Vocab};
use crate::tensors::{Rows, Table, row};
use crate::{About, ArchError, Class, Config, Defaults, Family, Hparam, Keys, Model, VocabRoute, assign};
use ggufsmith_core::TensorInfo;
use ggufsmith_gguf::Metadata;
use serde_json::{Map, Value as Json};

/// The family.
pub(crate) struct Gpt2;

const ARCH: &str = "gpt2";

const CLASSES: &[Class] = &[Class::of("GPT2LMHeadModel", "gpt2")];

const DEFAULTS: &[Defaults] = &[Defaults {
    model_type: "gpt2",
    json: r#"{"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": null,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05, "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false, "tie_word_embeddings": true}"#,
}];

const KEYS: Keys = Keys {
    used: &[
        "activation_function",
        "add_cross_attention",
        "hidden_size",
        "layer_norm_epsilon",
        "max_position_embeddings",
        "n_ctx",
        "n_embd",
        "n_head",
        "n_inner",
        "n_layer",
        "n_positions",
        "num_attention_heads",
        "num_hidden_layers",
        "scale_attn_by_inverse_layer_idx",
        "scale_attn_weights",
        "tie_word_embeddings",
        "vocab_size",
    ],
    // `n_ctx` was GPT2Config's name for `n_positions`; nothing reads it any more.
    irrelevant: &[
        "attn_pdrop",
        "embd_pdrop",
        "gradient_checkpointing",
        "reorder_and_upcast_attn",
        "resid_pdrop",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ],
};

#[rustfmt::skip]
const TABLE: Table = Table {
    rows: &[
        row("transformer.wte.weight", "token_embd.weight", &[Vocab, Embd]),
        row("transformer.wpe.weight", "position_embd.weight", &[Ctx, Embd]),
        row("transformer.ln_f.weight", "output_norm.weight", &[Embd]),
        row("transformer.ln_f.bias", "output_norm.bias", &[Embd]),
        row("lm_head.weight", "output.weight", &[Vocab, Embd]).unless("tie_word_embeddings"),
        row("transformer.h.{}.ln_1.weight", "blk.{}.attn_norm.weight", &[Embd]),
        row("transformer.h.{}.ln_1.bias", "blk.{}.attn_norm.bias", &[Embd]),
        row("transformer.h.{}.attn.c_attn.weight", "blk.{}.attn_qkv.weight", &[Embd, AllQkv]).rows(Rows::Transposed),
        row("transformer.h.{}.attn.c_attn.bias", "blk.{}.attn_qkv.bias", &[AllQkv]),
        row("transformer.h.{}.attn.c_proj.weight", "blk.{}.attn_output.weight", &[Embd, Embd]).rows(Rows::Transposed),
        row("transformer.h.{}.attn.c_proj.bias", "blk.{}.attn_output.bias", &[Embd]),
        row("transformer.h.{}.ln_2.weight", "blk.{}.ffn_norm.weight", &[Embd]),
        row("transformer.h.{}.ln_2.bias", "blk.{}.ffn_norm.bias", &[Embd]),
        row("transformer.h.{}.mlp.c_fc.weight", "blk.{}.ffn_up.weight", &[Embd, Ff]).rows(Rows::Transposed),
        row("transformer.h.{}.mlp.c_fc.bias", "blk.{}.ffn_up.bias", &[Ff]),
        row("transformer.h.{}.mlp.c_proj.weight", "blk.{}.ffn_down.weight", &[Ff, Embd]).rows(Rows::Transposed),
        row("transformer.h.{}.mlp.c_proj.bias", "blk.{}.ffn_down.bias", &[Embd]),
    ],
    base: "transformer.",
    // Every checkpoint of the first years has them.
    dropped: &[
        (".attn.bias", "a causal mask: the engine has its own"),
        (".attn.masked_bias", "a constant of the attention mask"),
    ],
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
    token_embd: "transformer.wte",
    output_norm: "transformer.ln_f",
    output: "lm_head",
    blocks: "transformer.h",
    attn_norm: "ln_1",
    ffn_norm: Some("ln_2"),
    qkv: Qkv::Fused("attn.c_attn", Layout::Behind),
    attn_output: "attn.c_proj",
    ffn_gate: None,
    ffn_up: "mlp.c_fc",
    ffn_down: "mlp.c_proj",
};

impl Family for Gpt2 {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn describe(&self, config: &Config, tensors: &[TensorInfo]) -> Result<Model, ArchError> {
        let sizes = read(config)?;
        let keys = vec![
            ("block_count", sizes.n_layer.into()),
            ("context_length", sizes.n_ctx.into()),
            ("embedding_length", sizes.n_embd.into()),
            ("feed_forward_length", sizes.n_ff.into()),
            ("attention.head_count", sizes.n_head.into()),
            ("attention.layer_norm_epsilon", float(sizes.eps)),
        ];
        let mut hparams = sizes::section(ARCH, keys);
        hparams.push(Hparam::FileType);
        let assigned = assign::assign(&TABLE, &sizes.dims(), sizes.n_layer, config, tensors)?;
        Ok(Model::new(ARCH, sizes.n_layer, &sizes.dims(), VocabRoute::Bpe, hparams, assigned))
    }

    fn decoder(&self, config: &Config, _has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let sizes = read(config)?;
        let tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(true);
        let names = if tied { Names { output: SOURCE.token_embd, ..SOURCE } } else { SOURCE };
        let act = sizes::gelu(config, "activation_function")?;
        Ok(decoder(&sizes, names, true, act, "transformer.wpe.weight"))
    }

    fn decoder_of_gguf(&self, metadata: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Decoder, DecoderError> {
        let names = Names::gguf(FUSED);
        let names = if has("output.weight") { names } else { Names { output: names.token_embd, ..names } };
        Ok(decoder(&Sizes::of_gguf(metadata, ARCH)?, names, false, Activation::GeluTanh, "position_embd.weight"))
    }

    fn config(
        &self,
        file: &GgufModel<'_>,
        keys: &HparamReader<'_>,
        _class: Option<&'static str>,
        _warnings: &mut Vec<String>,
    ) -> Result<Map<String, Json>, ExportError> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Json| config.insert(key.to_owned(), value);
        set("architectures", vec![CLASSES[0].name].into());
        set("model_type", CLASSES[0].model_type.into());
        set("activation_function", "gelu_new".into());
        set("vocab_size", keys.vocab(file, CLASSES[0].name)?.into());
        set("n_embd", keys.u32("embedding_length")?.into());
        set("n_layer", keys.u32("block_count")?.into());
        set("n_head", keys.u32("attention.head_count")?.into());
        set("n_inner", keys.u32("feed_forward_length")?.into());
        set("n_positions", keys.u32("context_length")?.into());
        // What older readers call the same.
        set("n_ctx", keys.u32("context_length")?.into());
        set("layer_norm_epsilon", keys.float("attention.layer_norm_epsilon")?);
        set("tie_word_embeddings", (!file.has("output.weight")).into());
        Ok(config)
    }
}

/// Names that GPT2Config takes for its own, too (its `attribute_map`).
const ALIASES: [(&str, &str); 4] = [
    ("n_embd", "hidden_size"),
    ("n_positions", "max_position_embeddings"),
    ("n_head", "num_attention_heads"),
    ("n_layer", "num_hidden_layers"),
];

fn read(config: &Config) -> Result<Sizes, ArchError> {
    const ENGINE: &str = "what the engine does: it divides scores by the root of the head size and by nothing else";
    sizes::gelu(config, "activation_function")?;
    sizes::only(config, "scale_attn_weights", true, ENGINE)?;
    sizes::only(config, "scale_attn_by_inverse_layer_idx", false, ENGINE)?;
    sizes::only(config, "add_cross_attention", false, "false: the engine has no encoder in this architecture")?;
    for (own, alias) in ALIASES {
        let (first, second) = (config.opt_u32(own)?, config.opt_u32(alias)?);
        if second.is_some() && first != second {
            return Err(ArchError::KeyConflict { first: own.to_owned(), second: alias.to_owned() });
        }
    }
    let n_embd = config.positive_u32("n_embd")?;
    let n_head = config.positive_u32("n_head")?;
    let sizes = Sizes {
        n_vocab: config.positive_u32("vocab_size")?,
        n_ctx: config.positive_u32("n_positions")?,
        n_layer: config.positive_u32("n_layer")?,
        n_embd,
        n_ff: config.opt_u32("n_inner")?.unwrap_or(n_embd.saturating_mul(4)),
        n_head,
        n_head_kv: n_head,
        n_rot: 0,
        eps: config.f64("layer_norm_epsilon")?,
    };
    sizes.checked(config, "n_head", "n_head")
}

/// `n_positions` embeddings are added, so a text may not be longer.
fn decoder(sizes: &Sizes, names: Names, conv: bool, act: Activation, positions: &str) -> Decoder {
    let bias = &|part: &str| part != names.output;
    let side = Side { names, norm_bias: true, bias, conv, act, rope: None, residual: Residual::Sequential };
    let position_embd = Some(Matrix::whole(positions, sizes.n_ctx, sizes.n_embd));
    Decoder { position_embd, ..side.decoder(sizes) }
}
