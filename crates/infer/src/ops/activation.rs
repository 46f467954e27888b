//! Nonlinear functions, element by element.

use super::{exp, vector};
use ggufsmith_arch::decoder::Activation;
use rayon::prelude::*;

const CHUNK: usize = 1 << 14;

/// `gate = act(gate) * up`.
pub(crate) fn gate(act: Activation, gate: &mut [f32], up: &[f32]) {
    match act {
        Activation::Silu => gated(gate, up, silu),
        Activation::GeluTanh => gated(gate, up, gelu_tanh),
        Activation::GeluErf => gated(gate, up, gelu_erf),
    }
}

/// `x = act(x)`.
pub(crate) fn activate(act: Activation, x: &mut [f32]) {
    match act {
        Activation::Silu => each(x, silu),
        Activation::GeluTanh => each(x, gelu_tanh),
        Activation::GeluErf => each(x, gelu_erf),
    }
}

/// `x = cap * tanh(x / cap)` on the calling thread.
#[inline(always)]
pub(crate) fn softcap(x: &mut [f32], cap: f32) {
    x.iter_mut().for_each(|x| *x = cap * tanh(*x / cap));
}

/// `x = softcap(scale * x)`.
pub(crate) fn scale_and_cap(x: &mut [f32], scale: Option<f32>, cap: Option<f32>) {
    if let Some(scale) = scale {
        each(x, move |x| x * scale);
    }
    if let Some(cap) = cap {
        each(x, move |x| cap * tanh(x / cap));
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hold every element within `-limit..=limit`; NaN stays.
pub(crate) fn clip(x: &mut [f32], limit: f32) {
    each(x, move |x| {
        if x > limit {
            limit
        } else if x < -limit {
            -limit
        } else {
            x
        }
    });
}

#[inline(always)]
fn gated(gate: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32 + Sync) {
    gate.par_chunks_mut(CHUNK).zip(up.par_chunks(CHUNK)).for_each(|(gate, up)| {
        vector(
            #[inline(always)]
            || gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = f(*gate) * up),
        );
    });
}

#[inline(always)]
fn each(x: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    x.par_chunks_mut(CHUNK).for_each(|x| {
        vector(
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x = f(*x)),
        );
    });
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// With `tanh(u) = 2 / (1 + e^-2u) - 1` the formula loses no digits.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// `2 * sqrt(2 / π)`.
    const FACTOR: f32 = 1.595_769_2;
    x / (1.0 + exp(-FACTOR * (x + 0.044_715 * x * x * x)))
}

#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// To 3e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let mut p = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    (1.0 - p * t * exp(-x * x)).copysign(x)
}

/// To 3e-7 of its value.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near 0 the quotient below would lose digits: Taylor's series there.
    let square = x * x;
    let mut p = 0.0;
    for coefficient in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = p * square + coefficient;
    }
    if square < 0.0625 { p * x } else { 1.0 - 2.0 / (1.0 + exp(2.0 * x)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> impl Iterator<Item = f32> {
        (-30_000..=30_000).map(|i| i as f32 / 1000.0)
    }

    /// `erf` by its series or by the continued fraction of `erfc`, in F64.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        // The series loses its digits to cancellation beyond 3, where 1 - e^(-x²) / (x √π) is near enough for the comparison.
        if x.abs() < 3.0 { sum * 2.0 / std::f64::consts::PI.sqrt() } else { x.signum() * (1.0 - tail(x.abs())) }
    }

    fn tail(x: f64) -> f64 {
        let mut fraction = x;
        for n in (1..60).rev() {
            fraction = x + f64::from(n) / 2.0 / fraction;
        }
        (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn functions_are_what_they_are_called() {
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        type Pair = (&'static str, fn(f32) -> f32, Box<dyn Fn(f64) -> f64>);
        let pairs: [Pair; 6] = [
            ("silu", silu, Box::new(|x: f64| x / (1.0 + (-x).exp()))),
            ("gelu, tanh", gelu_tanh, Box::new(gelu)),
            ("gelu, erf", gelu_erf, Box::new(|x| 0.5 * x * (1.0 + exact_erf(x / 2f64.sqrt())))),
            ("erf", erf, Box::new(exact_erf)),
            ("tanh", tanh, Box::new(f64::tanh)),
            ("sigmoid", sigmoid, Box::new(|x: f64| 1.0 / (1.0 + (-x).exp()))),
        ];
        for (name, f, exact) in &pairs {
            for x in range() {
                let (found, expected) = (f64::from(f(x)), exact(f64::from(x)));
                assert!((found - expected).abs() < 6e-7 * expected.abs().max(1.0), "{name}({x}) = {found}, not {expected}");
            }
            assert!(f(f32::NAN).is_nan(), "{name}");
        }
        for x in range().filter(|x| *x != 0.0) {
            assert!((f64::from(tanh(x)) / f64::from(x).tanh() - 1.0).abs() < 5e-7, "{x}");
        }
        // Each is another function than its neighbour.
        assert!((gelu_tanh(2.0) - gelu_erf(2.0)).abs() > 5e-5 && (gelu_tanh(2.0) - silu(2.0)).abs() > 0.1);
    }

    #[test]
    fn caps_and_limits() {
        let mut x = [-100.0, -0.01, 0.0, 3.0, 100.0];
        scale_and_cap(&mut x, Some(0.5), Some(10.0));
        for (found, raw) in x.into_iter().zip([-100.0f64, -0.01, 0.0, 3.0, 100.0]) {
            assert!((f64::from(found) - 10.0 * (raw * 0.05).tanh()).abs() < 1e-5);
        }
        let mut x = [-9.0, -8.0, 1.0, 8.5, f32::NAN];
        clip(&mut x, 8.0);
        assert!(x[..4] == [-8.0, -8.0, 1.0, 8.0] && x[4].is_nan());
    }
}
