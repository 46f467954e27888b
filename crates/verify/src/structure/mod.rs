//! The file by its own metadata: does it hold together, as llama.cpp reads it? No source is needed.
//!
//! | module | looks at |
//! | --- | --- |
//! | `keys` | the architecture, its hyper-parameters, their types and what they say of each other |
//! | `shapes` | every tensor that the hyper-parameters ask for, its shape, and tensors they do not ask for |
//! | `vocabulary` | tokens, scores, types, merges, special tokens |
//! | `types` | `general.file_type` and `general.quantization_version` against the tensors' types |
//!
//! llama.cpp itself lets some of this pass and reads beyond an array or computes nonsense later; here it is a finding. Scales that are
//! NaN or infinite are found by [`crate::tensors`], which reads the data anyway.

mod keys;
mod shapes;
mod types;
mod vocabulary;

use crate::report::{Check, Status};
use ggufsmith_arch::Family;
use ggufsmith_gguf::{SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS_COUNT, Shards};

/// Findings of one kind that are written out; a broken vocabulary has thousands.
const MAX_ALIKE: usize = 4;

/// Check a model's files. Never reads tensor data.
pub fn check(shards: &Shards) -> Check {
    let mut problems = Vec::new();
    let metadata = shards.metadata();
    let arch = metadata.require::<&str>("general.architecture").map_err(|error| problems.push(error.to_string())).ok();
    let family = arch.and_then(ggufsmith_arch::by_architecture);
    let vocab = vocabulary::check(metadata, &mut problems);
    let mut not_checked = None;
    if let Some(arch) = arch {
        let sizes = keys::check(shards, arch, family, vocab, &mut problems);
        not_checked = match (family, sizes) {
            (None, _) => {
                Some(format!("the architecture {arch:?} is not known here: its tensors' names and shapes were not checked"))
            }
            (Some(family), keys::Sizes::Known(sizes)) => {
                shapes::check(shards, family, &sizes, &mut problems);
                None
            }
            // The keys that are missing or wrong are findings already.
            (Some(_), keys::Sizes::Unknown) => None,
        };
    }
    let note = types::check(shards, &mut problems);
    let skipped = not_checked.is_some();
    agree(shards, &mut problems);
    conclude(shards, family, skipped, not_checked.into_iter().chain(note).collect(), problems)
}

fn conclude(shards: &Shards, family: Option<&dyn Family>, skipped: bool, notes: Vec<String>, problems: Vec<String>) -> Check {
    let (keys, tensors) = (shards.metadata().len(), shards.tensors().count());
    let (status, mut summary) = match (problems.len(), skipped, family) {
        (0, false, Some(family)) => (
            Status::Passed,
            format!("{keys} keys and {tensors} tensors are what llama.cpp needs of the architecture {}", family.name()),
        ),
        (0, ..) => (Status::Skipped, format!("nothing is wrong with {keys} keys and the types of {tensors} tensors")),
        (1, ..) => (Status::Failed, "one thing is wrong with the file by its own metadata".to_owned()),
        (n, ..) => (Status::Failed, format!("{n} things are wrong with the file by its own metadata")),
    };
    for note in notes {
        summary.push_str(&format!("; {note}"));
    }
    Check { name: "structure".to_owned(), status, summary, problems }
}

/// What the first file says, the others must not contradict. Their numbers and counts have been checked when they were opened.
fn agree(shards: &Shards, problems: &mut Vec<String>) {
    let (first, others) = match shards.files() {
        [first, others @ ..] => (first, others),
        [] => return,
    };
    for file in others {
        let own = file.metadata().iter().filter(|(key, _)| ![SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS_COUNT].contains(key));
        let differing: Vec<String> = own
            .filter(|(key, value)| first.metadata().get(key).is_some_and(|first| first != *value))
            .map(|(key, value)| {
                let (a, b) = (first.metadata().get(key).map(|first| first.short(40)).unwrap_or_default(), value.short(40));
                let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("{key} is {a} in {}, {b} in {}", name(first.path()), name(file.path()))
            })
            .collect();
        report_alike(differing, "such keys", problems);
    }
}

/// Add findings that are alike: the first few, and how many more there are.
fn report_alike(found: Vec<String>, what: &str, problems: &mut Vec<String>) {
    let more = found.len().saturating_sub(MAX_ALIKE);
    problems.extend(found.into_iter().take(MAX_ALIKE));
    if more > 0 {
        problems.push(format!("and {more} more {what}"));
    }
}
