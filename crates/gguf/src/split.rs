//! Models in several files: which tensor goes into which one.

use crate::error::LayoutError;
use crate::layout::{Layout, TensorSpec};
use crate::rules;
use crate::value::Metadata;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Number of a shard, from 0; `u16`.
pub const SPLIT_NO: &str = "split.no";
/// Number of shards; `u16`.
pub const SPLIT_COUNT: &str = "split.count";
/// Number of tensors in all shards together; `i32`.
pub const SPLIT_TENSORS_COUNT: &str = "split.tensors.count";

/// When to begin a new shard. The default never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitLimits {
    /// Most tensors per shard (`--split-max-tensors`); 0 for no limit.
    pub max_tensors: u64,
    /// Most bytes of tensor data per shard, without header and padding (`--split-max-size`); 0 for no limit. A tensor that is
    /// larger gets a shard of its own.
    pub max_bytes: u64,
    /// Whether the first shard holds metadata only (`--no-tensor-first-split`).
    pub no_tensor_first: bool,
}

/// What is wrong with the wish for shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SplitError {
    #[error("{text:?} is no size: a number of bytes is needed, or one with K, M or G behind it (1000-based), for example 2G")]
    Size { text: String },
    #[error("these limits make {found} shards, at most 65535 are possible; allow larger ones")]
    TooManyShards { found: usize },
    #[error("{found} tensors are more than the 2147483647 that split.tensors.count can hold")]
    TooManyTensors { found: usize },
    #[error("shard {no} {source}", no = shard + 1)]
    Layout { shard: usize, source: LayoutError },
}

/// A size as `--split-max-size` takes it: `N`, `NK`, `NM`, `NG`, 1000-based.
///
/// # Errors
/// [`SplitError::Size`] for anything else, and for more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, SplitError> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1_u64),
    };
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    number.and_then(|n| n.checked_mul(unit)).ok_or_else(|| SplitError::Size { text: text.to_owned() })
}

impl SplitLimits {
    /// Distribute tensors of these sizes (bytes of data, in file order) as gguf-py's `GGUFWriter.add_tensor_info` does: a shard
    /// is closed when the next tensor would exceed a limit, and never while it is empty. At least one range comes back.
    pub fn split(&self, sizes: impl IntoIterator<Item = u64>) -> Vec<Range<usize>> {
        let mut shards = Vec::new();
        if self.no_tensor_first {
            shards.push(0..0);
        }
        let mut current = 0..0;
        let mut bytes = 0_u64;
        for size in sizes {
            let full = self.max_tensors != 0 && current.len() as u64 >= self.max_tensors;
            let large = self.max_bytes != 0 && bytes.saturating_add(size) > self.max_bytes;
            if !current.is_empty() && (full || large) {
                shards.push(current.clone());
                current = current.end..current.end;
                bytes = 0;
            }
            current.end += 1;
            bytes = bytes.saturating_add(size);
        }
        shards.push(current);
        shards
    }
}

/// The layouts of a model's files, in shard order. One file holds `metadata` as it is. Of several, the first holds `metadata` and
/// behind it `split.no`, `split.count`, `split.tensors.count`, the others hold these three keys alone (as gguf-py writes them).
///
/// # Errors
/// [`SplitError`] when the limits make too many shards, or a shard cannot be written.
pub fn plan_shards(metadata: &Metadata, tensors: Vec<TensorSpec>, limits: &SplitLimits) -> Result<Vec<Layout>, SplitError> {
    // A tensor whose size overflows is refused by the layout of its shard.
    let size = |t: &TensorSpec| {
        rules::check_shape(&t.name, &t.shape).and_then(|()| rules::tensor_bytes(&t.name, &t.shape, t.format)).unwrap_or(u64::MAX)
    };
    let shards = limits.split(tensors.iter().map(size));
    let layout = |shard, metadata: &Metadata, tensors| {
        Layout::plan(metadata, tensors).map_err(|source| SplitError::Layout { shard, source })
    };
    if shards.len() == 1 {
        return Ok(vec![layout(0, metadata, tensors)?]);
    }
    // A name that is in two shards is no duplicate to either of their layouts.
    if let (_, Some(at)) = rules::sort_names(tensors.len(), |i| &tensors[i].name) {
        let shard = shards.iter().position(|s| s.contains(&at)).unwrap_or(0);
        let kind = crate::ErrorKind::DuplicateTensor { tensor: tensors[at].name.clone() };
        return Err(SplitError::Layout { shard, source: LayoutError(kind) });
    }
    let count = u16::try_from(shards.len()).map_err(|_| SplitError::TooManyShards { found: shards.len() })?;
    let total = i32::try_from(tensors.len()).map_err(|_| SplitError::TooManyTensors { found: tensors.len() })?;
    let mut tensors = tensors.into_iter();
    let mut layouts = Vec::with_capacity(shards.len());
    for (no, range) in (0..count).zip(shards) {
        let mut keys = if no == 0 { metadata.clone() } else { Metadata::new() };
        keys.set(SPLIT_NO, no);
        keys.set(SPLIT_COUNT, count);
        keys.set(SPLIT_TENSORS_COUNT, total);
        layouts.push(layout(usize::from(no), &keys, tensors.by_ref().take(range.len()).collect())?);
    }
    Ok(layouts)
}

/// Name of shard `no` (from 0) of `count` beside `file`: `STEM-00001-of-0000N.gguf`; `file` itself when `count` is 1.
pub fn shard_path(file: &Path, no: usize, count: usize) -> PathBuf {
    if count == 1 {
        return file.to_owned();
    }
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{:05}-of-{count:05}.gguf", no + 1));
    file.with_file_name(name)
}
