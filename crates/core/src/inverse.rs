//! Tensor expressions backwards: source tensors from an output tensor.
//!
//! Every operation but rounding can be undone, so a file holds what its checkpoint held. [`invert`] takes one output apart;
//! a source tensor that several outputs share pieces of is put together by [`join`].

use crate::expr::TensorExpr;
use crate::source::TensorInfo;
use std::ops::Range;

/// Rows of a source tensor, and how they come from an output tensor.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The source tensor, as the expression reads it.
    pub source: TensorInfo,
    /// Which of its rows: items along the outermost dimension.
    pub rows: Range<u64>,
    /// Evaluates to these rows; reads the output tensor.
    pub expr: TensorExpr,
}

/// Why an expression cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum InverseError {
    #[error("it has the shape {found:?}, this model's has {expected:?}")]
    Shape { expected: Vec<u64>, found: Vec<u64> },
    #[error("{axes:?} is no order of the {dims} dimensions that rows are split into")]
    Axes { axes: Vec<usize>, dims: usize },
    #[error("rows {rows:?} are cut out of something that is not a source tensor")]
    Cut { rows: Range<u64> },
    #[error("rows {rows:?} of {tensor} are in none of the file's tensors")]
    Missing { tensor: String, rows: Range<u64> },
    #[error("rows {rows:?} of {tensor} are in more than one of the file's tensors")]
    Twice { tensor: String, rows: Range<u64> },
}

/// The source tensors, or parts of them, that `expr` was made of, each as an expression over `output`: the tensor that `expr`
/// evaluated to. Computed tables have no source and give no piece.
///
/// Evaluating a piece gives the source's elements exactly, with one exception: [`TensorExpr::AddOne`] rounds, so that elements
/// far below 2^-16 come back as the nearest multiple of 2^-24 or so.
///
/// # Errors
/// [`InverseError`] where `output` has another shape, or an operation cannot be undone.
pub fn invert(expr: &TensorExpr, output: &TensorInfo) -> Result<Vec<Piece>, InverseError> {
    let mut pieces = Vec::new();
    undo(expr, TensorExpr::Read(output.clone()), &mut pieces)?;
    Ok(pieces)
}

/// `value` is what `expr` evaluates to, in terms of the output.
fn undo(expr: &TensorExpr, value: TensorExpr, pieces: &mut Vec<Piece>) -> Result<(), InverseError> {
    let (expected, found) = (expr.shape(), value.shape());
    if expected != found {
        return Err(InverseError::Shape { expected, found });
    }
    match expr {
        TensorExpr::Read(source) => {
            pieces.push(Piece { source: source.clone(), rows: 0..outer(&found), expr: value });
            Ok(())
        }
        TensorExpr::Reshape(input, _) => undo(input, TensorExpr::Reshape(Box::new(value), input.shape()), pieces),
        TensorExpr::PermuteRows { input, dims, axes } => undo(input, permuted_back(value, dims, axes)?, pieces),
        TensorExpr::SliceRows(input, rows) => match input.as_ref() {
            TensorExpr::Read(source) => {
                pieces.push(Piece { source: source.clone(), rows: rows.clone(), expr: value });
                Ok(())
            }
            _ => Err(InverseError::Cut { rows: rows.clone() }),
        },
        TensorExpr::Concat(inputs) => {
            let mut at = 0;
            for input in inputs {
                let rows = at..at + outer(&input.shape());
                at = rows.end;
                undo(input, TensorExpr::SliceRows(Box::new(value.clone()), rows), pieces)?;
            }
            Ok(())
        }
        TensorExpr::Stack(inputs) => {
            for (at, input) in (0..).zip(inputs) {
                let one = TensorExpr::SliceRows(Box::new(value.clone()), at..at + 1);
                undo(input, TensorExpr::Reshape(Box::new(one), input.shape()), pieces)?;
            }
            Ok(())
        }
        TensorExpr::Transpose(input) => undo(input, TensorExpr::Transpose(Box::new(value)), pieces),
        TensorExpr::AddOne(input) => undo(input, TensorExpr::SubtractOne(Box::new(value)), pieces),
        TensorExpr::SubtractOne(input) => undo(input, TensorExpr::AddOne(Box::new(value)), pieces),
        TensorExpr::Values(..) => Ok(()),
    }
}

/// The permutation that puts rows back: dimensions as the first one left them, axes inverted.
fn permuted_back(value: TensorExpr, dims: &[u64], axes: &[usize]) -> Result<TensorExpr, InverseError> {
    let mut back = vec![usize::MAX; axes.len()];
    for (to, &from) in axes.iter().enumerate() {
        if let Some(place) = back.get_mut(from) {
            *place = to;
        }
    }
    // An axis that is missing leaves its place empty; then another one is there twice, or too large.
    if axes.len() != dims.len() || back.contains(&usize::MAX) {
        return Err(InverseError::Axes { axes: axes.to_vec(), dims: dims.len() });
    }
    let permuted = axes.iter().map(|&axis| dims[axis]).collect();
    Ok(TensorExpr::PermuteRows { input: Box::new(value), dims: permuted, axes: back })
}

/// One source tensor from all its pieces, in any order.
///
/// # Errors
/// [`InverseError`] where pieces are missing or overlap. Without any piece there is nothing to say: the whole tensor is missing.
pub fn join(source: &TensorInfo, mut pieces: Vec<Piece>) -> Result<TensorExpr, InverseError> {
    pieces.sort_by_key(|piece| (piece.rows.start, piece.rows.end));
    let tensor = || source.name.clone();
    let mut at = 0;
    for piece in &pieces {
        if piece.rows.start < at {
            return Err(InverseError::Twice { tensor: tensor(), rows: piece.rows.start..at.min(piece.rows.end) });
        }
        if piece.rows.start > at {
            return Err(InverseError::Missing { tensor: tensor(), rows: at..piece.rows.start });
        }
        at = piece.rows.end;
    }
    let rows = outer(&source.shape);
    if at != rows {
        return Err(InverseError::Missing { tensor: tensor(), rows: at..rows });
    }
    let mut parts: Vec<TensorExpr> = pieces.into_iter().map(|piece| piece.expr).collect();
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        Some(last) => {
            parts.push(last);
            Ok(TensorExpr::Concat(parts))
        }
        None => Err(InverseError::Missing { tensor: tensor(), rows: 0..rows }),
    }
}

fn outer(shape: &[u64]) -> u64 {
    shape.first().copied().unwrap_or(1)
}
