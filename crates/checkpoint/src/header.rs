//! The header of a safetensors file: 8 bytes of length, JSON, then the tensors' bytes without a gap.

use crate::error::HeaderDefect;
use crate::file::{self, Identity};
use crate::shard::Bytes;
use crate::{CheckpointError, Limits};
use ggufsmith_core::{DType, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Bytes of the length that a file begins with.
const LENGTH_BYTES: u64 = 8;
/// The one key of a header that is no tensor.
const METADATA: &str = "__metadata__";

/// What the header of one safetensors file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsInfo {
    /// Tensors, sorted by name.
    pub tensors: Vec<TensorInfo>,
    /// `__metadata__`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// Read and check the header of a single safetensors file, wherever it lies.
///
/// # Errors
/// [`CheckpointError`] where the file cannot be read, is no regular file or its header does not describe it.
pub fn safetensors_info(path: &Path, limits: &Limits) -> Result<SafetensorsInfo, CheckpointError> {
    let (handle, metadata) = file::open(path, None)?
        .ok_or_else(|| CheckpointError::Io { path: path.into(), source: std::io::ErrorKind::NotFound.into() })?;
    read(path, &Bytes::local(handle, Identity::of(&metadata)), limits)
}

/// As [`safetensors_info`], of an open file.
pub(crate) fn read(path: &Path, file: &Bytes, limits: &Limits) -> Result<SafetensorsInfo, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.into(), source };
    let defect = |offset, defect| CheckpointError::Header { path: path.into(), offset, defect };
    let Some(available) = file.len().checked_sub(LENGTH_BYTES) else {
        return Err(defect(0, HeaderDefect::NoLength { file_bytes: file.len() }));
    };
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0).map_err(io)?;
    let len = u64::from_le_bytes(length);
    if len > limits.header_bytes {
        return Err(defect(0, HeaderDefect::TooLong { len, limit: limits.header_bytes }));
    }
    if len > available {
        return Err(defect(0, HeaderDefect::BeyondFile { len, available }));
    }
    let mut header = vec![0; len as usize];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io)?;
    let data = Data { start: LENGTH_BYTES + len, bytes: available - len };
    let (tensors, metadata) = parse(path, &header, data, limits).map_err(|Located(at, what)| defect(LENGTH_BYTES + at, what))?;
    Ok(SafetensorsInfo { tensors, metadata, file_bytes: file.len() })
}

/// Where the tensors' bytes lie in the file.
#[derive(Clone, Copy)]
struct Data {
    start: u64,
    bytes: u64,
}

/// A defect and its byte offset in the header.
struct Located(u64, HeaderDefect);

impl From<HeaderDefect> for Located {
    /// A defect of the whole header.
    fn from(defect: HeaderDefect) -> Self {
        Located(0, defect)
    }
}

type Parsed = (Vec<TensorInfo>, Vec<(String, String)>);

fn parse(path: &Path, header: &[u8], data: Data, limits: &Limits) -> Result<Parsed, Located> {
    let text = std::str::from_utf8(header).map_err(|e| Located(e.valid_up_to() as u64, HeaderDefect::NotUtf8))?;
    if !text.starts_with('{') {
        return Err(HeaderDefect::NoBrace.into());
    }
    // One more than there may be tensors: `__metadata__` is no tensor.
    let limit = limits.tensors.saturating_add(1);
    let entries: Vec<(String, &RawValue)> = entries(text, limit).map_err(HeaderDefect::Json)?;
    if entries.len() > limit {
        return Err(HeaderDefect::TooManyTensors { limit: limits.tensors }.into());
    }
    let mut metadata = None;
    let mut names = HashSet::with_capacity(entries.len());
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, raw) in entries {
        // `raw` borrows from `text`, so its distance to the start is its offset.
        let at = |defect| Located((raw.get().as_ptr().addr() - text.as_ptr().addr()) as u64, defect);
        if name == METADATA {
            if metadata.replace(read_metadata(raw, limit).map_err(at)?).is_some() {
                return Err(at(HeaderDefect::DuplicateName { tensor: name }));
            }
            continue;
        }
        check_name(&name, limits).map_err(at)?;
        if !names.insert(name.clone()) {
            return Err(at(HeaderDefect::DuplicateName { tensor: name }));
        }
        tensors.push(Entry::read(name, raw, limits).map_err(at)?);
    }
    drop(names);
    if tensors.len() > limits.tensors {
        return Err(HeaderDefect::TooManyTensors { limit: limits.tensors }.into());
    }
    let metadata = metadata.unwrap_or_default();
    tensors.sort_by_key(|entry| (entry.start, entry.end));
    check_layout(&tensors, data.bytes)?;
    check_with_library(&tensors)?;
    let file = PathBuf::from(path);
    let mut tensors: Vec<TensorInfo> = tensors.into_iter().map(|entry| entry.into_info(&file, data.start)).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((tensors, metadata))
}

/// `__metadata__`: a map from string to string.
fn read_metadata(raw: &RawValue, limit: usize) -> Result<Vec<(String, String)>, HeaderDefect> {
    let pairs: Vec<(String, String)> = entries(raw.get(), limit).map_err(HeaderDefect::Metadata)?;
    if pairs.len() > limit {
        return Err(HeaderDefect::TooMuchMetadata { limit });
    }
    let mut keys = HashSet::with_capacity(pairs.len());
    match pairs.iter().find(|(key, _)| !keys.insert(key.as_str())) {
        Some((key, _)) => Err(HeaderDefect::DuplicateMetadata { key: key.clone() }),
        None => Ok(pairs),
    }
}

