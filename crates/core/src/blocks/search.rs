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

/// The candidates of [`make_qkx3_quants`] for the reciprocal of the scale: `nmax + first`, then `steps` more, `delta` apart, all of
/// them divided by the values' range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    pub first: f32,
    pub delta: f32,
    pub steps: u8,
}

/// What every format tries that has a minimum and is given importance.
pub(crate) const WITH_IMPORTANCE: Tries = Tries { first: -0.9, delta: 0.05, steps: 36 };

/// What [`make_qkx3_quants`] finds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WithMin {
    pub scale: f32,
    /// At most 0; ggml returns its negative.
    pub min: f32,
    /// Codes are counted from `low`, `iscale` per unit.
    pub iscale: f32,
    pub low: f32,
    /// All values are equal: so are all codes, 0.
    pub flat: bool,
}

impl WithMin {
    /// The code of a value, from 0 to `nmax`.
    pub fn code(&self, nmax: i32, x: f32) -> u8 {
        if self.flat { 0 } else { code_above(nmax, self.iscale, self.low, x) as u8 }
    }
}

/// The code of a value that is counted from `low`.
#[inline(always)]
fn code_above(nmax: i32, iscale: f32, low: f32, x: f32) -> f32 {
    nearest_int(iscale * (x - low)).min(nmax).max(0) as f32
}

/// ggml's `make_qkx3_quants`, and its `make_qkx2_quants`, which does the same: a scale and a minimum for codes in 0..=`nmax`. The
/// error is squared, or with `MAD` (ggml's `use_mad`) the magnitude of the difference.
pub(crate) fn make_qkx3_quants<const MAD: bool>(nmax: i32, tries: Tries, values: &[f32], weights: &[f32]) -> WithMin {
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
        return WithMin { scale: 0.0, min, iscale: 0.0, low: min, flat: true };
    }
    // Of the codes that `iscale` and `low` give, with `scale` and `min`.
    let error = |iscale: f32, low: f32, scale: f32, min: f32| {
        values.iter().zip(weights).fold(0f32, |sum, (&x, &w)| {
            let difference = scale * code_above(nmax, iscale, low, x) + min - x;
            sum + w * if MAD { difference.abs() } else { difference * difference }
        })
    };
    let iscale = nmax as f32 / (max - min);
    let mut found = WithMin { scale: 1.0 / iscale, min, iscale, low: min, flat: false };
    let mut best = error(iscale, min, found.scale, min);
    for step in 0..=tries.steps {
        // From the minimum found so far, not from the smallest value.
        let low = found.min;
        let iscale = (tries.first + tries.delta * f32::from(step) + nmax as f32) / (max - low);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
        for (&x, &w) in values.iter().zip(weights) {
            let l = code_above(nmax, iscale, low, x);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if min > 0.0 {
                min = 0.0;
                scale = sum_xl / sum_l2;
            }
            let this_error = error(iscale, low, scale, min);
            if this_error < best {
                best = this_error;
                found = WithMin { scale, min, iscale, low, flat: false };
            }
        }
    }
    found
}

/// ggml's `make_qp_quants`: codes in 0..=`nmax` of values that are not negative, and their scale. A negative value's code wraps.
pub(crate) fn make_qp_quants<const N: usize>(nmax: i32, values: &[f32; N], weights: &[f32; N]) -> (f32, [u8; N]) {
    // As C's MAX has it: of two that do not compare, the second.
    let max = values.iter().fold(0f32, |max, &x| if max > x { max } else { x });
    if max < ZERO_BELOW {
        return (0.0, [0; N]);
    }
    let error = |scale: f32, code: &dyn Fn(f32) -> f32| {
        values.iter().zip(weights).fold(0f32, |sum, (&x, &w)| {
            let difference = x - scale * code(x);
            sum + w * difference * difference
        })
    };
    let mut iscale = nmax as f32 / max;
    let mut best = error(1.0 / iscale, &|x| f32::from(nearest_int(iscale * x) as u8));
    for step in (-4..=4).filter(|step| *step != 0) {
        let this_iscale = (0.1 * step as f32 + nmax as f32) / max;
        let this_error = error(1.0 / this_iscale, &|x| nearest_int(this_iscale * x).min(nmax) as f32);
        if this_error < best {
            best = this_error;
            iscale = this_iscale;
        }
    }
    let mut codes = [0u8; N];
    let (mut sumlx, mut suml2) = (0f32, 0f32);
    for i in 0..N {
        let l = nearest_int(iscale * values[i]).min(nmax);
        codes[i] = l as u8;
        sumlx += weights[i] * values[i] * l as f32;
        suml2 += weights[i] * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let (x, w, l) = (values[i], weights[i], f32::from(codes[i]));
            let slx = sumlx - w * x * l;
            let sl2 = suml2 - w * l * l;
            if slx > 0.0 && sl2 > 0.0 {
                let code = nearest_int(x * sl2 / slx).min(nmax);
                if code != i32::from(codes[i]) {
                    let slx = slx + w * x * code as f32;
                    let sl2 = sl2 + w * code as f32 * code as f32;
                    if slx * slx * suml2 > sumlx * sumlx * sl2 {
                        codes[i] = code as u8;
                        (sumlx, suml2) = (slx, sl2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }, codes)
}

/// ggml's `make_q3_quants` with `do_rmse`: signed codes in -`nmax`..`nmax`, stored plus `nmax`, and their scale. One code after the
/// other moves to where the others' scale would put it, as long as that helps.
pub(crate) fn make_q3_quants(nmax: i32, values: &[f32], codes: &mut [u8]) -> f32 {
    let (mut max, mut amax) = (0f32, 0f32);
    for &x in values {
        if x.abs() > amax {
            (amax, max) = (x.abs(), x);
        }
    }
    if amax < ZERO_BELOW {
        codes.fill(0);
        return 0.0;
    }
    let iscale = -nmax as f32 / max;
    let (mut sumlx, mut suml2) = (0f32, 0f32);
    for (code, &x) in codes.iter_mut().zip(values) {
        let l = nearest_int(iscale * x).min(nmax - 1).max(-nmax);
        *code = (l + nmax) as u8;
        let w = x * x;
        sumlx += w * x * l as f32;
        suml2 += w * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (code, &x) in codes.iter_mut().zip(values) {
            let l = i32::from(*code) - nmax;
            let w = x * x;
            let slx = sumlx - w * x * l as f32;
            if slx > 0.0 {
                let sl2 = suml2 - w * l as f32 * l as f32;
                let new = nearest_int(x * sl2 / slx).min(nmax - 1).max(-nmax);
                if new != l {
                    let slx = slx + w * x * new as f32;
                    let sl2 = sl2 + w * new as f32 * new as f32;
                    if sl2 > 0.0 && slx * slx * suml2 > sumlx * sumlx * sl2 {
                        *code = (new + nmax) as u8;
                        (sumlx, suml2) = (slx, sl2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
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
