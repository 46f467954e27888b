//! What probably happened to a wrong tensor.

use super::compare::{self, Item, Part, Slot};
use super::figures::Sums;
use super::tile::{Tile, byte_of};
use super::{Error, same_shape};
use crate::report::layer_and_kind;
use ggufsmith_arch::Model;
use ggufsmith_core::{Rows, TensorExpr, TensorSource};
use ggufsmith_gguf::Shards;
use std::sync::atomic::{AtomicBool, Ordering};

/// Elements of a sample, where rows allow.
const SAMPLE: u64 = 1 << 14;
/// Fewest rows of a sample: one alone is the same in many orders.
const SAMPLE_ROWS: u64 = 8;
/// A sample is that of another tensor up to this many times our own encoder's error.
const RESEMBLES: f64 = 1.5;
/// No encoder that can be meant seriously has more than this many times the error of ours.
const ANOTHER_ENCODER: f64 = 2.0;

/// What can be said about a wrong tensor, to be put behind the sentence that it is wrong; may be empty.
pub(super) fn hint(
    item: &Item<'_>,
    total: &Part,
    model: &Model,
    shards: &Shards,
    source: &dyn TensorSource,
    tiles: impl Fn() -> Vec<Tile>,
    cancel: &AtomicBool,
) -> Result<String, Error> {
    if total.sums.value2 == 0.0 && total.sums.non_finite == 0 && total.sums.source2 > 0.0 {
        return Ok("; all its values are 0".to_owned());
    }
    let mut slot = Slot::default();
    let sample = sample(item);
    if !resembles(item, item.expr, &sample, shards, source, &mut slot)? {
        if let TensorExpr::PermuteRows { input, .. } = item.expr
            && resembles(item, input, &sample, shards, source, &mut slot)?
        {
            return Ok("; its rows are in the checkpoint's order: the converter did not reorder those of the query and key heads, as llama.cpp needs it".to_owned());
        }
        if let Some(other) = whose(item, &sample, model, shards, source, &mut slot, cancel)? {
            return Ok(format!("; its content is that of {other}"));
        }
    }
    if total.sums.relative_rmse() <= ANOTHER_ENCODER * total.own_relative() && !total.few_differ() && total.damaged().is_none() {
        return Ok(format!(
            "; it resembles the source, so it may be another tool's rounding, or an importance matrix was used that was not given{}",
            super::named_imatrix(shards)
        ));
    }
    damage(item, total, shards, source, tiles, &mut slot, cancel)
}

/// Some rows of a tensor, the first left out where there are more: it stays in its place under most permutations.
fn sample(item: &Item<'_>) -> Tile {
    let (rows, cols) = (item.tensor.rows(), item.tensor.cols());
    let from = u64::from(rows > 1);
    let wanted = (SAMPLE / cols).max(SAMPLE_ROWS).max(item.expr.min_rows());
    let to = from.saturating_add(wanted).min(rows);
    // A vector is one row; of a very long one the beginning will do.
    let block = item.format().block_len as u64;
    if rows == 1 && cols > SAMPLE && item.expr.min_rows() == 1 {
        let cols = SAMPLE / block * block;
        return Tile { item: 0, elems: 0..cols, cols, expert: 0 };
    }
    Tile { item: 0, elems: from * cols..to * cols, cols, expert: 0 }
}

/// Whether the file's sample is that of `expr`, as far as its type allows.
fn resembles(
    item: &Item<'_>,
    expr: &TensorExpr,
    sample: &Tile,
    shards: &Shards,
    source: &dyn TensorSource,
    slot: &mut Slot,
) -> Result<bool, Error> {
    compare::read(item, expr, sample, shards, source, slot)?;
    let found = Sums::of(&slot.source, &slot.values);
    let rows = Rows { words: expr.words(), cols: sample.cols as usize, bytes: &slot.words };
    slot.encoded.clear();
    slot.encoded.resize(slot.file.len(), 0);
    item.encoder.encode(rows, None, &mut slot.encoded).map_err(|source| Error::encode(item, source))?;
    let fault = |source| Error::Decode { tensor: item.tensor.name.clone(), source };
    item.format().decode(&slot.encoded, &mut slot.values).map_err(fault)?;
    let own = Sums::of(&slot.source, &slot.values);
    Ok(found.source2 > 0.0 && found.non_finite == 0 && found.error2 <= RESEMBLES * RESEMBLES * own.error2)
}

/// The tensor of the same shape whose content this is: of the same kind first, then of any.
fn whose<'a>(
    item: &Item<'_>,
    sample: &Tile,
    model: &'a Model,
    shards: &Shards,
    source: &dyn TensorSource,
    slot: &mut Slot,
    cancel: &AtomicBool,
) -> Result<Option<&'a str>, Error> {
    let (_, kind) = layer_and_kind(&item.tensor.name);
    let same_kind = |name: &str| layer_and_kind(name).1 == kind;
    let others = model.tensors.iter().filter(|other| other.name != item.tensor.name && same_shape(item.tensor, &other.expr));
    let (mut same, different): (Vec<_>, Vec<_>) = others.partition(|other| same_kind(&other.name));
    same.extend(different);
    for other in same {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        if resembles(item, &other.expr, sample, shards, source, slot)? {
            return Ok(Some(&other.name));
        }
    }
    Ok(None)
}

/// How many blocks differ from what the source gives in the way that fits best, and where the first one is.
fn damage(
    item: &Item<'_>,
    total: &Part,
    shards: &Shards,
    source: &dyn TensorSource,
    tiles: impl Fn() -> Vec<Tile>,
    slot: &mut Slot,
    cancel: &AtomicBool,
) -> Result<String, Error> {
    let mut ways: Vec<(u64, Option<u64>)> = item.ways.iter().map(|_| (0, None)).collect();
    for tile in tiles() {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        for (way, (count, first)) in ways.iter_mut().zip(compare::differing_blocks(item, &tile, shards, source, slot)?) {
            *way = (way.0 + count, way.1.or(first));
        }
    }
    let Some((count, Some(first))) = ways.into_iter().min_by_key(|(count, _)| *count) else { return Ok(String::new()) };
    let place = |elem: u64| {
        let file = shards.files().iter().find(|file| file.tensor(&item.tensor.name).is_some());
        let file = file.and_then(|file| file.path().file_name()).unwrap_or_default().to_string_lossy().into_owned();
        format!("row {}, byte {} of {file}", elem / item.tensor.cols(), item.tensor.offset + byte_of(item.format(), elem))
    };
    let what = if item.format().is_quantized() { "blocks" } else { "values" };
    // Of plain values the sentence in front has the count.
    let counted = !item.format().is_quantized() && count == total.sums.different;
    let mut text = match counted {
        true => format!(", the first in {}", place(first)),
        false => format!("; {count} of {} {what} differ from what the source gives, the first in {}", total.blocks, place(first)),
    };
    if let (Some(elem), None) = (total.changed(), total.damaged()) {
        text.push_str(&format!("; the block in {} was changed after it was encoded: the file is damaged", place(elem)));
    }
    if let Some((elem, times)) = total.damaged() {
        text.push_str(&format!("; the block in {} has {times:.0} times the usual error", place(elem)));
    }
    Ok(text)
}
