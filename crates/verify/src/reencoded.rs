//! The source with the file's precision: its rows encoded to the file's types and decoded again, still in the source's layout.
//!
//! Run as the source is run, it is what the file's forward pass has to give: the same numbers in another layout, by other keys. What
//! quantization costs is on both sides, so that a wrong permutation, norm or rotary setting stands alone.

use crate::imatrix::Imatrix;
use crate::report::TensorFigures;
use ggufsmith_arch::Model;
use ggufsmith_core::{Encoder, Rows, TensorExpr, TensorInfo, TensorSource, Words, formats};
use ggufsmith_infer::{Storage, Tensor, Tensors, WeightsError};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// Elements of the largest transposed matrix; it is held as a whole. The largest GPT-2 has 10 million.
const MAX_TRANSPOSED: u64 = 1 << 26;

/// How a source tensor gets the file's precision.
#[derive(Clone)]
struct Way {
    through: Option<&'static Encoder>,
    encoder: &'static Encoder,
    /// Of the file's columns, expert by expert.
    importance: Option<Arc<[f32]>>,
    /// The file's rows are the source's columns.
    transposed: bool,
}

/// The values of a transposed matrix, in the file's layout.
struct Whole {
    name: String,
    values: Vec<f32>,
}

/// See the module.
pub(crate) struct Reencoded {
    source: Arc<dyn TensorSource>,
    ways: BTreeMap<String, Way>,
    /// The transposed matrix that was read last: its rows are asked for one after the other.
    last: Mutex<Option<Whole>>,
}

impl Reencoded {
    /// `None` where that cannot be done: blocks of the file mix rows of the source, parts of a source tensor have several types, or a type
    /// cannot be written.
    pub(crate) fn new(
        source: Arc<dyn TensorSource>,
        model: &Model,
        figures: &[TensorFigures],
        imatrix: Option<&Imatrix>,
    ) -> Option<Self> {
        let mut ways = BTreeMap::new();
        for tensor in model.tensors.iter().filter(|tensor| !tensor.expr.reads().is_empty()) {
            let figures = figures.iter().find(|figures| figures.name == tensor.name)?;
            let named = |name: &str| formats::ENCODERS.iter().copied().find(|encoder| encoder.format.name == name);
            let through = match &figures.via {
                None => None,
                Some(via) => Some(named(via)?),
            };
            let encoder = named(&figures.format)?;
            let measured = imatrix.filter(|_| encoder.format.is_quantized());
            let importance = measured.and_then(|imatrix| imatrix.of(&tensor.name, &tensor.expr.shape()).ok()).flatten();
            if encoder.needs_importance && importance.is_none() {
                return None;
            }
            let way = Way { through, encoder, importance: importance.map(Arc::from), transposed: false };
            let mut reads = Vec::new();
            collect(&tensor.expr, way, &mut reads)?;
            for (name, way) in reads {
                match ways.entry(name) {
                    Entry::Vacant(entry) => drop(entry.insert(way)),
                    Entry::Occupied(entry) if entry.get().equals(&way) => {}
                    Entry::Occupied(_) => return None,
                }
            }
        }
        Some(Reencoded { source, ways, last: Mutex::new(None) })
    }

    /// A transposed matrix at the file's precision: elements `from..` of the source's layout, as many as `out` has.
    fn transposed(&self, info: &TensorInfo, way: &Way, from: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        // `collect` has seen that there are two.
        let [rows, cols] = info.shape[..] else { return Err(WeightsError::Missing { tensor: info.name.clone() }) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = match last.take().filter(|whole| whole.name == info.name) {
            Some(whole) => whole,
            None => {
                let expr = TensorExpr::Transpose(Box::new(TensorExpr::Read(info.clone())));
                let mut bytes = Vec::new();
                expr.append(&*self.source, 0..rows * cols, &mut bytes)?;
                Whole { name: info.name.clone(), values: way.values(&info.name, expr.words(), rows as usize, 0, bytes)? }
            }
        };
        for (word, at) in out.as_chunks_mut::<4>().0.iter_mut().zip(from..) {
            *word = whole.values[(at % cols * rows + at / cols) as usize].to_le_bytes();
        }
        *last = Some(whole);
        Ok(())
    }
}

/// The source tensors that an expression yields, each with how its rows are encoded: `way`, or its transposed. `None` where a block of the
/// output does not come from one row (or column) of one source tensor.
fn collect(expr: &TensorExpr, way: Way, out: &mut Vec<(String, Way)>) -> Option<()> {
    let elementwise = |way: &Way| way.encoder.format.block_len == 1;
    // Rows of several experts are told apart by where they stand.
    let stays = matches!(expr, TensorExpr::Read(_) | TensorExpr::Values(..) | TensorExpr::Reshape(..) | TensorExpr::Stack(_));
    if !stays && way.experts(expr.shape().last().copied().unwrap_or(1)) > 1 {
        return None;
    }
    match expr {
        TensorExpr::Read(info) => out.push((info.name.clone(), way)),
        TensorExpr::Values(..) => {}
        TensorExpr::PermuteRows { input, .. } | TensorExpr::SliceRows(input, _) => {
            // The rows of a vector are its elements.
            (input.shape().len() > 1 || elementwise(&way)).then(|| collect(input, way, out))??;
        }
        TensorExpr::Reshape(input, shape) => {
            let whole_rows = input.shape().last() == shape.last();
            (whole_rows || elementwise(&way)).then(|| collect(input, way, out))??;
        }
        TensorExpr::Concat(inputs) => inputs.iter().try_for_each(|input| collect(input, way.clone(), out))?,
        TensorExpr::Stack(inputs) => {
            for (number, input) in inputs.iter().enumerate() {
                let share = |all: &Arc<[f32]>| all.chunks(all.len().div_ceil(inputs.len()).max(1)).nth(number).map(Arc::from);
                let importance = way.importance.as_ref().and_then(share);
                collect(input, Way { importance, ..way.clone() }, out)?;
            }
        }
        TensorExpr::Transpose(input) if elementwise(&way) => collect(input, way, out)?,
        TensorExpr::Transpose(input) => match &**input {
            TensorExpr::Read(info) if info.shape.len() == 2 && expr.elems() <= MAX_TRANSPOSED => {
                out.push((info.name.clone(), Way { transposed: true, ..way }));
            }
            _ => return None,
        },
        // In F32 it is what the source's own arithmetic makes of it.
        TensorExpr::AddOne(input) => {
            (*way.encoder.format == formats::f32::FORMAT && way.through.is_none()).then(|| collect(input, way, out))??;
        }
        TensorExpr::SubtractOne(_) => return None,
    }
    Some(())
}

impl Way {
    fn equals(&self, other: &Way) -> bool {
        // Of one type there are several encoders, with names of their own.
        let names = |way: &Way| (way.encoder.format.name, way.encoder.name, way.through.map(|through| through.format.name));
        names(self) == names(other) && self.transposed == other.transposed && self.importance == other.importance
    }

