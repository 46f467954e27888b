//! Matrix products: the only place that knows who multiplies.
//!
//! This is the one module of the crate with `unsafe`: `gemm` takes raw pointers, and jobs write blocks of columns of one matrix.
#![allow(unsafe_code)]

use rayon::prelude::*;

/// Multiplies activations by weights.
pub trait MatMul: Send + Sync {
    /// `out[t][n] = Σ_k x[t][k] · w[n][k]` for whole rows of weights.
    ///
    /// `x` is `[tokens, w.cols]` without gaps; `out` holds `tokens` rows `stride` elements apart, of which the elements from `column` on,
    /// one for each row of `w`, are written. The same arguments give the same bits on any number of threads.
    ///
    /// # Panics
    /// Where the lengths do not belong together: a fault of the caller.
    fn matmul(&self, x: &[f32], w: View<'_>, out: &mut [f32], stride: usize, column: usize);
}

/// The crate `gemm`, on the threads of the current pool.
#[derive(Debug, Default, Clone, Copy)]
pub struct Gemm;

/// Tokens per job: gemm packs the rows of weights once for them.
const TOKENS: usize = 512;
/// Rows of weights per job.
const ROWS: usize = 256;

/// A matrix that jobs write disjoint blocks of.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: jobs write disjoint elements, and the matrix outlives them; see `matmul`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl MatMul for Gemm {
    fn matmul(&self, x: &[f32], w: View<'_>, out: &mut [f32], stride: usize, column: usize) {
        let (rows, cols) = (w.rows, w.cols);
        assert!(cols > 0 && x.len().is_multiple_of(cols) && w.is_whole(), "whole rows");
        let tokens = x.len() / cols;
        assert!(column + rows <= stride && out.len() >= tokens * stride, "room for every product");
        // Blocks do not depend on the number of threads, since the order of sums inside `gemm` depends on their size.
        let (across, down) = (tokens.div_ceil(TOKENS), rows.div_ceil(ROWS));
        let shared = Shared(out.as_mut_ptr());
        (0..across * down).into_par_iter().for_each(|job| {
            // Jobs of one block of weights follow each other.
            let (t, n) = (job % across * TOKENS, job / across * ROWS);
            let (m, rows) = (TOKENS.min(tokens - t), ROWS.min(rows - n));
            let w = View { data: &w.data[n * w.stride..], rows, ..w };
            block(&x[t * cols..(t + m) * cols], w, shared, t * stride + column + n, stride);
        });
    }
}

