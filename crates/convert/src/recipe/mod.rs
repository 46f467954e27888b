//! File types: which format each tensor of a file gets.
//!
//! A file type follows one of the two reference tools. `convert_hf_to_gguf.py --outtype` gives every matrix one format
//! ([`decide_converter`]); `llama-quantize` walks the tensors in its own order and applies rules by name, layer and shape
//! ([`decide_quantize`], after llama-quant.cpp, `llama_tensor_get_type`). One file type is one line of [`RECIPES`].
//!
//! Decisions do not ask whether a format can be written: the plan does, and [`writable`] lists the types all of whose formats can.

mod category;
mod choices;
mod converter;
mod ids;
mod mixture;
mod only;
mod probe;
mod quantize;

pub use choices::{ChoiceError, Choices, TensorType};
pub use converter::decide_converter;
pub use only::{Only, OnlyError};
pub use probe::writable;
pub use quantize::{QuantizeTensor, RecipeError, decide_quantize};

use ggufsmith_arch::RecipeInputs;
use ggufsmith_core::{FORMATS, Format, LAYOUTS};
use ids::{ftype, ggml};
use std::borrow::Cow;

/// Which reference tool writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    /// `convert_hf_to_gguf.py --outtype`: straight from the checkpoint, tensors in the checkpoint's order.
    Converter,
    /// `llama-quantize` on the converter's output: tensors sorted, two metadata keys moved to the end.
    Quantize,
}

/// A value of `--type`.
#[derive(Debug)]
pub struct FileType {
    /// `general.file_type` (`llama_ftype`).
    pub ftype: u32,
    /// The name that llama.cpp and users know, e.g. `Q4_0`.
    name: &'static str,
    /// The format that a matrix gets when no rule says otherwise.
    pub format: &'static Format,
    /// The tool whose files `convert` writes without further choices. Types of the converter can be had from `llama-quantize` too.
    pub tool: Tool,
}

impl FileType {
    /// A type under its format's name.
    const fn plain(ftype: u32, ggml_id: u32, tool: Tool) -> Self {
        let format = format(ggml_id);
        FileType { ftype, name: format.name, format, tool }
    }

    /// A mixture that begins from a format.
    const fn mix(ftype: u32, name: &'static str, ggml_id: u32) -> Self {
        FileType { ftype, name, format: format(ggml_id), tool: Tool::Quantize }
    }

    /// The name that llama.cpp and users know, e.g. `Q4_K_M`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bits per weight that the name promises: those of the blocks of a Llama of 8 billion weights. For types that are no mixtures
    /// that is their format's.
    pub fn bits_per_weight(&self) -> f64 {
        probe::bits_per_weight(self)
    }
}

/// The format with a `ggml_type` id; the tables below are evaluated by the compiler, which refuses unknown ids.
const fn format(ggml_id: u32) -> &'static Format {
    let mut i = 0;
    while i < FORMATS.len() {
        if FORMATS[i].ggml_id == ggml_id {
            return FORMATS[i];
        }
        i += 1;
    }
    let mut i = 0;
    while i < LAYOUTS.len() {
        if LAYOUTS[i].ggml_id == ggml_id {
            return &LAYOUTS[i];
        }
        i += 1;
    }
    panic!("no format has this id")
}

