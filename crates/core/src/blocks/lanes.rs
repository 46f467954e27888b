//! The searches of [`super::search`] for sixteen blocks at once, one per lane.
//!
//! Each lane does the operations of the scalar search in its order, so that its result has the same bits. Values must be finite.

use super::search::{self, Tries, ZERO_BELOW, nearest_int};

/// Blocks searched at once.
pub(crate) const LANES: usize = 16;

/// One number per block.
pub(crate) type Lanes = [f32; LANES];

/// One number per block from its lane.
#[inline(always)]
pub(crate) fn lanes(f: impl Fn(usize) -> f32) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (j, lane) in lanes.iter_mut().enumerate() {
        *lane = f(j);
    }
    lanes
}

/// Whether no value is NaN or infinite.
#[inline(always)]
pub(crate) fn all_finite<const L: usize, const N: usize>(values: &[[f32; L]; N]) -> bool {
    let mut finite = true;
    for value in values.as_flattened() {
        finite &= value.is_finite();
    }
    finite
}

/// What [`make_qx_quants`] finds for each block.
pub(crate) struct Found {
    /// Its scale.
    pub scale: Lanes,
    iscale: Lanes,
    amax: Lanes,
}

impl Found {
    /// The code of a value of block `j`, from 0 to `2 * nmax - 1`.
    #[inline(always)]
    pub fn code(&self, nmax: i32, x: f32, j: usize) -> u8 {
        let code = (nearest_int(self.iscale[j] * x).max(-nmax).min(nmax - 1) + nmax) as u8;
        if self.amax[j] < ZERO_BELOW { 0 } else { code }
    }
}

/// [`super::search::make_qx_quants`].
#[inline(always)]
pub(crate) fn make_qx_quants<const N: usize>(nmax: i32, x: &[Lanes; N], w: &[Lanes; N]) -> Found {
    let (mut max, mut amax) = ([0f32; LANES], [0f32; LANES]);
    let mut wx = [[0f32; LANES]; N];
    for i in 0..N {
        for j in 0..LANES {
            let larger = x[i][j].abs() > amax[j];
            amax[j] = if larger { x[i][j].abs() } else { amax[j] };
            max[j] = if larger { x[i][j] } else { max[j] };
            wx[i][j] = w[i][j] * x[i][j];
        }
    }
    let mut found = Found { scale: [0.0; LANES], iscale: [0.0; LANES], amax };
    let mut best = [0f32; LANES];
    for step in std::iter::once(0).chain((-9..=9).filter(|step| *step != 0)) {
        let iscale = lanes(|j| -(nmax as f32 + 0.1 * step as f32) / max[j]);
        let (mut sumlx, mut suml2) = ([0f32; LANES], [0f32; LANES]);
        for i in 0..N {
            for j in 0..LANES {
                // No magnitude exceeds that of `max`. What comes out of a zero block is not used.
                let l = clamped(iscale[j] * x[i][j], -nmax, nmax - 1);
                sumlx[j] += wx[i][j] * l;
                suml2[j] += w[i][j] * l * l;
            }
        }
        for j in 0..LANES {
            let better = step == 0 || (suml2[j] > 0.0 && sumlx[j] * sumlx[j] > best[j] * suml2[j]);
            let scale = if suml2[j] != 0.0 { sumlx[j] / suml2[j] } else { 0.0 };
            found.scale[j] = if better { scale } else { found.scale[j] };
            found.iscale[j] = if better { iscale[j] } else { found.iscale[j] };
            best[j] = if better { scale * sumlx[j] } else { best[j] };
        }
    }
    found.scale = lanes(|j| if amax[j] < ZERO_BELOW { 0.0 } else { found.scale[j] });
    found
}

