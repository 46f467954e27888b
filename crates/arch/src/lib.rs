//! Model architectures: one file per family, everything known about it in that file.
//!
//! A [`Family`] takes a config.json and the list of source tensors and says what the GGUF file holds: hyper-parameters in
//! llama.cpp's order, the output tensors in the reference converter's order, each with the expression that makes it.
#![forbid(unsafe_code)]

mod config;
mod error;
mod family;

pub use config::Config;
pub use error::ArchError;
pub use family::{Class, Family, Hparam, Model, OutputTensor, RecipeInputs, VocabRoute};

/// Every family, one line each.
pub static FAMILIES: &[&dyn Family] = &[];

/// The family and class entry for a class name of config.json's `architectures`.
pub fn by_class(name: &str) -> Option<(&'static dyn Family, &'static Class)> {
    FAMILIES.iter().find_map(|family| {
        let class = family.classes().iter().find(|class| class.name == name)?;
        Some((*family, class))
    })
}
