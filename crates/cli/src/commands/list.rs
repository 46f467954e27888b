//! `ggufsmith list`.

use crate::failure::Failure;
use crate::output;
use crate::table::{Align, Table};
use clap::ValueEnum;
use ggufsmith_arch::FAMILIES;
use ggufsmith_convert::recipe::{self, Tool};
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
    file_type: u32,
    bits_per_weight: f64,
    block_elements: usize,
    same_as: &'static str,
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
    let same_as = |tool| match tool {
        Tool::Converter => "convert_hf_to_gguf.py",
        Tool::Quantize => "llama-quantize",
    };
    let of = recipe::writable().iter().map(|recipe| Type {
        name: recipe.name(),
        file_type: recipe.ftype,
        bits_per_weight: recipe.bits_per_weight(),
        block_elements: recipe.format.block_len,
        same_as: same_as(recipe.tool),
    });
    of.collect()
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
            let mut table =
                Table::new([("type", Align::Left), ("bits per weight", Align::Right), ("file equal to that of", Align::Left)]);
            for t in types {
                table.row([t.name.to_owned(), format!("{:.4}", t.bits_per_weight), t.same_as.to_owned()]);
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
}