/// [`super::search::make_q3_quants`]: scales, and codes plus `nmax`.
#[inline(always)]
pub(crate) fn make_q3_quants<const N: usize>(nmax: i32, x: &[Lanes; N]) -> (Lanes, [[u8; LANES]; N]) {
    let (mut max, mut amax) = ([0f32; LANES], [0f32; LANES]);
    for x in x {
        for j in 0..LANES {
            let larger = x[j].abs() > amax[j];
            amax[j] = if larger { x[j].abs() } else { amax[j] };
            max[j] = if larger { x[j] } else { max[j] };
        }
    }
    let iscale = lanes(|j| -nmax as f32 / max[j]);
    let mut codes = [[0f32; LANES]; N];
    let (mut sumlx, mut suml2) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for j in 0..LANES {
            let l = clamped(iscale[j] * x[i][j], -nmax, nmax - 1);
            let w = x[i][j] * x[i][j];
            codes[i][j] = l;
            sumlx[j] += w * x[i][j] * l;
            suml2[j] += w * l * l;
        }
    }
    for _ in 0..5 {
        // A block that a whole round leaves alone stays as it is in the next ones.
        let mut changed = false;
        for i in 0..N {
            for j in 0..LANES {
                let (x, l) = (x[i][j], codes[i][j]);
                let w = x * x;
                let slx = sumlx[j] - w * x * l;
                let sl2 = suml2[j] - w * l * l;
                let new = nearest_int(x * sl2 / slx).min(nmax - 1).max(-nmax) as f32;
                let new_slx = slx + w * x * new;
                let new_sl2 = sl2 + w * new * new;
                let helps = new_slx * new_slx * suml2[j] > sumlx[j] * sumlx[j] * new_sl2;
                let better = (slx > 0.0) & (new != l) & (new_sl2 > 0.0) & helps;
                codes[i][j] = if better { new } else { l };
                sumlx[j] = if better { new_slx } else { sumlx[j] };
                suml2[j] = if better { new_sl2 } else { suml2[j] };
                changed |= better;
            }
        }
        if !changed {
            break;
        }
    }
    let mut stored = [[0; LANES]; N];
    for i in 0..N {
        for j in 0..LANES {
            let code = (codes[i][j] as i32 + nmax) as u8;
            stored[i][j] = if amax[j] < ZERO_BELOW { 0 } else { code };
        }
    }
    let scale = |j: usize| if suml2[j] > 0.0 { sumlx[j] / suml2[j] } else { 0.0 };
    (lanes(|j| if amax[j] < ZERO_BELOW { 0.0 } else { scale(j) }), stored)
}

/// What [`make_qkx3_quants`] finds for each block.
pub(crate) struct FoundWithMin {
    /// Its scale.
    pub scale: Lanes,
    /// Its minimum.
    pub min: Lanes,
    iscale: Lanes,
    low: Lanes,
    flat: [bool; LANES],
}

impl FoundWithMin {
    /// The code of a value of block `j`, from 0 to `nmax`.
    #[inline(always)]
    pub fn code(&self, nmax: i32, x: f32, j: usize) -> u8 {
        let code = nearest_int(self.iscale[j] * (x - self.low[j])).min(nmax).max(0) as u8;
        if self.flat[j] { 0 } else { code }
    }
}

/// [`super::search::make_qkx3_quants`].
#[inline(always)]
pub(crate) fn make_qkx3_quants<const MAD: bool, const N: usize>(
    nmax: i32,
    tries: Tries,
    x: &[Lanes; N],
    w: &[Lanes; N],
) -> FoundWithMin {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = w[0];
    let mut sum_x = lanes(|j| w[0][j] * x[0][j]);
    for i in 1..N {
        for j in 0..LANES {
            min[j] = if x[i][j] < min[j] { x[i][j] } else { min[j] };
            max[j] = if x[i][j] > max[j] { x[i][j] } else { max[j] };
            sum_w[j] += w[i][j];
            sum_x[j] += w[i][j] * x[i][j];
        }
    }
    let mut flat = [false; LANES];
    for j in 0..LANES {
        min[j] = if min[j] > 0.0 { 0.0 } else { min[j] };
        flat[j] = max[j] <= min[j];
    }
    let span = Span { low: min, high: max };
    let iscale = lanes(|j| if flat[j] { 0.0 } else { nmax as f32 / (max[j] - min[j]) });
    let scale = lanes(|j| 1.0 / iscale[j]);
    let mut found = FoundWithMin { scale, min, iscale, low: min, flat };
    let mut near = span.is_near(&iscale, &min);
    let mut codes = [[0f32; LANES]; N];
    for i in 0..N {
        codes[i] = lanes(|j| code_above(nmax, iscale[j], min[j], x[i][j]));
    }
    let mut best = errors::<MAD, N>(x, w, &codes, &scale, &min);
    for step in 0..=tries.steps {
        let low = found.min;
        let numerator = tries.first + tries.delta * f32::from(step) + nmax as f32;
        let iscale = lanes(|j| if flat[j] { 0.0 } else { numerator / (max[j] - low[j]) });
        near &= span.is_near(&iscale, &low);
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for i in 0..N {
            for j in 0..LANES {
                let l = code_above(nmax, iscale[j], low[j], x[i][j]);
                codes[i][j] = l;
                let wl = w[i][j] * l;
                sum_l[j] += wl;
                sum_l2[j] += wl * l;
                sum_xl[j] += wl * x[i][j];
            }
        }
        let determinant = lanes(|j| sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j]);
        let (mut this_scale, mut this_min) = ([0f32; LANES], [0f32; LANES]);
        for j in 0..LANES {
            let scale = (sum_w[j] * sum_xl[j] - sum_x[j] * sum_l[j]) / determinant[j];
            let min = (sum_l2[j] * sum_x[j] - sum_l[j] * sum_xl[j]) / determinant[j];
            this_scale[j] = if min > 0.0 { sum_xl[j] / sum_l2[j] } else { scale };
            this_min[j] = if min > 0.0 { 0.0 } else { min };
        }
        let this_error = errors::<MAD, N>(x, w, &codes, &this_scale, &this_min);
        for j in 0..LANES {
            let better = determinant[j] > 0.0 && this_error[j] < best[j];
            best[j] = if better { this_error[j] } else { best[j] };
            found.scale[j] = if better { this_scale[j] } else { found.scale[j] };
            found.min[j] = if better { this_min[j] } else { found.min[j] };
            found.iscale[j] = if better { iscale[j] } else { found.iscale[j] };
            found.low[j] = if better { low[j] } else { found.low[j] };
        }
    }
    if !near {
        return one_by_one::<MAD, N>(nmax, tries, x, w);
    }
    for j in 0..LANES {
        found.scale[j] = if flat[j] { 0.0 } else { found.scale[j] };
        found.min[j] = if flat[j] { min[j] } else { found.min[j] };
    }
    found
}