/// One job: `m` tokens by `rows` rows, written from element `at` of `out` on.
fn block(x: &[f32], w: View<'_>, out: Shared, at: usize, stride: usize) {
    let (rows, cols) = (w.rows, w.cols);
    let m = x.len() / cols;
    // SAFETY: `x` is `[m, cols]`, contiguous; `matmul` has checked that `w` has `rows` rows of `cols` elements `w.stride` apart, and that
    // rows `t..t + m` of `out`, `stride` apart, have `rows` elements from `column + n` on. Each job has other tokens or other rows, so no
    // two write one element, and nobody reads `out` meanwhile: `matmul` holds it exclusively until every job has ended.
    unsafe {
        let out = out.0.add(at);
        // Written as `outᵀ = w · xᵀ`: gemm is fastest where its result is contiguous along its first dimension.
        gemm::gemm(
            rows,
            m,
            cols,
            out,
            stride as isize,
            1,
            false,
            w.data.as_ptr(),
            1,
            w.stride as isize,
            x.as_ptr(),
            cols as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `out = scale * x · wᵀ`, or `scale * x · w` where `w` is not `transposed`, on the calling thread; for attention, whose heads lie beside
/// each other. `out` holds `x.rows` rows without gaps.
///
/// # Panics
/// Where a matrix is shorter than its view says, or the two do not belong together.
pub(crate) fn small(x: View<'_>, w: View<'_>, transposed: bool, out: &mut [f32], scale: f32) {
    let (m, cols) = (x.rows, x.cols);
    let (rows, inner) = if transposed { (w.rows, w.cols) } else { (w.cols, w.rows) };
    assert!(inner == cols && x.is_whole() && w.is_whole() && out.len() >= m * rows, "matrices that belong together");
    let (w_row, w_col) = if transposed { (w.stride as isize, 1) } else { (1, w.stride as isize) };
    // SAFETY: the assertion above: `x` has `m` rows of `cols` elements, `w` has `rows` rows of `cols` (or, not transposed, `cols` rows
    // of `rows`), `out` has `m * rows` elements and is borrowed exclusively.
    unsafe {
        gemm::gemm(
            rows,
            m,
            cols,
            out.as_mut_ptr(),
            rows as isize,
            1,
            false,
            w.data.as_ptr(),
            w_col,
            w_row,
            x.data.as_ptr(),
            x.stride as isize,
            1,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows of a matrix, `stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements; behind the last row there may be more.
    pub data: &'a [f32],
    /// Elements from the start of a row to that of the next.
    pub stride: usize,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

impl View<'_> {
    fn is_whole(&self) -> bool {
        self.rows == 0 || (self.rows - 1) * self.stride + self.cols <= self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        (0..len as u32).map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed)) >> 16) as f32 / 65536.0 - 0.5).collect()
    }

    fn textbook(x: &[f32], w: &[f32], cols: usize) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect()
    }

    #[test]
    fn blocks_of_every_size_land_where_they_belong() {
        for (tokens, rows, cols, column, stride) in
            [(1, 1, 1, 0, 1), (3, 5, 7, 2, 9), (300, 700, 33, 0, 700), (257, 513, 64, 11, 600), (1, 1000, 128, 0, 1000)]
        {
            let (x, w) = (numbers(tokens * cols, 1), numbers(rows * cols, 2));
            let expected = textbook(&x, &w, cols);
            let mut out = vec![7.0; tokens * stride];
            let w: Vec<f32> = w.chunks(cols).flat_map(|row| row.iter().copied().chain([f32::NAN; 3])).collect();
            let view = View { data: &w, stride: cols + 3, rows, cols };
            Gemm.matmul(&x, view, &mut out, stride, column);
            for t in 0..tokens {
                for n in 0..stride {
                    let found = out[t * stride + n];
                    match n.checked_sub(column).filter(|n| *n < rows) {
                        Some(n) => assert!((f64::from(found) - expected[t * rows + n]).abs() < 1e-4, "{t} {n}"),
                        None => assert_eq!(found, 7.0, "an element outside was written"),
                    }
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, w) = (numbers(700 * 96, 3), numbers(900 * 96, 4));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; 700 * 900];
            let view = View { data: &w, stride: 96, rows: 900, cols: 96 };
            pool.install(|| Gemm.matmul(&x, view, &mut out, 900, 0));
            out
        };
        let one = run(1);
        assert!(run(2) == one && run(5) == one);
    }

    #[test]
    fn small_products_with_strides() {
        let (m, rows, cols) = (5, 6, 4);
        let (x, w) = (numbers(m * 10, 5), numbers(rows * 9, 6));
        let mut out = vec![0.0; m * rows];
        let x_view = View { data: &x, stride: 10, rows: m, cols };
        small(x_view, View { data: &w, stride: 9, rows, cols }, true, &mut out, 2.0);
        for t in 0..m {
            for n in 0..rows {
                let dot: f32 = (0..cols).map(|k| x[t * 10 + k] * w[n * 9 + k]).sum();
                assert!((out[t * rows + n] - 2.0 * dot).abs() < 1e-5);
            }
        }
        let w = numbers(cols * 9, 7);
        small(x_view, View { data: &w, stride: 9, rows: cols, cols: rows }, false, &mut out, 1.0);
        for t in 0..m {
            for n in 0..rows {
                let dot: f32 = (0..cols).map(|k| x[t * 10 + k] * w[k * 9 + n]).sum();
                assert!((out[t * rows + n] - dot).abs() < 1e-5);
            }
        }
    }
}
