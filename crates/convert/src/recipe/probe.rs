//! What follows from the rules for a file type as a whole, found by applying them to models made for that.

use super::quantize::{QuantizeTensor, decide_quantize, fallback};
use super::{Choices, Context, FileType, RECIPES, Tool};
use ggufsmith_arch::RecipeInputs;
use ggufsmith_core::{Format, formats};
use std::sync::LazyLock;

/// Every file type all of whose formats can be written, whatever the model.
pub fn writable() -> &'static [&'static FileType] {
    static WRITABLE: LazyLock<Vec<&'static FileType>> = LazyLock::new(|| {
        let can_be_written = |recipe: &&FileType| formats_of(recipe).into_iter().all(|f| formats::encoder_of(f).is_some());
        RECIPES.iter().filter(can_be_written).collect()
    });
    &WRITABLE
}

/// Every format that a tensor of such a file may get.
fn formats_of(file: &FileType) -> Vec<&'static Format> {
    // F16 is where all fallbacks end.
    let mut found = vec![file.format, &formats::f16::FORMAT];
    if file.tool == Tool::Quantize {
        for arch in ["llama", "falcon"] {
            for (n_head_kv, n_expert, imatrix) in [(8, 0, false), (8, 0, true), (1, 0, false), (8, 8, false)] {
                let inputs = RecipeInputs { n_layer: 16, n_head: 8, n_head_kv, n_expert };
                found.extend(decided(file, Context { arch, inputs, imatrix }).into_iter().map(|(format, _)| format));
            }
        }
    }
    for i in 0..found.len() {
        found.extend(fallback(found[i]));
    }
    found.sort_by_key(|format| format.ggml_id);
    found.dedup();
    found
}

/// Bits per weight of the blocks of Llama 3.1 8B, to four decimals: every format's exactly, and plenty for a mixture.
pub(super) fn bits_per_weight(file: &FileType) -> f64 {
    let inputs = RecipeInputs { n_layer: 32, n_head: 32, n_head_kv: 8, n_expert: 0 };
    let blocks = decided(file, Context { arch: "llama", inputs, imatrix: false }).into_iter().filter(|(_, elems)| *elems > 0);
    let (mut bits, mut all) = (0.0, 0);
    for (format, elems) in blocks {
        bits += format.bits_per_weight() * elems as f64;
        all += elems;
    }
    (bits / all as f64 * 1e4).round() / 1e4
}

/// The matrices of a layer, outermost dimension first.
const LAYER: &[(&str, [u64; 2])] = &[
    ("attn_k", [1024, 4096]),
    ("attn_output", [4096, 4096]),
    ("attn_q", [4096, 4096]),
    ("attn_v", [1024, 4096]),
    ("ffn_down", [4096, 14336]),
    ("ffn_gate", [14336, 4096]),
    ("ffn_up", [14336, 4096]),
];

/// Formats and elements of all matrices of a model of such layers; embedding, head and experts count no elements.
fn decided(file: &FileType, context: Context<'_>) -> Vec<(&'static Format, u64)> {
    let mut tensors: Vec<(String, Vec<u64>, u64)> =
        vec![("output.weight".into(), vec![512, 4096], 0), ("token_embd.weight".into(), vec![512, 4096], 0)];
    for layer in 0..context.inputs.n_layer {
        for &(name, shape) in LAYER {
            tensors.push((format!("blk.{layer}.{name}.weight"), shape.to_vec(), shape.iter().product()));
        }
        if context.inputs.n_expert > 0 {
            tensors.push((format!("blk.{layer}.ffn_up_exps.weight"), vec![8, 512, 4096], 0));
        }
    }
    let stored = &formats::f32::FORMAT;
    let list: Vec<_> = tensors.iter().map(|(name, shape, _)| QuantizeTensor { name, shape, stored }).collect();
    // These shapes fit every format and every layer has its number: nothing is refused.
    let decisions = decide_quantize(file, context, &Choices::default(), &list).unwrap_or_default();
    decisions.into_iter().zip(&tensors).map(|(decision, (_, _, elems))| (decision.format, *elems)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::by_name;
    use super::*;

    fn names(file: &str) -> Vec<&'static str> {
        formats_of(by_name(file).unwrap()).iter().map(|format| format.name).collect()
    }

    #[test]
    fn formats_are_those_of_all_models_and_shapes() {
        assert_eq!(names("F32"), ["F32", "F16"]);
        assert_eq!(names("TQ1_0"), ["F16", "Q4_0", "TQ1_0"]);
        assert_eq!(names("Q4_0"), ["F16", "Q4_0", "Q4_1", "Q8_0", "Q6_K"]);
        assert_eq!(names("Q4_K_M"), ["F16", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]);
        assert_eq!(names("IQ4_XS"), ["F16", "Q5_1", "Q8_0", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]);
        assert_eq!(names("MXFP4_MOE"), ["F16", "Q8_0", "MXFP4"]);
    }

    #[test]
    fn what_can_be_written_grows_with_the_encoders() {
        let names: Vec<_> = writable().iter().map(|file| file.name()).collect();
        for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K"] {
            assert!(names.contains(&name), "{name}");
        }
        for file in RECIPES.iter().filter(|file| formats::encoder_of(file.format).is_none()) {
            assert!(!names.contains(&file.name()), "{}", file.name());
        }
    }

    #[test]
    fn names_promise_what_the_blocks_take() {
        let bits = |name: &str| (bits_per_weight(by_name(name).unwrap()) * 100.0).round() / 100.0;
        // Q4_K_M: llama.cpp's README has 4.89 for the whole model.
        let expected = [("Q4_0", 4.5), ("Q6_K", 6.56), ("F16", 16.0), ("Q4_K_M", 4.8), ("Q3_K_M", 3.84), ("Q2_K", 2.94)];
        for (name, expected) in expected {
            assert_eq!(bits(name), expected, "{name}");
        }
    }
}
