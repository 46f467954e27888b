//! Typed access to metadata values.

use crate::value::{Array, Metadata, Value};

/// A key does not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LookupError {
    #[error("the key {key} is missing")]
    Missing { key: String },
    #[error("the key {key} is of type {found}, it must be {expected}")]
    WrongType { key: String, expected: &'static str, found: String },
}

/// A Rust type that a metadata value can be taken as: the numbers, `bool`, `&str`, and slices of them (`&[u32]`, `&[String]`).
pub trait FromValue<'a>: Sized {
    /// The type's name in messages, as [`Value::type_name`] gives it.
    const TYPE: &'static str;

    /// The value, if it is of exactly this type.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($ty:ty, $variant:ident, $name:literal, $array:literal);*) => {$(
        impl FromValue<'_> for $ty {
            const TYPE: &'static str = $name;
            fn from_value(value: &Value) -> Option<Self> {
                if let Value::$variant(v) = value { Some(*v) } else { None }
            }
        }
        impl<'a> FromValue<'a> for &'a [$ty] {
            const TYPE: &'static str = $array;
            fn from_value(value: &'a Value) -> Option<Self> {
                if let Value::Array(Array::$variant(v)) = value { Some(v) } else { None }
            }
        }
    )*};
}
from_value!(u8, U8, "u8", "[u8]"; i8, I8, "i8", "[i8]"; u16, U16, "u16", "[u16]"; i16, I16, "i16", "[i16]";
    u32, U32, "u32", "[u32]"; i32, I32, "i32", "[i32]"; f32, F32, "f32", "[f32]"; bool, Bool, "bool", "[bool]";
    u64, U64, "u64", "[u64]"; i64, I64, "i64", "[i64]"; f64, F64, "f64", "[f64]");

impl<'a> FromValue<'a> for &'a str {
    const TYPE: &'static str = "str";
    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::String(v) = value { Some(v) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [String] {
    const TYPE: &'static str = "[str]";
    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::String(v)) = value { Some(v) } else { None }
    }
}

impl Metadata {
    /// The value of a key as `T`; `None` when there is no such key.
    ///
    /// # Errors
    /// [`LookupError::WrongType`] when the key exists with another type: no conversion is made.
    pub fn lookup<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, LookupError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(LookupError::WrongType { key: key.to_owned(), expected: T::TYPE, found: value.type_name() }),
        }
    }

    /// As [`Metadata::lookup`], for a key that has to be there.
    ///
    /// # Errors
    /// [`LookupError`] when the key is missing or of another type.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, LookupError> {
        self.lookup(key)?.ok_or_else(|| LookupError::Missing { key: key.to_owned() })
    }
}
