//! Quantization schemes of other libraries than ggml: they have no `ggml_id`, and what they write are several arrays, not blocks.
//!
//! One file per scheme, one line in [`SCHEMES`].

pub mod four_bit;
pub mod nf4;

pub use four_bit::{FourBit, SchemeError};

/// Every scheme.
pub static SCHEMES: &[&FourBit] = &[&nf4::SCHEME];
