//! What a valid file looks like: the checks and the arithmetic that reader and writer share.

use crate::error::ErrorKind;
use crate::value::{Metadata, Value};
use ggufsmith_core::Format;

/// First bytes of every file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub(crate) const VERSION: u32 = 3;
/// Alignment of tensor data where `general.alignment` does not say otherwise, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that changes it.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// Largest alignment in bytes. A rule of ours: header and padding are held in memory, and 32 is what everybody uses.
pub(crate) const MAX_ALIGNMENT: u32 = 1 << 20;
/// Longest tensor name in bytes (ggml's `GGML_MAX_NAME` less the terminating NUL).
const MAX_TENSOR_NAME: usize = 63;
/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
pub(crate) const MAX_DIMS: usize = 4;
/// Longest key in bytes (GGUF specification).
pub(crate) const MAX_KEY: usize = 65535;

/// Round up to a multiple of `alignment`, a power of two. `None` on overflow.
pub(crate) fn pad(bytes: u64, alignment: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(alignment)
}

/// A key: printable ASCII, neither empty nor too long.
pub(crate) fn check_key(key: &str) -> Result<(), ErrorKind> {
    if key.is_empty() {
        return Err(ErrorKind::EmptyKey);
    }
    if key.len() > MAX_KEY {
        return Err(ErrorKind::KeyLength { len: key.len() as u64 });
    }
    if !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(ErrorKind::KeyCharacters { key: key.to_owned() });
    }
    Ok(())
}

/// A tensor's name: what fits ggml's NUL-terminated 64 bytes unchanged.
pub(crate) fn check_tensor_name(name: &str) -> Result<(), ErrorKind> {
    if name.is_empty() {
        return Err(ErrorKind::EmptyTensorName);
    }
    if name.len() > MAX_TENSOR_NAME {
        return Err(ErrorKind::TensorNameLength { len: name.len() as u64 });
    }
    if name.contains('\0') {
        return Err(ErrorKind::TensorNameNul { name: name.to_owned() });
    }
    Ok(())
}

/// The alignment that the metadata asks for.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, ErrorKind> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(found)) if found.is_power_of_two() && *found <= MAX_ALIGNMENT => Ok(u64::from(*found)),
        Some(Value::U32(found)) => Err(ErrorKind::AlignmentValue { found: *found }),
        Some(other) => Err(ErrorKind::AlignmentType { found: other.type_name() }),
    }
}

/// Dimensions that ggml can hold; `shape` in either order.
pub(crate) fn check_shape(tensor: &str, shape: &[u64]) -> Result<(), ErrorKind> {
    if shape.len() > MAX_DIMS {
        return Err(ErrorKind::DimensionCount { tensor: tensor.to_owned(), found: shape.len() as u64 });
    }
    let mut elems = 1_u64;
    for &dim in shape {
        if dim == 0 {
            return Err(ErrorKind::ZeroDimension { tensor: tensor.to_owned() });
        }
        if dim > i64::MAX as u64 {
            return Err(ErrorKind::NegativeDimension { tensor: tensor.to_owned(), found: dim });
        }
        elems = elems
            .checked_mul(dim)
            .filter(|&e| e <= i64::MAX as u64)
            .ok_or_else(|| ErrorKind::ElementCount { tensor: tensor.to_owned(), shape: shape.to_vec() })?;
    }
    Ok(())
}

/// Bytes of a tensor whose shape (outermost dimension first) has passed [`check_shape`].
pub(crate) fn tensor_bytes(tensor: &str, shape: &[u64], format: &'static Format) -> Result<u64, ErrorKind> {
    let row = shape.last().copied().unwrap_or(1);
    let block_len = format.block_len as u64;
    if row % block_len != 0 {
        return Err(ErrorKind::RowLength { tensor: tensor.to_owned(), format: format.name, row, block_len });
    }
    format.bytes_for(shape.iter().product()).ok_or_else(|| ErrorKind::DataSize { tensor: tensor.to_owned() })
}

/// Where the next tensor's data goes: each directly behind the padding of the one before it.
#[derive(Debug)]
pub(crate) struct Placement {
    alignment: u64,
    next: u64,
}

impl Placement {
    pub(crate) fn new(alignment: u64) -> Self {
        Self { alignment, next: 0 }
    }

    /// Offset of a tensor of `bytes` bytes, counted from the start of the data. The data stays below 2^63 bytes.
    pub(crate) fn place(&mut self, tensor: &str, bytes: u64) -> Result<u64, ErrorKind> {
        let at = self.next;
        self.next = pad(bytes, self.alignment)
            .and_then(|padded| at.checked_add(padded))
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or_else(|| ErrorKind::DataSize { tensor: tensor.to_owned() })?;
        Ok(at)
    }

    /// Bytes of data so far, padding included.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }
}

/// Positions of `names` in the order of the names, and the first position that repeats an earlier name.
pub(crate) fn sort_names<'a>(count: usize, name: impl Fn(usize) -> &'a str) -> (Vec<u32>, Option<usize>) {
    // Counts are limited far below 2^32 by the bytes that each name takes.
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_unstable_by(|&a, &b| name(a as usize).cmp(name(b as usize)).then(a.cmp(&b)));
    let repeated =
        order.windows(2).filter(|pair| name(pair[0] as usize) == name(pair[1] as usize)).map(|pair| pair[1] as usize).min();
    (order, repeated)
}
