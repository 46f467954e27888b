//! How an output tensor comes from source tensors.
//!
//! An expression is data: it can be printed, counted and inverted. Evaluation produces any contiguous run of elements in
//! row-major order, so a tensor of any size is made in tiles of whole rows.

use crate::dtype::DType;
use crate::encoder::Words;
use crate::float;
use crate::source::{SourceError, TensorInfo, TensorSource};
use std::ops::Range;
use std::sync::Arc;

/// Bytes to read from each source row at a time when transposing, so that a spinning disk or a page cache is used well.
const TRANSPOSE_RUN_BYTES: u64 = 4096;

/// Where the elements of an output tensor come from. Shapes are outermost dimension first; "rows" of the row operations are the
/// items along the outermost dimension (for a vector: its elements).
#[derive(Debug, Clone)]
pub enum TensorExpr {
    /// A source tensor as it is. Elements that are not F32, F16 or BF16 become F32.
    Read(TensorInfo),
    /// The same elements under another shape.
    Reshape(Box<TensorExpr>, Vec<u64>),
    /// `input.reshape(dims + rest).permute(axes + rest).reshape(input.shape)`, where `dims` split the outermost dimension.
    PermuteRows {
        /// What is permuted.
        input: Box<TensorExpr>,
        /// How the outermost dimension is split; the product is its length.
        dims: Vec<u64>,
        /// The order of `dims` in the output, as in `numpy.transpose`.
        axes: Vec<usize>,
    },
    /// A range of rows.
    SliceRows(Box<TensorExpr>, Range<u64>),
    /// Inputs below each other; all inner dimensions are equal.
    Concat(Vec<TensorExpr>),
    /// Inputs of one shape under a new outermost dimension (experts).
    Stack(Vec<TensorExpr>),
    /// A matrix with its two dimensions exchanged (GPT-2's `Conv1D` weights).
    Transpose(Box<TensorExpr>),
    /// One added to every element in F32 (Gemma's norms).
    AddOne(Box<TensorExpr>),
    /// One taken from every element in F32: [`TensorExpr::AddOne`] undone.
    SubtractOne(Box<TensorExpr>),
    /// Small tables computed from hyper-parameters (`rope_freqs`).
    Values(Vec<u64>, Arc<[f32]>),
}

impl TensorExpr {
    /// Shape, outermost dimension first.
    pub fn shape(&self) -> Vec<u64> {
        match self {
            Self::Read(info) => info.shape.clone(),
            Self::Reshape(_, shape) | Self::Values(shape, _) => shape.clone(),
            Self::PermuteRows { input, .. } | Self::AddOne(input) | Self::SubtractOne(input) => input.shape(),
            Self::SliceRows(input, rows) => {
                let mut shape = input.shape();
                if let Some(outer) = shape.first_mut() {
                    *outer = rows.end.saturating_sub(rows.start);
                }
                shape
            }
            Self::Concat(inputs) => {
                let mut shape = inputs.first().map(Self::shape).unwrap_or_default();
                if let Some(outer) = shape.first_mut() {
                    *outer = inputs.iter().map(Self::outer).sum();
                }
                shape
            }
            Self::Stack(inputs) => {
                let mut shape = inputs.first().map(Self::shape).unwrap_or_default();
                shape.insert(0, inputs.len() as u64);
                shape
            }
            Self::Transpose(input) => {
                let mut shape = input.shape();
                shape.reverse();
                shape
            }
        }
    }

    /// Number of elements.
    pub fn elems(&self) -> u64 {
        self.shape().iter().product()
    }

    /// The words that evaluation yields. Where inputs differ, or where there is arithmetic: F32.
    pub fn words(&self) -> Words {
        match self {
            Self::Read(info) => info.dtype.words(),
            Self::Reshape(input, _) | Self::SliceRows(input, _) | Self::Transpose(input) => input.words(),
            Self::PermuteRows { input, .. } => input.words(),
            Self::Concat(inputs) | Self::Stack(inputs) => {
                let first = inputs.first().map_or(Words::F32, Self::words);
                if inputs.iter().all(|i| i.words() == first) { first } else { Words::F32 }
            }
            Self::AddOne(_) | Self::SubtractOne(_) | Self::Values(..) => Words::F32,
        }
    }

