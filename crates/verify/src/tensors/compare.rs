//! One tile of a tensor against the source.

use super::Error;
use super::figures::{Sums, relative, saturated};
use super::tile::{Tile, byte_of};
use ggufsmith_checkpoint::Rounded;
use ggufsmith_core::{Encoder, Format, Rows, TensorExpr, TensorSource, Words, float, formats};
use ggufsmith_gguf::{GgufTensor, Shards};
use std::sync::atomic::{AtomicU8, Ordering};

/// A block whose error is this many times what is usual is remembered.
const SUSPICIOUS: f64 = 4.0;
/// The last `ggml_type` (Q8_0) whose scale follows from a block's extremes: a compiler that contracts products and sums moves values
/// between two codes that are equally far, and nothing else.
const LAST_WITHOUT_SEARCH: u32 = 8;
/// By how much of our own encoder's squared error a block's may differ where two codes are equally far.
const TIE: f64 = 1e-3;
/// The same where a scale is searched for, and another one is as good.
const TIE_OF_SEARCH: f64 = 0.25;

/// Where a tensor's values come from when a scheme decided them.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) source: &'a Rounded,
    pub(super) expr: &'a TensorExpr,
}

/// A tensor of the file that can be judged.
pub(super) struct Item<'a> {
    pub(super) tensor: &'a GgufTensor,
    pub(super) expr: &'a TensorExpr,
    pub(super) encoder: &'static Encoder,
    /// One entry per column and expert.
    pub(super) importance: Option<&'a [f32]>,
    /// What the values may have been rounded to before they were encoded; the first is not at all.
    pub(super) ways: Vec<Option<Words>>,
    /// The source with the values of a scheme that GGUF does not have: one more way, behind the others.
    pub(super) values: Option<Values<'a>>,
    /// Bits of the ways that have been ruled out. Whether a tile of another thread has done so yet decides only about work.
    pub(super) ruled_out: AtomicU8,
}

impl<'a> Item<'a> {
    pub(super) fn new(
        tensor: &'a GgufTensor,
        expr: &'a TensorExpr,
        encoder: &'static Encoder,
        importance: Option<&'a [f32]>,
    ) -> Self {
        // The file that llama-quantize read was F32 (all source types fit in), or one of the two 16-bit types.
        let narrow = [Words::BF16, Words::F16].into_iter().filter(|&words| words != expr.words());
        let ways = std::iter::once(None).chain(narrow.map(Some)).collect();
        Item { tensor, expr, encoder, importance, ways, values: None, ruled_out: AtomicU8::new(0) }
    }

    /// The bit of the way through [`Item::values`].
    pub(super) fn values_bit(&self) -> u8 {
        1 << self.ways.len()
    }

    pub(super) fn format(&self) -> &'static Format {
        self.tensor.format
    }

    /// Importance of the columns of a tile.
    fn importance_of(&self, tile: &Tile) -> Option<&'a [f32]> {
        let from = (tile.expert * tile.cols) as usize;
        self.importance.map(|all| &all[from..from + tile.cols as usize])
    }
}

/// The buffers of one thread.
#[derive(Default)]
pub(super) struct Slot {
    /// Source elements, as words.
    pub(super) words: Vec<u8>,
    /// Source elements.
    pub(super) source: Vec<f32>,
    /// Source elements in 16 bits.
    narrow: Vec<u8>,
    /// Values of `narrow`, later of `encoded`.
    other: Vec<f32>,
    /// The file's blocks.
    pub(super) file: Vec<u8>,
    /// Their values.
    pub(super) values: Vec<f32>,
    /// What the source gives.
    pub(super) encoded: Vec<u8>,
}

/// What was found in a tile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    /// The file's values.
    pub(super) sums: Sums,
    /// Largest `|v - s| / |s|`; for computed tables only.
    pub(super) max_relative: f64,
    /// Squared error of our own encoder.
    pub(super) own_error2: f64,
    /// Values of our own encoder's that are not finite.
    pub(super) own_non_finite: u64,
    /// Bits of the ways that do not give these bytes.
    pub(super) ruled_out: u8,
    /// Blocks that differ from what our encoder gives, and how many there are.
    pub(super) differing: u64,
    pub(super) blocks: u64,
    /// First element of the block whose error is largest among the suspicious ones, and that error over what is usual.
    pub(super) worst: Option<(u64, f64)>,
    /// First element of the first block that differs by more than a tie between two codes.
    pub(super) changed: Option<u64>,
}

