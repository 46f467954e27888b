//! `general.file_type` and `general.quantization_version` against the tensors' types.

use ggufsmith_core::{Format, formats};
use ggufsmith_gguf::{GgufTensor, Shards};

/// ggml's `GGML_QNT_VERSION`.
const QUANTIZATION_VERSION: u32 = 2;
/// `LLAMA_FTYPE_GUESSED`: the type was not known to who wrote it.
const GUESSED: u32 = 1024;

/// `LLAMA_FTYPE_MOSTLY_MXFP4_MOE`.
const MXFP4_MOE: u32 = 38;
/// `GGML_TYPE_Q8_0`.
const Q8_0: u32 = 8;

/// A value of `llama_ftype`.
struct FileType {
    ftype: u32,
    /// `llama_ftype_get_default_type`: what a matrix gets when no rule says otherwise.
    ggml_id: u32,
    /// Whether rules give many matrices other types, so that the main one need not have the most weights.
    mixed: bool,
}

const fn one(ftype: u32, ggml_id: u32) -> FileType {
    FileType { ftype, ggml_id, mixed: false }
}

const fn mix(ftype: u32, ggml_id: u32) -> FileType {
    FileType { ftype, ggml_id, mixed: true }
}

/// Every file type of the pinned llama.cpp.
#[rustfmt::skip]
const FILE_TYPES: &[FileType] = &[
    one(0, 0), one(1, 1), one(2, 2), one(3, 3), one(7, 8), one(8, 6), one(9, 7), one(18, 14), one(32, 30),
    mix(10, 10), mix(11, 11), mix(12, 11), mix(13, 11), mix(14, 12), mix(15, 12), mix(16, 13), mix(17, 13), mix(19, 16), mix(20, 17),
    mix(21, 10), mix(22, 21), mix(23, 18), mix(24, 19), mix(25, 20), mix(26, 21), mix(27, 21), mix(28, 17), mix(29, 22), mix(30, 23),
    mix(31, 29), mix(36, 34), mix(37, 35), mix(38, 39), mix(39, 40), mix(40, 41), mix(41, 42),
];

/// What is worth knowing, though nothing is wrong.
pub(super) fn check(shards: &Shards, problems: &mut Vec<String>) -> Option<String> {
    quantization_version(shards, problems);
    match shards.metadata().lookup::<u32>("general.file_type") {
        Err(error) => {
            problems.push(error.to_string());
            None
        }
        Ok(Some(ftype)) if ftype & GUESSED == 0 => file_type(shards, ftype, problems),
        Ok(_) => None,
    }
}

fn quantization_version(shards: &Shards, problems: &mut Vec<String>) {
    const KEY: &str = "general.quantization_version";
    let quantized = shards.tensors().find(|tensor| tensor.format.is_quantized());
    match (shards.metadata().lookup::<u32>(KEY), quantized) {
        (Err(error), _) => problems.push(error.to_string()),
        (Ok(None), Some(tensor)) => {
            let (name, format) = (&tensor.name, tensor.format.name);
            problems.push(format!("the key {KEY} is missing, although {name} is {format}: it must be {QUANTIZATION_VERSION}"));
        }
        (Ok(Some(found)), Some(_)) if found != QUANTIZATION_VERSION => {
            problems.push(format!("{KEY} is {found}, quantized tensors of today's types have {QUANTIZATION_VERSION}"));
        }
        _ => {}
    }
}

fn file_type(shards: &Shards, ftype: u32, problems: &mut Vec<String>) -> Option<String> {
    let known = FILE_TYPES.iter().find(|known| known.ftype == ftype);
    // The type is for experts; without any llama-quantize gives everything its second type.
    let dense = ftype == MXFP4_MOE && shards.tensors().all(|tensor| tensor.shape.len() < 3);
    let main = known.map(|known| if dense { Q8_0 } else { known.ggml_id });
    let Some((known, main)) = known.zip(main.and_then(formats::by_id)) else {
        problems.push(format!("general.file_type is {ftype}, which llama.cpp does not define"));
        return None;
    };
    // Embedding and output matrix get types of their own, and rows that do not divide into blocks get another type.
    let fits = |tensor: &&GgufTensor| is_matrix(tensor) && tensor.cols().is_multiple_of(main.block_len as u64);
    let mut weights: Vec<(&'static Format, u64)> = Vec::new();
    for tensor in shards.tensors().filter(fits) {
        match weights.iter_mut().find(|(format, _)| *format == tensor.format) {
            Some((_, elems)) => *elems += tensor.elems(),
            None => weights.push((tensor.format, tensor.elems())),
        }
    }
    let &(most, _) = weights.iter().rev().max_by_key(|(_, elems)| *elems)?;
    let found = weights.iter().any(|(format, _)| *format == main);
    let (main, most) = (main.name, most.name);
    if !found {
        problems.push(format!(
            "general.file_type is {ftype}, whose main type is {main}, but most weights are {most} and none is {main}"
        ));
    }
    // As `--only` and `--tensor-type` make it.
    (found && most != main && !known.mixed).then(|| {
        format!("general.file_type is {ftype} ({main}), while most weights are {most}: their types were chosen one by one")
    })
}

/// A matrix inside a block that a file's type decides about.
fn is_matrix(tensor: &GgufTensor) -> bool {
    tensor.rows() > 1
        && tensor.name.starts_with("blk.")
        && tensor.name.ends_with(".weight")
        && !tensor.name.ends_with("_norm.weight")
}
