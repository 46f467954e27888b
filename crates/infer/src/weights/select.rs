//! Matrices and vectors of a description out of the tensors that hold them.

use super::{DECODE_ELEMS, Tensor, Weights, WeightsError};
use ggufsmith_arch::decoder::{Matrix, Vector};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a transposed matrix that are worth a read: at least 4 KiB of each row of the tensor.
pub(crate) const TRANSPOSED_ROWS: usize = 2048;

impl Weights {
    /// Decode the rows of a matrix from row `from` on, on the threads of the current pool: `out` is `[rows, stride]`, of which the first
    /// `matrix.n_cols()` elements of each row are written.
    ///
    /// # Errors
    /// [`WeightsError`] where the rows are not those of the matrix or its bytes cannot be read.
    ///
    /// # Panics
    /// Where `out` is no whole number of rows, or `stride` less than the matrix's columns: a fault of the caller.
    pub fn rows(&self, matrix: &Matrix, from: u64, stride: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let name = &matrix.tensor;
        let tensor = self.tensor(name).ok_or_else(|| WeightsError::Missing { tensor: name.clone() })?;
        if out.is_empty() {
            return Ok(());
        }
        let cols = matrix.n_cols() as usize;
        assert!(stride >= cols && cols > 0 && out.len().is_multiple_of(stride), "whole rows");
        let most = if matrix.transposed { TRANSPOSED_ROWS } else { (DECODE_ELEMS / stride).max(1) } as u64;
        let mut jobs = Vec::new();
        let mut rest = out;
        for run in runs(matrix, from, (rest.len() / stride) as u64)? {
            let mut at = run.start;
            while at < run.end {
                let rows = most.min(run.end - at);
                let (head, tail) = rest.split_at_mut(rows as usize * stride);
                jobs.push((at, head));
                (at, rest) = (at + rows, tail);
            }
        }
        jobs.into_par_iter().try_for_each(|(row, out)| {
            if matrix.transposed {
                self.columns_here(matrix, &tensor, row, stride, out)
            } else {
                let row = matrix.at.saturating_mul(matrix.full().0).saturating_add(row);
                self.decode_here(name, &tensor, row * cols as u64, (cols, stride), out)
            }
        })
    }

    /// Columns of the tensor from `column` on as rows of `out`.
    fn columns_here(
        &self,
        matrix: &Matrix,
        tensor: &Tensor,
        column: u64,
        stride: usize,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let (rows, cols) = matrix.full();
        let n = out.len() / stride;
        let mut values = vec![0.0; n];
        for k in 0..cols {
            let from = (matrix.at.saturating_mul(cols).saturating_add(k)).saturating_mul(rows).saturating_add(column);
            self.decode_here(&matrix.tensor, tensor, from, (n, n), &mut values)?;
            for (row, value) in out.chunks_exact_mut(stride).zip(&values) {
                row[k as usize] = *value;
            }
        }
        Ok(())
    }

    /// A vector as a whole: norms and biases.
    ///
    /// # Errors
    /// [`WeightsError`] where a tensor is missing, has another shape or cannot be read.
    pub fn vector(&self, vector: &Vector) -> Result<Vec<f32>, WeightsError> {
        let mut all = Vec::with_capacity(vector.full() as usize);
        for name in &vector.tensors {
            all.append(&mut self.tensor_values(name, &vector.shape)?);
        }
        if vector.ranges.is_empty() {
            return Ok(all);
        }
        let mut chosen = Vec::with_capacity(vector.len() as usize);
        for Range { start, end } in vector.ranges.iter().cloned() {
            let name = || vector.tensors.first().cloned().unwrap_or_default();
            let part = all.get(start as usize..end as usize);
            chosen.extend_from_slice(part.ok_or_else(|| WeightsError::Range { tensor: name(), from: start, to: end })?);
        }
        Ok(chosen)
    }
}

