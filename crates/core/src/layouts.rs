//! ggml's other tensor types: how much room they take, so that any file of llama.cpp can be looked at.
//!
//! Porting one means a file in [`crate::formats`]; its line here goes then.

use crate::format::Format;

/// Every type of the pinned ggml that is not in [`crate::FORMATS`], by `ggml_id`, with the sizes of ggml.c's `type_traits`. None of
/// them can be decoded.
pub static LAYOUTS: &[Format] = &[
    layout(9, "Q8_1", 32, 36),
    layout(15, "Q8_K", 256, 292),
    layout(24, "I8", 1, 1),
    layout(25, "I16", 1, 2),
    layout(26, "I32", 1, 4),
    layout(27, "I64", 1, 8),
    layout(28, "F64", 1, 8),
];

const fn layout(ggml_id: u32, name: &'static str, block_len: usize, block_bytes: usize) -> Format {
    Format { ggml_id, name, block_len, block_bytes, decode: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DecodeError;
    use crate::formats::{FORMATS, by_id};

    #[test]
    fn each_id_and_name_is_there_once() {
        assert!(LAYOUTS.is_sorted_by(|a, b| a.ggml_id < b.ggml_id));
        let mut all: Vec<&Format> = FORMATS.iter().copied().chain(LAYOUTS).collect();
        all.sort_by_key(|format| format.ggml_id);
        for pair in all.windows(2) {
            assert!(pair[0].ggml_id < pair[1].ggml_id && pair[0].name != pair[1].name, "{}", pair[0].name);
        }
        assert!(all.iter().all(|format| by_id(format.ggml_id).is_some_and(|found| found.name == format.name)));
        // 43 ids, of which ggml has removed eight.
        assert_eq!((all.len(), by_id(4).is_none(), by_id(43).is_none()), (35, true, true));
    }

    #[test]
    fn decoding_is_refused() {
        assert!(FORMATS.iter().all(|format| format.decode.is_some()));
        for format in LAYOUTS {
            let (blocks, mut out) = (vec![0; format.block_bytes], vec![0.0; format.block_len]);
            assert_eq!(format.decode(&blocks, &mut out), Err(DecodeError::NotYet { format: format.name }));
        }
    }
}