/// Every file type of `llama-quantize`, the plain ones first, then by size.
pub static RECIPES: &[FileType] = &[
    FileType::plain(ftype::F32, ggml::F32, Tool::Converter),
    FileType::plain(ftype::F16, ggml::F16, Tool::Converter),
    FileType::plain(ftype::BF16, ggml::BF16, Tool::Converter),
    FileType::plain(ftype::Q8_0, ggml::Q8_0, Tool::Converter),
    FileType::plain(ftype::Q6_K, ggml::Q6_K, Tool::Quantize),
    FileType::plain(ftype::Q5_1, ggml::Q5_1, Tool::Quantize),
    FileType::plain(ftype::Q5_0, ggml::Q5_0, Tool::Quantize),
    FileType::mix(ftype::Q5_K_M, "Q5_K_M", ggml::Q5_K),
    FileType::mix(ftype::Q5_K_S, "Q5_K_S", ggml::Q5_K),
    FileType::plain(ftype::Q4_1, ggml::Q4_1, Tool::Quantize),
    FileType::plain(ftype::Q4_0, ggml::Q4_0, Tool::Quantize),
    FileType::mix(ftype::Q4_K_M, "Q4_K_M", ggml::Q4_K),
    FileType::mix(ftype::Q4_K_S, "Q4_K_S", ggml::Q4_K),
    FileType::plain(ftype::IQ4_NL, ggml::IQ4_NL, Tool::Quantize),
    FileType::plain(ftype::IQ4_XS, ggml::IQ4_XS, Tool::Quantize),
    FileType::mix(ftype::MXFP4_MOE, "MXFP4_MOE", ggml::MXFP4),
    FileType::mix(ftype::Q3_K_L, "Q3_K_L", ggml::Q3_K),
    FileType::mix(ftype::Q3_K_M, "Q3_K_M", ggml::Q3_K),
    FileType::mix(ftype::Q3_K_S, "Q3_K_S", ggml::Q3_K),
    FileType::mix(ftype::IQ3_M, "IQ3_M", ggml::IQ3_S),
    FileType::plain(ftype::IQ3_S, ggml::IQ3_S, Tool::Quantize),
    FileType::mix(ftype::IQ3_XS, "IQ3_XS", ggml::IQ3_S),
    FileType::plain(ftype::IQ3_XXS, ggml::IQ3_XXS, Tool::Quantize),
    FileType::plain(ftype::Q2_K, ggml::Q2_K, Tool::Quantize),
    FileType::mix(ftype::Q2_K_S, "Q2_K_S", ggml::Q2_K),
    FileType::mix(ftype::IQ2_M, "IQ2_M", ggml::IQ2_S),
    FileType::mix(ftype::IQ2_S, format(ggml::IQ2_S).name, ggml::IQ2_XS), // llama.cpp's own crossing of the two names
    FileType::plain(ftype::IQ2_XS, ggml::IQ2_XS, Tool::Quantize),
    FileType::plain(ftype::IQ2_XXS, ggml::IQ2_XXS, Tool::Quantize),
    FileType::plain(ftype::Q2_0, ggml::Q2_0, Tool::Quantize),
    FileType::plain(ftype::TQ2_0, ggml::TQ2_0, Tool::Converter),
    FileType::plain(ftype::TQ1_0, ggml::TQ1_0, Tool::Converter),
    FileType::plain(ftype::IQ1_M, ggml::IQ1_M, Tool::Quantize),
    FileType::plain(ftype::IQ1_S, ggml::IQ1_S, Tool::Quantize),
    FileType::plain(ftype::Q1_0, ggml::Q1_0, Tool::Quantize),
];

/// `llama-quantize`'s COPY: no type, every tensor stays what it is. In no list of types, since nothing can be converted to it.
pub static COPY: FileType = FileType::mix(ftype::F32, "COPY", ggml::F32);

/// The file type of a name in any case, whether it can be written or not. As in `llama-quantize`, a K format's name stands for its
/// medium mixture where there is no file type of that name.
pub fn by_name(name: &str) -> Option<&'static FileType> {
    let find = |name: &str| RECIPES.iter().find(|recipe| recipe.name.eq_ignore_ascii_case(name));
    find(name).or_else(|| {
        let format = format_by_name(name)?;
        find(&format!("{}_M", format.name)).filter(|recipe| recipe.format == format)
    })
}

/// The tensor type of a name in any case.
pub fn format_by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().chain(LAYOUTS).find(|format| format.name.eq_ignore_ascii_case(name))
}

/// What the rules look at besides the tensors.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `general.architecture`.
    pub arch: &'a str,
    /// Hyper-parameters.
    pub inputs: RecipeInputs,
    /// Whether an importance matrix is used.
    pub imatrix: bool,
}

/// The format of one tensor and the rule that chose it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What the tensor is stored as.
    pub format: &'static Format,
    /// Why, in a few words.
    pub rule: Cow<'static, str>,
    /// Whether `llama-quantize` refuses to write it without importance.
    pub needs_importance: bool,
}

impl Decision {
    fn new(format: &'static Format, rule: impl Into<Cow<'static, str>>) -> Self {
        Decision { format, rule: rule.into(), needs_importance: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        for (i, a) in RECIPES.iter().enumerate() {
            assert!(std::ptr::eq(by_name(&a.name().to_lowercase()).unwrap(), a));
            assert!(RECIPES[i + 1..].iter().all(|b| a.name() != b.name() && a.ftype != b.ftype));
        }
        assert_eq!(RECIPES.len(), 35);
    }

    #[test]
    fn formats_stand_for_their_medium_mixtures() {
        for (alias, name) in [("q3_k", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M"), ("Q2_K", "Q2_K"), ("IQ2_S", "IQ2_S")] {
            assert_eq!(by_name(alias).unwrap().name(), name);
        }
        assert!(by_name("IQ2").is_none() && by_name("Q8_1").is_none() && by_name("NVFP4").is_none());
    }
}
