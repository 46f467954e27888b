//! A reference forward pass: F32 arithmetic on the CPU, one row tile of weights at a time.
#![forbid(unsafe_code)]

pub mod beam;
pub mod generate;
pub mod sampling;
#[cfg(test)]
mod toy;
