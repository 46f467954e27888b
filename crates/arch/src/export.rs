//! The way back: config.json and the checkpoint's tensors from a GGUF file.
//!
//! A family says what the file's keys mean in config.json ([`Family::config`]). The rest follows from [`describe`]: the config
//! is described again, and whatever of the file that description does not give is an error. So nothing is exported that would
//! not convert to the same keys and tensors.

use crate::rope::{self, Llama3};
use crate::tensors::{EXPERT, Rows, fill};
use crate::{ArchError, FAMILIES, Family, Hparam, Model, Options, by_class, describe, nearest};
use ggufsmith_core::{DType, TensorExpr, TensorInfo};
use ggufsmith_gguf::{Metadata, Value};
use serde_json::{Map, Number, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What is read of a GGUF file to say which checkpoint it comes from.
#[derive(Debug, Clone, Copy)]
pub struct GgufModel<'a> {
    /// Its keys.
    pub metadata: &'a Metadata,
    /// Names and shapes (outermost dimension first) of its tensors.
    pub tensors: &'a [(String, Vec<u64>)],
    /// The values of its small F32 tensors that stand for no tensor of a checkpoint, by name (`rope_freqs.weight`).
    pub tables: &'a BTreeMap<String, Vec<f32>>,
}

/// A checkpoint as the file tells it.
#[derive(Debug)]
pub struct Exported {
    /// The class in config.json.
    pub class: &'static str,
    /// config.json, keys sorted; what concerns tokens and element types is the caller's.
    pub config: Map<String, Json>,
    /// The description of that config: its source tensors are the checkpoint's (as F32), its expressions lead to the file.
    pub model: Model,
    /// Notes for the summary.
    pub warnings: Vec<String>,
}