    /// Every source tensor that is read, in reading order.
    pub fn reads(&self) -> Vec<&TensorInfo> {
        match self {
            Self::Read(info) => vec![info],
            Self::Reshape(i, _) | Self::SliceRows(i, _) | Self::Transpose(i) => i.reads(),
            Self::AddOne(i) | Self::SubtractOne(i) => i.reads(),
            Self::PermuteRows { input, .. } => input.reads(),
            Self::Concat(inputs) | Self::Stack(inputs) => inputs.iter().flat_map(Self::reads).collect(),
            Self::Values(..) => Vec::new(),
        }
    }

    /// Where in the source an evaluation that begins at element `at` begins to read: the tensor and the byte in it; for rows that are
    /// permuted, the first of those that are exchanged among themselves. `None` for what is computed. For working in the source's order.
    pub fn first_read(&self, at: u64) -> Option<(&TensorInfo, u64)> {
        match self {
            Self::Read(info) => Some((info, at * info.dtype.bytes() as u64)),
            Self::Reshape(i, _) | Self::AddOne(i) | Self::SubtractOne(i) => i.first_read(at),
            Self::SliceRows(input, rows) => input.first_read(at + rows.start * input.item()),
            Self::PermuteRows { input, dims, axes } => {
                // Leading axes that stay in place leave blocks of rows, inside which all others move.
                let kept = axes.iter().enumerate().take_while(|(place, axis)| place == *axis).count();
                let block = dims.iter().skip(kept).product::<u64>() * input.item();
                input.first_read(at / block.max(1) * block)
            }
            Self::Transpose(input) => input.first_read(0),
            Self::Concat(inputs) | Self::Stack(inputs) => {
                let mut base = 0;
                for input in inputs {
                    let elems = input.elems();
                    if at < base + elems {
                        return input.first_read(at - base);
                    }
                    base += elems;
                }
                None
            }
            Self::Values(..) => None,
        }
    }

    /// The fewest rows that should be evaluated together for reading to be efficient.
    pub fn min_rows(&self) -> u64 {
        match self {
            Self::Transpose(input) => TRANSPOSE_RUN_BYTES / input.words().bytes() as u64,
            Self::Reshape(i, _) | Self::SliceRows(i, _) | Self::AddOne(i) | Self::SubtractOne(i) => i.min_rows(),
            Self::PermuteRows { input, .. } => input.min_rows(),
            Self::Concat(inputs) | Self::Stack(inputs) => inputs.iter().map(Self::min_rows).max().unwrap_or(1),
            Self::Read(_) | Self::Values(..) => 1,
        }
    }

    /// Bytes held at most while `elems` elements are evaluated: the result and every intermediate copy.
    pub fn working_set(&self, elems: u64) -> u64 {
        let out = elems * self.words().bytes() as u64;
        match self {
            Self::Read(info) if info.dtype.words() == Words::F32 && info.dtype != DType::F32 => {
                out + elems * info.dtype.bytes() as u64
            }
            Self::Read(_) | Self::Values(..) => out,
            Self::Reshape(i, _) | Self::SliceRows(i, _) => i.working_set(elems),
            // A permutation may read up to SPAN_FACTOR times the elements to save system calls.
            Self::PermuteRows { input, .. } => out + input.working_set(elems.saturating_mul(SPAN_FACTOR)),
            Self::Transpose(i) | Self::AddOne(i) | Self::SubtractOne(i) => out + i.working_set(elems),
            Self::Concat(inputs) | Self::Stack(inputs) => out + inputs.iter().map(|i| i.working_set(elems)).max().unwrap_or(0),
        }
    }

