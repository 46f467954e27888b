//! What the recipes need to know, from a file's own metadata: for any architecture, known to us or not.

use super::RequantizeError;
use super::overrides::Overridden;
use crate::plan::FILE_TYPE_KEY;
use crate::recipe;
use ggufsmith_arch::RecipeInputs;
use ggufsmith_core::Format;
use ggufsmith_gguf::{Array, GgufTensor, LookupError, Value};

/// `general.architecture` of projectors for images and sound (mmproj files), which have no layers that rules could count.
const CLIP: &str = "clip";
/// Marks a file type that llama.cpp had to guess (`LLAMA_FTYPE_GUESSED`).
const GUESSED: u32 = 1024;
/// `ggml_type` and `llama_ftype` of the one format that has a file type although `llama-quantize` does not write it.
const NVFP4: (u32, u32) = (40, 39);

/// `general.architecture`.
///
/// # Errors
/// [`RequantizeError::Key`] where there is none.
pub(super) fn architecture(keys: &Overridden<'_>) -> Result<String, RequantizeError> {
    let key = "general.architecture";
    match keys.text(key) {
        Some(text) => Ok(text.to_owned()),
        None => Ok(keys.metadata.require::<&str>(key).map_err(|error| keys.fault(error))?.to_owned()),
    }
}

/// The hyper-parameters that `llama-quantize` reads (`llama_model_base::load_hparams`).
///
/// # Errors
/// [`RequantizeError::Key`] where the number of layers is missing, or a key is of another type.
pub(super) fn recipe_inputs(keys: &Overridden<'_>, arch: &str) -> Result<RecipeInputs, RequantizeError> {
    if arch == CLIP {
        return Ok(RecipeInputs::default());
    }
    let key = |name: &str| format!("{arch}.{name}");
    let optional = |name: &str| number(keys, &key(name));
    let blocks = optional("block_count")?.ok_or_else(|| keys.fault(LookupError::Missing { key: key("block_count") }))?;
    let n_layer = match arch {
        // Layers that are run several times count each time; the adapters' router counts as a layer.
        "nanbeige" => blocks.saturating_mul(optional("num_loops")?.unwrap_or(1)),
        "graniteswitch" => blocks.saturating_sub(optional("nextn_predict_layers")?.unwrap_or(0)).saturating_add(1),
        _ => blocks,
    };
    let n_head = optional("attention.head_count")?.unwrap_or(0);
    let n_head_kv = optional("attention.head_count_kv")?.unwrap_or(n_head);
    Ok(RecipeInputs { n_layer, n_head, n_head_kv, n_expert: optional("expert_count")?.unwrap_or(0) })
}

/// The file type that a copy keeps: what the file says, else that of most of its tensors, marked as guessed. `tensors` in the order
/// of the walk: of formats that occur equally often the one that was first to reach that number counts.
///
/// # Errors
/// [`RequantizeError::Key`] where the file's own type is no u32.
pub(super) fn file_type_of_copy<'a>(
    keys: &Overridden<'_>,
    tensors: impl Iterator<Item = &'a GgufTensor>,
) -> Result<u32, RequantizeError> {
    if let Some(found) = number(keys, FILE_TYPE_KEY)? {
        return Ok(found);
    }
    let mut counts: Vec<(&Format, u32)> = Vec::new();
    let mut most: Option<(&Format, u32)> = None;
    for tensor in tensors {
        let at = counts.iter().position(|(format, _)| *format == tensor.format).unwrap_or_else(|| {
            counts.push((tensor.format, 0));
            counts.len() - 1
        });
        counts[at].1 += 1;
        if most.is_none_or(|(_, count)| counts[at].1 > count) {
            most = Some(counts[at]);
        }
    }
    let guess = match most {
        Some((format, _)) if format.ggml_id == NVFP4.0 => NVFP4.1,
        // MXFP4 is not among the formats that are guessed.
        Some((format, _)) => recipe::by_name(format.name).map_or(0, |file_type| file_type.ftype),
        None => 0,
    };
    Ok(GUESSED | guess)
}

