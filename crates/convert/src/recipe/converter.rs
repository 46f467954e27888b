//! The rules of `convert_hf_to_gguf.py` (`ModelBase.prepare_tensors`).

use super::category::{OUTPUT, PER_LAYER_EMBEDDING, TOKEN_EMBEDDING};
use super::ids::ftype;
use super::{Decision, FileType};
use ggufsmith_core::formats;

/// What the converter stores a tensor as: vectors and norms F32, matrices the file's format, F16 where rows do not divide into
/// blocks or where a ternary file has its embedding or head. `cols` is the innermost dimension.
pub fn decide_converter(file: &FileType, name: &str, keep_f32: bool, cols: u64) -> Decision {
    if keep_f32 {
        return Decision::new(&formats::f32::FORMAT, "vector, norm or bias stays F32");
    }
    let ternary = matches!(file.ftype, ftype::TQ1_0 | ftype::TQ2_0);
    let special = matches!(name, TOKEN_EMBEDDING | PER_LAYER_EMBEDDING | OUTPUT)
        || ["altup_router", "laurel_l.", "laurel_r."].iter().any(|part| name.contains(part));
    if ternary && special {
        Decision::new(&formats::f16::FORMAT, "embedding or head of a ternary file: F16")
    } else if cols.is_multiple_of(file.format.block_len as u64) {
        Decision::new(file.format, "file type")
    } else {
        Decision::new(&formats::f16::FORMAT, "rows do not divide into blocks: F16")
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_name;
    use super::*;

    #[test]
    fn ternary_files_keep_their_embedding() {
        let decide = |file: &str, name: &str, cols| decide_converter(by_name(file).unwrap(), name, false, cols).format.name;
        for file in ["TQ1_0", "TQ2_0"] {
            assert_eq!(decide(file, "token_embd.weight", 256), "F16");
            assert_eq!(decide(file, "output.weight", 256), "F16");
            assert_eq!(decide(file, "blk.0.attn_output.weight", 256), file);
            assert_eq!(decide(file, "blk.0.attn_output.weight", 576), "F16");
        }
        assert_eq!(decide("Q8_0", "token_embd.weight", 576), "Q8_0");
        assert_eq!(decide("Q8_0", "token_embd.weight", 36), "F16");
    }
}