/// The rows of the whole matrix that rows `from..from + n` of the chosen ones are, neighbours together.
fn runs(matrix: &Matrix, from: u64, n: u64) -> Result<Vec<Range<u64>>, WeightsError> {
    let to = from.saturating_add(n);
    let full = matrix.full().0;
    let out_of_range = || WeightsError::Range { tensor: matrix.tensor.clone(), from, to };
    let whole = 0..full;
    let ranges = if matrix.rows.is_empty() { std::slice::from_ref(&whole) } else { &matrix.rows };
    let (mut runs, mut seen): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
    for range in ranges {
        if range.end > full || range.start > range.end {
            return Err(out_of_range());
        }
        let (first, last) = (from.max(seen), to.min(seen + (range.end - range.start)));
        if first < last {
            let run = range.start + (first - seen)..range.start + (last - seen);
            match runs.last_mut() {
                Some(before) if before.end == run.start => before.end = run.end,
                _ => runs.push(run),
            }
        }
        seen += range.end - range.start;
    }
    if to > seen { Err(out_of_range()) } else { Ok(runs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Storage, Tensors};
    use ggufsmith_arch::decoder::every;
    use ggufsmith_core::DType;

    /// Tensors whose element `i` is `i`.
    struct Counting(Vec<u64>);

    impl Tensors for Counting {
        fn tensor(&self, name: &str) -> Option<Tensor> {
            (name != "absent").then(|| Tensor { shape: self.0.clone(), storage: Storage::Plain(DType::F32) })
        }

        fn read(&self, _name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
            for (i, word) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *word = ((offset / 4 + i as u64) as f32).to_le_bytes();
            }
            Ok(())
        }
    }

    /// Element by element, as the documentation says.
    fn element(matrix: &Matrix, row: usize, col: u64) -> f32 {
        let (rows, cols) = matrix.full();
        let all: Vec<u64> =
            if matrix.rows.is_empty() { (0..rows).collect() } else { matrix.rows.iter().cloned().flatten().collect() };
        let row = all[row];
        (matrix.at * rows * cols + if matrix.transposed { col * rows + row } else { row * cols + col }) as f32
    }

    #[test]
    fn rows_of_every_selection() {
        let plain = Matrix::whole("w", 5000, 12);
        let turned = Matrix::transposed("w", 5000, 12);
        let heads: Vec<_> = every(50, 100, 30, 40).collect();
        let matrices = [
            plain.clone(),
            plain.clone().rows(heads.clone()),
            plain.clone().rows([4000..4500, 4500..5000, 0..7]),
            plain.clone().stacked(3).of_expert(2),
            plain.stacked(3).rows(heads.clone()).of_expert(1),
            turned.clone(),
            turned.clone().rows(heads.clone()),
            turned.stacked(2).rows(heads).of_expert(1),
        ];
        for (number, matrix) in matrices.iter().enumerate() {
            let weights = Weights::new(Box::new(Counting(matrix.shape.clone())));
            let mut resident = Weights::new(Box::new(Counting(matrix.shape.clone())));
            resident.make_resident("w").unwrap();
            let n = matrix.n_rows() as usize;
            for (from, rows, stride) in [(0, n, 12), (39, 82, 15), (n - 1, 1, 12)] {
                for weights in [&weights, &resident] {
                    let mut out = vec![-1.0; rows * stride];
                    weights.rows(matrix, from as u64, stride, &mut out).unwrap();
                    for (i, row) in out.chunks(stride).enumerate() {
                        for (k, value) in row.iter().enumerate() {
                            let expected = if k < 12 { element(matrix, from + i, k as u64) } else { -1.0 };
                            assert_eq!(*value, expected, "matrix {number}, row {from} + {i}, column {k}");
                        }
                    }
                }
            }
            let mut out = vec![0.0; 24];
            let beyond = weights.rows(matrix, n as u64 - 1, 12, &mut out);
            assert!(matches!(beyond, Err(WeightsError::Range { .. })), "{number}: {beyond:?}");
        }
    }

    #[test]
    fn parts_outside_a_tensor_are_refused() {
        let weights = Weights::new(Box::new(Counting(vec![10, 4])));
        let mut out = vec![0.0; 8];
        for matrix in [Matrix::whole("w", 10, 4).rows([0..1, 9..11]), Matrix::whole("w", 10, 4).of_expert(1)] {
            let error = weights.rows(&matrix, 0, 4, &mut out).unwrap_err();
            assert!(matches!(error, WeightsError::Range { .. }), "{error}");
        }
        assert!(matches!(weights.rows(&Matrix::whole("absent", 10, 4), 0, 4, &mut out), Err(WeightsError::Missing { .. })));
    }

    #[test]
    fn vectors_of_parts() {
        let weights = Weights::new(Box::new(Counting(vec![6])));
        let two = Vector::joined(["a".to_owned(), "b".to_owned()], 6);
        assert_eq!(weights.vector(&two).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(weights.vector(&two.clone().ranges(every(3, 4, 1, 2))).unwrap(), [1.0, 2.0, 5.0, 0.0, 3.0, 4.0]);
        assert!(matches!(weights.vector(&two.ranges([0..1, 11..13])), Err(WeightsError::Range { .. })));
        assert!(matches!(weights.vector(&Vector::whole("a", 5)), Err(WeightsError::Shape { .. })));
    }
}
