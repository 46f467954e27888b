//! The reader: everything in front of the tensors' data.

use crate::cursor::{ALLOCATION, Cursor, What};
use crate::error::{ErrorKind, GgufError};
use crate::layout::GgufTensor;
use crate::limits::Limits;
use crate::rules::{self, Placement};
use crate::value::{Array, Metadata, Value};
use crate::value_type::ValueType;
use ggufsmith_core::{Format, formats};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Every key and every tensor info begins with a length.
const LENGTH_BYTES: u64 = 8;
/// The fewest bytes that a key with its value takes: length, one character, type, one byte.
const MIN_KEY_BYTES: u64 = LENGTH_BYTES + 1 + 4 + 1;
/// The fewest bytes that a tensor info takes: length, one character, number of dimensions, type, offset.
const MIN_TENSOR_BYTES: u64 = LENGTH_BYTES + 1 + 4 + 4 + 8;
/// `ggml_type` ids that were once assigned and are refused by ggml today.
const REMOVED_TYPES: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

/// The header of a GGUF file of version 2 or 3: metadata, and every tensor with its place.
///
/// Reading is strict: a file that any known reader refuses is refused, and so are files that only happen to work (dimensions of
/// 0, bools other than 0 and 1, text that is not UTF-8, bytes behind the last tensor). Reading never panics, allocates no more
/// than [`Limits`] say, and takes time proportional to the bytes of the header, sorting of names apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    version: u32,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    /// Positions in `tensors`, ordered by name.
    by_name: Vec<u32>,
    alignment: u64,
    data_offset: u64,
    file_size: u64,
}

impl Header {
    /// Read a header. `reader` holds one whole file (its length is asked for, its data is not read); `file` names it in messages.
    ///
    /// # Errors
    /// [`GgufError`] with the file and the offset of the defect.
    pub fn read(mut reader: impl Read + Seek, file: &Path, limits: &Limits) -> Result<Header, GgufError> {
        let io = |source| GgufError::Io { file: file.to_owned(), offset: 0, source };
        let len = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.rewind().map_err(io)?;
        let mut cursor = Cursor::new(reader, len, file, limits);

        let version = read_version(&mut cursor)?;
        let (tensor_count, key_count) = read_counts(&mut cursor)?;
        let (metadata, alignment) = read_metadata(&mut cursor, key_count)?;
        let (mut tensors, by_name, data_bytes) = read_tensors(&mut cursor, tensor_count, alignment)?;
        let data_offset = check_size(&cursor, &tensors, alignment, data_bytes)?;
        for tensor in &mut tensors {
            tensor.offset += data_offset; // inside the file, as check_size has found
        }
        Ok(Header { version, metadata, tensors, by_name, alignment, data_offset, file_size: len })
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values in file order.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Tensors in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        let at = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[at] as usize])
    }

    /// Alignment of the tensors' data in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensors' data starts, in bytes; in a file without tensors, where its header ends.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        self.file_size
    }
}

fn read_version<R: Read>(cursor: &mut Cursor<'_, R>) -> Result<u32, GgufError> {
    let found = cursor.magic()?;
    if found != rules::MAGIC {
        return Err(cursor.error(0, ErrorKind::BadMagic { found }));
    }
    let at = cursor.at;
    match cursor.u32("the version")? {
        version @ 2..=rules::VERSION => Ok(version),
        // Small numbers of a big-endian file have their bits at the other end.
        version if version != 0 && version & 0xffff == 0 => Err(cursor.error(at, ErrorKind::BigEndian)),
        version => Err(cursor.error(at, ErrorKind::UnsupportedVersion { version })),
    }
}

fn read_counts<R: Read>(cursor: &mut Cursor<'_, R>) -> Result<(u64, u64), GgufError> {
    let at = cursor.at;
    let tensors = cursor.u64("the number of tensors")?;
    let keys = cursor.u64("the number of keys")?;
    // A count far too large is a defect of its own; what is slightly too large ends in a key or tensor that is cut short.
    let possible = cursor.left() / LENGTH_BYTES;
    if tensors > possible {
        return Err(cursor.error(at, ErrorKind::TensorCount { found: tensors, possible }));
    }
    if keys > possible {
        return Err(cursor.error(at + 8, ErrorKind::KeyCount { found: keys, possible }));
    }
    cursor.limit("tensors", tensors, cursor.limits.tensors)?;
    cursor.limit("keys", keys, cursor.limits.keys)?;
    Ok((tensors, keys))
}

