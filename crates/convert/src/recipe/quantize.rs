//! The walk of `llama-quantize` over a file's tensors: what precedes the mixture, and what follows it (llama-quant.cpp,
//! `llama_tensor_get_type`).

use super::category::{Category, OUTPUT, PER_LAYER_EMBEDDING, TOKEN_EMBEDDING, is_quantized};
use super::ids::{ftype, ggml};
use super::mixture::Mixture;
use super::{Choices, Context, Decision, FileType, format};
use ggufsmith_core::Format;

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

/// Why `llama-quantize` would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecipeError {
    #[error(
        "tensor {tensor}: its rows of {cols} elements do not divide into {format}'s blocks of {block_len}, and llama.cpp has no type to fall back to; choose another type, or one for this tensor with --tensor-type"
    )]
    NoFallback { tensor: String, cols: u64, format: &'static str, block_len: usize },
    #[error("tensor {tensor}: its rows of {cols} elements do not divide into {format}'s blocks of {block_len} ({option})")]
    Shape { tensor: String, cols: u64, format: &'static str, block_len: usize, option: &'static str },
    #[error("tensor {tensor}: its name tells no layer below {layers}, which the rules for models with experts need")]
    Layer { tensor: String, layers: u32 },
    #[error(transparent)]
    Only(#[from] super::OnlyError),
}

/// What `llama-quantize` stores each tensor as; `tensors` in the order of its walk: those of no block first, then by block number,
/// then by name.
///
/// # Errors
/// [`RecipeError`] where it would refuse, or `--only` selects nothing.
pub fn decide_quantize(
    file: &FileType,
    context: Context<'_>,
    choices: &Choices,
    tensors: &[QuantizeTensor<'_>],
) -> Result<Vec<Decision>, RecipeError> {
    choices.only.check(tensors.iter().map(|tensor| tensor.name))?;
    let mut mixture = Mixture::new(file, context, choices.output_type, tensors);
    let mut decisions = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        // Counted in the mixture whether selected or not: a selection does not change what the selected tensors get.
        let decision = decide(file, context, choices, &mut mixture, tensor)?;
        decisions.push(match choices.only.selects(tensor.name) {
            true => decision,
            false => Decision::new(tensor.stored, "not selected by --only: kept as it is"),
        });
    }
    Ok(decisions)
}

fn decide(
    file: &FileType,
    context: Context<'_>,
    choices: &Choices,
    mixture: &mut Mixture<'_>,
    tensor: &QuantizeTensor<'_>,
) -> Result<Decision, RecipeError> {
    if !is_quantized(context.arch, tensor) {
        return Ok(Decision::new(tensor.stored, "not quantized: kept as it is"));
    }
    let category = Category::of(tensor.name);
    if choices.leave_output && category == Category::Output {
        return Ok(Decision::new(tensor.stored, "--leave-output-tensor: kept as it is"));
    }
    let by_name = choices.tensor_types.iter().find(|tensor_type| tensor_type.matches(tensor.name));
    // The per-layer embedding alone can be named away from --token-embedding-type.
    let named = tensor.name == PER_LAYER_EMBEDDING && by_name.is_some();
    if let Some(format) = choices.embedding_type.filter(|_| category == Category::TokenEmbedding && !named) {
        return exactly(tensor, format, "--token-embedding-type").map(|decision| finish(decision, file, tensor));
    }
    if let Some(format) = choices.output_type.filter(|_| category == Category::Output) {
        return exactly(tensor, format, "--output-tensor-type").map(|decision| finish(decision, file, tensor));
    }
    if !file.format.is_quantized() {
        return Ok(Decision::new(file.format, "file type"));
    }
    let chosen = match by_name {
        Some(tensor_type) => Decision::new(tensor_type.format, tensor_type.to_string()),
        None if choices.pure => Decision::new(file.format, "file type, --pure"),
        None => {
            let (format, rule) = mixture.decide(tensor)?;
            Decision::new(format, rule)
        }
    };
    fit(chosen, tensor).map(|decision| finish(decision, file, tensor))
}

/// A type that llama.cpp takes as it is, without a fallback.
fn exactly(tensor: &QuantizeTensor<'_>, format: &'static Format, option: &'static str) -> Result<Decision, RecipeError> {
    let cols = cols(tensor);
    if fits(format, cols) {
        return Ok(Decision::new(format, option));
    }
    let (tensor, block_len) = (tensor.name.to_owned(), format.block_len);
    Err(RecipeError::Shape { tensor, cols, format: format.name, block_len, option })
}

fn finish(mut decision: Decision, file: &FileType, tensor: &QuantizeTensor<'_>) -> Decision {
    decision.needs_importance = needs_importance(file, tensor.name, decision.format);
    decision
}

/// `tensor_requires_imatrix`: types of few bits are garbage without importance.
fn needs_importance(file: &FileType, tensor: &str, format: &Format) -> bool {
    if matches!(tensor, TOKEN_EMBEDDING | PER_LAYER_EMBEDDING | OUTPUT) {
        return false;
    }
    match format.ggml_id {
        ggml::IQ1_S | ggml::IQ1_M | ggml::IQ2_XXS | ggml::IQ2_XS | ggml::IQ2_S | ggml::IQ3_XXS => true,
        ggml::Q2_K => file.ftype == ftype::Q2_K_S,
        _ => false,
    }
}

fn cols(tensor: &QuantizeTensor<'_>) -> u64 {
    tensor.shape.last().copied().unwrap_or(0)
}

fn fits(format: &Format, cols: u64) -> bool {
    cols.is_multiple_of(format.block_len as u64)
}

/// Replace a format whose blocks do not divide the rows (`tensor_type_fallback`).
fn fit(chosen: Decision, tensor: &QuantizeTensor<'_>) -> Result<Decision, RecipeError> {
    let (wanted, cols) = (chosen.format, cols(tensor));
    if fits(wanted, cols) {
        return Ok(chosen);
    }
    let Some(next) = fallback(wanted) else {
        let (tensor, block_len) = (tensor.name.to_owned(), wanted.block_len);
        return Err(RecipeError::NoFallback { tensor, cols, format: wanted.name, block_len });
    };
    let instead = if fits(next, cols) { next } else { format(ggml::F16) };
    let rule = format!(
        "{}; rows of {cols} do not divide into {}'s blocks of {}: {}",
        chosen.rule, wanted.name, wanted.block_len, instead.name
    );
    Ok(Decision::new(instead, rule))
}

/// The type that comes next where rows do not fit; itself where only F16 is left.
pub(super) fn fallback(wanted: &'static Format) -> Option<&'static Format> {
    Some(match wanted.ggml_id {
        ggml::IQ1_S | ggml::IQ1_M | ggml::IQ2_XXS | ggml::IQ2_XS | ggml::IQ2_S | ggml::IQ3_XXS | ggml::IQ3_S | ggml::IQ4_XS => {
            format(ggml::IQ4_NL)
        }
        ggml::Q2_0 | ggml::Q2_K | ggml::Q3_K | ggml::TQ1_0 | ggml::TQ2_0 => format(ggml::Q4_0),
        ggml::Q4_K => format(ggml::Q5_0),
        ggml::Q5_K => format(ggml::Q5_1),
        ggml::Q6_K => format(ggml::Q8_0),
        _ if wanted.block_len <= 32 => wanted,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{TensorType, by_name, format_by_name};
    use super::*;
    use ggufsmith_core::formats;

    type Shape<'a> = (&'a str, &'a [u64]);

    fn decide_all(file: &str, choices: &Choices, tensors: &[Shape<'_>]) -> Result<Vec<Decision>, RecipeError> {
        let stored = &formats::bf16::FORMAT;
        let tensors: Vec<_> = tensors.iter().map(|&(name, shape)| QuantizeTensor { name, shape, stored }).collect();
        let context = Context { arch: "llama", inputs: Default::default(), imatrix: false };
        decide_quantize(by_name(file).unwrap(), context, choices, &tensors)
    }

    fn names(file: &str, choices: &Choices, tensors: &[Shape<'_>]) -> Vec<&'static str> {
        decide_all(file, choices, tensors).unwrap().iter().map(|d| d.format.name).collect()
    }

    fn tensor_types(texts: &[&str]) -> Choices {
        let tensor_types = texts.iter().map(|text| TensorType::parse(text).unwrap()).collect();
        Choices { tensor_types, ..Choices::default() }
    }

    const EMBEDDING: Shape<'_> = ("token_embd.weight", &[512, 256]);
    const OUTPUT_MATRIX: Shape<'_> = ("output.weight", &[512, 256]);
    const UP: Shape<'_> = ("blk.0.ffn_up.weight", &[512, 256]);

    #[test]
    fn the_output_matrix_is_better_and_shapes_fall_back() {
        let none = Choices::default();
        assert_eq!(names("Q4_0", &none, &[EMBEDDING]), ["Q6_K"], "tied");
        assert_eq!(names("Q4_0", &none, &[EMBEDDING, OUTPUT_MATRIX]), ["Q4_0", "Q6_K"]);
        assert_eq!(names("Q5_1", &none, &[("token_embd.weight", &[512, 576])]), ["Q8_0"], "576 is no multiple of 256");
        assert_eq!(
            names("Q6_K", &none, &[("blk.0.ffn_up.weight", &[8, 36]), ("blk.0.ffn_down.weight", &[8, 64])]),
            ["F16", "Q8_0"]
        );
        let error = decide_all("Q1_0", &none, &[("blk.0.ffn_up.weight", &[8, 64])]).unwrap_err();
        assert!(matches!(&error, RecipeError::NoFallback { tensor, cols: 64, .. } if tensor == "blk.0.ffn_up.weight"), "{error}");
    }

    #[test]
    fn rules_tell_what_they_fell_back_from() {
        let decisions = decide_all("Q4_K_M", &Choices::default(), &[("blk.0.ffn_up.weight", &[8, 576]), UP]).unwrap();
        let rules: Vec<_> = decisions.iter().map(|d| (d.format.name, d.rule.as_ref())).collect();
        let first = ("Q5_0", "file type; rows of 576 do not divide into Q4_K's blocks of 256: Q5_0");
        assert_eq!(rules, [first, ("Q4_K", "file type")]);
    }

    #[test]
    fn choices_precede_the_mixture_in_order() {
        let q8_0 = format_by_name("q8_0");
        let all = [EMBEDDING, OUTPUT_MATRIX, UP];
        let choices = Choices { pure: true, ..Choices::default() };
        assert_eq!(names("Q4_0", &choices, &all), ["Q4_0"; 3]);
        let choices = Choices { leave_output: true, output_type: q8_0, ..Choices::default() };
        assert_eq!(names("Q4_0", &choices, &all), ["Q4_0", "BF16", "Q4_0"]);
        let choices = Choices { output_type: q8_0, ..Choices::default() };
        assert_eq!(names("Q4_0", &choices, &all), ["Q4_0", "Q8_0", "Q4_0"]);
        assert_eq!(names("Q4_0", &choices, &[EMBEDDING, UP]), ["Q8_0", "Q4_0"], "tied");
        let pure = Choices { pure: true, ..choices };
        assert_eq!(names("Q4_0", &pure, &[EMBEDDING, UP]), ["Q4_0"; 2], "tied, pure");
        // The embedding's own option precedes the regular expressions.
        let choices = Choices { embedding_type: q8_0, ..tensor_types(&["EMBD=q5_0", "ffn=q4_1", "ffn_up=q5_1"]) };
        let per_layer: Shape<'_> = ("per_layer_token_embd.weight", &[512, 256]);
        assert_eq!(names("Q4_0", &choices, &[EMBEDDING, per_layer, OUTPUT_MATRIX, UP]), ["Q8_0", "Q5_0", "Q6_K", "Q4_1"]);
        assert_eq!(names("F16", &choices, &[EMBEDDING, per_layer, OUTPUT_MATRIX, UP]), ["Q8_0", "F16", "F16", "F16"]);
    }

    #[test]
    fn named_types_fall_back_and_taken_ones_do_not() {
        let narrow: Shape<'_> = ("blk.0.ffn_up.weight", &[8, 64]);
        assert_eq!(names("Q4_0", &tensor_types(&["ffn_up=q6_k"]), &[narrow]), ["Q8_0"]);
        let choices = Choices { output_type: format_by_name("q6_k"), ..Choices::default() };
        let error = decide_all("Q4_0", &choices, &[("output.weight", &[8, 64])]).unwrap_err();
        assert!(matches!(error, RecipeError::Shape { option: "--output-tensor-type", cols: 64, .. }), "{error}");
    }

    #[test]
    fn few_bits_need_importance() {
        let values: Shape<'_> = ("blk.0.attn_k.weight", &[512, 256]);
        let needs = |file: &str| {
            let decisions = decide_all(file, &Choices::default(), &[EMBEDDING, values]).unwrap();
            decisions.iter().map(|d| d.needs_importance).collect::<Vec<_>>()
        };
        assert_eq!(needs("Q2_K_S"), [false, true]);
        assert_eq!(needs("Q2_K"), [false, false]);
        assert_eq!(needs("IQ3_XXS"), [false, true]);
        assert_eq!(needs("IQ1_S"), [false, true]);
        assert_eq!(needs("IQ3_S"), [false, false]);
    }

    #[test]
    fn experts_without_a_layer_are_refused() {
        let inputs = ggufsmith_arch::RecipeInputs { n_layer: 2, n_head: 8, n_head_kv: 8, n_expert: 8 };
        let context = Context { arch: "llama", inputs, imatrix: false };
        let decide = |name| {
            let tensor = QuantizeTensor { name, shape: &[8, 64, 256], stored: &formats::f32::FORMAT };
            decide_quantize(by_name("Q4_0").unwrap(), context, &Choices::default(), &[tensor])
        };
        assert!(decide("blk.1.ffn_down_exps.weight").is_ok());
        assert!(matches!(decide("blk.2.ffn_down_exps.weight"), Err(RecipeError::Layer { layers: 2, .. })));
        assert!(matches!(decide("ffn_down_exps.weight"), Err(RecipeError::Layer { .. })));
    }
}
