//! Names and shapes of the tensors.

use super::report_alike;
use ggufsmith_arch::Family;
use ggufsmith_arch::expected::{FileSizes, expected_tensors};
use ggufsmith_gguf::{Shards, ggml_shape};
use std::collections::BTreeSet;

/// Every tensor that the sizes ask for is there, with their shape, and no other. (That none is there twice is a rule of the reader.)
pub(super) fn check(shards: &Shards, family: &dyn Family, sizes: &FileSizes, problems: &mut Vec<String>) {
    let arch = family.name();
    let expected = expected_tensors(family, sizes);
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for wanted in &expected {
        match shards.tensor(&wanted.name) {
            None if wanted.required => {
                missing.push(format!("the tensor {} is missing: the architecture {arch} needs it", wanted.name));
            }
            Some(found) if ggml_shape(&found.shape) != ggml_shape(&wanted.shape) => {
                let (name, found, wanted) = (&wanted.name, &found.shape, &wanted.shape);
                misshapen
                    .push(format!("{name} has the shape {found:?}, by the file's keys and vocabulary it must be {wanted:?}"));
            }
            _ => {}
        }
    }
    let known: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
    let unknown = shards.tensors().filter(|tensor| !known.contains(tensor.name.as_str()));
    let unknown =
        unknown.map(|tensor| format!("the tensor {} has no place in the architecture {arch}: llama.cpp refuses it", tensor.name));
    let unknown = unknown.collect();
    report_alike(missing, "missing tensors", problems);
    report_alike(misshapen, "tensors of a wrong shape", problems);
    report_alike(unknown, "tensors without a place", problems);
}