/// Between which numbers a block's values lie.
struct Span {
    low: Lanes,
    high: Lanes,
}

impl Span {
    /// Whether every value's distance from `low`, times `iscale`, is so small that [`code_above`] rounds it as `nearest_int` does.
    /// Both operations are monotonic, so that the ends answer for all values.
    #[inline(always)]
    fn is_near(&self, iscale: &Lanes, low: &Lanes) -> bool {
        const FAR: f32 = 2_097_152.0; // 2^21
        let mut near = true;
        for j in 0..LANES {
            near &= (iscale[j] * (self.low[j] - low[j])).abs() < FAR;
            near &= (iscale[j] * (self.high[j] - low[j])).abs() < FAR;
        }
        near
    }
}

/// The code of a value that is counted from `low`. All in floats: adding 1.5 * 2^23 rounds to an integer, ties to even.
#[inline(always)]
fn code_above(nmax: i32, iscale: f32, low: f32, x: f32) -> f32 {
    clamped(iscale * (x - low), 0, nmax)
}

/// `nearest_int` of a value below 2^22 in magnitude, limited to `bottom..=top`.
#[inline(always)]
fn clamped(value: f32, bottom: i32, top: i32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let (bottom, top) = (ROUND + bottom as f32, ROUND + top as f32);
    let rounded = value + ROUND;
    let rounded = if rounded > bottom { rounded } else { bottom };
    let rounded = if rounded < top { rounded } else { top };
    rounded - ROUND
}

/// Values so far apart that codes wrap in ggml's `nearest_int`, or that their range overflows.
#[cold]
#[inline(never)]
fn one_by_one<const MAD: bool, const N: usize>(nmax: i32, tries: Tries, x: &[Lanes; N], w: &[Lanes; N]) -> FoundWithMin {
    let zero = [0f32; LANES];
    let mut found = FoundWithMin { scale: zero, min: zero, iscale: zero, low: zero, flat: [false; LANES] };
    for j in 0..LANES {
        let one = search::make_qkx3_quants::<MAD>(nmax, tries, &x.map(|x| x[j]), &w.map(|w| w[j]));
        found.scale[j] = one.scale;
        found.min[j] = one.min;
        found.iscale[j] = one.iscale;
        found.low[j] = one.low;
        found.flat[j] = one.flat;
    }
    found
}

/// Weighted error of `scale` and `min` with these codes: squared, or with `MAD` by magnitude.
#[inline(always)]
fn errors<const MAD: bool, const N: usize>(
    x: &[Lanes; N],
    w: &[Lanes; N],
    codes: &[Lanes; N],
    scale: &Lanes,
    min: &Lanes,
) -> Lanes {
    let mut error = [0f32; LANES];
    for i in 0..N {
        for j in 0..LANES {
            let difference = scale[j] * codes[i][j] + min[j] - x[i][j];
            error[j] += w[i][j] * if MAD { difference.abs() } else { difference * difference };
        }
    }
    error
}
