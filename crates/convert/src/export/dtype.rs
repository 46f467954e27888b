//! In which type each tensor is written.

use super::{ExportedTensor, Originals};
use crate::gguf_source::{self, GgufSource};
use ggufsmith_core::{DType, SourceError, TensorExpr, Words, float};
use std::collections::BTreeMap;

/// `--dtype`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DTypeChoice {
    /// Nothing of an unquantized file is lost; what was quantized becomes F16, whose eleven bits keep more of a decoded weight than
    /// BF16's eight.
    #[default]
    Auto,
    /// All tensors in this type.
    Words(Words),
}

/// The type that tensors are written in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Each in its own; what is F32 in this one where that loses nothing.
    Auto(DType),
    All(DType),
}

/// Elements to look at together when it is asked whether a type holds them.
const TILE_ELEMS: u64 = 1 << 18;

impl Target {
    /// By the file's type: the one that holds most elements.
    pub(super) fn new(choice: DTypeChoice, source: &GgufSource, originals: &Originals) -> Self {
        match choice {
            DTypeChoice::Words(Words::F32) => Target::All(DType::F32),
            DTypeChoice::Words(Words::F16) => Target::All(DType::F16),
            DTypeChoice::Words(Words::BF16) => Target::All(DType::BF16),
            DTypeChoice::Auto => {
                let mut elems: BTreeMap<DType, u64> = BTreeMap::new();
                for info in originals.values().flat_map(|(_, expr)| expr.reads()) {
                    *elems.entry(own(info.name.as_str(), source)).or_default() += info.elems();
                }
                let most = elems.into_iter().max_by_key(|&(_, count)| count).map(|(dtype, _)| dtype);
                Target::Auto(most.unwrap_or(DType::F32))
            }
        }
    }

    /// The type of one tensor. Reads its values where it has to be known what they lose.
    pub(super) fn of(self, expr: &TensorExpr, source: &GgufSource) -> Result<DType, SourceError> {
        let target = match self {
            Target::All(dtype) => return Ok(dtype),
            Target::Auto(target) => target,
        };
        let mut types = expr.reads().into_iter().map(|info| own(&info.name, source));
        let first = types.next().unwrap_or(DType::F32);
        let own = if types.all(|other| other == first) { first } else { DType::F32 };
        Ok(if own == DType::F32 && target != own && holds(target, expr, source)? { target } else { own })
    }

    /// What config.json calls the model's type: that of most elements.
    pub(super) fn main(self, tensors: &[ExportedTensor]) -> DType {
        let mut elems: BTreeMap<DType, u64> = BTreeMap::new();
        for tensor in tensors {
            *elems.entry(tensor.dtype).or_default() += tensor.shape.iter().product::<u64>();
        }
        elems.into_iter().max_by_key(|&(_, count)| count).map_or(DType::F32, |(dtype, _)| dtype)
    }

    /// What was quantized, and what is not of the main type.
    pub(super) fn notes(self, tensors: &[ExportedTensor]) -> Vec<String> {
        let mut notes = Vec::new();
        let mut formats: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in tensors.iter().filter(|tensor| tensor.dequantized) {
            *formats.entry(tensor.stored).or_default() += 1;
        }
        if !formats.is_empty() {
            let list: Vec<String> = formats.iter().map(|(name, count)| format!("{name} ({count})")).collect();
            notes.push(format!("dequantized from {}: the precision of the original weights is gone", list.join(", ")));
        }
        let main = self.main(tensors);
        let others = tensors.iter().filter(|tensor| tensor.dtype != main).collect::<Vec<_>>();
        if let Some(first) = others.first() {
            notes.push(format!(
                "{} of {} tensors stay {}, since {} would lose some of their bits, such as {}",
                others.len(),
                tensors.len(),
                first.dtype.name(),
                main.name(),
                first.name
            ));
        }
        notes
    }
}

/// The type in which a tensor of the file is written where nothing else is asked for.
fn own(name: &str, source: &GgufSource) -> DType {
    match source.format(name).map(|format| (format.is_quantized(), gguf_source::plain(format))) {
        Some((true, _)) => DType::F16,
        Some((false, Some(dtype))) => dtype,
        _ => DType::F32,
    }
}

/// Whether every value of an F32 tensor is one of `dtype`.
fn holds(dtype: DType, expr: &TensorExpr, source: &GgufSource) -> Result<bool, SourceError> {
    let exact: fn(u32) -> bool = match dtype {
        DType::BF16 => |bits| bits & 0xffff == 0,
        DType::F16 => |bits| {
            let value = f32::from_bits(bits);
            float::f16_to_f32(float::f32_to_f16(value)).to_bits() == bits
        },
        _ => return Ok(dtype == DType::F32),
    };
    let step = super::run::whole_rows(expr, TILE_ELEMS);
    let (mut at, elems) = (0, expr.elems());
    let mut tile = Vec::new();
    while at < elems {
        let end = elems.min(at + step);
        tile.clear();
        expr.append(source, at..end, &mut tile)?;
        if !tile.as_chunks::<4>().0.iter().all(|word| exact(u32::from_le_bytes(*word))) {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// What config.json calls a type.
pub(super) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}