fn read_metadata<R: Read>(cursor: &mut Cursor<'_, R>, count: u64) -> Result<(Metadata, u64), GgufError> {
    let room = count.min(cursor.left() / MIN_KEY_BYTES);
    // Also the positions of the keys and their order by name.
    cursor.charge_for::<((String, Value), u64, u32)>(room)?;
    let mut pairs = Vec::with_capacity(room as usize); // within the memory limit
    let mut places = Vec::with_capacity(room as usize);
    let mut alignment_at = cursor.at;
    for _ in 0..count {
        let at = cursor.at;
        let key = cursor.string(What::Key, cursor.limits.string_bytes)?;
        rules::check_key(&key).map_err(|kind| cursor.error(at, kind))?;
        if key == rules::ALIGNMENT_KEY {
            alignment_at = cursor.at;
        }
        let value = read_value(cursor, &key)?;
        pairs.push((key, value));
        places.push(at);
    }
    if let (_, Some(again)) = rules::sort_names(pairs.len(), |i| &pairs[i].0) {
        return Err(cursor.error(places[again], ErrorKind::DuplicateKey { key: pairs[again].0.clone() }));
    }
    let metadata = Metadata::from_unique(pairs);
    let alignment = rules::alignment(&metadata).map_err(|kind| cursor.error(alignment_at, kind))?;
    Ok((metadata, alignment))
}

fn read_type<R: Read>(cursor: &mut Cursor<'_, R>, key: &str) -> Result<ValueType, GgufError> {
    let at = cursor.at;
    let id = cursor.u32("the type of a value")?;
    ValueType::from_id(id).ok_or_else(|| cursor.error(at, ErrorKind::ValueType { key: key.to_owned(), id }))
}

fn read_value<R: Read>(cursor: &mut Cursor<'_, R>, key: &str) -> Result<Value, GgufError> {
    Ok(match read_type(cursor, key)? {
        ValueType::U8 => Value::U8(cursor.fixed(u8::from_le_bytes)?),
        ValueType::I8 => Value::I8(cursor.fixed(i8::from_le_bytes)?),
        ValueType::U16 => Value::U16(cursor.fixed(u16::from_le_bytes)?),
        ValueType::I16 => Value::I16(cursor.fixed(i16::from_le_bytes)?),
        ValueType::U32 => Value::U32(cursor.fixed(u32::from_le_bytes)?),
        ValueType::I32 => Value::I32(cursor.fixed(i32::from_le_bytes)?),
        ValueType::F32 => Value::F32(cursor.fixed(f32::from_le_bytes)?),
        ValueType::Bool => Value::Bool(cursor.bool(key)?),
        ValueType::String => Value::String(cursor.string(What::ValueOf(key), cursor.limits.string_bytes)?),
        ValueType::Array => Value::Array(read_array(cursor, key)?),
        ValueType::U64 => Value::U64(cursor.fixed(u64::from_le_bytes)?),
        ValueType::I64 => Value::I64(cursor.fixed(i64::from_le_bytes)?),
        ValueType::F64 => Value::F64(cursor.fixed(f64::from_le_bytes)?),
    })
}