    /// How many experts of `cols` columns the importance is of; 1 where there is none.
    fn experts(&self, cols: u64) -> usize {
        self.importance.as_ref().map_or(1, |all| all.len() / cols.max(1) as usize).max(1)
    }

    /// The values of whole rows of `words`, all of them of the same expert.
    fn values(
        &self,
        name: &str,
        mut words: Words,
        cols: usize,
        expert: usize,
        mut bytes: Vec<u8>,
    ) -> Result<Vec<f32>, WeightsError> {
        let len = bytes.len() / words.bytes();
        let range = || WeightsError::Range { tensor: name.to_owned(), from: 0, to: len as u64 };
        if let Some(through) = self.through {
            bytes = encode(through, Rows { words, cols, bytes: &bytes }, None).ok_or_else(range)?;
            words = if *through.format == formats::f16::FORMAT { Words::F16 } else { Words::BF16 };
        }
        let importance = self.importance.as_ref().map(|all| all.get(expert * cols..(expert + 1) * cols).ok_or_else(range));
        let rows = Rows { words, cols, bytes: &bytes };
        let blocks = encode(self.encoder, rows, importance.transpose()?).ok_or_else(range)?;
        let mut values = vec![0.0; len];
        let decoded = self.encoder.format.decode(&blocks, &mut values);
        decoded.map_err(|source| WeightsError::Decode { tensor: name.to_owned(), source })?;
        Ok(values)
    }
}

impl Tensors for Reencoded {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.source.info(name)?;
        Some(Tensor { shape: info.shape.clone(), storage: Storage::Blocks(&formats::f32::FORMAT) })
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        let info = self.source.info(name).ok_or_else(|| WeightsError::Missing { tensor: name.to_owned() })?;
        let (from, len) = (offset / 4, out.len() as u64 / 4);
        let way = self.ways.get(name);
        if let Some(way) = way.filter(|way| way.transposed) {
            return self.transposed(info, way, from, out);
        }
        let mut bytes = Vec::new();
        let expr = TensorExpr::Read(info.clone());
        expr.append(&*self.source, from..from + len, &mut bytes)?;
        let Some(way) = way else {
            widen(expr.words(), &bytes, out);
            return Ok(());
        };
        // Element by element rows do not matter, and may be cut.
        let cols = if way.encoder.format.block_len == 1 { 1 } else { info.shape.last().copied().unwrap_or(1) as usize };
        // The rows of one expert after those of the other.
        let each = info.shape.iter().product::<u64>() / way.experts(cols as u64) as u64;
        let (words, mut at, mut out) = (expr.words(), from, out.as_chunks_mut::<4>().0);
        while at < from + len {
            let expert = at / each;
            let some = (from + len).min((expert + 1) * each) - at;
            let rest = bytes.split_off(some as usize * words.bytes());
            let values = way.values(name, words, cols, expert as usize, std::mem::replace(&mut bytes, rest))?;
            let (here, behind) = out.split_at_mut(some as usize);
            for (word, value) in here.iter_mut().zip(values) {
                *word = value.to_le_bytes();
            }
            (out, at) = (behind, at + some);
        }
        Ok(())
    }
}

