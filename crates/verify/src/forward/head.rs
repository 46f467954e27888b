//! Distributions over the vocabulary, tile by tile: logits are never there as a whole.
//!
//! With logits `a` of the base and `b` of another model, `KL(a ‖ b) = Σ p (a - b) - ln Z_a + ln Z_b`, where `p = e^a / Z_a`: everything is
//! a running sum, rescaled when a larger logit of the base turns up. The identity is exact; sums are in F64.

use ggufsmith_infer::ops;

/// What the base says about one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaseScore {
    /// Negative log-likelihood of the right token, in nats.
    pub nll: f64,
    /// The most probable token; the first of several.
    pub top: u32,
}

/// What another model says about the same position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OtherScore {
    /// Negative log-likelihood of the right token, in nats.
    pub nll: f64,
    /// The most probable token; the first of several.
    pub top: u32,
    /// KL divergence from the base's distribution to this one's, in nats.
    pub kld: f64,
}

/// Sum of exponentials of one row so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    max: f32,
    /// `Σ e^(logit - max)`.
    sum: f64,
    target: f32,
    top: (u32, f32),
}

/// What an update of a row's maximum asks of sums that depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rescale {
    max: f32,
    factor: f64,
}

impl Running {
    pub(super) fn new() -> Self {
        Running { max: f32::NEG_INFINITY, sum: 0.0, target: f32::NAN, top: (0, f32::NEG_INFINITY) }
    }

    /// Take the logits of the vocabulary entries from `first` on; `None` where one is not finite.
    #[inline(always)]
    pub(super) fn add(&mut self, first: usize, logits: &[f32], target: u32) -> Option<Rescale> {
        let largest = ops::max(logits);
        // A minimum of negative infinity hides in the maximum, but not in the sum of differences.
        if !largest.is_finite() || !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        if largest > self.top.1 {
            let at = logits.iter().position(|&logit| logit == largest).unwrap_or(0);
            self.top = ((first + at) as u32, largest);
        }
        if let Some(&logit) = (target as usize).checked_sub(first).and_then(|at| logits.get(at)) {
            self.target = logit;
        }
        let max = self.max.max(largest);
        let factor = f64::from(self.max - max).exp();
        self.sum = self.sum * factor + sum(logits, |logit| f64::from(ops::exp(logit - max)));
        self.max = max;
        Some(Rescale { max, factor })
    }

    fn log_sum(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }

    pub(super) fn base(&self) -> BaseScore {
        BaseScore { nll: self.log_sum() - f64::from(self.target), top: self.top.0 }
    }

    pub(super) fn other(&self, base: &Running, cross: f64) -> OtherScore {
        let kld = cross / base.sum - base.log_sum() + self.log_sum();
        // Not negative, but for the rounding of the sums.
        OtherScore { nll: self.log_sum() - f64::from(self.target), top: self.top.0, kld: kld.max(0.0) }
    }
}

/// Take a tile into `Σ e^(a - max) (a - b)`.
#[inline(always)]
pub(super) fn add_cross(cross: &mut f64, rescale: Rescale, base: &[f32], other: &[f32]) {
    let mut parts = [0.0; 8];
    let (base, other) = (base.as_chunks::<8>(), other.as_chunks::<8>());
    let term = |a: f32, b: f32| f64::from(ops::exp(a - rescale.max)) * f64::from(a - b);
    for (a, b) in base.0.iter().zip(other.0) {
        for i in 0..8 {
            parts[i] += term(a[i], b[i]);
        }
    }
    let rest: f64 = base.1.iter().zip(other.1).map(|(a, b)| term(*a, *b)).sum();
    *cross = *cross * rescale.factor + parts.iter().sum::<f64>() + rest;
}

/// Sum in eight interleaved parts, so that it becomes vector code; always the same order.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f64) -> f64 {
    let mut parts = [0.0; 8];
    let chunks = values.as_chunks::<8>();
    for chunk in chunks.0 {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part += f(*value);
        }
    }
    parts.iter().sum::<f64>() + chunks.1.iter().map(|value| f(*value)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..len).map(|_| next() * 20.0 - 8.0).collect()
    }

    fn log_softmax(logits: &[f32]) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
        logits.iter().map(|l| f64::from(l - max) - sum.ln()).collect()
    }

    fn run(a: &[f32], b: &[f32], target: u32, tile: usize) -> (BaseScore, OtherScore) {
        let (mut base, mut other, mut cross) = (Running::new(), Running::new(), 0.0);
        for (number, (a, b)) in a.chunks(tile).zip(b.chunks(tile)).enumerate() {
            let rescale = base.add(number * tile, a, target).unwrap();
            add_cross(&mut cross, rescale, a, b);
            other.add(number * tile, b, target).unwrap();
        }
        (base.base(), other.other(&base, cross))
    }

    #[test]
    fn tiles_give_what_the_whole_gives() {
        let (a, b) = (logits(1003, 1), logits(1003, 2));
        let (log_a, log_b) = (log_softmax(&a), log_softmax(&b));
        let kld: f64 = log_a.iter().zip(&log_b).map(|(a, b)| a.exp() * (a - b)).sum();
        let top = |logits: &[f32]| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits.iter().position(|&l| l == max).unwrap() as u32
        };
        for tile in [1, 7, 64, 500, 2000] {
            for target in [0, 501, 1002] {
                let (base, other) = run(&a, &b, target, tile);
                assert!((base.nll + log_a[target as usize]).abs() < 1e-6 && (other.nll + log_b[target as usize]).abs() < 1e-6);
                assert!((other.kld / kld - 1.0).abs() < 1e-6, "{tile}: {} {kld}", other.kld);
                assert_eq!((base.top, other.top), (top(&a), top(&b)));
            }
        }
    }

    #[test]
    fn equal_models_have_no_divergence_and_one_changed_logit_shows() {
        let a = logits(300, 3);
        let (base, same) = run(&a, &a, 7, 32);
        assert_eq!((same.kld, same.nll, same.top), (0.0, base.nll, base.top));
        let mut b = a.clone();
        b[base.top as usize] -= 0.01;
        assert!(run(&a, &b, 7, 32).1.kld > 1e-9);
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = logits(40, 4);
            row[33] = bad;
            assert!(Running::new().add(0, &row, 0).is_none(), "{bad}");
        }
    }
}
