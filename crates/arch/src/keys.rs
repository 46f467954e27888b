//! The closed world of config.json keys: what a family does not know is noticed, and refused where it would change the model.

use crate::config::shown;
use crate::{ArchError, Config, Defaults, Keys};
use serde_json::Value;

/// The keys that [`crate::hparams::TextParams`] reads, with a family's own.
macro_rules! text_keys {
    ($($own:literal),* $(,)?) => {
        &[
            "head_dim",
            "hidden_act",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "original_max_position_embeddings",
            "rms_norm_eps",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
            "vocab_size",
            $($own),*
        ]
    };
}
pub(crate) use text_keys;

/// Keys that no architecture computes with: bookkeeping, training, generation and tokenizer settings that transformers writes
/// into every config.json.
const IRRELEVANT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "custom_pipelines",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "quantization_config",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Keys of models that wrap a text model: they say how pictures and sound become its inputs.
const AROUND_TEXT: &[&str] = &[
    "audio_config",
    "audio_token_id",
    "audio_token_index",
    "boi_token_index",
    "eoi_token_index",
    "ignore_index",
    "image_grid_pinpoints",
    "image_seq_length",
    "image_token_id",
    "image_token_index",
    "mm_tokens_per_image",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "text_config",
    "vision_config",
    "vision_feature_layer",
    "vision_feature_select_strategy",
];

/// Keys that change what some architecture computes, or what the reference converter writes, each with the values (JSON) under
/// which it changes nothing; null always does. Where a family uses such a key, its own list says so.
const MEANINGFUL: &[(&str, &str)] = &[
    ("alibi", "[false]"),
    ("attention_bias", "[false]"),
    ("attention_multiplier", "[]"),
    ("attention_out_bias", "[false]"),
    ("attn_logit_softcapping", "[]"),
    ("attn_temperature_tuning", "[false]"),
    ("clip_qkv", "[]"),
    ("dense_intermediate_size", "[]"),
    ("draft_vocab_size", "[]"),
    ("embedding_multiplier", "[1]"),
    ("final_logit_softcapping", "[]"),
    ("first_k_dense_replace", "[0]"),
    ("global_rope_theta", "[]"),
    ("hidden_activation", "[]"),
    ("hidden_size_per_layer_input", "[0]"),
    ("is_causal", "[true]"),
    ("kv_lora_rank", "[]"),
    ("layer_norm_eps", "[]"),
    ("layer_norm_epsilon", "[]"),
    ("layer_types", "[]"),
    ("local_rope_theta", "[]"),
    ("logit_scale", "[1]"),
    ("logits_scaling", "[1]"),
    ("mlp_bias", "[false]"),
    ("moe_intermediate_size", "[]"),
    ("moe_router_activation", "[]"),
    ("moe_router_activation_func", "[]"),
    ("mtp_num_hidden_layers", "[0]"),
    ("n_group", "[]"),
    ("n_layers", "[]"),
    ("n_routed_experts", "[0]"),
    ("no_rope_layer_interval", "[0]"),
    ("no_rope_layers", "[[]]"),
    ("norm_eps", "[]"),
    ("norm_epsilon", "[]"),
    ("num_experts", "[0]"),
    ("num_experts_per_tok", "[0]"),
    ("num_experts_per_token", "[0]"),
    ("num_local_experts", "[0]"),
    ("num_nextn_predict_layers", "[0]"),
    ("original_max_position_embeddings", "[]"),
    ("parallel_attn", "[false]"),
    ("partial_rotary_factor", "[1]"),
    ("prefix_dense_intermediate_size", "[]"),
    ("qk_layernorm", "[false]"),
    ("qk_norm", "[false]"),
    ("qkv_bias", "[false]"),
    ("query_pre_attn_scalar", "[]"),
    ("residual_multiplier", "[1]"),
    ("rope_global_theta", "[]"),
    ("rope_interleaved", "[false]"),
    ("rope_local_base_freq", "[]"),
    ("rope_local_theta", "[]"),
    ("rope_parameters", "[{}]"),
    ("rope_pct", "[1]"),
    ("rope_percent", "[1]"),
    ("rope_scaling", "[]"),
    ("rope_theta_global", "[]"),
    ("rope_theta_local", "[]"),
    ("rotary_pct", "[1]"),
    ("scale_depth", "[1]"),
    ("scale_emb", "[1]"),
    ("score_func", "[]"),
    ("score_function", "[]"),
    ("scoring_func", "[]"),
    ("expert_selection_fn", "[]"),
    ("shared_expert_intermediate_size", "[0]"),
    ("sliding_window", "[]"),
    ("sliding_window_pattern", "[]"),
    ("swa_rope_theta", "[]"),
    ("text_config", "[{}]"),
    ("top_k_experts", "[0]"),
    ("topk_group", "[]"),
    ("transformer_layer_config", "[{}]"),
    ("truncate", "[true]"),
    ("use_bias", "[false]"),
    ("use_parallel_residual", "[false]"),
    ("use_qk_norm", "[false]"),
    ("use_qkv_bias", "[false]"),
    ("use_sliding_window", "[false]"),
];

/// Go through the keys of a config.json: those that the family does not know are warned of, or refused where they mean something
/// elsewhere and are set, or with `strict`.
pub(crate) fn check(config: &Config, known: Keys, strict: bool) -> Result<Vec<String>, ArchError> {
    let class = config.class().name;
    // What the config class fills in, the family reads.
    let filled = config.filled().map(Defaults::keys).unwrap_or_default();
    let around = if config.class().text.is_some() { AROUND_TEXT } else { &[] };
    let mut unknown = Vec::new();
    for (key, value) in config.entries() {
        let listed = [known.used, known.irrelevant, IRRELEVANT, around].iter().any(|list| list.contains(&key));
        if listed || filled.contains_key(key) {
            continue;
        }
        match is_neutral(key, value) {
            Some(true) => {}
            Some(false) => return Err(ArchError::ForeignKey { key: config.path(key), value: shown(value), class }),
            None => unknown.push(key.to_owned()),
        }
    }
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    if strict {
        return Err(ArchError::UnknownKeys { keys: unknown, class });
    }
    Ok(vec![format!("config.json has keys that {class} does not know, they are ignored: {}", unknown.join(", "))])
}

/// Whether a key that means something in some architecture has a value under which it does nothing; `None` for other keys.
pub(crate) fn is_neutral(key: &str, value: &Value) -> Option<bool> {
    let (_, neutral) = MEANINGFUL.iter().find(|(name, _)| *name == key)?;
    // The texts are constants; `every_neutral_value_is_json` parses them all.
    let neutral: Vec<Value> = serde_json::from_str(neutral).unwrap_or_default();
    let same = |a: &Value| a == value || (a.is_number() && a.as_f64() == value.as_f64());
    Some(value.is_null() || neutral.iter().any(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_neutral_value_is_json() {
        for (key, neutral) in MEANINGFUL {
            assert!(serde_json::from_str::<Vec<Value>>(neutral).is_ok(), "{key}");
            assert!(!IRRELEVANT.contains(key), "{key}");
        }
    }

    #[test]
    fn neutral_values() {
        assert_eq!(is_neutral("embedding_multiplier", &1.0.into()), Some(true));
        assert_eq!(is_neutral("embedding_multiplier", &12.into()), Some(false));
        assert_eq!(is_neutral("clip_qkv", &Value::Null), Some(true));
        assert_eq!(is_neutral("clip_qkv", &8.into()), Some(false));
        assert_eq!(is_neutral("no_such_key", &8.into()), None);
    }
}
