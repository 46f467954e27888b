//! `ggufsmith list`.

use crate::failure::Failure;
use crate::output;
use crate::table::{Align, Table};
use clap::ValueEnum;
use ggufsmith_arch::FAMILIES;
use ggufsmith_convert::recipe::{self, RECIPES, Tool};
use ggufsmith_core::{Encoder, FORMATS, Rows, Words, formats};
use ggufsmith_tokenizer as tokenizer;
use serde::Serialize;

/// Show what is supported: types, architectures, pre-tokenizers
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to show [default: everything]
    #[arg(value_enum)]
    what: Option<What>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Values of `convert --type`
    Types,
    /// Model classes that can be converted
    Architectures,
    /// Values of `convert --pre`
    PreTokenizers,
}

#[derive(Debug, Default, Serialize)]
struct Lists {
    #[serde(skip_serializing_if = "Option::is_none")]
    types: Option<Vec<Type>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<Architecture>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_tokenizers: Option<&'static [&'static str]>,
}

#[derive(Debug, Serialize)]
struct Type {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_type: Option<u32>,
    bits_per_weight: f64,
    block_elements: usize,
    /// Whether it can be written; one that cannot is read, inspected and verified.
    encode: bool,
    /// The block format of it that has a kernel for GPUs; mixtures hold others too.
    gpu_kernel: Option<&'static str>,
    /// Whether an importance matrix changes its bytes.
    importance: bool,
    /// Whether it can be read back.
    decode: bool,
    /// The tool whose files ours equal.
    same_as: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Architecture {
    name: &'static str,
    classes: Vec<&'static str>,
}

impl Arguments {
    /// Print the lists.
    pub fn run(&self) -> Result<(), Failure> {
        let wanted = |what| self.what.is_none_or(|only| only == what);
        let lists = Lists {
            types: wanted(What::Types).then(types),
            architectures: wanted(What::Architectures).then(architectures),
            pre_tokenizers: wanted(What::PreTokenizers).then(|| tokenizer::pre_tokenizers()),
        };
        if self.json { output::json(&lists) } else { output::data(&lists.text(self.what.is_none())) }
    }
}

fn types() -> Vec<Type> {
    let writable = recipe::writable();
    let known = RECIPES.iter().filter(|recipe| !writable.iter().any(|other| other.ftype == recipe.ftype));
    let of = writable.iter().copied().chain(known).map(|recipe| {
        let encoder = formats::encoder_of(recipe.format);
        let encode = writable.iter().any(|other| other.ftype == recipe.ftype);
        let tool = match recipe.tool {
            Tool::Converter => "convert_hf_to_gguf.py",
            Tool::Quantize => "llama-quantize",
        };
        Type {
            name: recipe.name(),
            file_type: Some(recipe.ftype),
            bits_per_weight: recipe.bits_per_weight(),
            block_elements: recipe.format.block_len,
            encode,
            gpu_kernel: encoder.filter(|_| encode).and_then(gpu_kernel),
            importance: encoder.is_none_or(uses_importance),
            decode: FORMATS.contains(&recipe.format),
            same_as: encode.then_some(tool),
        }
    });
    of.chain(schemes()).collect()
}

/// Types of safetensors directories.
fn schemes() -> impl Iterator<Item = Type> {
    super::convert::schemes().into_iter().map(|(name, bits_per_weight, block_elements, same_as)| Type {
        name,
        file_type: None,
        bits_per_weight,
        block_elements,
        encode: true,
        // The kernels of the 4-bit ones are not called by `convert` yet.
        gpu_kernel: None,
        importance: false,
        decode: true,
        same_as,
    })
}

#[cfg(feature = "gpu")]
fn gpu_kernel(encoder: &Encoder) -> Option<&'static str> {
    ggufsmith_gpu::Kernel::of(encoder, false).map(ggufsmith_gpu::Kernel::name)
}

#[cfg(not(feature = "gpu"))]
fn gpu_kernel(_encoder: &Encoder) -> Option<&'static str> {
    None
}

/// Whether importance changes what is written: asked of the encoder itself, with a row that has room for another choice.
fn uses_importance(encoder: &Encoder) -> bool {
    const COLS: u16 = 256;
    let values = (0..COLS).map(|i| f32::from(i * 97 % 256) / 64.0 - 2.0 + f32::from(i % 7) / 10.0);
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let importance: Vec<f32> = (0..COLS).map(|i| if i % 5 == 0 { 100.0 } else { 1.0 }).collect();
    let rows = Rows { words: Words::F32, cols: COLS.into(), bytes: &bytes };
    let written = |importance: Option<&[f32]>| {
        let mut out = vec![0; encoder.format.bytes_for(COLS.into())?.try_into().ok()?];
        encoder.encode(rows, importance, &mut out).ok()?;
        Some(out)
    };
    written(None) != written(Some(&importance))
}

fn architectures() -> Vec<Architecture> {
    let of = |family: &&dyn ggufsmith_arch::Family| Architecture {
        name: family.name(),
        classes: family.classes().iter().map(|class| class.name).collect(),
    };
    FAMILIES.iter().map(of).collect()
}

impl Lists {
    fn text(&self, headings: bool) -> String {
        let mut sections = Vec::new();
        if let Some(types) = &self.types {
            let mut table = Table::new([
                ("type", Align::Left),
                ("bits per weight", Align::Right),
                ("writes", Align::Left),
                ("GPU", Align::Left),
                ("imatrix", Align::Left),
                ("reads", Align::Left),
                ("file equal to that of", Align::Left),
            ]);
            let yes = |yes: bool| if yes { "yes" } else { "-" }.to_owned();
            for t in types {
                let (gpu, same_as) = (t.gpu_kernel.unwrap_or("-").to_owned(), t.same_as.unwrap_or("-").to_owned());
                let bits = format!("{:.4}", t.bits_per_weight);
                table.row([t.name.to_owned(), bits, yes(t.encode), gpu, yes(t.importance), yes(t.decode), same_as]);
            }
            sections.push(("types", table.text()));
        }
        if let Some(architectures) = &self.architectures {
            let mut table = Table::new([("architecture", Align::Left), ("classes (architectures in config.json)", Align::Left)]);
            for a in architectures {
                table.row([a.name.to_owned(), a.classes.join(", ")]);
            }
            sections.push(("architectures", table.text()));
        }
        if let Some(names) = &self.pre_tokenizers {
            sections.push(("pre-tokenizers", names.iter().map(|name| format!("{name}\n")).collect()));
        }
        let section = |(heading, text): &(&str, String)| {
            if !headings {
                return text.clone();
            }
            let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
            format!("{heading}\n{indented}")
        };
        sections.iter().map(section).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_the_registries() {
        let lists = Lists { types: Some(types()), architectures: Some(architectures()), pre_tokenizers: None };
        let text = lists.text(true);
        for name in recipe::writable().iter().map(|r| r.name()).chain(ggufsmith_arch::class_names()) {
            assert!(text.contains(name), "{name}");
        }
        assert!(text.starts_with("types\n  type "), "{text}");
    }

    #[test]
    fn encoders_say_whether_importance_counts() {
        assert!(uses_importance(&formats::q4_0::ENCODER) && uses_importance(&formats::q6_k::ENCODER));
        assert!(!uses_importance(&formats::q8_0::ENCODER) && !uses_importance(&formats::f16::ENCODER));
    }
}