fn read_array<R: Read>(cursor: &mut Cursor<'_, R>, key: &str) -> Result<Array, GgufError> {
    let at = cursor.at;
    let element = read_type(cursor, key)?;
    if element == ValueType::Array {
        return Err(cursor.error(at, ErrorKind::NestedArray { key: key.to_owned() }));
    }
    let len = cursor.array_len(key, element)?;
    Ok(match element {
        ValueType::U8 => Array::U8(cursor.words(len, u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(cursor.words(len, i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(cursor.words(len, u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(cursor.words(len, i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(cursor.words(len, u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(cursor.words(len, i32::from_le_bytes)?),
        ValueType::F32 => Array::F32(cursor.words(len, f32::from_le_bytes)?),
        ValueType::Bool => {
            cursor.charge_for::<bool>(len)?;
            let mut bools = Vec::with_capacity(len as usize); // within the memory limit
            for _ in 0..len {
                bools.push(cursor.bool(key)?);
            }
            Array::Bool(bools)
        }
        ValueType::String => {
            cursor.charge_for::<String>(len)?;
            let mut strings = Vec::with_capacity(len as usize); // within the memory limit
            for _ in 0..len {
                strings.push(cursor.string(What::ValueOf(key), cursor.limits.string_bytes)?);
            }
            Array::String(strings)
        }
        ValueType::U64 => Array::U64(cursor.words(len, u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(cursor.words(len, i64::from_le_bytes)?),
        ValueType::F64 => Array::F64(cursor.words(len, f64::from_le_bytes)?),
        ValueType::Array => return Err(cursor.error(at, ErrorKind::NestedArray { key: key.to_owned() })),
    })
}

/// Tensors with offsets from the start of the data, their positions by name, and the bytes of all data with its padding.
fn read_tensors<R: Read>(
    cursor: &mut Cursor<'_, R>,
    count: u64,
    alignment: u64,
) -> Result<(Vec<GgufTensor>, Vec<u32>, u64), GgufError> {
    let room = count.min(cursor.left() / MIN_TENSOR_BYTES);
    cursor.charge_for::<(GgufTensor, u64, u32)>(room)?;
    let mut tensors = Vec::with_capacity(room as usize); // within the memory limit
    let mut places = Vec::with_capacity(room as usize);
    let mut placement = Placement::new(alignment);
    for _ in 0..count {
        places.push(cursor.at);
        tensors.push(read_tensor(cursor, &mut placement)?);
    }
    let (by_name, again) = rules::sort_names(tensors.len(), |i| &tensors[i].name);
    if let Some(again) = again {
        return Err(cursor.error(places[again], ErrorKind::DuplicateTensor { tensor: tensors[again].name.clone() }));
    }
    Ok((tensors, by_name, placement.end()))
}

fn read_tensor<R: Read>(cursor: &mut Cursor<'_, R>, placement: &mut Placement) -> Result<GgufTensor, GgufError> {
    const WHAT: &str = "a tensor info";
    let at = cursor.at;
    let name = cursor.string(What::TensorName, cursor.limits.string_bytes)?;
    rules::check_tensor_name(&name).map_err(|kind| cursor.error(at, kind))?;

    let at = cursor.at;
    let dims = cursor.u32(WHAT)?;
    if dims > rules::MAX_DIMS as u32 {
        return Err(cursor.error(at, ErrorKind::DimensionCount { tensor: name, found: u64::from(dims) }));
    }
    cursor.charge(u64::from(dims) * 8 + ALLOCATION)?;
    let mut shape = Vec::with_capacity(dims as usize);
    for _ in 0..dims {
        shape.push(cursor.u64(WHAT)?);
    }
    shape.reverse();
    rules::check_shape(&name, &shape).map_err(|kind| cursor.error(at + 4, kind))?;

    let at = cursor.at;
    let id = cursor.u32(WHAT)?;
    let format = format_of(&name, id).map_err(|kind| cursor.error(at, kind))?;
    let bytes = rules::tensor_bytes(&name, &shape, format).map_err(|kind| cursor.error(at, kind))?;

    let at = cursor.at;
    let found = cursor.u64(WHAT)?;
    let expected = placement.place(&name, bytes).map_err(|kind| cursor.error(at, kind))?;
    if found != expected {
        return Err(cursor.error(at, ErrorKind::TensorOffset { tensor: name, expected, found }));
    }
    Ok(GgufTensor { name, shape, format, offset: expected, bytes })
}

fn format_of(tensor: &str, id: u32) -> Result<&'static Format, ErrorKind> {
    formats::by_id(id).ok_or_else(|| {
        let tensor = tensor.to_owned();
        if REMOVED_TYPES.contains(&id) { ErrorKind::RemovedType { tensor, id } } else { ErrorKind::UnknownType { tensor, id } }
    })
}

/// Where the data starts, if the file is exactly as long as its header says.
fn check_size<R: Read>(cursor: &Cursor<'_, R>, tensors: &[GgufTensor], alignment: u64, data: u64) -> Result<u64, GgufError> {
    let (end, found) = (cursor.at, cursor.at + cursor.left());
    let too_large = |tensor: &GgufTensor| cursor.error(end, ErrorKind::DataSize { tensor: tensor.name.clone() });
    let Some(last) = tensors.last() else {
        // The header of a file without tensors may lack its padding.
        return match rules::pad(end, alignment) {
            Some(padded) if found == padded => Ok(end),
            _ if found == end => Ok(end),
            _ => Err(cursor.error(end, ErrorKind::TrailingBytes { expected: end, found })),
        };
    };
    let start = rules::pad(end, alignment).ok_or_else(|| too_large(last))?;
    let expected = start.checked_add(data).ok_or_else(|| too_large(last))?;
    match found {
        _ if found == expected => Ok(start),
        _ if found > expected => Err(cursor.error(expected, ErrorKind::TrailingBytes { expected, found })),
        _ if found >= start + last.offset + last.bytes => Err(cursor.error(found, ErrorKind::LastPadding { expected, found })),
        _ => Err(cursor.error(found, ErrorKind::DataTruncated { expected, found })),
    }
}