/// A key as u32; of one value per layer the first layer's.
fn number(keys: &Overridden<'_>, key: &str) -> Result<Option<u32>, RequantizeError> {
    let wrong =
        |found: &Value| keys.fault(LookupError::WrongType { key: key.to_owned(), expected: "u32", found: found.type_name() });
    let value = keys.metadata.get(key);
    match value {
        Some(Value::Array(Array::U32(values))) => return Ok(values.first().copied()),
        Some(Value::Array(Array::I32(values))) => return Ok(values.first().map(|&value| u32::try_from(value).unwrap_or(0))),
        Some(array @ Value::Array(_)) => return Err(wrong(array)),
        _ => {}
    }
    if let Some(number) = keys.int(key) {
        return match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(RequantizeError::Number { key: key.to_owned(), found: number }),
        };
    }
    match value {
        None => Ok(None),
        Some(Value::U32(number)) => Ok(Some(*number)),
        Some(other) => Err(wrong(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::KeyOverride;
    use super::*;
    use ggufsmith_core::formats;
    use ggufsmith_gguf::Metadata;
    use std::path::Path;

    fn metadata(keys: &[(&str, Value)]) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.extend(keys.iter().cloned());
        metadata
    }

    fn inputs(keys: &[(&str, Value)], overrides: &[&str]) -> Result<RecipeInputs, RequantizeError> {
        let metadata = metadata(keys);
        let overrides: Vec<KeyOverride> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let keys = Overridden { file: Path::new("x.gguf"), metadata: &metadata, overrides: &overrides };
        recipe_inputs(&keys, &architecture(&keys)?)
    }

    #[test]
    fn hyper_parameters_have_the_defaults_of_llama_cpp() {
        let all = [
            ("general.architecture", "x".into()),
            ("x.block_count", 12u32.into()),
            ("x.attention.head_count", vec![8u32, 4].into()),
            ("x.attention.head_count_kv", vec![2i32, 1].into()),
            ("x.expert_count", 8u32.into()),
        ];
        let expected = |n_layer, n_head, n_head_kv, n_expert| RecipeInputs { n_layer, n_head, n_head_kv, n_expert };
        assert_eq!(inputs(&all, &[]).unwrap(), expected(12, 8, 2, 8));
        assert_eq!(inputs(&all[..3], &[]).unwrap(), expected(12, 8, 8, 0));
        assert_eq!(inputs(&all[..2], &[]).unwrap(), expected(12, 0, 0, 0));
        assert_eq!(inputs(&[("general.architecture", "clip".into())], &[]).unwrap(), expected(0, 0, 0, 0));
        // Overrides count where their type is right; the first of a key does.
        let overridden = inputs(&all, &["x.expert_count=int:4", "x.expert_count=int:5", "x.block_count=str:9"]).unwrap();
        assert_eq!(overridden, expected(12, 8, 2, 4));
        let loops = [
            ("general.architecture", "nanbeige".into()),
            ("nanbeige.block_count", 6u32.into()),
            ("nanbeige.num_loops", 2u32.into()),
        ];
        assert_eq!(inputs(&loops, &[]).unwrap().n_layer, 12);
    }

    #[test]
    fn missing_and_mistyped_keys_are_named() {
        let text = |result: Result<RecipeInputs, RequantizeError>| result.unwrap_err().to_string();
        assert!(text(inputs(&[], &[])).contains("general.architecture"));
        assert!(text(inputs(&[("general.architecture", "x".into())], &[])).contains("x.block_count"));
        let wrong = [("general.architecture", "x".into()), ("x.block_count", "12".into())];
        assert!(text(inputs(&wrong, &[])).contains("x.block_count"));
        assert!(text(inputs(&wrong, &["x.block_count=int:-2"])).contains("-2"));
    }

    #[test]
    fn a_copy_keeps_or_guesses_the_file_type() {
        let tensor = |format| GgufTensor { name: String::new(), shape: vec![256], format, offset: 0, bytes: 0 };
        let tensors = [&formats::f32::FORMAT, &formats::q4_k::FORMAT, &formats::q4_k::FORMAT, &formats::f32::FORMAT].map(tensor);
        let of = |keys: &[(&str, Value)], tensors: &[GgufTensor]| {
            let metadata = metadata(keys);
            let keys = Overridden { file: Path::new("x.gguf"), metadata: &metadata, overrides: &[] };
            file_type_of_copy(&keys, tensors.iter()).unwrap()
        };
        assert_eq!(of(&[(FILE_TYPE_KEY, 7u32.into())], &tensors), 7);
        assert_eq!(of(&[], &tensors), 1024 + 15, "Q4_K was first to occur twice");
        assert_eq!(of(&[], &tensors[..1]), 1024);
        assert_eq!(of(&[], &[tensor(&formats::mxfp4::FORMAT)]), 1024);
        assert_eq!(of(&[], &[tensor(&formats::nvfp4::FORMAT)]), 1024 + 39);
    }
}