/// Read a tile of both sides; values are in `slot.source` and `slot.values` then.
pub(super) fn read(
    item: &Item<'_>,
    expr: &TensorExpr,
    tile: &Tile,
    shards: &Shards,
    source: &dyn TensorSource,
    slot: &mut Slot,
) -> Result<(), Error> {
    let format = item.format();
    slot.words.clear();
    expr.append(source, tile.elems.clone(), &mut slot.words)?;
    widen(expr.words(), &slot.words, &mut slot.source);
    let from = byte_of(format, tile.elems.start);
    slot.file.clear();
    slot.file.resize((byte_of(format, tile.elems.end) - from) as usize, 0);
    shards.read_at(&item.tensor.name, from, &mut slot.file)?;
    slot.values.clear();
    slot.values.resize(tile.len(), 0.0);
    let fault = |source| Error::Decode { tensor: item.tensor.name.clone(), source };
    format.decode(&slot.file, &mut slot.values).map_err(fault)
}

/// Compare one tile.
pub(super) fn compare(
    item: &Item<'_>,
    tile: &Tile,
    shards: &Shards,
    source: &dyn TensorSource,
    slot: &mut Slot,
) -> Result<Part, Error> {
    read(item, item.expr, tile, shards, source, slot)?;
    let format = item.format();
    let mut sums = Sums::of(&slot.source, &slot.values);
    sums.saturated = saturated(&slot.values, format.block_len);
    let blocks = (tile.len() / format.block_len) as u64;
    let mut part = Part { own_error2: sums.error2, own_non_finite: sums.non_finite, blocks, ..Part::default() };
    part.sums = sums;
    if matches!(item.expr, TensorExpr::Values(..)) {
        part.max_relative = max_relative(&slot.source, &slot.values);
    }
    part.ruled_out = rule_out_values(item, tile, slot)?;
    if !format.is_quantized() && part.sums.different == 0 {
        // Every value is the source's; rounding those that have fewer bits changes nothing, others are asked below.
        part.ruled_out |= rule_out_narrow(item, tile, true, slot)?;
        item.ruled_out.fetch_or(part.ruled_out, Ordering::Relaxed);
        return Ok(part);
    }
    let equal = encode(item, tile, item.expr.words(), Side::Source, slot)?;
    if !equal {
        part.ruled_out |= 1;
        compare_with_own(format, tile, slot, &mut part)?;
    }
    part.ruled_out |= rule_out_narrow(item, tile, equal, slot)?;
    item.ruled_out.fetch_or(part.ruled_out, Ordering::Relaxed);
    Ok(part)
}

/// The bit of the way through a scheme's values, where that does not give the file's bytes.
fn rule_out_values(item: &Item<'_>, tile: &Tile, slot: &mut Slot) -> Result<u8, Error> {
    let (Some(values), bit) = (item.values, item.values_bit()) else { return Ok(0) };
    if item.ruled_out.load(Ordering::Relaxed) & bit != 0 {
        return Ok(bit);
    }
    slot.narrow.clear();
    values.expr.append(values.source, tile.elems.clone(), &mut slot.narrow)?;
    let equal = encode(item, tile, values.expr.words(), Side::Narrow, slot)?;
    Ok(if equal { 0 } else { bit })
}

/// Bits of the 16-bit ways that do not give the file's bytes; `equal`: the source as it is gives them.
fn rule_out_narrow(item: &Item<'_>, tile: &Tile, equal: bool, slot: &mut Slot) -> Result<u8, Error> {
    let mut ruled_out = 0;
    for (number, way) in item.ways.iter().enumerate() {
        let Some(words) = *way else { continue };
        if item.ruled_out.load(Ordering::Relaxed) & 1 << number != 0 {
            continue;
        }
        let rounds = narrow(item, tile, words, slot)?;
        let same = if rounds { encode(item, tile, words, Side::Narrow, slot)? } else { equal };
        ruled_out |= u8::from(!same) << number;
    }
    Ok(ruled_out)
}

/// Bits of the ways that do not give the bytes of this tile, each with the number of blocks that differ and the first of them, as
/// its first element.
pub(super) fn differing_blocks(
    item: &Item<'_>,
    tile: &Tile,
    shards: &Shards,
    source: &dyn TensorSource,
    slot: &mut Slot,
) -> Result<Vec<(u64, Option<u64>)>, Error> {
    read(item, item.expr, tile, shards, source, slot)?;
    let mut found = Vec::with_capacity(item.ways.len());
    for way in &item.ways {
        match *way {
            None => encode(item, tile, item.expr.words(), Side::Source, slot)?,
            Some(words) => {
                narrow(item, tile, words, slot)?;
                encode(item, tile, words, Side::Narrow, slot)?
            }
        };
        let size = item.format().block_bytes;
        let mut differing = slot.file.chunks(size).zip(slot.encoded.chunks(size)).enumerate().filter(|(_, (a, b))| a != b);
        let first = differing.next().map(|(block, _)| tile.elems.start + (block * item.format().block_len) as u64);
        found.push((u64::from(first.is_some()) + differing.count() as u64, first));
    }
    Ok(found)
}

