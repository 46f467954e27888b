//! The source with the file's precision: its rows encoded to the file's types and decoded again, still in the source's layout.
//!
//! Run as the source is run, it is what the file's forward pass has to give: the same numbers in another layout, by other keys. What
//! quantization costs is on both sides, so that a wrong permutation, norm or rotary setting stands alone.

use crate::report::TensorFigures;
use ggufsmith_arch::Model;
use ggufsmith_core::{Encoder, Rows, TensorExpr, TensorSource, Words, formats};
use ggufsmith_infer::{Storage, Tensor, Tensors, WeightsError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a source tensor gets the file's precision.
struct Way {
    through: Option<&'static Encoder>,
    encoder: &'static Encoder,
}

/// See the module.
pub(crate) struct Reencoded {
    source: Arc<dyn TensorSource>,
    ways: BTreeMap<String, Way>,
}

impl Reencoded {
    /// `None` where that cannot be done: an expression mixes columns, or a type cannot be written.
    pub(crate) fn new(source: Arc<dyn TensorSource>, model: &Model, figures: &[TensorFigures]) -> Option<Self> {
        let mut ways = BTreeMap::new();
        for tensor in &model.tensors {
            let Some(read) = whole_rows(&tensor.expr)? else { continue };
            let figures = figures.iter().find(|figures| figures.name == tensor.name)?;
            let named = |name: &str| formats::ENCODERS.iter().copied().find(|encoder| encoder.format.name == name);
            let through = match &figures.via {
                None => None,
                Some(via) => Some(named(via)?),
            };
            let encoder = named(&figures.format).filter(|encoder| !encoder.needs_importance)?;
            ways.insert(read, Way { through, encoder });
        }
        Some(Reencoded { source, ways })
    }
}

/// The source tensor whose rows an expression yields, in whatever order; `Some(None)` where it yields none, `None` where it does more.
fn whole_rows(expr: &TensorExpr) -> Option<Option<String>> {
    match expr {
        TensorExpr::Read(info) => Some(Some(info.name.clone())),
        TensorExpr::PermuteRows { input, .. } => whole_rows(input),
        TensorExpr::Values(..) => Some(None),
        _ => None,
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
        let mut bytes = Vec::new();
        let expr = TensorExpr::Read(info.clone());
        expr.append(&*self.source, from..from + len, &mut bytes)?;
        let cols = info.shape.last().copied().unwrap_or(1) as usize;
        let mut words = expr.words();
        let Some(Way { through, encoder }) = self.ways.get(name) else {
            widen(words, &bytes, out);
            return Ok(());
        };
        let range = || WeightsError::Range { tensor: name.to_owned(), from, to: from + len };
        if let Some(through) = through {
            bytes = encode(through, Rows { words, cols, bytes: &bytes }).ok_or_else(range)?;
            words = if *through.format == formats::f16::FORMAT { Words::F16 } else { Words::BF16 };
        }
        let blocks = encode(encoder, Rows { words, cols, bytes: &bytes }).ok_or_else(range)?;
        let mut values = vec![0.0; len as usize];
        encoder.format.decode(&blocks, &mut values).map_err(|source| WeightsError::Decode { tensor: name.to_owned(), source })?;
        for (word, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        Ok(())
    }
}

fn encode(encoder: &Encoder, rows: Rows<'_>) -> Option<Vec<u8>> {
    let mut out = vec![0; encoder.format.bytes_for(rows.elems() as u64)? as usize];
    encoder.encode(rows, None, &mut out).ok()?;
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
