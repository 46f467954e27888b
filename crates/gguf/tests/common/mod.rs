//! Files put together byte by byte.
#![allow(dead_code)] // every test file uses some of it

use ggufsmith_gguf::{ErrorKind, GgufError, Header, Limits};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// `-1` as a length or count.
pub const MINUS_ONE: u64 = u64::MAX;

/// Numbers of the value types.
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;

/// A file under construction.
#[derive(Debug, Clone, Default)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Magic, version 3, counts.
    pub fn head(tensors: u64, keys: u64) -> Self {
        Self::versioned(3, tensors, keys)
    }

    pub fn versioned(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn text(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).raw(text)
    }

    /// A key and the type of its value.
    pub fn key(self, key: impl AsRef<[u8]>, value_type: u32) -> Self {
        self.text(key).u32(value_type)
    }

    pub fn u32_key(self, key: &str, value: u32) -> Self {
        self.key(key, U32).u32(value)
    }

    /// A tensor info with ggml's dimensions, innermost first.
    pub fn tensor_of(self, name: impl AsRef<[u8]>, dims: &[u64], id: u32, offset: u64) -> Self {
        let head = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(head, |b, &d| b.u64(d)).u32(id).u64(offset)
    }

    /// The same of type F32.
    pub fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], offset: u64) -> Self {
        self.tensor_of(name, dims, 0, offset)
    }

    pub fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub fn pad(self) -> Self {
        let len = self.0.len();
        self.zeros(len.next_multiple_of(32) - len)
    }

    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

pub fn read(bytes: &[u8]) -> Result<Header, GgufError> {
    Header::read(Cursor::new(bytes), Path::new("t.gguf"), &Limits::default())
}

/// The defect of a file that must not be accepted, and its offset.
pub fn defect(file: &Bytes) -> (u64, ErrorKind) {
    match read(file.bytes()) {
        Err(GgufError::Format { offset, kind, .. }) => (offset, kind),
        other => panic!("{other:?}"),
    }
}

/// A file with every value type and three tensors.
pub fn valid() -> Bytes {
    let mut file = Bytes::head(3, 14).key("general.architecture", STRING).text("llama");
    for (value_type, width) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)] {
        file = file.key(format!("scalar.{value_type}"), value_type).raw(&[1, 2, 3, 4, 5, 6, 7, 8][..width]);
    }
    file.key("array.text", ARRAY)
        .u32(STRING)
        .u64(3)
        .text("a")
        .text("")
        .text("é")
        .key("array.f32", ARRAY)
        .u32(6)
        .u64(2)
        .zeros(8)
        .tensor("a.weight", &[4, 3], 0)
        .tensor("b.weight", &[8], 64)
        .tensor("c.weight", &[1], 96)
        .pad()
        .zeros(128)
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}