/// Why a file cannot be exported.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error("general.architecture is {arch:?}; what can be exported: {}{}", supported.join(", "), near(nearest))]
    UnknownArchitecture { arch: String, supported: Vec<&'static str>, nearest: Vec<&'static str> },
    #[error("the architecture {arch} has no class {class:?}; it has {}", known.join(", "))]
    UnknownClass { class: String, arch: &'static str, known: Vec<&'static str> },
    #[error("the key {key} is missing")]
    MissingKey { key: String },
    #[error("the key {key} is {found}; it must be {expected}")]
    KeyValue { key: String, expected: &'static str, found: String },
    #[error(
        "the key {key} = {value} means something that {class} has no setting for: the exported model would compute something else"
    )]
    ForeignKey { key: String, value: String, class: &'static str },
    #[error("the key {key} is {found}, a {class} with these tensors has {expected}: it cannot be expressed in config.json")]
    Differs { key: String, found: String, expected: String, class: &'static str },
    #[error("tensor {tensor} is none of the architecture {arch}")]
    UnknownTensor { tensor: String, arch: &'static str },
    #[error("tensor {tensor} is missing: a {class} with these settings has it")]
    MissingTensor { tensor: String, class: &'static str },
    #[error("{tensor}: no rope_scaling of type llama3 gives these {count} factors; config.json cannot say what they are")]
    RopeFactors { tensor: &'static str, count: usize },
    #[error("there is no way back from the architecture {arch} yet: nothing is exported")]
    NoWayBack { arch: &'static str },
    #[error("the rebuilt config.json and the file's tensors do not belong together: {0}")]
    Describe(#[from] ArchError),
}

fn near(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(" (did you mean {}?)", names.join(" or ")) }
}

/// Keys that change nothing in what a model computes, below its architecture's name.
const HARMLESS: &[&str] = &["rope.scaling.finetuned", "tensor_data_layout"];

/// `rope_freqs.weight`: what each rotary frequency is divided by.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// The family whose files carry this `general.architecture`.
///
/// # Errors
/// [`ExportError`] where no family does, or there is no such key.
pub fn family_of(metadata: &Metadata) -> Result<&'static dyn Family, ExportError> {
    const KEY: &str = "general.architecture";
    let missing = || ExportError::MissingKey { key: KEY.to_owned() };
    let arch = match metadata.get(KEY).ok_or_else(missing)? {
        Value::String(arch) => arch,
        other => return Err(wrong(KEY, "a string", other)),
    };
    let supported: Vec<&'static str> = FAMILIES.iter().map(|family| family.name()).collect();
    FAMILIES.iter().find(|family| family.name() == arch).copied().ok_or_else(|| ExportError::UnknownArchitecture {
        arch: arch.clone(),
        nearest: nearest(arch, supported.iter().copied()),
        supported,
    })
}

/// The checkpoint that a file comes from. `class`: which class of config.json it shall have, where it is not to be guessed.
///
/// # Errors
/// [`ExportError`]: the architecture is unknown, a key is missing or cannot be expressed, a tensor is missing or foreign.
pub fn export(file: &GgufModel<'_>, class: Option<&str>) -> Result<Exported, ExportError> {
    let family = family_of(file.metadata)?;
    let keys = HparamReader { arch: family.name(), metadata: file.metadata };
    let given = class.map(|name| class_of(family, name)).transpose()?;
    let mut warnings = Vec::new();
    let mut config = family.config(file, &keys, given, &mut warnings)?;
    config.sort_keys();
    let class = config.get("architectures").and_then(|list| list.get(0)).and_then(Json::as_str).unwrap_or_default();
    let class = by_class(class).map_or("", |(_, class)| class.name);

    let sources = sources(family, file)?;
    let model = describe(&Json::Object(config.clone()), &sources, &Options::default())?;
    compare_keys(&keys, &model, class)?;
    compare_tensors(file, &model, class, &mut warnings)?;
    warnings.extend(model.warnings.iter().cloned());
    Ok(Exported { class, config, model, warnings })
}

fn class_of(family: &'static dyn Family, name: &str) -> Result<&'static str, ExportError> {
    let known = || family.classes().iter().map(|class| class.name);
    known().find(|class| *class == name).ok_or_else(|| ExportError::UnknownClass {
        class: name.to_owned(),
        arch: family.name(),
        known: known().collect(),
    })
}

/// The checkpoint's tensors, by name.
fn sources(family: &'static dyn Family, file: &GgufModel<'_>) -> Result<Vec<TensorInfo>, ExportError> {
    let names = family.names();
    let mut sources: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (gguf, shape) in file.tensors.iter().filter(|(name, _)| !file.tables.contains_key(name)) {
        let unknown = || ExportError::UnknownTensor { tensor: gguf.clone(), arch: family.name() };
        let (row, layer) = names.row_of(gguf).ok_or_else(unknown)?;
        let name = fill(row.hf, layer);
        let mut shape = shape.clone();
        if row.is_expert() && !shape.is_empty() {
            let experts = shape.remove(0);
            sources.extend((0..experts).map(|expert| (name.replace(EXPERT, &expert.to_string()), shape.clone())));
            continue;
        }
        match row.rows {
            Rows::Transposed => shape.reverse(),
            Rows::Half(_) => {
                let rows = shape.len().checked_sub(2).and_then(|at| shape.get_mut(at));
                rows.into_iter().for_each(|rows| *rows = rows.saturating_mul(2));
            }
            Rows::Same | Rows::PairsQ | Rows::PairsK | Rows::PlusOne | Rows::By(_) => {}
        }
        sources.insert(name, shape);
    }
    let info = |(name, shape)| TensorInfo { name, dtype: DType::F32, shape, file: PathBuf::new(), offset: 0 };
    Ok(sources.into_iter().map(info).collect())
}

/// Every key below the architecture's name is one that the rebuilt config gives, with the same value. A key that the file
/// lacks is no fault: older converters wrote fewer.
fn compare_keys(keys: &HparamReader<'_>, model: &Model, class: &'static str) -> Result<(), ExportError> {
    let described: BTreeMap<&str, &Value> = model
        .hparams
        .iter()
        .filter_map(|hparam| match hparam {
            Hparam::Set(key, value) => Some((key.as_str(), value)),
            Hparam::FileType => None,
        })
        .chain(model.first.iter().map(|(key, value)| (key.as_str(), value)))
        .collect();
    let prefix = format!("{}.", keys.arch);
    for (key, value) in keys.metadata.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        match described.get(key) {
            Some(expected) if same(value, expected) => {}
            Some(expected) => {
                let (found, expected) = (value.short(SHOWN), expected.short(SHOWN));
                return Err(ExportError::Differs { key: key.to_owned(), found, expected, class });
            }
            None if HARMLESS.contains(&&key[prefix.len()..]) || neutral(value) => {}
            None => return Err(ExportError::ForeignKey { key: key.to_owned(), value: value.short(SHOWN), class }),
        }
    }
    Ok(())
}

/// Characters of a value in a message.
const SHOWN: usize = 60;

/// Equal as numbers, or equal as they are.
fn same(a: &Value, b: &Value) -> bool {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Zero and false switch off whatever a key is about.
fn neutral(value: &Value) -> bool {
    integer(value) == Some(0) || matches!(value, Value::F32(0.0) | Value::F64(0.0) | Value::Bool(false))
}

/// Every tensor of the description is in the file, computed tables with their values.
fn compare_tensors(
    file: &GgufModel<'_>,
    model: &Model,
    class: &'static str,
    warnings: &mut Vec<String>,
) -> Result<(), ExportError> {
    let found: BTreeSet<&str> = file.tensors.iter().map(|(name, _)| name.as_str()).collect();
    for tensor in &model.tensors {
        let missing = || ExportError::MissingTensor { tensor: tensor.name.clone(), class };
        match &tensor.expr {
            TensorExpr::Values(_, values) => {
                let table = file.tables.get(&tensor.name).ok_or_else(missing)?;
                if !values.iter().zip(table).all(|(a, b)| a.to_bits() == b.to_bits()) {
                    warnings.push(format!("{}: rebuilt to within rounding, not bit for bit", tensor.name));
                }
            }
            _ if !found.contains(tensor.name.as_str()) => return Err(missing()),
            _ => {}
        }
    }
    let described: BTreeSet<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    match file.tensors.iter().find(|(name, _)| !described.contains(name.as_str())) {
        Some((tensor, _)) => Err(ExportError::UnknownTensor { tensor: tensor.clone(), arch: model.arch }),
        None => Ok(()),
    }
}

/// The keys of one architecture.
#[derive(Debug, Clone, Copy)]
pub struct HparamReader<'a> {
    pub(crate) arch: &'static str,
    pub(crate) metadata: &'a Metadata,
}

impl HparamReader<'_> {
    /// `ARCH.key`.
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.full(key)).is_some()
    }

    /// An integer of any type, where the key is there.
    pub(crate) fn opt_u32(&self, key: &str) -> Result<Option<u32>, ExportError> {
        let full = self.full(key);
        let Some(value) = self.metadata.get(&full) else { return Ok(None) };
        let number = integer(value).and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| wrong(&full, "an integer from 0 to 4294967295", value))
    }

    /// An integer of any type.
    pub(crate) fn u32(&self, key: &str) -> Result<u32, ExportError> {
        self.opt_u32(key)?.ok_or_else(|| ExportError::MissingKey { key: self.full(key) })
    }

    /// A number, where the key is there: the shortest one that is this F32.
    pub(crate) fn opt_float(&self, key: &str) -> Result<Option<Json>, ExportError> {
        let full = self.full(key);
        let Some(value) = self.metadata.get(&full) else { return Ok(None) };
        let number = match value {
            Value::F32(value) => shortest(*value),
            Value::F64(value) => Number::from_f64(*value).map(Json::Number),
            _ => None,
        };
        number.map(Some).ok_or_else(|| wrong(&full, "a finite number", value))
    }

    /// A number.
    pub(crate) fn float(&self, key: &str) -> Result<Json, ExportError> {
        self.opt_float(key)?.ok_or_else(|| ExportError::MissingKey { key: self.full(key) })
    }

    /// A text, where the key is there.
    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>, ExportError> {
        let full = self.full(key);
        match self.metadata.get(&full) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&full, "a string", other)),
        }
    }

    /// `rope_theta` and `rope_scaling`; `factors` is [`ROPE_FREQS`] for heads of `head_dim`.
    pub(crate) fn rope(&self, head_dim: u32, factors: Option<&[f32]>, config: &mut Map<String, Json>) -> Result<(), ExportError> {
        // Without the key the engine takes 10000.
        let theta = self.opt_float("rope.freq_base")?.unwrap_or_else(|| Json::from(10000.0));
        let scaling = match factors {
            Some(factors) => llama3(theta.as_f64().unwrap_or_default(), head_dim, factors)?,
            None => self.rope_scaling()?,
        };
        config.insert("rope_theta".to_owned(), theta);
        config.insert("rope_scaling".to_owned(), scaling);
        Ok(())
    }

    fn rope_scaling(&self) -> Result<Json, ExportError> {
        const TYPE: &str = "rope.scaling.type";
        let mut scaling = Map::new();
        let kind = match self.opt_str(TYPE)? {
            None | Some("none") => return Ok(Json::Null),
            Some(kind @ ("linear" | "yarn")) => kind.to_owned(),
            // The factors of longrope have no place in a file of these architectures.
            Some(other) => {
                let (key, expected) = (self.full(TYPE), "none, linear or yarn to be expressed in config.json");
                return Err(ExportError::KeyValue { key, expected, found: other.to_owned() });
            }
        };
        scaling.insert("factor".to_owned(), self.float("rope.scaling.factor")?);
        if kind == "yarn" {
            let original = self.u32("rope.scaling.original_context_length")?;
            scaling.insert("original_max_position_embeddings".to_owned(), original.into());
            let optional = [
                ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
            ];
            for (name, key) in optional {
                if let Some(value) = self.opt_float(key)? {
                    scaling.insert(name.to_owned(), value);
                }
            }
        }
        scaling.insert("rope_type".to_owned(), kind.into());
        Ok(Json::Object(scaling))
    }
}

