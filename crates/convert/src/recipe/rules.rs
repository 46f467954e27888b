//! The rules of the two reference tools.

use super::{Context, FileType};
use ggufsmith_core::{Format, formats};

/// The format of one tensor and the rule that chose it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// What the tensor is stored as.
    pub format: &'static Format,
    /// Why, in a few words.
    pub rule: &'static str,
}

impl Decision {
    fn new(format: &'static Format, rule: &'static str) -> Self {
        Decision { format, rule }
    }
}

/// What the converter stores a tensor as: vectors and norms F32, matrices the file's format, F16 where rows do not divide into
/// blocks (`ModelBase.prepare_tensors`). `cols` is the innermost dimension.
pub fn decide_converter(file: &FileType, keep_f32: bool, cols: u64) -> Decision {
    if keep_f32 {
        Decision::new(&formats::f32::FORMAT, "vector, norm or bias stays F32")
    } else if cols.is_multiple_of(file.format.block_len as u64) {
        Decision::new(file.format, "file type")
    } else {
        Decision::new(&formats::f16::FORMAT, "rows do not divide into blocks: F16")
    }
}

/// A tensor as `llama-quantize` meets it.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeTensor<'a> {
    /// GGUF name.
    pub name: &'a str,
    /// Shape, outermost first.
    pub shape: &'a [u64],
    /// Its format in the intermediate file, kept where the tensor is not quantized.
    pub stored: &'static Format,
}

/// Name parts of tensors that are never quantized (llama-quant.cpp, `tensor_allows_quantization`).
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
];

/// Whether `llama-quantize` touches a tensor. Trailing dimensions of one do not count: `[1, n]` is a vector.
fn is_quantized(tensor: &QuantizeTensor<'_>) -> bool {
    let outer: u64 = tensor.shape.iter().rev().skip(1).product();
    outer > 1
        && tensor.name.ends_with("weight")
        && !matches!(tensor.name, "position_embd.weight" | "token_types.weight")
        && !NEVER.iter().any(|part| tensor.name.contains(part))
}

/// What `llama-quantize` stores each tensor as; `tensors` in its order (see [`super::super::plan`]).
///
/// Ported rules: the output matrix (or the embedding when it is also the output), and the fallback by shape.
pub fn decide_quantize(file: &FileType, context: Context<'_>, tensors: &[QuantizeTensor<'_>]) -> Vec<Decision> {
    let tied = !tensors.iter().any(|t| t.name == "output.weight");
    tensors.iter().map(|tensor| decide(file, context, tied, tensor)).collect()
}

fn decide(file: &FileType, context: Context<'_>, tied: bool, tensor: &QuantizeTensor<'_>) -> Decision {
    if !is_quantized(tensor) {
        return Decision::new(tensor.stored, "not quantized: kept as in the intermediate file");
    }
    let cols = tensor.shape.last().copied().unwrap_or(0);
    let is_output = tensor.name == "output.weight" || (tied && tensor.name == "token_embd.weight");
    let chosen = if !is_output {
        Decision::new(file.format, "file type")
    } else if context.arch == "falcon" || !cols.is_multiple_of(file.format.block_len as u64) {
        Decision::new(&formats::q8_0::FORMAT, "output matrix: Q8_0 for this model")
    } else if *file.format != formats::q8_0::FORMAT {
        Decision::new(&formats::q6_k::FORMAT, "output matrix: at least Q6_K")
    } else {
        Decision::new(file.format, "file type")
    };
    fit(chosen, cols)
}

/// Replace a format whose blocks do not divide the rows (llama-quant.cpp, `tensor_type_fallback`).
fn fit(chosen: Decision, cols: u64) -> Decision {
    let fits = |format: &Format| cols.is_multiple_of(format.block_len as u64);
    if fits(chosen.format) {
        return chosen;
    }
    let next = if *chosen.format == formats::q6_k::FORMAT { &formats::q8_0::FORMAT } else { chosen.format };
    if fits(next) {
        return Decision::new(next, "rows do not divide into blocks: the next larger type that fits");
    }
    Decision::new(&formats::f16::FORMAT, "rows do not divide into blocks: F16")
}

#[cfg(test)]
mod tests {
    use super::super::by_name;
    use super::*;

    fn names(file: &str, tensors: &[(&str, &[u64])]) -> Vec<&'static str> {
        let stored = &formats::bf16::FORMAT;
        let tensors: Vec<_> = tensors.iter().map(|&(name, shape)| QuantizeTensor { name, shape, stored }).collect();
        let context = Context { arch: "llama", inputs: Default::default() };
        decide_quantize(by_name(file).unwrap(), context, &tensors).iter().map(|d| d.format.name).collect()
    }

    #[test]
    fn the_output_matrix_is_better_and_shapes_fall_back() {
        let embedding: (&str, &[u64]) = ("token_embd.weight", &[512, 256]);
        assert_eq!(names("Q4_0", &[embedding]), ["Q6_K"], "tied");
        assert_eq!(names("Q4_0", &[embedding, ("output.weight", &[512, 256])]), ["Q4_0", "Q6_K"]);
        assert_eq!(names("Q5_1", &[("token_embd.weight", &[512, 576])]), ["Q8_0"], "576 is no multiple of 256");
        assert_eq!(names("Q6_K", &[("blk.0.ffn_up.weight", &[8, 36]), ("blk.0.ffn_down.weight", &[8, 64])]), ["F16", "Q8_0"]);
    }

    #[test]
    fn small_and_special_tensors_are_kept() {
        let kept: &[(&str, &[u64])] = &[
            ("blk.0.attn_norm.weight", &[64]),
            ("blk.0.attn_q.bias", &[64]),
            ("blk.0.ffn_gate_inp_shexp.weight", &[1, 64]),
            ("blk.0.ffn_gate_inp.weight", &[4, 64]),
            ("position_embd.weight", &[4, 64]),
        ];
        assert_eq!(names("Q4_0", kept), ["BF16"; 5]);
    }
}