fn encode(encoder: &Encoder, rows: Rows<'_>, importance: Option<&[f32]>) -> Option<Vec<u8>> {
    let mut out = vec![0; encoder.format.bytes_for(rows.elems() as u64)? as usize];
    encoder.encode(rows, importance, &mut out).ok()?;
    Some(out)
}

fn widen(words: Words, bytes: &[u8], out: &mut [u8]) {
    let plain = match words {
        Words::F32 => &formats::f32::FORMAT,
        Words::F16 => &formats::f16::FORMAT,
        Words::BF16 => &formats::bf16::FORMAT,
    };
    let mut values = vec![0.0; out.len() / 4];
    // The lengths belong together: both come from one number of elements.
    let _ = plain.decode(bytes, &mut values);
    for (word, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *word = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Source;
    use ggufsmith_checkpoint::OpenOptions;
    use std::path::Path;

    fn open(model: &str) -> Source {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(model).join("hf");
        Source::open(&folder, OpenOptions::default()).unwrap_or_else(|e| panic!("{model}: {e}"))
    }

    /// What a file of matrices of one type has; everything else is F32.
    fn figures(source: &Source, format: &str) -> Vec<TensorFigures> {
        let one = |tensor: &ggufsmith_arch::OutputTensor| {
            let format = if tensor.keep_f32 || tensor.expr.shape().len() < 2 { "F32" } else { format };
            TensorFigures {
                name: tensor.name.clone(),
                layer: None,
                kind: String::new(),
                format: format.to_owned(),
                elems: tensor.expr.elems(),
                bytes: 0,
                verdict: crate::report::TensorVerdict::Exact,
                via: None,
                max_error: 0.0,
                rmse: 0.0,
                relative_rmse: 0.0,
                cosine: 1.0,
                saturated: 0.0,
                non_finite: 0,
            }
        };
        source.model.tensors.iter().map(one).collect()
    }

    fn reencoded(source: &Source, figures: &[TensorFigures]) -> Option<Reencoded> {
        Reencoded::new(source.checkpoint.clone(), &source.model, figures, None)
    }

    fn read(from: &Reencoded, name: &str, elems: std::ops::Range<u64>) -> Vec<f32> {
        let mut bytes = vec![0; (elems.end - elems.start) as usize * 4];
        from.read(name, elems.start * 4, &mut bytes).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn every_family_has_its_own_layout_at_every_precision() {
        for of in ["tiny", "tiny5"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(of);
            let mut seen = 0;
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().join("hf").is_dir()) {
                let name = format!("{of}/{}", entry.file_name().to_string_lossy());
                let source = open(&name);
                for format in ["F32", "F16", "Q8_0", "Q4_0"] {
                    assert!(reencoded(&source, &figures(&source, format)).is_some(), "{name} {format}");
                }
                seen += 1;
            }
            assert!(seen > 5, "{of}");
        }
    }

    /// GPT-2's matrices: blocks of the file run down the columns of the source.
    #[test]
    fn blocks_of_transposed_matrices() {
        const NAME: &str = "transformer.h.0.mlp.c_fc.weight";
        let source = open("tiny/gpt2");
        let ours = reencoded(&source, &figures(&source, "Q8_0")).unwrap();
        let plain = reencoded(&source, &figures(&source, "F32")).unwrap();
        let [rows, cols] = source.checkpoint.info(NAME).unwrap().shape[..] else { panic!("two dimensions") };
        let (all, exact) = (read(&ours, NAME, 0..rows * cols), read(&plain, NAME, 0..rows * cols));
        assert_ne!(all, exact);
        for column in 0..cols as usize {
            for block in 0..rows as usize / 32 {
                let at: Vec<usize> = (0..32).map(|i| (block * 32 + i) * cols as usize + column).collect();
                let bytes: Vec<u8> = at.iter().flat_map(|&i| exact[i].to_le_bytes()).collect();
                let mut blocks = vec![0; 34];
                ggufsmith_core::formats::q8_0::ENCODER
                    .encode(Rows { words: Words::F32, cols: 32, bytes: &bytes }, None, &mut blocks)
                    .unwrap();
                let mut expected = [0.0; 32];
                ggufsmith_core::formats::q8_0::FORMAT.decode(&blocks, &mut expected).unwrap();
                let found: Vec<f32> = at.iter().map(|&i| all[i]).collect();
                assert_eq!(found, expected);
            }
        }
        // Parts of rows, and another tensor in between.
        assert_eq!(read(&ours, NAME, cols - 5..cols + 7), all[cols as usize - 5..cols as usize + 7]);
        read(&ours, "transformer.h.1.mlp.c_fc.weight", 0..1);
        assert_eq!(read(&ours, NAME, 3..4), all[3..4]);
    }

    #[test]
    fn parts_of_one_tensor_with_two_types_cannot_be_told_apart() {
        let source = open("tiny5/mixtral");
        let mut figures = figures(&source, "Q8_0");
        assert!(reencoded(&source, &figures).is_some());
        let up = figures.iter_mut().find(|figures| figures.name == "blk.0.ffn_up_exps.weight").unwrap();
        up.format = "Q4_0".to_owned();
        assert!(reencoded(&source, &figures).is_none());
    }
}
