//! NF4 and FP4 in GGUF, which has no such types: their values in a type that llama.cpp runs.

use crate::names;
use ggufsmith_convert::Conversion;
use ggufsmith_convert::recipe::FileType;
use ggufsmith_core::formats;
use serde::Serialize;
use std::fmt;

/// What a file holds, beside its type.
#[derive(Debug, Serialize)]
pub struct Values {
    scheme: &'static str,
    block_size: u64,
    double_quant: bool,
    #[serde(skip)]
    carrier_bits: f64,
}

impl Values {
    /// Of a conversion; `None` where its files hold what their types say.
    pub fn of(conversion: &Conversion) -> Option<Self> {
        let rounding = conversion.rounding()?;
        let carrier = conversion.plan.outputs.first().map_or(0.0, |output| output.file_type.bits_per_weight());
        let (scheme, block_size) = (rounding.scheme.name, rounding.block_len);
        Some(Values { scheme, block_size, double_quant: rounding.double, carrier_bits: carrier })
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, small) = (self.scheme, &formats::iq4_nl::FORMAT);
        // A scale of 32 bits per block; quantized ones have one or two sizes less.
        let same = if self.block_size == 64 && !self.double_quant { "the same " } else { "" };
        write!(
            f,
            "{} bits per weight on disk, {scheme} values; for a small file choose {}, which has a smaller error than {scheme} at {same}{} bits",
            self.carrier_bits,
            small.name,
            small.bits_per_weight()
        )
    }
}

/// Why a type carries no values of other schemes.
#[derive(Debug, thiserror::Error)]
#[error("{found} cannot carry NF4's values; {known} can")]
pub struct CarrierError {
    found: String,
    known: String,
}

/// `--nf4-carrier`.
///
/// # Errors
/// [`CarrierError`] for all other types.
pub fn parse(name: &str) -> Result<&'static FileType, CarrierError> {
    let known = [&formats::q8_0::FORMAT, &formats::f16::FORMAT];
    let file_type = names::file_type(name).ok().filter(|file| known.iter().any(|format| **format == *file.format));
    let plain = file_type.filter(|file| file.name() == file.format.name);
    plain.ok_or_else(|| CarrierError { found: name.to_owned(), known: known.map(|format| format.name).join(" and ") })
}

/// The carrier where none is named.
pub fn default() -> Option<&'static FileType> {
    parse(formats::q8_0::FORMAT.name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_types_carry() {
        assert_eq!(parse("f16").unwrap().name(), "F16");
        assert_eq!(default().unwrap().name(), "Q8_0");
        for name in ["Q4_0", "BF16", "F32", "Q4_K_M", "NF4", ""] {
            let error = parse(name).unwrap_err().to_string();
            assert!(error.contains("Q8_0 and F16"), "{error}");
        }
    }
}
