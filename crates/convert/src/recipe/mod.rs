//! File types: which format each tensor of a file gets.
//!
//! A file type follows one of the two reference tools. `convert_hf_to_gguf.py --outtype` gives every matrix one format;
//! `llama-quantize` walks the tensors in its own order and applies rules by name, layer and shape (llama-quant.cpp,
//! `llama_tensor_get_type`). One file type is one line of [`RECIPES`].

mod rules;

use ggufsmith_arch::RecipeInputs;
use ggufsmith_core::{Format, formats};
pub use rules::{Decision, QuantizeTensor, decide_converter, decide_quantize};

/// Which reference tool writes this file type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The name; `None` where it is the format's own.
    mix: Option<&'static str>,
    /// The format that a matrix gets when no rule says otherwise.
    pub format: &'static Format,
    /// The tool whose files it equals.
    pub tool: Tool,
}

impl FileType {
    const fn plain(ftype: u32, format: &'static Format, tool: Tool) -> Self {
        FileType { ftype, mix: None, format, tool }
    }

    /// The name that llama.cpp and users know, e.g. `Q4_0`.
    pub fn name(&self) -> &'static str {
        self.mix.unwrap_or(self.format.name)
    }
}

/// Every file type that can be written.
pub static RECIPES: &[FileType] = &[
    FileType::plain(0, &formats::f32::FORMAT, Tool::Converter),
    FileType::plain(1, &formats::f16::FORMAT, Tool::Converter),
    FileType::plain(32, &formats::bf16::FORMAT, Tool::Converter),
    FileType::plain(7, &formats::q8_0::FORMAT, Tool::Converter),
    FileType::plain(2, &formats::q4_0::FORMAT, Tool::Quantize),
    FileType::plain(3, &formats::q4_1::FORMAT, Tool::Quantize),
    FileType::plain(8, &formats::q5_0::FORMAT, Tool::Quantize),
    FileType::plain(9, &formats::q5_1::FORMAT, Tool::Quantize),
    FileType::plain(18, &formats::q6_k::FORMAT, Tool::Quantize),
];

/// The file type of a name in any case.
pub fn by_name(name: &str) -> Option<&'static FileType> {
    RECIPES.iter().find(|recipe| recipe.name().eq_ignore_ascii_case(name))
}

/// What the rules look at besides the tensors.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `general.architecture`.
    pub arch: &'a str,
    /// Hyper-parameters.
    pub inputs: RecipeInputs,
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
    }
}
