//! The Hugging Face Hub: models are read from it and verified files published to it.
//!
//! The library prints nothing and reads no environment: the caller hands in token, endpoint and cache.
#![forbid(unsafe_code)]

pub mod stream;
