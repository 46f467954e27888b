//! Metadata and tensor infos to bytes, as gguf-py and ggml write them (both write the same).

use crate::value::{Array, Metadata, Value};
use byteorder::{ByteOrder, LittleEndian as LE};

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// All keys with their values.
pub(crate) fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    for (key, value) in metadata.iter() {
        put_string(out, key);
        put_u32(out, value.value_type().id());
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => put_u32(out, *v),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => put_u64(out, *v),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    put_u32(out, array.value_type().id());
    put_u64(out, array.len() as u64);
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => out.extend(v.iter().map(|v| v.to_le_bytes()[0])),
        Array::U16(v) => put_words(out, v, 2, LE::write_u16_into),
        Array::I16(v) => put_words(out, v, 2, LE::write_i16_into),
        Array::U32(v) => put_words(out, v, 4, LE::write_u32_into),
        Array::I32(v) => put_words(out, v, 4, LE::write_i32_into),
        Array::F32(v) => put_words(out, v, 4, LE::write_f32_into),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|v| put_string(out, v)),
        Array::U64(v) => put_words(out, v, 8, LE::write_u64_into),
        Array::I64(v) => put_words(out, v, 8, LE::write_i64_into),
        Array::F64(v) => put_words(out, v, 8, LE::write_f64_into),
    }
}

fn put_words<T>(out: &mut Vec<u8>, values: &[T], width: usize, write_into: fn(&[T], &mut [u8])) {
    let start = out.len();
    out.resize(start + values.len() * width, 0);
    write_into(values, &mut out[start..]);
}
