//! The contract of a ggml tensor type.

/// One ggml tensor type: how it stores blocks of elements and how they decode.
#[derive(Debug)]
pub struct Format {
    /// `ggml_type`, as stored in GGUF tensor infos.
    pub ggml_id: u32,
    /// ggml's name in capitals, e.g. `Q4_K`.
    pub name: &'static str,
    /// Elements per block; a row of a tensor holds a whole number of blocks.
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// What [`Format::decode`] calls; none where it is not ported yet.
    pub decode: Option<DecodeFn>,
}

/// Decode whole blocks; lengths have been checked by [`Format::decode`].
pub type DecodeFn = fn(blocks: &[u8], out: &mut [f32]);

/// Why blocks could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecodeError {
    #[error("{bytes} bytes of {format} do not hold {elems} elements")]
    Length { format: &'static str, bytes: usize, elems: usize },
    #[error("{format} cannot be decoded yet")]
    NotYet { format: &'static str },
}

impl Format {
    /// Bytes that `elems` elements take; `None` when they are no whole number of blocks, or on overflow.
    pub fn bytes_for(&self, elems: u64) -> Option<u64> {
        if !elems.is_multiple_of(self.block_len as u64) {
            return None;
        }
        (elems / self.block_len as u64).checked_mul(self.block_bytes as u64)
    }

    /// Bits per element.
    pub fn bits_per_weight(&self) -> f64 {
        self.block_bytes as f64 * 8.0 / self.block_len as f64
    }

    /// Whether blocks are a shared scale with codes, as opposed to plain floats.
    pub fn is_quantized(&self) -> bool {
        self.block_len > 1
    }

    /// Decode whole blocks to `out.len()` elements, as ggml's `dequantize_row_*` does.
    ///
    /// # Errors
    /// [`DecodeError`] where the lengths do not belong together, or the format is one of [`crate::LAYOUTS`].
    pub fn decode(&self, blocks: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
        if self.bytes_for(out.len() as u64) != Some(blocks.len() as u64) {
            return Err(DecodeError::Length { format: self.name, bytes: blocks.len(), elems: out.len() });
        }
        let decode = self.decode.ok_or(DecodeError::NotYet { format: self.name })?;
        decode(blocks, out);
        Ok(())
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.ggml_id == other.ggml_id
    }
}
impl Eq for Format {}