fn check_name(name: &str, limits: &Limits) -> Result<(), HeaderDefect> {
    let hostile = |what| HeaderDefect::HostileName { tensor: name.to_owned(), what };
    if name.is_empty() {
        return Err(HeaderDefect::EmptyName);
    }
    if name.len() > limits.name_bytes {
        return Err(HeaderDefect::LongName { len: name.len(), limit: limits.name_bytes });
    }
    if name.contains("..") {
        return Err(hostile("'..'"));
    }
    if name.chars().any(char::is_control) {
        return Err(hostile("a control character"));
    }
    Ok(())
}

/// One tensor of the header, checked by itself; positions are in the data.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    start: u64,
    end: u64,
}

/// A tensor's object as it stands in the JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: Dims,
    data_offsets: (u64, u64),
}

/// The first dimensions of a shape, and how many there are: a header's worth of them is not kept.
struct Dims {
    kept: Vec<u64>,
    count: usize,
}

/// Dimensions that are kept of a shape, whatever the limits say.
const MAX_DIMS: usize = 64;

impl Entry {
    fn read(name: String, raw: &RawValue, limits: &Limits) -> Result<Self, HeaderDefect> {
        let raw: RawEntry = match serde_json::from_str(raw.get()) {
            Ok(raw) => raw,
            Err(source) => return Err(HeaderDefect::Entry { tensor: name, source }),
        };
        let (start, end) = raw.data_offsets;
        let Some(dtype) = DType::from_name(&raw.dtype) else {
            let known = DType::all().map(DType::name).collect::<Vec<_>>().join(", ");
            return Err(HeaderDefect::Dtype { tensor: name, dtype: raw.dtype, known });
        };
        let limit = limits.dims.min(MAX_DIMS);
        if raw.shape.count > limit {
            return Err(HeaderDefect::TooManyDims { tensor: name, dims: raw.shape.count, limit });
        }
        let shape = raw.shape.kept;
        // A zero does not excuse the other dimensions: they are multiplied elsewhere.
        let nonzero = shape.iter().filter(|&&dim| dim != 0);
        let bytes = nonzero.copied().try_fold(dtype.bytes() as u64, u64::checked_mul).filter(|&b| i64::try_from(b).is_ok());
        let Some(bytes) = bytes else {
            return Err(HeaderDefect::ShapeOverflow { tensor: name, shape });
        };
        let expected = if shape.contains(&0) { 0 } else { bytes };
        match end.checked_sub(start) {
            None => Err(HeaderDefect::EndBeforeStart { tensor: name, start, end }),
            Some(found) if found != expected => Err(HeaderDefect::ByteCount { tensor: name, expected, found }),
            Some(_) => Ok(Entry { name, dtype, shape, start, end }),
        }
    }

    fn into_info(self, file: &Path, data_start: u64) -> TensorInfo {
        TensorInfo { name: self.name, dtype: self.dtype, shape: self.shape, file: file.into(), offset: data_start + self.start }
    }
}

/// `tensors`, in the order of their bytes, fill the data without gap, overlap or rest.
fn check_layout(tensors: &[Entry], data_bytes: u64) -> Result<(), HeaderDefect> {
    let mut previous: Option<&Entry> = None;
    for entry in tensors {
        let tensor = || entry.name.clone();
        let end = previous.map_or(0, |p| p.end);
        if entry.start > end {
            return Err(HeaderDefect::Hole { tensor: tensor(), from: end, to: entry.start });
        }
        if entry.start < end {
            let other = previous.map(|p| p.name.clone()).unwrap_or_default();
            return Err(HeaderDefect::Overlap { tensor: tensor(), other, start: entry.start, end });
        }
        if entry.end > data_bytes {
            return Err(HeaderDefect::Truncated { tensor: tensor(), end: entry.end, available: data_bytes });
        }
        previous = Some(entry);
    }
    match data_bytes - previous.map_or(0, |p| p.end) {
        0 => Ok(()),
        bytes => Err(HeaderDefect::TrailingBytes { bytes }),
    }
}

/// The library's own verdict on the same tensors: this reader is never laxer.
fn check_with_library(tensors: &[Entry]) -> Result<(), HeaderDefect> {
    use safetensors::tensor::{Metadata, TensorInfo};
    let size = |value: u64| usize::try_from(value).map_err(|_| safetensors::SafeTensorError::ValidationOverflow);
    let convert = |entry: &Entry| {
        let dtype = serde_json::from_value(entry.dtype.name().into())?;
        let shape = entry.shape.iter().copied().map(size).collect::<Result<_, _>>()?;
        Ok((entry.name.clone(), TensorInfo { dtype, shape, data_offsets: (size(entry.start)?, size(entry.end)?) }))
    };
    let converted = tensors.iter().map(convert).collect::<Result<Vec<_>, _>>();
    converted.and_then(|tensors| Metadata::new(None, tensors)).map(drop).map_err(HeaderDefect::Library)
}

/// The entries of a JSON object in file order, duplicates included. At most `limit` + 1 are kept: more is too many.
fn entries<'a, V: Deserialize<'a>>(text: &'a str, limit: usize) -> Result<Vec<(String, V)>, serde_json::Error> {
    struct Collect<V>(usize, PhantomData<V>);
    impl<'a, V: Deserialize<'a>> Visitor<'a> for Collect<V> {
        type Value = Vec<(String, V)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                if entries.len() <= self.0 {
                    entries.push(entry);
                }
            }
            Ok(entries)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries = deserializer.deserialize_map(Collect(limit, PhantomData))?;
    deserializer.end().map(|()| entries)
}

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Dims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Dims { kept: Vec::new(), count: 0 };
                while let Some(dim) = seq.next_element()? {
                    dims.count += 1;
                    if dims.count <= MAX_DIMS {
                        dims.kept.push(dim);
                    }
                }
                Ok(dims)
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}
