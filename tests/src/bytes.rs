//! GGUF and safetensors files put together byte by byte, so that any part of one may be wrong. The counterpart of [`crate::gguf`],
//! which writes whole files from sound parts.

/// `-1` as a length or count.
pub const MINUS_ONE: u64 = u64::MAX;

/// `gguf_metadata_value_type`.
pub mod kind {
    #![allow(missing_docs, reason = "the format's own names")]
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// A file under construction; numbers are little-endian.
#[derive(Debug, Clone, Default)]
pub struct RawFile(pub Vec<u8>);

impl RawFile {
    /// The head of a GGUF file: magic, version 3, counts.
    pub fn head(tensors: u64, keys: u64) -> Self {
        Self::versioned(3, tensors, keys)
    }

    /// The head of a GGUF file of any version.
    pub fn versioned(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Four bytes.
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// A string of GGUF: its length, its bytes.
    pub fn text(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).raw(text)
    }

    /// A key and the type of its value.
    pub fn key(self, key: impl AsRef<[u8]>, value_type: u32) -> Self {
        self.text(key).u32(value_type)
    }

    /// A key whose value is an array of `len` elements, which are to follow.
    pub fn array(self, key: impl AsRef<[u8]>, element_type: u32, len: u64) -> Self {
        self.key(key, kind::ARRAY).u32(element_type).u64(len)
    }

    /// A key with a `u32`.
    pub fn u32_key(self, key: &str, value: u32) -> Self {
        self.key(key, kind::U32).u32(value)
    }

    /// What describes a tensor: `dims` innermost first, as GGUF has them.
    pub fn tensor_of(self, name: impl AsRef<[u8]>, dims: &[u64], ggml_type: u32, offset: u64) -> Self {
        let head = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(head, |file, &dim| file.u64(dim)).u32(ggml_type).u64(offset)
    }

    /// The same of type F32.
    pub fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], offset: u64) -> Self {
        self.tensor_of(name, dims, 0, offset)
    }

    /// So many zeros.
    pub fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// Zeros up to a multiple of 32.
    pub fn pad(self) -> Self {
        let len = self.0.len();
        self.zeros(len.next_multiple_of(32) - len)
    }
}

/// A safetensors file of this header, its length as `len` says (or its own), and so many bytes of data.
pub fn safetensors(header: impl AsRef<[u8]>, len: Option<u64>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    RawFile::default().u64(len.unwrap_or(header.len() as u64)).raw(header).zeros(data).0
}
