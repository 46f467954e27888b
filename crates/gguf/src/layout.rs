//! Where everything goes in a file, before any tensor's data exists.

use crate::encode::{put_metadata, put_string, put_u32, put_u64};
use crate::error::{ErrorKind, LayoutError};
use crate::rules::{self, Placement};
use crate::value::Metadata;
use ggufsmith_core::Format;

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file: at most 63 bytes.
    pub name: String,
    /// At most four dimensions, outermost first (the reverse of ggml's `ne`).
    pub shape: Vec<u64>,
    /// How its elements are stored.
    pub format: &'static Format,
}

/// A tensor with its place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name in the file.
    pub name: String,
    /// Dimensions, outermost first (the reverse of ggml's `ne`); none at all for a scalar.
    pub shape: Vec<u64>,
    /// How its elements are stored.
    pub format: &'static Format,
    /// Where its data starts, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes of data, without the padding behind it.
    pub bytes: u64,
}

impl GgufTensor {
    /// Number of elements; fits `i64`.
    pub fn elems(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Elements per row (ggml's `ne[0]`).
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: elements over [`GgufTensor::cols`].
    pub fn rows(&self) -> u64 {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.bytes / self.rows()
    }
}

/// A whole file, version 3, apart from the tensors' data: the header's bytes, every offset, the total size.
///
/// Its bytes are `header()`, then each tensor's data at its offset, then zeros at every [`Layout::paddings`] range.
/// This is what gguf-py's `GGUFWriter` and ggml's `gguf_write_to_file` write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    header: Vec<u8>,
    tensors: Vec<GgufTensor>,
    file_size: u64,
}

impl Layout {
    /// Place `tensors` in their order behind `metadata`. The alignment is that of the key `general.alignment`, 32 without it.
    ///
    /// # Errors
    /// [`LayoutError`] where a file with these names, values and shapes would be refused by some reader.
    pub fn plan(metadata: &Metadata, tensors: Vec<TensorSpec>) -> Result<Layout, LayoutError> {
        Self::place(metadata, tensors).map_err(LayoutError)
    }

    fn place(metadata: &Metadata, tensors: Vec<TensorSpec>) -> Result<Layout, ErrorKind> {
        metadata.iter().try_for_each(|(key, _)| rules::check_key(key))?;
        let alignment = rules::alignment(metadata)?;
        if let (_, Some(at)) = rules::sort_names(tensors.len(), |i| &tensors[i].name) {
            return Err(ErrorKind::DuplicateTensor { tensor: tensors[at].name.clone() });
        }

        let mut header = Vec::new();
        header.extend_from_slice(&rules::MAGIC);
        put_u32(&mut header, rules::VERSION);
        put_u64(&mut header, tensors.len() as u64);
        put_u64(&mut header, metadata.len() as u64);
        put_metadata(&mut header, metadata);

        let mut placement = Placement::new(alignment);
        let mut placed = Vec::with_capacity(tensors.len());
        for TensorSpec { name, shape, format } in tensors {
            rules::check_tensor_name(&name)?;
            rules::check_shape(&name, &shape)?;
            let bytes = rules::tensor_bytes(&name, &shape, format)?;
            let offset = placement.place(&name, bytes)?;
            put_string(&mut header, &name);
            put_u32(&mut header, shape.len() as u32); // at most 4
            shape.iter().rev().for_each(|&dim| put_u64(&mut header, dim));
            put_u32(&mut header, format.ggml_id);
            put_u64(&mut header, offset);
            placed.push(GgufTensor { name, shape, format, offset, bytes });
        }

        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let data_offset = header.len() as u64;
        let too_large = || ErrorKind::DataSize { tensor: placed.last().map_or_else(String::new, |t| t.name.clone()) };
        let file_size = data_offset.checked_add(placement.end()).filter(|&s| s <= i64::MAX as u64).ok_or_else(too_large)?;
        for tensor in &mut placed {
            tensor.offset += data_offset; // below file_size
        }
        Ok(Layout { header, tensors: placed, file_size })
    }

    /// Everything in front of the tensors' data, its padding included.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Where the tensors' data starts, in bytes; the length of [`Layout::header`].
    pub fn data_offset(&self) -> u64 {
        self.header.len() as u64
    }

    /// The tensors in file order, with offsets from the start of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// Size of the whole file in bytes, the padding after the last tensor included.
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// `(offset, length)` of every range of zeros behind a tensor, in file order; each shorter than the alignment.
    pub fn paddings(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let starts = self.tensors.iter().skip(1).map(|t| t.offset).chain([self.file_size]);
        self.tensors
            .iter()
            .zip(starts)
            .map(|(t, next)| (t.offset + t.bytes, next - t.offset - t.bytes))
            .filter(|&(_, len)| len > 0)
    }
}

/// `shape` (outermost first) as ggml itself stores it: `ggml_n_dims` drops outer dimensions of 1, so a file written by
/// `llama-quantize` has fewer dimensions than the one that gguf-py made from the same tensor.
pub fn ggml_shape(shape: &[u64]) -> &[u64] {
    let ones = shape.iter().take_while(|&&dim| dim == 1).count();
    &shape[ones.min(shape.len().saturating_sub(1))..]
}
