//! Names that users type: file types, and what they may have meant.

use ggufsmith_arch::{FAMILIES, nearest};
use ggufsmith_convert::recipe::{self, FileType};
use ggufsmith_core::{FORMATS, Format, LAYOUTS, formats};

/// Every name that `llama-quantize` takes, so that one which cannot be written yet is not called unknown.
const LLAMA_CPP_TYPES: &str = include_str!("llama-cpp-types.txt");

/// A name that is no file type which can be written.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TypeNameError {
    /// `llama-quantize` knows it.
    #[error("llama.cpp has this type, ggufsmith cannot write it yet; it writes {0}")]
    NotYet(String),
    /// `convert_hf_to_gguf.py --outtype auto`.
    #[error("what `auto` would choose depends on the source; name the type: {0}")]
    Auto(String),
    /// Nobody knows it.
    #[error("no such type{0}; there are {1}")]
    Unknown(String, String),
}

/// The file type of a name in any case.
///
/// # Errors
/// [`TypeNameError`], which offers the nearest names.
pub fn file_type(name: &str) -> Result<&'static FileType, TypeNameError> {
    let writable = recipe::writable();
    if let Some(file_type) = recipe::by_name(name).filter(|found| writable.iter().any(|known| known.ftype == found.ftype)) {
        return Ok(file_type);
    }
    let names: Vec<&str> = writable.iter().map(|file_type| file_type.name()).collect();
    if name.eq_ignore_ascii_case("auto") {
        return Err(TypeNameError::Auto(names.join(", ")));
    }
    if LLAMA_CPP_TYPES.lines().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(TypeNameError::NotYet(names.join(", ")));
    }
    let near = nearest(name, names.iter().copied());
    let offer = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
    Err(TypeNameError::Unknown(offer, names.join(", ")))
}

/// As [`file_type`], types too that can be planned and not written.
///
/// # Errors
/// [`TypeNameError`], which offers the nearest names.
pub fn planned_file_type(name: &str) -> Result<&'static FileType, TypeNameError> {
    recipe::by_name(name).map_or_else(|| file_type(name), Ok)
}

/// The tensor type of a name in any case: what `--tensor-type` and the like take.
///
/// # Errors
/// [`TypeNameError`], which offers the nearest names.
pub fn format(name: &str) -> Result<&'static Format, TypeNameError> {
    let all = || FORMATS.iter().copied().chain(LAYOUTS);
    let names: Vec<&str> = all().filter(|format| formats::encoder_of(format).is_some()).map(|format| format.name).collect();
    match recipe::format_by_name(name) {
        Some(format) if names.contains(&format.name) => Ok(format),
        Some(_) => Err(TypeNameError::NotYet(names.join(", "))),
        None => {
            let near = nearest(name, names.iter().copied());
            let offer = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
            Err(TypeNameError::Unknown(offer, names.join(", ")))
        }
    }
}

/// The class that stands for an architecture (`llama`), or the class of that name.
///
/// # Errors
/// What there is, the nearest names first.
pub fn class(name: &str) -> Result<String, String> {
    let family = FAMILIES.iter().find(|family| family.name() == name);
    if let Some(class) =
        family.and_then(|family| family.classes().first()).or(ggufsmith_arch::by_class(name).map(|(_, class)| class))
    {
        return Ok(class.name.to_owned());
    }
    let all = || FAMILIES.iter().map(|family| family.name());
    let near = nearest(name, all().chain(ggufsmith_arch::class_names()));
    let offer = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
    Err(format!("no such architecture{offer}; there are {}", all().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_types_are_formats_that_can_be_written() {
        assert_eq!(format("q6_K").unwrap().name, "Q6_K");
        assert!(matches!(format("q8_1"), Err(TypeNameError::NotYet(offer)) if offer.contains("Q8_0")));
        assert!(matches!(format("q4_k_m"), Err(TypeNameError::Unknown(..))), "a mixture is no tensor type");
    }

    #[test]
    fn architectures_and_classes() {
        assert_eq!(class("llama").as_deref(), Ok("LlamaForCausalLM"));
        assert_eq!(class("MistralForCausalLM").as_deref(), Ok("MistralForCausalLM"));
        let error = class("lama").unwrap_err();
        assert!(error.contains("did you mean llama") && error.contains("qwen3moe"), "{error}");
    }

    #[test]
    fn every_recipe_is_found_in_any_case() {
        for recipe in recipe::writable() {
            assert_eq!(file_type(&recipe.name().to_lowercase()).unwrap().name(), recipe.name());
            assert!(LLAMA_CPP_TYPES.lines().any(|line| line == recipe.name()), "{} is not llama-quantize's", recipe.name());
        }
    }

    #[test]
    fn errors_tell_apart_what_is_missing_and_what_is_wrong() {
        for name in LLAMA_CPP_TYPES.lines() {
            assert!(planned_file_type(name).is_ok() || file_type(name).is_err(), "{name}");
        }
        assert!(planned_file_type("xyzzy").is_err());
        for name in LLAMA_CPP_TYPES.lines().filter(|name| file_type(name).is_err()) {
            assert!(matches!(file_type(name), Err(TypeNameError::NotYet(_))), "{name}");
        }
        let offers_all = |offer: &str| recipe::writable().iter().all(|r| offer.contains(r.name()));
        assert!(matches!(file_type("xyzzy"), Err(TypeNameError::Unknown(near, offer)) if near.is_empty() && offers_all(&offer)));
        let meant = recipe::writable().iter().map(|file_type| file_type.name()).find(|name| name.contains('_')).unwrap();
        let near = file_type(&meant.replace('_', "")).unwrap_err();
        assert!(matches!(&near, TypeNameError::Unknown(near, _) if near.contains(meant)), "{near}");
        assert!(matches!(file_type("AUTO"), Err(TypeNameError::Auto(offer)) if offers_all(&offer)));
    }
}
