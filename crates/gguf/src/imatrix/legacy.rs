//! The form that `llama-imatrix` wrote before GGUF (`common_imatrix_load_legacy`), all integers i32, little-endian:
//!
//! ```text
//! number of entries
//!   per entry: bytes of the name, the name, number of calls, number of values, the values as F32
//! then, in all but the oldest files: number of chunks, bytes of the dataset's name, the name
//! ```
//!
//! The values are sums over calls of mean squares: the importance is value over calls.

use super::{F32_BYTES, Imatrix, ImatrixError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

struct Reader<'a> {
    path: &'a Path,
    inner: BufReader<File>,
    at: u64,
    len: u64,
}

impl Reader<'_> {
    fn fault(&self, what: impl Into<String>) -> ImatrixError {
        ImatrixError::Legacy { file: self.path.to_owned(), offset: self.at, what: what.into() }
    }

    /// The next `len` bytes; what is allocated is no more than what is left of the file.
    fn bytes(&mut self, len: u64, what: &str) -> Result<Vec<u8>, ImatrixError> {
        let left = self.len - self.at;
        if len > left {
            return Err(self.fault(format!("{what} takes {len} bytes, {left} are left")));
        }
        let mut bytes = vec![0; len as usize];
        self.inner.read_exact(&mut bytes).map_err(|source| ImatrixError::Io { file: self.path.to_owned(), source })?;
        self.at += len;
        Ok(bytes)
    }

    fn number(&mut self, what: &str) -> Result<i32, ImatrixError> {
        let bytes = self.bytes(4, what)?;
        Ok(bytes.try_into().map_or(0, i32::from_le_bytes)) // four bytes, as asked for
    }

    /// A length or count that must be positive.
    fn length(&mut self, what: &str) -> Result<u64, ImatrixError> {
        match u64::try_from(self.number(what)?) {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(self.fault(format!("{what} is not positive"))),
        }
    }

    /// A string, which ends at a zero byte as C's do.
    fn string(&mut self, len: u64, what: &str) -> Result<String, ImatrixError> {
        let mut bytes = self.bytes(len, what)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        String::from_utf8(bytes).map_err(|_| self.fault(format!("{what} is not UTF-8")))
    }
}

pub(super) fn read(path: &Path) -> Result<Imatrix, ImatrixError> {
    let fault = |source| ImatrixError::Io { file: path.to_owned(), source };
    let file = File::open(path).map_err(fault)?;
    let len = file.metadata().map_err(fault)?.len();
    let mut reader = Reader { path, inner: BufReader::new(file), at: 0, len };
    let count = reader.length("the number of entries")?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let name = reader.length("the length of a name")?;
        let name = reader.string(name, "a name")?;
        let calls = reader.number("a number of calls")?;
        let values = reader.length("a number of values")?;
        let values = reader.bytes(values * F32_BYTES, "an entry")?;
        let mut values: Vec<f32> = values.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        if calls > 0 {
            // As C converts it: i64 to f32.
            values.iter_mut().for_each(|value| *value /= calls as f32);
        }
        entries.insert(name, values);
    }
    let (mut chunks, mut datasets) = (0, Vec::new());
    if reader.at < reader.len {
        chunks = u32::try_from(reader.number("the number of chunks")?).unwrap_or(0);
        if reader.at < reader.len
            && let Ok(len @ 1..) = u64::try_from(reader.number("the length of the dataset's name")?)
        {
            datasets.push(reader.string(len, "the dataset's name")?);
        }
    }
    Ok(Imatrix { entries, datasets, chunks })
}
