//! From a checkpoint's tensor names to GGUF's and back: one table per family.

use crate::{ArchError, Config, OutputTensor};
use ggufsmith_core::{TensorExpr, TensorInfo};
use std::collections::HashMap;

/// A dimension that the config determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dim {
    /// Embedding rows.
    Vocab,
    /// Width of the residual stream.
    Embd,
    /// Width of the feed-forward layer.
    Ff,
    /// All query heads.
    Q,
    /// All key (or value) heads.
    Kv,
}

/// The sizes of one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    pub(crate) vocab: u32,
    pub(crate) embd: u32,
    pub(crate) ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    pub(crate) head_dim: u32,
}

impl Dims {
    /// The size of a dimension; products of two 32-bit numbers fit.
    pub(crate) fn of(&self, dim: Dim) -> u64 {
        match dim {
            Dim::Vocab => self.vocab.into(),
            Dim::Embd => self.embd.into(),
            Dim::Ff => self.ff.into(),
            Dim::Q => u64::from(self.n_head) * u64::from(self.head_dim),
            Dim::Kv => u64::from(self.n_head_kv) * u64::from(self.head_dim),
        }
    }

    fn named(&self, dim: Dim) -> &'static str {
        match dim {
            Dim::Vocab => "vocab_size",
            Dim::Embd => "hidden_size",
            Dim::Ff => "intermediate_size",
            Dim::Q => "num_attention_heads x head size",
            Dim::Kv => "num_key_value_heads x head size",
        }
    }
}

/// The order of rows in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// As in the checkpoint.
    Same,
    /// Query heads whose two rotated halves become interleaved pairs.
    PairsQ,
    /// Key heads, likewise.
    PairsK,
}

/// Whether a tensor has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// In every model.
    Always,
    /// Where this key of config.json is true.
    If(&'static str),
    /// Where this key of config.json is false.
    Unless(&'static str),
}

/// One tensor of a family, or one of each layer: `{}` in the names stands for the layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) hf: &'static str,
    pub(crate) gguf: &'static str,
    /// Outermost dimension first.
    pub(crate) shape: &'static [Dim],
    pub(crate) rows: Rows,
    pub(crate) need: Need,
}

/// Stands for the layer's number in a table.
const LAYER: &str = "{}";