    /// Append the elements `range` (row-major positions) to `out` as little-endian words of [`Self::words`].
    ///
    /// # Errors
    /// [`SourceError`] from the source, or where the range or an inner shape does not fit.
    pub fn append(&self, source: &dyn TensorSource, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if range.start > range.end || range.end > self.elems() {
            return Err(self.misfit(format!("elements {range:?} of {}", self.elems())));
        }
        match self {
            Self::Read(info) => read(source, info, range, out),
            Self::Reshape(input, _) => input.append(source, range, out),
            Self::PermuteRows { input, dims, axes } => self.append_permuted(input, dims, axes, source, range, out),
            Self::SliceRows(input, rows) => {
                let skip = rows.start * input.item();
                input.append(source, range.start + skip..range.end + skip, out)
            }
            Self::Concat(inputs) | Self::Stack(inputs) => {
                let mut base = 0;
                for input in inputs {
                    let end = base + input.elems();
                    let part = range.start.max(base)..range.end.min(end);
                    if part.start < part.end {
                        append_as(input, self.words(), source, part.start - base..part.end - base, out)?;
                    }
                    base = end;
                }
                Ok(())
            }
            Self::Transpose(input) => self.append_transposed(input, source, range, out),
            Self::AddOne(input) => append_shifted(input, 1.0, source, range, out),
            Self::SubtractOne(input) => append_shifted(input, -1.0, source, range, out),
            Self::Values(_, values) => {
                for value in &values[range.start as usize..range.end as usize] {
                    out.extend_from_slice(&value.to_le_bytes());
                }
                Ok(())
            }
        }
    }

    fn outer(&self) -> u64 {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Elements per item of the outermost dimension.
    fn item(&self) -> u64 {
        self.shape().iter().skip(1).product()
    }

    fn misfit(&self, what: String) -> SourceError {
        let tensor = self.reads().first().map_or_else(|| "(computed)".into(), |info| info.name.clone());
        SourceError::Shape { tensor, what }
    }

    fn append_permuted(
        &self,
        input: &TensorExpr,
        dims: &[u64],
        axes: &[usize],
        source: &dyn TensorSource,
        range: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let item = input.item();
        if dims.iter().product::<u64>() != input.outer() || !is_permutation(axes, dims.len()) {
            return Err(self.misfit(format!("rows {} cannot be permuted as {dims:?} by {axes:?}", input.outer())));
        }
        let pieces = permuted_pieces(dims, axes, item, range);
        let bytes = input.words().bytes() as u64;
        let low = pieces.iter().map(|p| p.start).min().unwrap_or(0);
        let high = pieces.iter().map(|p| p.end).max().unwrap_or(0);
        let wanted: u64 = pieces.iter().map(|p| p.end - p.start).sum();
        if high - low > wanted.saturating_mul(SPAN_FACTOR) {
            return pieces.into_iter().try_for_each(|piece| input.append(source, piece, out));
        }
        let mut span = Vec::with_capacity(((high - low) * bytes) as usize);
        input.append(source, low..high, &mut span)?;
        for piece in pieces {
            out.extend_from_slice(&span[((piece.start - low) * bytes) as usize..((piece.end - low) * bytes) as usize]);
        }
        Ok(())
    }

    fn append_transposed(
        &self,
        input: &TensorExpr,
        source: &dyn TensorSource,
        range: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let [rows, cols] = input.shape()[..] else {
            return Err(self.misfit(format!("shape {:?} is no matrix to transpose", input.shape())));
        };
        // Output row r is input column r; the output has `cols` rows of `rows` elements.
        if rows == 0 || !range.start.is_multiple_of(rows) || !range.end.is_multiple_of(rows) {
            return Err(self.misfit(format!("a transposed matrix is read in whole rows, not elements {range:?}")));
        }
        let columns = range.start / rows..range.end / rows;
        let width = (columns.end - columns.start) as usize;
        let bytes = input.words().bytes();
        let from = out.len();
        out.resize(from + width * rows as usize * bytes, 0);
        let mut run = Vec::with_capacity(width * bytes);
        for row in 0..rows {
            run.clear();
            input.append(source, row * cols + columns.start..row * cols + columns.end, &mut run)?;
            for (column, word) in run.chunks_exact(bytes).enumerate() {
                let at = from + (column * rows as usize + row as usize) * bytes;
                out[at..at + bytes].copy_from_slice(word);
            }
        }
        Ok(())
    }
}

/// A permutation reads one span instead of many pieces when the span is at most this many times the pieces.
const SPAN_FACTOR: u64 = 4;

fn is_permutation(axes: &[usize], len: usize) -> bool {
    let mut seen = vec![false; len];
    axes.len() == len && axes.iter().all(|&a| a < len && !std::mem::replace(&mut seen[a], true))
}

/// The runs of input elements, in output order, that make up the output elements `range`; neighbours are joined.
fn permuted_pieces(dims: &[u64], axes: &[usize], item: u64, range: Range<u64>) -> Vec<Range<u64>> {
    let mut strides = vec![1u64; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * dims[axis + 1];
    }
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (mut index, within) = (at / item, at % item);
        let mut input_index = 0;
        for &axis in axes.iter().rev() {
            input_index += (index % dims[axis]) * strides[axis];
            index /= dims[axis];
        }
        let len = (item - within).min(range.end - at);
        let start = input_index * item + within;
        match pieces.last_mut() {
            Some(last) if last.end == start => last.end = start + len,
            _ => pieces.push(start..start + len),
        }
        at += len;
    }
    pieces
}

