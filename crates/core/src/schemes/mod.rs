//! The registry of schemes of other libraries than ggml: one file per scheme, one line here.

use crate::scheme::FourBit;

pub mod nf4;

/// Every scheme.
pub static SCHEMES: &[&FourBit] = &[&nf4::SCHEME];