/// A family's tensor names, both ways.
#[derive(Debug, Clone, Copy)]
pub struct NameMap(pub(crate) &'static [Row]);

impl NameMap {
    /// The GGUF name of a checkpoint's tensor, e.g. `blk.3.attn_q.weight` for `model.layers.3.self_attn.q_proj.weight`.
    pub fn gguf(&self, hf: &str) -> Option<String> {
        let (pattern, layer) = split(hf);
        let row = self.0.iter().find(|row| row.hf == pattern)?;
        Some(fill(row.gguf, layer))
    }

    /// The checkpoint's name of a GGUF tensor.
    pub fn hf(&self, gguf: &str) -> Option<String> {
        let (pattern, layer) = split(gguf);
        let row = self.0.iter().find(|row| row.gguf == pattern)?;
        Some(fill(row.hf, layer))
    }
}

/// Output tensors, in the order of their sources, and what was noticed on the way.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub(crate) tensors: Vec<OutputTensor>,
    pub(crate) dropped: Vec<(String, &'static str)>,
    pub(crate) warnings: Vec<String>,
}

/// Tensors that the reference converter leaves out, by the end of their names.
const DROPPED: [(&str, &str); 3] = [
    (".rotary_emb.inv_freq", "rotary frequencies: the engine computes them"),
    (".attention.masked_bias", "a constant of the attention mask"),
    (".attention.bias", "a causal mask: the engine has its own"),
];

/// Give every source tensor its place in the output; each row of `table` that the config asks for must be filled, once.
pub(crate) fn assign(
    table: &'static [Row],
    dims: &Dims,
    n_layer: u32,
    config: &Config,
    tensors: &[TensorInfo],
) -> Result<Assigned, ArchError> {
    let class = config.class().name;
    let mut assigned = Assigned::default();
    let mut sources: HashMap<String, &str> = HashMap::with_capacity(tensors.len());
    let mut unasked: Vec<(&'static str, bool, &str, usize)> = Vec::new();
    for info in tensors {
        if let Some((_, why)) = DROPPED.iter().find(|(end, _)| info.name.ends_with(end)) {
            assigned.dropped.push((info.name.clone(), why));
            continue;
        }
        let (pattern, layer) = split(&info.name);
        let Some(row) = table.iter().find(|row| row.hf == pattern) else {
            return Err(ArchError::UnknownTensor { tensor: info.name.clone(), class });
        };
        if let Some(layer) = layer.filter(|&layer| layer >= n_layer) {
            return Err(ArchError::LayerBeyond { tensor: info.name.clone(), layer, n_layer });
        }
        let output = fill(row.gguf, layer);
        if let Some(first) = sources.insert(output.clone(), &info.name) {
            return Err(ArchError::TensorTwice { first: first.to_owned(), second: info.name.clone(), output });
        }
        if let Some((key, said)) = row.not_asked(config)? {
            match unasked.iter_mut().find(|(k, ..)| *k == key) {
                Some((.., count)) => *count += 1,
                None => unasked.push((key, said, &info.name, 1)),
            }
        }
        assigned.tensors.push(row.output(output, info, dims)?);
    }
    for row in table {
        row.check_present(n_layer, config, |output| sources.contains_key(output))?;
    }
    assigned.warnings = unasked.into_iter().map(unasked_warning).collect();
    Ok(assigned)
}

fn unasked_warning((key, said, first, count): (&str, bool, &str, usize)) -> String {
    let more = if count > 1 { format!(" and {} more like it", count - 1) } else { String::new() };
    format!("config.json says {key} = {said}, yet the checkpoint has {first}{more}: written, and the engine will use it")
}

impl Row {
    fn output(&self, name: String, info: &TensorInfo, dims: &Dims) -> Result<OutputTensor, ArchError> {
        let expected: Vec<u64> = self.shape.iter().map(|&dim| dims.of(dim)).collect();
        if info.shape != expected {
            let meaning = self.shape.iter().map(|&dim| dims.named(dim)).collect::<Vec<_>>().join(", ");
            return Err(ArchError::Shape { tensor: info.name.clone(), expected, found: info.shape.clone(), meaning });
        }
        let read = TensorExpr::Read(info.clone());
        let pairs = |heads: u32, input| TensorExpr::PermuteRows {
            input: Box::new(input),
            dims: vec![heads.into(), 2, u64::from(dims.head_dim / 2)],
            axes: vec![0, 2, 1],
        };
        let expr = match self.rows {
            Rows::Same => read,
            Rows::PairsQ => pairs(dims.n_head, read),
            Rows::PairsK => pairs(dims.n_head_kv, read),
        };
        let keep_f32 = keep_f32(&name, info.shape.len());
        Ok(OutputTensor { name, expr, keep_f32 })
    }

    /// Whether a tensor of this row has to be there; if so, since which key says so.
    fn needed(&self, config: &Config) -> Result<Option<String>, ArchError> {
        let said = |key, value: bool| format!(" (config.json: {key} = {value})");
        Ok(match self.need {
            Need::Always => Some(String::new()),
            Need::If(key) => config.opt_bool(key)?.unwrap_or(false).then(|| said(key, true)),
            Need::Unless(key) => (!config.opt_bool(key)?.unwrap_or(false)).then(|| said(key, false)),
        })
    }

    /// The key, and its value, that says that this row's tensors are not there.
    fn not_asked(&self, config: &Config) -> Result<Option<(&'static str, bool)>, ArchError> {
        Ok(match (self.need, self.needed(config)?) {
            (Need::If(key), None) => Some((key, false)),
            (Need::Unless(key), None) => Some((key, true)),
            _ => None,
        })
    }

    fn check_present(&self, n_layer: u32, config: &Config, has: impl Fn(&str) -> bool) -> Result<(), ArchError> {
        let Some(because) = self.needed(config)? else { return Ok(()) };
        let layers = if is_per_layer(self.gguf) { 0..n_layer } else { 0..1 };
        // The first that is missing ends the search, so a huge layer count costs no more than the tensors that are there.
        for layer in layers {
            if !has(&fill(self.gguf, Some(layer))) {
                let tensor = fill(self.hf, Some(layer));
                return Err(ArchError::MissingTensor { tensor, class: config.class().name, because });
            }
        }
        Ok(())
    }
}

/// What the reference converter never stores in a smaller type, whatever the architecture: vectors, norms, all that is no weight.
pub(crate) fn keep_f32(name: &str, n_dims: usize) -> bool {
    n_dims <= 1 || name.ends_with("_norm.weight") || !name.ends_with(".weight")
}

/// A name with its first number, written as `{}`, and that number. A name that has `{}` itself gives a pattern of no table.
fn split(name: &str) -> (String, Option<u32>) {
    let mut layer = None;
    if name.contains(LAYER) {
        return (String::new(), None);
    }
    let pattern: Vec<&str> = name
        .split('.')
        .map(|part| match part.parse::<u32>() {
            Ok(number) if layer.is_none() && part == number.to_string() => {
                layer = Some(number);
                LAYER
            }
            _ => part,
        })
        .collect();
    (pattern.join("."), layer)
}

/// Whether a table's name stands for one tensor of each layer.
pub(crate) fn is_per_layer(pattern: &str) -> bool {
    pattern.contains(LAYER)
}

/// A table's name with the layer's number.
pub(crate) fn fill(pattern: &str, layer: Option<u32>) -> String {
    match layer {
        Some(layer) => pattern.replace(LAYER, &layer.to_string()),
        None => pattern.to_owned(),
    }
}
