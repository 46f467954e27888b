//! Products with matrices that are decoded a tile at a time.

use crate::batch::Buffers;
use crate::matmul::{MatMul, View};
use crate::weights::TRANSPOSED_ROWS;
use crate::{Weights, WeightsError, ops};
use ggufsmith_arch::decoder::{Linear, Matrix};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Bytes of decoded weights that are held at a time.
pub const TILE_BYTES: usize = 64 << 20;

/// Tokens for which decoding is most of the work.
const FEW: usize = 8;
/// Elements of a tile that stays in a core's cache between decoding and multiplying.
const FEW_ELEMS: usize = 1 << 16;

thread_local! {
    static TILE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Who multiplies by what.
#[derive(Clone, Copy)]
pub(crate) struct Multiplier<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) multiply: &'a dyn MatMul,
}

impl Multiplier<'_> {
    /// `out = x · Wᵀ + b`, `[tokens, rows]`.
    pub(crate) fn linear(self, linear: &Linear, x: &[f32], out: &mut Vec<f32>, tile: &mut Vec<f32>) -> Result<(), WeightsError> {
        self.product(&linear.weight, x, out, tile)?;
        self.bias(linear, 0..linear.rows() as usize, out)
    }

    /// The outputs `range` of it, `[tokens, range.len()]`; `out` has that length.
    pub(crate) fn part(
        self,
        linear: &Linear,
        range: Range<usize>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut Buffers,
    ) -> Result<(), WeightsError> {
        self.rows(&linear.weight, range.clone(), x, out, &mut buffers.tile)?;
        self.bias(linear, range, out)
    }

    /// `out = x · Wᵀ`, `[tokens, rows]`.
    pub(crate) fn product(self, matrix: &Matrix, x: &[f32], out: &mut Vec<f32>, tile: &mut Vec<f32>) -> Result<(), WeightsError> {
        let (rows, tokens) = (matrix.n_rows() as usize, x.len() / matrix.n_cols() as usize);
        out.resize(tokens * rows, 0.0);
        self.rows(matrix, 0..rows, x, out, tile)
    }

    fn bias(self, linear: &Linear, range: Range<usize>, out: &mut [f32]) -> Result<(), WeightsError> {
        if let Some(bias) = &linear.bias {
            ops::add_bias(out, &self.weights.vector(bias)?[range]);
        }
        Ok(())
    }

    /// The rows `range` of a matrix for a few tokens: each thread decodes small tiles and multiplies by them at once.
    fn few(self, matrix: &Matrix, range: Range<usize>, x: &[f32], out: &mut [f32]) -> Result<(), WeightsError> {
        let (cols, width) = (matrix.n_cols() as usize, range.len());
        let step = if matrix.transposed {
            TRANSPOSED_ROWS.min(TILE_BYTES / size_of::<f32>() / cols).max(1)
        } else {
            // No more rows than MatMul takes at once.
            (FEW_ELEMS / cols).clamp(1, 128)
        };
        let products: Vec<Vec<f32>> = (0..width.div_ceil(step))
            .into_par_iter()
            .map(|number| {
                let at = number * step;
                let rows = step.min(width - at);
                let mut products = vec![0.0; x.len() / cols * rows];
                let mut memory = TILE.take();
                let tile = at_least(&mut memory, rows * cols);
                self.weights.rows(matrix, (range.start + at) as u64, cols, tile)?;
                self.multiply.matmul(x, View { data: tile, stride: cols, rows, cols }, &mut products, rows, 0);
                TILE.set(memory);
                Ok(products)
            })
            .collect::<Result<_, WeightsError>>()?;
        for (number, products) in products.iter().enumerate() {
            let (at, rows) = (number * step, products.len() / (x.len() / cols));
            for (out, products) in out.chunks_exact_mut(width).zip(products.chunks_exact(rows)) {
                out[at..at + rows].copy_from_slice(products);
            }
        }
        Ok(())
    }

    /// The rows `range` of a matrix, tile by tile.
    fn rows(
        self,
        matrix: &Matrix,
        range: Range<usize>,
        x: &[f32],
        out: &mut [f32],
        tile: &mut Vec<f32>,
    ) -> Result<(), WeightsError> {
        let cols = matrix.n_cols() as usize;
        if x.len() <= FEW * cols {
            return self.few(matrix, range, x, out);
        }
        let stride = padded(cols);
        let step = (TILE_BYTES / size_of::<f32>() / stride).max(1);
        let mut from = range.start;
        while from < range.end {
            let rows = step.min(range.end - from);
            let tile = at_least(tile, rows * stride);
            self.weights.rows(matrix, from as u64, stride, tile)?;
            self.multiply.matmul(x, View { data: tile, stride, rows, cols }, out, range.len(), from - range.start);
            from += rows;
        }
        Ok(())
    }
}

/// The first `len` elements of memory that grows to what is needed and is not cleared.
fn at_least(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}

/// Distance of the rows of a decoded tile: an odd number of cache lines. Rows a power of two apart would meet in a few sets of the cache
/// while gemm packs them.
fn padded(cols: usize) -> usize {
    const LINE: usize = 64 / size_of::<f32>();
    (cols.div_ceil(LINE) | 1) * LINE
}
