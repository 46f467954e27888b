//! Values as short text, for people.

use crate::value::{Array, Value};

impl Value {
    /// The value on one line of about `width` characters: strings quoted, escaped and cut, arrays with as many elements as fit.
    pub fn short(&self, width: usize) -> String {
        match self {
            Value::U8(v) => v.to_string(),
            Value::I8(v) => v.to_string(),
            Value::U16(v) => v.to_string(),
            Value::I16(v) => v.to_string(),
            Value::U32(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::F32(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::String(v) => quoted(v, width),
            Value::Array(v) => v.short(width),
            Value::U64(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
        }
    }
}

impl Array {
    fn short(&self, width: usize) -> String {
        match self {
            Array::U8(v) => listed(v, width, u8::to_string),
            Array::I8(v) => listed(v, width, i8::to_string),
            Array::U16(v) => listed(v, width, u16::to_string),
            Array::I16(v) => listed(v, width, i16::to_string),
            Array::U32(v) => listed(v, width, u32::to_string),
            Array::I32(v) => listed(v, width, i32::to_string),
            Array::F32(v) => listed(v, width, f32::to_string),
            Array::Bool(v) => listed(v, width, bool::to_string),
            Array::String(v) => listed(v, width, |v| quoted(v, width)),
            Array::U64(v) => listed(v, width, u64::to_string),
            Array::I64(v) => listed(v, width, i64::to_string),
            Array::F64(v) => listed(v, width, f64::to_string),
        }
    }
}

/// `"text"`, control characters escaped: a file must not be able to steer a terminal. Long text is cut and its length given.
fn quoted(text: &str, width: usize) -> String {
    let mut out = String::from('"');
    for (chars, c) in text.chars().enumerate() {
        if chars >= width {
            out.push_str(&format!("\"… {} bytes", text.len()));
            return out;
        }
        match c {
            // Debug would escape quotes of the other kind, too.
            '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out.push('"');
    out
}

/// `[a, b, c]`, or `[a, b, … 32000 elements]` when they do not fit.
fn listed<T>(values: &[T], width: usize, text: impl Fn(&T) -> String) -> String {
    let mut out = String::from('[');
    for (i, value) in values.iter().enumerate() {
        let value = text(value);
        if i > 0 {
            out.push_str(", ");
            if out.chars().count() + value.chars().count() > width {
                out.push_str(&format!("… {} elements", values.len()));
                break;
            }
        }
        out.push_str(&value);
    }
    out.push(']');
    out
}
