//! Reading fields of untrusted length.

use crate::error::{ErrorKind, GgufError};
use crate::limits::Limits;
use crate::value_type::ValueType;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// What a string is, in messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What<'a> {
    Key,
    ValueOf(&'a str),
    TensorName,
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Key => f.write_str("a key"),
            What::ValueOf(key) => write!(f, "a string in the value of {key:?}"),
            What::TensorName => f.write_str("a tensor name"),
        }
    }
}

/// A reader that knows where it is, how much is left, and how much memory it may still take.
pub(crate) struct Cursor<'a, R> {
    inner: BufReader<R>,
    file: &'a Path,
    pub limits: &'a Limits,
    pub at: u64,
    len: u64,
    charged: u64,
}

/// Bookkeeping of the allocator per allocation.
pub(crate) const ALLOCATION: u64 = 16;

impl<'a, R: Read> Cursor<'a, R> {
    /// `reader` delivers the `len` bytes of `file` (a name for messages) from the start.
    pub fn new(reader: R, len: u64, file: &'a Path, limits: &'a Limits) -> Self {
        Self { inner: BufReader::with_capacity(1 << 16, reader), file, limits, at: 0, len, charged: 0 }
    }

    /// Bytes left in the file.
    pub fn left(&self) -> u64 {
        self.len - self.at
    }

    /// An error at `offset`.
    pub fn error(&self, offset: u64, kind: ErrorKind) -> GgufError {
        GgufError::Format { file: self.file.to_owned(), offset, kind }
    }

    /// Refuse `found` of something when it exceeds `max`.
    pub fn limit(&self, what: &'static str, found: u64, max: u64) -> Result<(), GgufError> {
        if found <= max {
            return Ok(());
        }
        Err(GgufError::Limit { file: self.file.to_owned(), offset: self.at, what, found, max })
    }

    /// Account for memory that is about to be allocated.
    pub fn charge(&mut self, bytes: u64) -> Result<(), GgufError> {
        self.charged = self.charged.saturating_add(bytes);
        self.limit("bytes of memory for the header", self.charged, self.limits.memory_for(self.len))
    }

    /// [`Cursor::charge`] for `count` elements of `T`.
    pub fn charge_for<T>(&mut self, count: u64) -> Result<(), GgufError> {
        self.charge(count.saturating_mul(size_of::<T>() as u64))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), GgufError> {
        self.inner.read_exact(out).map_err(|source| failed(self.file, self.at, source))?;
        self.at += out.len() as u64;
        Ok(())
    }

    fn field<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let (needed, left) = (N as u64, self.left());
        if needed > left {
            return Err(self.error(self.at, ErrorKind::Truncated { what, needed, left }));
        }
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The four bytes at the start of the file.
    pub fn magic(&mut self) -> Result<[u8; 4], GgufError> {
        self.field("the magic number")
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.field(what)?))
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.field(what)?))
    }

    /// One element of fixed size.
    pub fn fixed<const N: usize, T>(&mut self, from: fn([u8; N]) -> T) -> Result<T, GgufError> {
        Ok(from(self.field("a value")?))
    }

    /// A bool, which must be 0 or 1.
    pub fn bool(&mut self, key: &str) -> Result<bool, GgufError> {
        let at = self.at;
        match self.field::<1>("a value")?[0] {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(self.error(at, ErrorKind::BoolByte { key: key.to_owned(), byte })),
        }
    }

    /// A string of at most `max` bytes.
    pub fn string(&mut self, what: What<'_>, max: u64) -> Result<String, GgufError> {
        let at = self.at;
        let len = self.u64("the length of a string")?;
        if len > self.left() {
            let left = self.left();
            return Err(self.error(at, ErrorKind::StringLength { what: what.to_string(), len, left }));
        }
        self.limit("bytes in one string", len, max)?;
        self.charge(len + ALLOCATION)?;
        let mut bytes = vec![0; len as usize]; // `len` is within the memory limit
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.error(at + 8, ErrorKind::NotUtf8 { what: what.to_string() }))
    }

    /// The length of an array of `element`, which has been checked against the file and the limits.
    pub fn array_len(&mut self, key: &str, element: ValueType) -> Result<u64, GgufError> {
        let at = self.at;
        let len = self.u64("the length of an array")?;
        let possible = self.left() / element.min_bytes();
        if len > possible {
            return Err(self.error(at, ErrorKind::ArrayLength { key: key.to_owned(), len, possible }));
        }
        self.limit("elements in one array", len, self.limits.array_len)?;
        Ok(len)
    }

    /// `len` elements of `N` bytes each; [`Cursor::array_len`] has checked `len`.
    pub fn words<const N: usize, T>(&mut self, len: u64, from: fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        self.charge_for::<T>(len)?;
        let mut out = Vec::with_capacity(len as usize); // within the memory limit
        while (out.len() as u64) < len {
            let wanted = (len as usize - out.len()).saturating_mul(N);
            // Whole elements straight from the read buffer; one that straddles its end is read on its own.
            let buffered = self.inner.fill_buf().map_err(|source| failed(self.file, self.at, source))?;
            let (elements, _) = buffered[..buffered.len().min(wanted)].as_chunks::<N>();
            if elements.is_empty() {
                out.push(from(self.field("an array")?));
                continue;
            }
            let count = elements.len();
            out.extend(elements.iter().map(|&bytes| from(bytes)));
            self.inner.consume(count * N);
            self.at += (count * N) as u64;
        }
        Ok(out)
    }
}

fn failed(file: &Path, offset: u64, source: io::Error) -> GgufError {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::UnexpectedEof => GgufError::Shrunk { file, offset },
        _ => GgufError::Io { file, offset, source },
    }
}
