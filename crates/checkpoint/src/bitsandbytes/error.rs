//! What can be wrong with a quantized tensor of bitsandbytes.

use ggufsmith_core::DType;

/// A tensor of a bitsandbytes checkpoint that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BitsandbytesDefect {
    #[error("its state tensor {state:?} is missing: the checkpoint is incomplete")]
    MissingState { state: String },
    #[error("it belongs to {weight:?}, which is missing: the checkpoint is incomplete")]
    MissingWeight { weight: String },
    #[error("it has two descriptions, {first:?} and {second:?}")]
    TwoStates { first: String, second: String },
    #[error("{state:?} has the element type {}, {expected} is needed", found.name())]
    Dtype { state: String, found: DType, expected: &'static str },
    #[error("{state:?} has the shape {found:?}, {expected:?} is needed")]
    Shape { state: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("{found} bytes of codes, {elems} elements in codes of 4 bits take {expected}")]
    Codes { elems: u64, found: u64, expected: u64 },
    #[error("its quant_state is {bytes} bytes long, at most {limit} are read")]
    LongState { bytes: u64, limit: u64 },
    #[error("its quant_state is not UTF-8 (byte {offset})")]
    StateNotUtf8 { offset: usize },
    #[error("its quant_state is not JSON: {0}")]
    StateJson(String),
    #[error("{key:?} of its quant_state is {found}; {expected} is needed")]
    StateValue { key: &'static str, found: String, expected: &'static str },
    #[error("the quantization type {found:?} is not known; known are {known}")]
    QuantType { found: String, known: String },
    #[error("{state:?} is not the table of {quant_type}: entry {code} is {found}, {expected} is needed")]
    Map { state: String, quant_type: &'static str, code: usize, found: f32, expected: f32 },
    #[error("its int8 weight format is {found}; only 0 (row) is read: load it with bitsandbytes and save it anew")]
    WeightFormat { found: u8 },
}
