//! Exponentials and what is made of them, in f64 and by IEEE's basic operations alone: the same on every platform.

use super::SamplingError;

/// ln 2 in two parts: the last 21 bits of the first are zero, so that its product with an exponent is exact.
const LN_2: (f64, f64) = (f64::from_bits(0x3FE6_2E42_FEE0_0000), f64::from_bits(0x3DEA_39EF_3579_3C76));

/// e^x for x <= 0, within two units of the last place; 0 where the result would be subnormal, and for -∞.
///
/// The standard library's `exp` is the platform's, which differ in the last bits.
pub(super) fn exp(x: f64) -> f64 {
    debug_assert!(x <= 0.0, "{x}");
    if x < -708.0 {
        return 0.0;
    }
    // e^x = 2^k e^r with |r| <= ln(2)/2; the series' first term left out is below 2^-57.
    let k = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = (x - k * LN_2.0) - k * LN_2.1;
    let series = (1..=13u8).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    // k lies in -1022..=0.
    series * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// # Errors
/// [`SamplingError`]: a logit is NaN or +∞, or all are -∞.
pub(super) fn check(logits: &[f32]) -> Result<(), SamplingError> {
    let fault = (0..=u32::MAX).zip(logits).find(|(_, logit)| logit.is_nan() || **logit == f32::INFINITY);
    match fault {
        Some((token, &value)) => Err(SamplingError::NotFinite { token, value }),
        None if logits.iter().all(|&logit| logit == f32::NEG_INFINITY) => Err(SamplingError::NoneLeft { tokens: logits.len() }),
        None => Ok(()),
    }
}

/// Logarithms of the probabilities that `logits` `[n_vocab]` stand for, `[n_vocab]`: x - ln Σ e^x. The outer logarithm is the
/// platform's.
///
/// # Errors
/// [`SamplingError`]: a logit is NaN or +∞, or all are -∞.
pub fn log_softmax(logits: &[f32]) -> Result<Vec<f64>, SamplingError> {
    check(logits)?;
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| exp(f64::from(logit) - max)).sum();
    let ln_sum = sum.ln();
    Ok(logits.iter().map(|&logit| (f64::from(logit) - max) - ln_sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends() {
        assert_eq!((exp(0.0), exp(-0.0), exp(f64::NEG_INFINITY), exp(-709.0)), (1.0, 1.0, 0.0, 0.0));
        assert!(exp(-708.0) > 0.0 && exp(-f64::MIN_POSITIVE) == 1.0);
        assert_eq!(LN_2.0 + LN_2.1, std::f64::consts::LN_2);
        assert_eq!(LN_2.0.to_bits().trailing_zeros(), 21);
    }

    #[test]
    fn logarithms_of_probabilities() {
        let logs = log_softmax(&[0.0, 2f32.ln(), f32::NEG_INFINITY, 3f32.ln()]).unwrap();
        for (log, p) in logs.iter().zip([1.0 / 6.0, 2.0 / 6.0, 0.0, 3.0 / 6.0]) {
            assert!((log.exp() - p).abs() < 1e-7, "{log} is not ln {p}");
        }
        assert_eq!(log_softmax(&[1e30, 0.0]).unwrap()[0], 0.0);
        assert_eq!(log_softmax(&[0.0, f32::INFINITY]), Err(SamplingError::NotFinite { token: 1, value: f32::INFINITY }));
        assert!(matches!(log_softmax(&[0.0, 1.0, f32::NAN]), Err(SamplingError::NotFinite { token: 2, .. })));
        for none in [&[][..], &[f32::NEG_INFINITY; 2]] {
            assert_eq!(log_softmax(none), Err(SamplingError::NoneLeft { tokens: none.len() }));
        }
    }

    proptest! {
        #[test]
        fn as_exact_as_the_platform(x in -708.0f64..=0.0, small in -1e-3f64..=0.0) {
            for x in [x, small] {
                let (ours, theirs) = (exp(x), x.exp());
                prop_assert!((ours - theirs).abs() <= 4.0 * f64::EPSILON * theirs, "{x}: {ours} and {theirs}");
            }
        }
    }
}
