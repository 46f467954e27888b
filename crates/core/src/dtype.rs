//! How a checkpoint stores elements.

use crate::encoder::Words;
use crate::float;

/// An element type of a source checkpoint, named as safetensors names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the documentation
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// Every source type with its safetensors name and its size in bytes.
const TABLE: &[(DType, &str, usize)] = &[
    (DType::F64, "F64", 8),
    (DType::F32, "F32", 4),
    (DType::F16, "F16", 2),
    (DType::BF16, "BF16", 2),
    (DType::F8E4M3, "F8_E4M3", 1),
    (DType::F8E5M2, "F8_E5M2", 1),
    (DType::I64, "I64", 8),
    (DType::I32, "I32", 4),
    (DType::I16, "I16", 2),
    (DType::I8, "I8", 1),
    (DType::U64, "U64", 8),
    (DType::U32, "U32", 4),
    (DType::U16, "U16", 2),
    (DType::U8, "U8", 1),
    (DType::Bool, "BOOL", 1),
];

impl DType {
    /// Every source type.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }

    /// The type of a safetensors name such as `BF16` or `F8_E4M3`.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The safetensors name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    pub fn bytes(self) -> usize {
        self.row().2
    }

    /// The words that rows of this type are handed on in: itself for F32, F16 and BF16, else F32.
    pub fn words(self) -> Words {
        match self {
            DType::F16 => Words::F16,
            DType::BF16 => Words::BF16,
            _ => Words::F32,
        }
    }

    /// Convert little-endian elements of this type to words ([`DType::words`]), appending to `out`.
    ///
    /// Exact for every type but F64 and 32/64-bit integers, which are rounded to the nearest F32, ties to even
    /// (what `tensor.to(torch.float32)` does). A `bytes` length that is no multiple of [`DType::bytes`] drops the remainder.
    pub fn append_words(self, bytes: &[u8], out: &mut Vec<u8>) {
        fn each<const N: usize>(bytes: &[u8], out: &mut Vec<u8>, to_f32: impl Fn([u8; N]) -> f32) {
            out.reserve(bytes.len() / N * 4);
            for element in bytes.as_chunks::<N>().0 {
                out.extend_from_slice(&to_f32(*element).to_le_bytes());
            }
        }
        match self {
            DType::F32 | DType::F16 | DType::BF16 => out.extend_from_slice(bytes),
            DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            DType::F8E4M3 => each(bytes, out, |[b]| float::f8_e4m3_to_f32(b)),
            DType::F8E5M2 => each(bytes, out, |[b]| float::f8_e5m2_to_f32(b)),
            DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
            DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
            DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
            DType::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
            DType::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
            DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
            DType::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
            DType::U8 => each(bytes, out, |[b]| f32::from(b)),
            DType::Bool => each(bytes, out, |[b]| if b == 0 { 0.0 } else { 1.0 }),
        }
    }

    fn row(self) -> &'static (DType, &'static str, usize) {
        // The table lists the variants in their order; `every_variant_has_its_row` checks it.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_has_its_row() {
        for (index, dtype) in DType::all().enumerate() {
            assert_eq!(dtype as usize, index);
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
    }

    #[test]
    fn integers_and_f64_round_to_nearest_even() {
        let mut out = Vec::new();
        DType::I64.append_words(&16_777_217i64.to_le_bytes(), &mut out);
        DType::F64.append_words(&1e-320f64.to_le_bytes(), &mut out);
        assert_eq!(out[..4], 16_777_216f32.to_le_bytes());
        assert_eq!(out[4..], 0f32.to_le_bytes());
    }
}
