//! The contract of an encoder.

use crate::format::Format;

/// The word types that encoders read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Words {
    F32,
    F16,
    BF16,
}

impl Words {
    /// Bytes per word.
    pub fn bytes(self) -> usize {
        match self {
            Words::F32 => 4,
            Words::F16 | Words::BF16 => 2,
        }
    }
}

/// Whole matrix rows as raw little-endian words, `[rows, cols]`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The type of each word.
    pub words: Words,
    /// Elements per row.
    pub cols: usize,
    /// `rows * cols` words; need not be aligned.
    pub bytes: &'a [u8],
}

impl Rows<'_> {
    /// Number of elements.
    pub fn elems(&self) -> usize {
        self.bytes.len() / self.words.bytes()
    }
}

/// Why rows could not be encoded. All of them are faults of the caller: data never makes an encoder fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum EncodeError {
    #[error("rows of {cols} elements do not divide into blocks of {block_len} ({format})")]
    RowLength { format: &'static str, cols: usize, block_len: usize },
    #[error("{format} needs {expected} output bytes for {elems} elements, the buffer holds {found}")]
    OutputLength { format: &'static str, elems: usize, expected: usize, found: usize },
    #[error("the input is {bytes} bytes, no whole number of rows of {cols} elements")]
    InputLength { bytes: usize, cols: usize },
    #[error("{format} needs an importance matrix")]
    ImportanceMissing { format: &'static str },
    #[error("the importance vector has {found} entries for rows of {cols} elements")]
    ImportanceLength { cols: usize, found: usize },
}

/// One way to write a format. `ggml` is the default way: the bytes of `ggml_quantize_chunk` (baseline x86-64, no contraction).
#[derive(Debug)]
pub struct Encoder {
    /// `ggml`, or the name of an alternative rounding.
    pub name: &'static str,
    /// What it writes.
    pub format: &'static Format,
    /// Whether [`Encoder::encode`] refuses to run without importance.
    pub needs_importance: bool,
    /// The fast implementation. Lengths have been checked. `importance` has `cols` entries, shared by all rows.
    pub fast: EncodeFn,
    /// The textbook implementation, the definition of what `fast` must write.
    pub textbook: EncodeFn,
}

/// Encode rows into blocks; input and output lengths have been checked by [`Encoder::encode`].
pub type EncodeFn = fn(rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]);

impl Encoder {
    /// Encode whole rows. `out` takes exactly [`Format::bytes_for`]`(rows.elems())` bytes.
    ///
    /// # Errors
    /// [`EncodeError`] where a length does not fit; the data itself never makes it fail.
    pub fn encode(&self, rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), EncodeError> {
        self.check(rows, importance, out)?;
        (self.fast)(rows, importance, out);
        Ok(())
    }

    /// As [`Encoder::encode`], with the textbook implementation.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_textbook(&self, rows: Rows<'_>, importance: Option<&[f32]>, out: &mut [u8]) -> Result<(), EncodeError> {
        self.check(rows, importance, out)?;
        (self.textbook)(rows, importance, out);
        Ok(())
    }

    /// Whether the lengths belong together: what [`Encoder::encode`] checks before it encodes.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn check(&self, rows: Rows<'_>, importance: Option<&[f32]>, out: &[u8]) -> Result<(), EncodeError> {
        let Format { name: format, block_len, .. } = *self.format;
        let cols = rows.cols;
        if cols == 0 || !cols.is_multiple_of(block_len) {
            return Err(EncodeError::RowLength { format, cols, block_len });
        }
        if !rows.bytes.len().is_multiple_of(cols * rows.words.bytes()) {
            return Err(EncodeError::InputLength { bytes: rows.bytes.len(), cols });
        }
        let elems = rows.elems();
        let expected = elems / block_len * self.format.block_bytes;
        if out.len() != expected {
            return Err(EncodeError::OutputLength { format, elems, expected, found: out.len() });
        }
        match importance {
            None if self.needs_importance => Err(EncodeError::ImportanceMissing { format }),
            Some(i) if i.len() != cols => Err(EncodeError::ImportanceLength { cols, found: i.len() }),
            _ => Ok(()),
        }
    }
}
