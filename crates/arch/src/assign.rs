//! Every source tensor of a checkpoint to its place in the output.

use crate::tensors::{Dim, Dims, EXPERT, Name, Need, Row, Table, fill, is_per_layer, keep_f32};
use crate::{ArchError, Config, OutputTensor, parts};
use ggufsmith_core::{TensorExpr, TensorInfo};
use std::collections::{BTreeMap, HashMap};

/// Output tensors, in the order of their sources, and what was noticed on the way.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub(crate) tensors: Vec<OutputTensor>,
    pub(crate) dropped: Vec<(String, &'static str)>,
    pub(crate) warnings: Vec<String>,
}

/// The head.
const HEAD: &str = "output.weight";

/// Tensors that the reference converter leaves out, by the end of their names.
const DROPPED: [(&str, &str); 3] = [
    (".rotary_emb.inv_freq", "rotary frequencies: the engine computes them"),
    (".attention.masked_bias", "a constant of the attention mask"),
    (".attention.bias", "a causal mask: the engine has its own"),
];

/// Give every source tensor its place in the output; each row of `table` that the config asks for must be filled, once.
///
/// Outputs are in the order of `tensors`; a stack of experts stands where the last expert of its layer was, all stacks of a layer
/// together and in the table's order, as the reference converter has them.
pub(crate) fn assign(
    table: &Table,
    dims: &Dims,
    n_layer: u32,
    config: &Config,
    tensors: &[TensorInfo],
) -> Result<Assigned, ArchError> {
    let mut assigning =
        Assigning { table, dims, n_layer, config, sources: HashMap::new(), stacks: BTreeMap::new(), unasked: Vec::new() };
    let mut assigned = Assigned::default();
    for info in tensors {
        let named = parts::canonical(config.class(), &info.name, table);
        let drop = DROPPED.iter().chain(table.dropped).find(|(end, _)| info.name.ends_with(end)).map(|(_, why)| *why);
        match (drop, named) {
            (Some(why), _) | (None, Err(why)) => assigned.dropped.push((info.name.clone(), why)),
            (None, Ok(name)) => assigning.place(&name, info, &mut assigned.tensors)?,
        }
    }
    assigning.check_complete()?;
    assigned.warnings = assigning.unasked.iter().map(Unasked::warning).collect();
    Ok(assigned)
}

/// Tensors to be stacked, by row and number.
type Parts<'a> = BTreeMap<(usize, u32), &'a TensorInfo>;

struct Assigning<'a> {
    table: &'a Table,
    dims: &'a Dims,
    n_layer: u32,
    config: &'a Config,
    /// The source of each output.
    sources: HashMap<String, &'a str>,
    /// What is to be stacked (experts of a layer), until all of it is there: by layer and what is counted, then by row and number.
    stacks: BTreeMap<(u32, Dim), Parts<'a>>,
    unasked: Vec<Unasked>,
}

impl<'a> Assigning<'a> {
    fn place(&mut self, name: &str, info: &'a TensorInfo, out: &mut Vec<OutputTensor>) -> Result<(), ArchError> {
        let class = self.config.class().name;
        let Name { pattern, layer, expert } = Name::parse(name);
        if let Some(layer) = layer.filter(|&layer| layer >= self.n_layer) {
            let known = self.table.rows.iter().any(|row| row.hf == pattern);
            return Err(match known {
                true => ArchError::LayerBeyond { tensor: info.name.clone(), layer, n_layer: self.n_layer },
                false => ArchError::UnknownTensor { tensor: info.name.clone(), class },
            });
        }
        let mut known = false;
        for (index, row) in self.table.rows.iter().enumerate().filter(|(_, row)| row.hf == pattern) {
            known = true;
            self.check_shape(row, info)?;
            self.note_unasked(row, layer, info)?;
            match expert {
                None => {
                    self.claim(fill(row.gguf, layer), &info.name)?;
                    let expr = row.output(vec![TensorExpr::Read(info.clone())], self.dims);
                    out.push(output(fill(row.gguf, layer), expr));
                }
                Some(number) => self.place_stacked((index, row), layer.unwrap_or(0), number, info, out)?,
            }
        }
        if known { Ok(()) } else { Err(ArchError::UnknownTensor { tensor: info.name.clone(), class }) }
    }

