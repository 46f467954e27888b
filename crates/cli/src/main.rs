//! The `ggufsmith` binary.
fn main() {}
