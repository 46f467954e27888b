//! Searches for a block's scale: the candidate whose weighted error is smallest, summed in ggml's order.

/// ggml's `GROUP_MAX_EPS`: a block of smaller magnitudes is zero.
pub(crate) const ZERO_BELOW: f32 = 1e-15;

/// ggml's `nearest_int`: to the nearest integer, ties to even, for magnitudes up to 2^22. NaN becomes 0.
#[inline(always)]
pub(crate) fn nearest_int(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// ggml's `make_qx_quants` with `rmse_type` 1: signed codes in -`nmax`..`nmax`, stored plus `nmax`, and their scale.
/// Without `weights` each value's square is its weight.
pub(crate) fn make_qx_quants(nmax: i32, values: &[f32], weights: Option<&[f32]>, codes: &mut [u8]) -> f32 {
    let weight = |i: usize| weights.map_or_else(|| values[i] * values[i], |weights| weights[i]);
    let code = |iscale: f32, value: f32| nearest_int(iscale * value).clamp(-nmax, nmax - 1);
    let (mut max, mut amax) = (0f32, 0f32);
    for &value in values {
        if value.abs() > amax {
            (amax, max) = (value.abs(), value);
        }
    }
    if amax < ZERO_BELOW {
        codes.fill(0);
        return 0.0;
    }
    let write = |iscale: f32, codes: &mut [u8]| {
        for (to, &value) in codes.iter_mut().zip(values) {
            *to = (code(iscale, value) + nmax) as u8;
        }
    };
    // Of values * weights * codes, and of weights * codes * codes.
    let sums = |iscale: f32| {
        let (mut sumlx, mut suml2) = (0f32, 0f32);
        for (i, &value) in values.iter().enumerate() {
            let l = code(iscale, value) as f32;
            let w = weight(i);
            sumlx += w * value * l;
            suml2 += w * l * l;
        }
        (sumlx, suml2)
    };
    let iscale = -nmax as f32 / max;
    write(iscale, codes);
    let (sumlx, suml2) = sums(iscale);
    let mut scale = if suml2 != 0.0 { sumlx / suml2 } else { 0.0 };
    let mut best = scale * sumlx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let iscale = -(nmax as f32 + 0.1 * step as f32) / max;
        let (sumlx, suml2) = sums(iscale);
        if suml2 > 0.0 && sumlx * sumlx > best * suml2 {
            write(iscale, codes);
            scale = sumlx / suml2;
            best = scale * sumlx;
        }
    }
    scale
}

/// ggml's `make_qkx3_quants` as the 32-element types call it (`rmin` -0.9, `rdelta` 0.05, `nstep` 36, squared error): codes in
/// 0..=`nmax`, their scale and the minimum, which is at most 0.
pub(crate) fn make_qkx3_quants(nmax: i32, values: &[f32], weights: &[f32], codes: &mut [u8]) -> (f32, f32) {
    let (mut min, mut max) = (values[0], values[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * values[0];
    for (&x, &w) in values.iter().zip(weights).skip(1) {
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
        sum_w += w;
        sum_x += w * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max <= min {
        codes.fill(0);
        return (0.0, min);
    }
    let code = |iscale: f32, low: f32, x: f32| nearest_int(iscale * (x - low)).min(nmax).max(0) as f32;
    // Codes are counted from `low` with `iscale`, their error is that of `scale` and `min`.
    let error = |iscale: f32, low: f32, scale: f32, min: f32| {
        values.iter().zip(weights).fold(0f32, |sum, (&x, &w)| {
            let difference = scale * code(iscale, low, x) + min - x;
            sum + w * (difference * difference)
        })
    };
    let mut best_codes = (nmax as f32 / (max - min), min);
    let mut scale = 1.0 / best_codes.0;
    let mut best = error(best_codes.0, best_codes.1, scale, min);
    for step in 0..=36 {
        // From the minimum found so far, not from the smallest value.
        let iscale = (-0.9f32 + 0.05f32 * step as f32 + nmax as f32) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
        for (&x, &w) in values.iter().zip(weights) {
            let l = code(iscale, min, x);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let this_error = error(iscale, min, this_scale, this_min);
            if this_error < best {
                best_codes = (iscale, min);
                (best, scale, min) = (this_error, this_scale, this_min);
            }
        }
    }
    for (to, &x) in codes.iter_mut().zip(values) {
        *to = code(best_codes.0, best_codes.1, x) as u8;
    }
    (scale, min)
}

/// What a value's error counts: its importance times the root of its row's mean square plus its own square.
#[inline(always)]
pub(crate) fn weight(value: f32, importance: f32, mean_square: f32) -> f32 {
    importance * (mean_square + value * value).sqrt()
}

/// A row's mean square, summed in order.
pub(crate) fn mean_square(values: impl Iterator<Item = f32>, cols: usize) -> f32 {
    values.fold(0f32, |sum, value| sum + value * value) / cols as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_int_sends_ties_to_even() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5, -2.5].map(nearest_int), [0, 2, 2, 0, -2, -2]);
        assert_eq!([0.500_000_1, -0.499_999_97, 127.4, f32::NAN].map(nearest_int), [1, 0, 127, 0]);
    }
}