fn wrong(key: &str, expected: &'static str, found: &Value) -> ExportError {
    ExportError::KeyValue { key: key.to_owned(), expected, found: found.short(SHOWN) }
}

/// An integer of any of GGUF's types.
fn integer(value: &Value) -> Option<i128> {
    Some(match value {
        Value::U8(v) => i128::from(*v),
        Value::I8(v) => i128::from(*v),
        Value::U16(v) => i128::from(*v),
        Value::I16(v) => i128::from(*v),
        Value::U32(v) => i128::from(*v),
        Value::I32(v) => i128::from(*v),
        Value::U64(v) => i128::from(*v),
        Value::I64(v) => i128::from(*v),
        _ => return None,
    })
}

/// The number with the fewest digits that is this F32: 1e-5, not 9.999999747378752e-6.
fn shortest(value: f32) -> Option<Json> {
    let number = value.to_string().parse().ok().filter(|_| value.is_finite())?;
    Number::from_f64(number).map(Json::Number)
}

/// How far rebuilt factors may be from the file's: other builds of torch round the power differently.
const FACTOR_TOLERANCE: f32 = 1e-6;

/// `rope_scaling` of type llama3 from the factors that it gives. They depend on four numbers of which only ratios matter, so the
/// usual ones are tried first, then those that the factors between the two ends determine.
fn llama3(theta: f64, head_dim: u32, factors: &[f32]) -> Result<Json, ExportError> {
    let unknown = || ExportError::RopeFactors { tensor: ROPE_FREQS, count: factors.len() };
    if factors.len() as u64 != u64::from(head_dim / 2) || factors.iter().any(|f| !f.is_finite() || *f < 1.0) {
        return Err(unknown());
    }
    let largest = factors.iter().copied().fold(1.0, f32::max);
    let usual = [8.0, 32.0, 2.0, 4.0, 16.0, 64.0];
    // The largest factor is the scaling's own, unless all frequencies lie below the low end.
    let scales: Vec<f64> =
        if largest > 1.0 { std::iter::once(f64::from(largest)).chain(usual).collect() } else { usual.to_vec() };
    let mut nearest: Option<(f32, Llama3)> = None;
    for factor in scales {
        for candidate in candidates(theta, head_dim, factors, factor) {
            let error = difference(&candidate.freq_factors(theta, head_dim), factors);
            if error == 0.0 {
                return Ok(section(&candidate));
            }
            if error <= FACTOR_TOLERANCE && nearest.as_ref().is_none_or(|(least, _)| error < *least) {
                nearest = Some((error, candidate));
            }
        }
    }
    nearest.map(|(_, llama3)| section(&llama3)).ok_or_else(unknown)
}

