//! The registry of schemes of other libraries than ggml: one file per scheme, for a scheme of sixteen values one line here.

use crate::scheme::FourBit;

pub mod dynamic8;
pub mod fp4;
pub mod int8;
pub mod int8_absmax;
pub mod int8_affine;
pub mod nf4;

/// Every scheme of sixteen values.
pub static SCHEMES: &[&FourBit] = &[&nf4::SCHEME, &fp4::SCHEME];