fn read(source: &dyn TensorSource, info: &TensorInfo, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), SourceError> {
    let bytes = info.dtype.bytes() as u64;
    let len = ((range.end - range.start) * bytes) as usize;
    if matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16) {
        let from = out.len();
        out.resize(from + len, 0);
        return source.read(&info.name, range.start * bytes, &mut out[from..]);
    }
    let mut raw = vec![0; len];
    source.read(&info.name, range.start * bytes, &mut raw)?;
    info.dtype.append_words(&raw, out);
    Ok(())
}

/// As [`TensorExpr::append`] in F32, with `summand` added to every element.
fn append_shifted(
    input: &TensorExpr,
    summand: f32,
    source: &dyn TensorSource,
    range: Range<u64>,
    out: &mut Vec<u8>,
) -> Result<(), SourceError> {
    let from = out.len();
    append_as(input, Words::F32, source, range, out)?;
    for word in out[from..].as_chunks_mut::<4>().0 {
        *word = (f32::from_le_bytes(*word) + summand).to_le_bytes();
    }
    Ok(())
}

/// As [`TensorExpr::append`], widened to `words` where the input has narrower ones.
fn append_as(
    input: &TensorExpr,
    words: Words,
    source: &dyn TensorSource,
    range: Range<u64>,
    out: &mut Vec<u8>,
) -> Result<(), SourceError> {
    if input.words() == words {
        return input.append(source, range, out);
    }
    let mut narrow = Vec::new();
    input.append(source, range, &mut narrow)?;
    let widen = match input.words() {
        Words::BF16 => float::bf16_to_f32,
        _ => float::f16_to_f32,
    };
    for word in narrow.as_chunks::<2>().0 {
        out.extend_from_slice(&widen(u16::from_le_bytes(*word)).to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// One F32 tensor per entry, in memory.
    struct Memory(Vec<TensorInfo>, Vec<Vec<u8>>);

    impl Memory {
        fn new(tensors: &[(&str, &[u64])]) -> Self {
            let info = |(name, shape): &(&str, &[u64])| TensorInfo {
                name: (*name).into(),
                dtype: DType::F32,
                shape: shape.to_vec(),
                file: PathBuf::new(),
                offset: 0,
            };
            let infos: Vec<_> = tensors.iter().map(info).collect();
            let data = infos
                .iter()
                .enumerate()
                .map(|(t, i)| (0..i.elems()).flat_map(|e| ((t as u64 * 1000 + e) as f32).to_le_bytes()).collect());
            let data = data.collect();
            Memory(infos, data)
        }
        fn expr(&self, name: &str) -> TensorExpr {
            TensorExpr::Read(self.info(name).unwrap().clone())
        }
    }

    impl TensorSource for Memory {
        fn tensors(&self) -> &[TensorInfo] {
            &self.0
        }
        fn info(&self, name: &str) -> Option<&TensorInfo> {
            self.0.iter().find(|i| i.name == name)
        }
        fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
            let at = self.0.iter().position(|i| i.name == name).unwrap();
            out.copy_from_slice(&self.1[at][offset as usize..offset as usize + out.len()]);
            Ok(())
        }
    }

    fn floats(expr: &TensorExpr, source: &Memory, range: Range<u64>) -> Vec<f32> {
        let mut out = Vec::new();
        expr.append(source, range, &mut out).unwrap();
        out.as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect()
    }

    /// Evaluates whole and in every split into two whole-row parts; all must agree.
    fn check(expr: &TensorExpr, source: &Memory, expected: &[f32]) {
        let cols = expr.shape().last().copied().unwrap_or(1);
        assert_eq!(expr.elems() as usize, expected.len());
        for cut in (0..=expr.elems()).step_by(cols as usize) {
            let mut parts = floats(expr, source, 0..cut);
            parts.extend(floats(expr, source, cut..expr.elems()));
            assert_eq!(parts, expected, "cut at {cut}");
        }
    }

    /// What is read from `at` on begins where `first_read` says, or behind it where rows are permuted.
    #[test]
    fn first_reads_are_found() {
        let source = Memory::new(&[("a", &[8, 3]), ("b", &[8, 3])]);
        let (a, b) = (|| Box::new(source.expr("a")), || Box::new(source.expr("b")));
        let at = |expr: &TensorExpr, elem: u64| expr.first_read(elem).map(|(info, byte)| (info.name.clone(), byte / 4));
        let found = |name: &str, elem: u64| Some((name.to_owned(), elem));
        assert_eq!(at(&a(), 5), found("a", 5));
        assert_eq!(at(&TensorExpr::SliceRows(b(), 2..8), 3), found("b", 9));
        let stack = TensorExpr::Stack(vec![*a(), TensorExpr::AddOne(b())]);
        assert_eq!((at(&stack, 23), at(&stack, 24), at(&stack, 48)), (found("a", 23), found("b", 0), None));
        // Two heads of four rows, each row exchanged inside its head.
        let permuted = TensorExpr::PermuteRows { input: a(), dims: vec![2, 2, 2], axes: vec![0, 2, 1] };
        assert_eq!((at(&permuted, 9), at(&permuted, 12), at(&permuted, 15)), (found("a", 0), found("a", 12), found("a", 12)));
        assert_eq!(at(&TensorExpr::Transpose(a()), 16), found("a", 0));
        assert_eq!(at(&TensorExpr::Values(vec![1], Arc::new([1.0])), 0), None);
    }

    #[test]
    fn permute_is_reshape_swapaxes_reshape() {
        let source = Memory::new(&[("w", &[8, 2]), ("b", &[8])]);
        // 2 heads, 2 halves of 2: numpy's arange(8).reshape(2, 2, 2).swapaxes(1, 2).reshape(8)
        let order = [0, 2, 1, 3, 4, 6, 5, 7];
        let permute =
            |name| TensorExpr::PermuteRows { input: Box::new(source.expr(name)), dims: vec![2, 2, 2], axes: vec![0, 2, 1] };
        let rows: Vec<f32> = order.iter().flat_map(|&r| [2.0 * r as f32, 2.0 * r as f32 + 1.0]).collect();
        check(&permute("w"), &source, &rows);
        let elements: Vec<f32> = order.iter().map(|&r| 1000.0 + r as f32).collect(); // the second tensor
        assert_eq!(floats(&permute("b"), &source, 0..8), elements);
    }

    #[test]
    fn the_other_operations() {
        let source = Memory::new(&[("a", &[2, 3]), ("b", &[2, 3])]);
        let (a, b) = (source.expr("a"), source.expr("b"));
        check(&TensorExpr::Transpose(Box::new(a.clone())), &source, &[0., 3., 1., 4., 2., 5.]);
        let both = [0., 1., 2., 3., 4., 5., 1000., 1001., 1002., 1003., 1004., 1005.];
        check(&TensorExpr::Concat(vec![a.clone(), b.clone()]), &source, &both);
        let stack = TensorExpr::Stack(vec![a.clone(), b.clone()]);
        assert_eq!(stack.shape(), [2, 2, 3]);
        check(&stack, &source, &both);
        let concat = TensorExpr::Concat(vec![a.clone(), b]);
        check(&TensorExpr::SliceRows(Box::new(concat), 1..3), &source, &[3., 4., 5., 1000., 1001., 1002.]);
        check(&TensorExpr::AddOne(Box::new(a)), &source, &[1., 2., 3., 4., 5., 6.]);
    }

    #[test]
    fn a_shape_that_does_not_fit_is_an_error() {
        let source = Memory::new(&[("w", &[8, 2])]);
        let expr = TensorExpr::PermuteRows { input: Box::new(source.expr("w")), dims: vec![3, 2], axes: vec![1, 0] };
        assert!(matches!(expr.append(&source, 0..2, &mut Vec::new()), Err(SourceError::Shape { .. })));
        assert!(source.expr("w").append(&source, 0..17, &mut Vec::new()).is_err());
    }
}
