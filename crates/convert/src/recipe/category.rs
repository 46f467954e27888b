//! What a tensor is, by its name (llama-quant.cpp, `tensor_get_category`, `tensor_allows_quantization`).

use super::quantize::QuantizeTensor;

/// The kinds of tensors that the rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Output,
    TokenEmbedding,
    /// Values, alone or fused with queries and keys: the rules treat them alike.
    AttnV,
    AttnK,
    AttnQ,
    AttnOutput,
    FfnUp,
    FfnGate,
    FfnDown,
    Other,
}

/// Name parts in the order of the reference: the first that occurs decides.
const PARTS: &[(&str, Category)] = &[
    ("attn_qkv.weight", Category::AttnV),
    ("attn_kv_b.weight", Category::AttnV),
    ("attn_v.weight", Category::AttnV),
    ("attn_k.weight", Category::AttnK),
    ("attn_q.weight", Category::AttnQ),
    ("attn_output.weight", Category::AttnOutput),
    ("ffn_up", Category::FfnUp),
    ("ffn_gate", Category::FfnGate),
    ("ffn_down", Category::FfnDown),
];

impl Category {
    pub(super) fn of(name: &str) -> Category {
        match name {
            OUTPUT => Category::Output,
            TOKEN_EMBEDDING | PER_LAYER_EMBEDDING => Category::TokenEmbedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Category::Other, |&(_, category)| category),
        }
    }
}

pub(super) const OUTPUT: &str = "output.weight";
pub(super) const TOKEN_EMBEDDING: &str = "token_embd.weight";
pub(super) const PER_LAYER_EMBEDDING: &str = "per_layer_token_embd.weight";

/// Name parts of tensors that are never quantized.
const NEVER: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// The architecture of [`NEVER_GLM5_NEXT`] and of a rule of its own.
pub(super) const GLM5_NEXT: &str = "glm5-next";

/// The same for one architecture.
const NEVER_GLM5_NEXT: &[&str] = &[
    "hc_",
    "indexer.attn_q_b",
    "indexer.attn_k",
    "indexer.proj",
    "indexer_compressor_gate",
    "indexer_compressor_ape",
    "ssm_f_a.weight",
    "ssm_f_b.weight",
    "ssm_g_a.weight",
    "ssm_g_b.weight",
    "ssm_beta.weight",
    "attn_kv_a_mqa.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
];

/// Whether `llama-quantize` touches a tensor. Trailing dimensions of one do not count: `[1, n]` is a vector.
pub(super) fn is_quantized(arch: &str, tensor: &QuantizeTensor<'_>) -> bool {
    let outer: u64 = tensor.shape.iter().rev().skip(1).product();
    let name = tensor.name;
    outer > 1
        && name.ends_with("weight")
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !NEVER.iter().any(|part| name.contains(part))
        && !(arch == GLM5_NEXT && NEVER_GLM5_NEXT.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggufsmith_core::formats;

    #[test]
    fn the_first_part_decides() {
        assert_eq!(Category::of("blk.1.attn_qkv.weight"), Category::AttnV);
        assert_eq!(Category::of("blk.1.ffn_gate_up_exps.weight"), Category::FfnGate);
        assert_eq!(Category::of("per_layer_token_embd.weight"), Category::TokenEmbedding);
        assert_eq!(Category::of("blk.0.output.weight"), Category::Other);
        assert_eq!(Category::of("blk.0.attn_q_norm.weight"), Category::Other);
    }

    #[test]
    fn small_and_special_tensors_are_kept() {
        let touched = |arch: &str, name: &str, shape: &[u64]| {
            is_quantized(arch, &QuantizeTensor { name, shape, stored: &formats::bf16::FORMAT })
        };
        let kept: &[(&str, &[u64])] = &[
            ("blk.0.attn_norm.weight", &[64]),
            ("blk.0.attn_q.bias", &[64]),
            ("blk.0.ffn_gate_inp_shexp.weight", &[1, 64]),
            ("blk.0.ffn_gate_inp.weight", &[4, 64]),
            ("position_embd.weight", &[4, 64]),
            ("v.patch_embd.weight", &[4, 64]),
        ];
        assert!(kept.iter().all(|(name, shape)| !touched("llama", name, shape)));
        assert!(touched("llama", "blk.0.ffn_up.weight", &[4, 64]) && touched("llama", "blk.0.attn_k_b.weight", &[4, 64]));
        assert!(!touched(GLM5_NEXT, "blk.0.attn_k_b.weight", &[4, 64]));
    }
}