    fn place_stacked(
        &mut self,
        (index, row): (usize, &'a Row),
        layer: u32,
        number: u32,
        info: &'a TensorInfo,
        out: &mut Vec<OutputTensor>,
    ) -> Result<(), ArchError> {
        let count = self.dims.of(row.each);
        if u64::from(number) >= count {
            let what = Dims::named(row.each);
            return Err(ArchError::NumberBeyond { tensor: info.name.clone(), number, count, what });
        }
        let found = self.stacks.entry((layer, row.each)).or_default();
        if let Some(first) = found.insert((index, number), info) {
            let (first, second) = (first.name.clone(), info.name.clone());
            return Err(ArchError::TensorTwice { first, second, output: fill(row.gguf, Some(layer)) });
        }
        if (found.len() as u64) < stacked(self.table, row.each).count() as u64 * count {
            return Ok(());
        }
        // All are there: the keys of the map are then every row with every number, in order.
        let found = self.stacks.remove(&(layer, row.each)).unwrap_or_default();
        for (index, row) in stacked(self.table, row.each) {
            let sources =
                found.range((index, 0)..=(index, u32::MAX)).map(|(_, info)| TensorExpr::Read((*info).clone())).collect();
            self.claim(fill(row.gguf, Some(layer)), &info.name)?;
            out.push(output(fill(row.gguf, Some(layer)), row.output(sources, self.dims)));
        }
        Ok(())
    }

    fn claim(&mut self, output: String, source: &'a str) -> Result<(), ArchError> {
        match self.sources.insert(output.clone(), source) {
            None => Ok(()),
            Some(first) => Err(ArchError::TensorTwice { first: first.to_owned(), second: source.to_owned(), output }),
        }
    }

    fn check_shape(&self, row: &Row, info: &TensorInfo) -> Result<(), ArchError> {
        let expected = row.source_shape(self.dims);
        if info.shape == expected {
            return Ok(());
        }
        let meaning = row.shape.iter().map(|&dim| Dims::named(dim)).collect::<Vec<_>>().join(", ");
        Err(ArchError::Shape { tensor: info.name.clone(), expected, found: info.shape.clone(), meaning })
    }

    fn note_unasked(&mut self, row: &Row, layer: Option<u32>, info: &TensorInfo) -> Result<(), ArchError> {
        if row.needed(self.config, self.dims, layer.unwrap_or(0))?.is_some() {
            return Ok(());
        }
        let said = match row.need {
            Need::If(key) => format!("{key} = false"),
            Need::Unless(key) => format!("{key} = true"),
            Need::When(_, what) => format!("otherwise ({what})"),
            Need::Experts(true) => "that there are no experts".to_owned(),
            Need::Experts(false) => format!("that there are {} experts", self.dims.n_expert),
            Need::Always => return Ok(()),
        };
        match self.unasked.iter_mut().find(|unasked| unasked.said == said) {
            Some(unasked) => unasked.count += 1,
            None => self.unasked.push(Unasked { said, first: info.name.clone(), count: 1 }),
        }
        Ok(())
    }

    /// No row that the config asks for is empty, and no stack of experts incomplete.
    fn check_complete(&self) -> Result<(), ArchError> {
        let class = self.config.class().name;
        if let Some(((layer, each), found)) = self.stacks.iter().next() {
            let count = self.dims.of(*each);
            let mut wanted = stacked(self.table, *each).flat_map(|(index, row)| (0..count).map(move |n| (index, row, n as u32)));
            if let Some((_, row, number)) = wanted.find(|(index, _, number)| !found.contains_key(&(*index, *number))) {
                let tensor = fill(row.hf, Some(*layer)).replace(EXPERT, &number.to_string());
                let because = format!(" (layer {layer} has {} such tensors, {} is {count})", found.len(), Dims::named(*each));
                return Err(ArchError::MissingTensor { tensor, class, because });
            }
        }
        for row in self.table.rows {
            // One layer more than there are tensors is enough to miss one: a huge layer count costs nothing.
            let enough = u32::try_from(self.sources.len()).unwrap_or(u32::MAX).saturating_add(1);
            let layers = if is_per_layer(row.gguf) { 0..self.n_layer.min(enough) } else { 0..1 };
            for layer in layers {
                let Some(because) = row.needed(self.config, self.dims, layer)? else { continue };
                if !self.sources.contains_key(&fill(row.gguf, Some(layer))) {
                    let tensor = fill(row.hf, Some(layer)).replace(EXPERT, "0");
                    return Err(ArchError::MissingTensor { tensor, class, because });
                }
            }
        }
        Ok(())
    }
}

/// The rows whose tensors are stacked, as many as `each` says, with their places in the table.
fn stacked(table: &Table, each: Dim) -> impl Iterator<Item = (usize, &Row)> {
    table.rows.iter().enumerate().filter(move |(_, row)| row.is_expert() && row.each == each)
}

fn output(name: String, expr: TensorExpr) -> OutputTensor {
    let keep_f32 = keep_f32(&name, expr.shape().len());
    OutputTensor { name, expr, keep_f32 }
}

/// Tensors that are there although the config does not ask for them.
struct Unasked {
    said: String,
    first: String,
    count: usize,
}

impl Unasked {
    fn warning(&self) -> String {
        let Unasked { said, first, count } = self;
        let more = if *count > 1 { format!(" and {} more like it", count - 1) } else { String::new() };
        format!("config.json says {said}, yet the checkpoint has {first}{more}: written, and the engine will use it")
    }
}

impl Row {
    /// Whether a tensor of this row has to be there in this layer; if so, since which key says so.
    fn needed(&self, config: &Config, dims: &Dims, layer: u32) -> Result<Option<String>, ArchError> {
        let said = |key, value: bool| format!(" (config.json: {key} = {value})");
        if self.gguf == HEAD && !config.class().head {
            return Ok(None);
        }
        Ok(match self.need {
            Need::Always => Some(String::new()),
            Need::If(key) => config.opt_bool(key)?.unwrap_or(false).then(|| said(key, true)),
            Need::Unless(key) => (!config.opt_bool(key)?.unwrap_or(false)).then(|| said(key, false)),
            Need::Experts(with) => ((dims.n_expert > 0) == with).then(String::new),
            Need::When(asks, what) => asks(config, layer)?.then(|| format!(" ({what})")),
        })
    }
}
