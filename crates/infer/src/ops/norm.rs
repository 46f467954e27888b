//! Normalizations.

use super::{ROWS, sum, vector};
use ggufsmith_arch::decoder::NormKind;
use rayon::prelude::*;

/// A norm with its numbers.
pub(crate) struct Numbers {
    pub(crate) kind: NormKind,
    /// One or several times as many as the elements that a mean is taken over; they repeat along a row.
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) eps: f32,
}

/// Normalize `width` elements at a time, in place.
pub(crate) fn normalize(x: &mut [f32], width: usize, norm: &Numbers) {
    // What repeats: all heads of a row where each has weights of its own.
    let period = norm.weight.as_ref().or(norm.bias.as_ref()).map_or(width, |numbers| numbers.len().max(width));
    x.par_chunks_mut(period * ROWS).for_each(|rows| {
        vector(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(period) {
                    for (at, x) in row.chunks_exact_mut(width).enumerate() {
                        let part = |numbers: &'_ [f32]| at * width % numbers.len().max(1);
                        standardize(x, norm.kind, norm.eps);
                        if let Some(weight) = &norm.weight {
                            x.iter_mut().zip(&weight[part(weight)..]).for_each(|(x, weight)| *x *= weight);
                        }
                        if let Some(bias) = &norm.bias {
                            x.iter_mut().zip(&bias[part(bias)..]).for_each(|(x, bias)| *x += bias);
                        }
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn standardize(x: &mut [f32], kind: NormKind, eps: f32) {
    let n = x.len() as f32;
    if kind == NormKind::Layer {
        let mean = sum(x, |value| value) / n;
        x.iter_mut().for_each(|x| *x -= mean);
    }
    let scale = 1.0 / (sum(x, |value| value * value) / n + eps).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rms(weight: Vec<f32>) -> Numbers {
        Numbers { kind: NormKind::Rms, weight: Some(weight), bias: None, eps: 0.0 }
    }

    #[test]
    fn norm_gives_rows_of_length_one() {
        let mut x = [3.0, 4.0, 0.0, 5.0];
        normalize(&mut x, 2, &rms(vec![1.0, 2.0]));
        let length = (12.5f32).sqrt();
        assert!((x[0] - 3.0 / length).abs() < 1e-6 && (x[1] - 8.0 / length).abs() < 1e-6);
        assert!(x[2] == 0.0 && (x[3] - 2.0 * 2f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn layer_norm_takes_the_mean_away() {
        let mut x = [1.0, 3.0, 10.0, 10.0];
        let norm = Numbers { kind: NormKind::Layer, weight: Some(vec![2.0, 3.0]), bias: Some(vec![0.5, -0.5]), eps: 1e-9 };
        normalize(&mut x, 2, &norm);
        for (x, expected) in x.into_iter().zip([-1.5, 2.5, 0.5, -0.5]) {
            assert!((x - expected).abs() < 1e-6, "{x} {expected}");
        }
    }

    #[test]
    fn weights_of_a_row_and_weights_of_a_head() {
        let row = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0];
        let (mut shared, mut own) = (row, row);
        normalize(&mut shared, 2, &rms(vec![1.0, 5.0]));
        assert_eq!(shared, [1.0, 5.0, 1.0, 5.0, 1.0, 5.0, 1.0, 5.0]);
        normalize(&mut own, 2, &rms(vec![1.0, 5.0, 7.0, 9.0]));
        assert_eq!(own, [1.0, 5.0, 7.0, 9.0, 1.0, 5.0, 7.0, 9.0]);
    }
}