/// Round the source to 16 bits; whether that changes a value.
fn narrow(item: &Item<'_>, tile: &Tile, words: Words, slot: &mut Slot) -> Result<bool, Error> {
    let encoder = if words == Words::F16 { &formats::f16::ENCODER } else { &formats::bf16::ENCODER };
    slot.narrow.clear();
    slot.narrow.resize(tile.len() * words.bytes(), 0);
    let rows = Rows { words: item.expr.words(), cols: tile.cols as usize, bytes: &slot.words };
    encoder.encode(rows, None, &mut slot.narrow).map_err(|source| Error::encode(item, source))?;
    widen(words, &slot.narrow, &mut slot.other);
    Ok(slot.other.iter().zip(&slot.source).any(|(a, b)| a.to_bits() != b.to_bits()))
}

/// What is encoded.
enum Side {
    Source,
    Narrow,
}

/// Encode one side of the slot; whether that gives the file's bytes.
fn encode(item: &Item<'_>, tile: &Tile, words: Words, side: Side, slot: &mut Slot) -> Result<bool, Error> {
    let bytes = match side {
        Side::Source => &slot.words,
        Side::Narrow => &slot.narrow,
    };
    let rows = Rows { words, cols: tile.cols as usize, bytes };
    slot.encoded.clear();
    slot.encoded.resize(slot.file.len(), 0);
    let importance = item.importance_of(tile);
    item.encoder.encode(rows, importance, &mut slot.encoded).map_err(|source| Error::encode(item, source))?;
    Ok(slot.encoded == slot.file)
}

/// The error of our own encoder, whose blocks are in the slot, and blocks of the file that are far from it.
fn compare_with_own(format: &Format, tile: &Tile, slot: &mut Slot, part: &mut Part) -> Result<(), Error> {
    slot.other.clear();
    slot.other.resize(tile.len(), 0.0);
    // The lengths fit: the encoder has checked them.
    let fault = |source| Error::Decode { tensor: String::new(), source };
    format.decode(&slot.encoded, &mut slot.other).map_err(fault)?;
    let own = Sums::of(&slot.source, &slot.other);
    (part.own_error2, part.own_non_finite) = (own.error2, own.non_finite);
    let usual = relative(own.error2, own.source2);
    let len = format.block_len;
    let blocks = slot.file.chunks(format.block_bytes).zip(slot.encoded.chunks(format.block_bytes));
    for (number, _) in blocks.enumerate().filter(|(_, (file, own))| file != own) {
        part.differing += 1;
        if !format.is_quantized() {
            continue;
        }
        let range = number * len..(number + 1) * len;
        let (source, found) = (&slot.source[range.clone()], &slot.values[range.clone()]);
        let (error2, source2) = errors(source, found);
        let (own_error2, _) = errors(source, &slot.other[range]);
        let tie = if format.ggml_id <= LAST_WITHOUT_SEARCH { TIE } else { TIE_OF_SEARCH };
        if part.changed.is_none() && (error2 - own_error2).abs() > tie * own_error2 {
            part.changed = Some(tile.elems.start + (number * len) as u64);
        }
        let limit = own_error2.max(usual * usual * source2);
        let times = (error2 / limit).sqrt();
        if error2 > SUSPICIOUS * SUSPICIOUS * limit && part.worst.is_none_or(|(_, worst)| times > worst) {
            part.worst = Some((tile.elems.start + (number * len) as u64, times));
        }
    }
    Ok(())
}

fn max_relative(source: &[f32], values: &[f32]) -> f64 {
    let relative = |(&s, &v): (&f32, &f32)| {
        let (s, v) = (f64::from(s), f64::from(v));
        if v == s { 0.0 } else { (v - s).abs() / s.abs() }
    };
    source.iter().zip(values).map(relative).fold(0.0, f64::max)
}

/// Sum of squared differences, sum of squares of the source. What is not finite counts as infinite.
fn errors(source: &[f32], values: &[f32]) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for (&s, &v) in source.iter().zip(values) {
        let (s, v) = (f64::from(s), f64::from(v));
        sums.0 += if (v - s).is_nan() { f64::INFINITY } else { (v - s) * (v - s) };
        sums.1 += s * s;
    }
    sums
}

fn widen(words: Words, bytes: &[u8], values: &mut Vec<f32>) {
    values.clear();
    let half = |to_f32: fn(u16) -> f32, values: &mut Vec<f32>| {
        values.extend(bytes.as_chunks().0.iter().map(|word| to_f32(u16::from_le_bytes(*word))));
    };
    match words {
        Words::F32 => values.extend(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word))),
        Words::F16 => half(float::f16_to_f32, values),
        Words::BF16 => half(float::bf16_to_f32, values),
    }
}