fn candidates(theta: f64, head_dim: u32, factors: &[f32], factor: f64) -> impl Iterator<Item = Llama3> {
    let contexts: Vec<f64> = [8192.0].into_iter().chain((5..=20).rev().map(|bits| f64::from(1 << bits))).collect();
    let bounds = [(1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (1.0, 16.0), (1.0, 32.0), (2.0, 4.0), (2.0, 8.0), (0.5, 4.0), (0.5, 2.0)];
    let usual = bounds.into_iter().flat_map(move |(low, high)| {
        let of = move |context| Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context: context };
        contexts.clone().into_iter().map(of)
    });
    usual.chain(solved(theta, head_dim, factors, factor))
}

/// Between the ends the reciprocal of a factor is linear in the frequency: `smooth = context / wavelength` from `low` to `high`,
/// moved to 0 to 1. Two factors determine that line; with a `low` the other two numbers follow. The context is a whole number for
/// one of the first few.
fn solved(theta: f64, head_dim: u32, factors: &[f32], factor: f64) -> Vec<Llama3> {
    let between = (0u32..).zip(factors).filter(|(_, f)| **f > 1.0 && f64::from(**f) < factor);
    let points: Vec<(f64, f64)> = between
        .map(|(i, f)| {
            let frequency = theta.powf(-f64::from(2 * i) / f64::from(head_dim)) / (2.0 * std::f64::consts::PI);
            let smooth = (1.0 / f64::from(*f) - 1.0 / factor) / (1.0 - 1.0 / factor);
            (frequency, smooth)
        })
        .collect();
    let [first, .., last] = points.as_slice() else { return Vec::new() };
    let slope = (first.1 - last.1) / (first.0 - last.0);
    let offset = last.1 - slope * last.0;
    // slope = context / (high - low), offset = -low / (high - low)
    let with = |low: u32| {
        let low = f64::from(low);
        let (context, width) = ((slope / -offset * low).round(), low / -offset);
        let high = ((low + width) * 1000.0).round() / 1000.0;
        let sound = context.is_finite() && context >= 1.0 && high.is_finite() && high > low;
        sound.then_some(Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context: context })
    };
    (1..=8).filter_map(with).collect()
}

/// The largest relative difference; 0 where all are equal bit for bit.
fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    let relative = found.iter().zip(wanted).map(|(a, b)| if a.to_bits() == b.to_bits() { 0.0 } else { (a - b).abs() / b });
    // Nothing equal is closer than one unit in the last place.
    relative.fold(0.0, |most: f32, one| if one > most { one } else { most })
}

fn section(llama3: &Llama3) -> Json {
    let rope::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = llama3;
    let mut section = Map::new();
    section.insert("factor".to_owned(), (*factor).into());
    section.insert("high_freq_factor".to_owned(), (*high_freq_factor).into());
    section.insert("low_freq_factor".to_owned(), (*low_freq_factor).into());
    // A whole number: transformers wants an integer.
    section.insert("original_max_position_embeddings".to_owned(), (*original_context as u64).into());
    section.insert("rope_type".to_owned(), "llama3".into());
    Json::Object(section)
}
