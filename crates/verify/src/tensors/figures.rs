//! Sums over pairs of values, in F64 and in a fixed order.

/// What is summed over a run of elements: source value `s`, value of the file `v`. Pairs of which one is not finite are counted and
/// left out of the sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) elems: u64,
    /// Sum of `(v - s)^2`.
    pub(super) error2: f64,
    /// Largest `|v - s|`.
    pub(super) max_error: f64,
    /// Sum of `s^2`.
    pub(super) source2: f64,
    /// Sum of `v^2`.
    pub(super) value2: f64,
    /// Sum of `v * s`.
    pub(super) dot: f64,
    /// Values of the file that are NaN or infinite.
    pub(super) non_finite: u64,
    /// Values of the source that are.
    pub(super) source_non_finite: u64,
    /// Values that are not the source's, bit for bit.
    pub(super) different: u64,
    /// Values at the largest magnitude of their block.
    pub(super) saturated: u64,
}

/// Sums that run side by side, so that the loop is not one chain of additions and vectorizes.
const LANES: usize = 8;

/// [`Sums`] of every eighth pair.
#[derive(Default)]
struct Lanes {
    error2: [f64; LANES],
    max_error: [f64; LANES],
    source2: [f64; LANES],
    value2: [f64; LANES],
    dot: [f64; LANES],
    non_finite: [u32; LANES],
    source_non_finite: [u32; LANES],
    different: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, source: &[f32; LANES], values: &[f32; LANES]) {
        for i in 0..LANES {
            let (s, v) = (source[i], values[i]);
            let (s_finite, v_finite) = (s.abs() < f32::INFINITY, v.abs() < f32::INFINITY);
            self.different[i] += u32::from(s.to_bits() != v.to_bits());
            self.source_non_finite[i] += u32::from(!s_finite);
            self.non_finite[i] += u32::from(!v_finite);
            let (s, v) = if s_finite & v_finite { (f64::from(s), f64::from(v)) } else { (0.0, 0.0) };
            let error = (v - s).abs();
            self.error2[i] += error * error;
            self.source2[i] += s * s;
            self.value2[i] += v * v;
            self.dot[i] += v * s;
            self.max_error[i] = if error > self.max_error[i] { error } else { self.max_error[i] };
        }
    }

    fn sums(&self) -> Sums {
        let count = |lanes: [u32; LANES]| lanes.iter().map(|&count| u64::from(count)).sum();
        let sum = |lanes: [f64; LANES]| lanes.iter().sum();
        Sums {
            error2: sum(self.error2),
            max_error: self.max_error.iter().fold(0.0, |a, &b| f64::max(a, b)),
            source2: sum(self.source2),
            value2: sum(self.value2),
            dot: sum(self.dot),
            non_finite: count(self.non_finite),
            source_non_finite: count(self.source_non_finite),
            different: count(self.different),
            ..Sums::default()
        }
    }
}

impl Sums {
    /// Over all pairs; `source` and `values` have the same length.
    pub(super) fn of(source: &[f32], values: &[f32]) -> Sums {
        let (elems, mut lanes) = (values.len() as u64, Lanes::default());
        let (source, source_rest) = source.as_chunks::<LANES>();
        let (values, values_rest) = values.as_chunks::<LANES>();
        source.iter().zip(values).for_each(|(source, values)| lanes.add(source, values));
        // Pairs of zeros change nothing.
        let (mut source, mut values) = ([0.0; LANES], [0.0; LANES]);
        source[..source_rest.len()].copy_from_slice(source_rest);
        values[..values_rest.len()].copy_from_slice(values_rest);
        lanes.add(&source, &values);
        Sums { elems, ..lanes.sums() }
    }

    /// Add the sums of the elements behind these.
    pub(super) fn add(&mut self, next: &Sums) {
        self.elems += next.elems;
        self.error2 += next.error2;
        self.max_error = self.max_error.max(next.max_error);
        self.source2 += next.source2;
        self.value2 += next.value2;
        self.dot += next.dot;
        self.non_finite += next.non_finite;
        self.source_non_finite += next.source_non_finite;
        self.different += next.different;
        self.saturated += next.saturated;
    }

    /// Root mean square of the difference.
    pub(super) fn rmse(&self) -> f64 {
        (self.error2 / self.elems.max(1) as f64).sqrt()
    }

    /// [`Sums::rmse`] over the root mean square of the source.
    pub(super) fn relative_rmse(&self) -> f64 {
        relative(self.error2, self.source2)
    }

    /// Cosine of the angle between source and values; two null vectors point the same way.
    pub(super) fn cosine(&self) -> f64 {
        match (self.source2 == 0.0, self.value2 == 0.0) {
            (true, true) => 1.0,
            (false, false) => (self.dot / (self.source2.sqrt() * self.value2.sqrt())).clamp(-1.0, 1.0),
            _ => 0.0,
        }
    }
}

/// Root of a sum of squared errors over a sum of squares.
pub(super) fn relative(error2: f64, source2: f64) -> f64 {
    if error2 == 0.0 { 0.0 } else { (error2 / source2).sqrt() }
}

/// Values whose magnitude is the largest of their block, over all blocks of `block_len` values; blocks of zeros hold none.
pub(super) fn saturated(values: &[f32], block_len: usize) -> u64 {
    let of = |block: &[f32]| {
        let larger = |largest: f32, value: &f32| if value.abs() > largest { value.abs() } else { largest };
        let largest = block.iter().fold(0f32, larger);
        if largest > 0.0 { block.iter().filter(|value| value.abs() == largest).count() as u64 } else { 0 }
    };
    if block_len < 2 { 0 } else { values.chunks(block_len).map(of).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_example() {
        let mut sums = Sums::of(&[3.0, 4.0], &[3.0, 5.0]);
        assert_eq!((sums.max_error, sums.rmse(), sums.different), (1.0, 0.5f64.sqrt(), 1));
        assert_eq!(sums.relative_rmse(), 0.2);
        assert!((sums.cosine() - 29.0 / (5.0 * 34f64.sqrt())).abs() < 1e-15);
        sums.add(&Sums::of(&[1.0, f32::NAN], &[f32::INFINITY, 1.0]));
        assert_eq!((sums.elems, sums.non_finite, sums.source_non_finite, sums.different), (4, 1, 1, 3));
        assert_eq!(sums.max_error, 1.0, "pairs that are not finite stay out");
    }

    #[test]
    fn null_vectors() {
        assert_eq!(Sums::of(&[0.0; 3], &[0.0; 3]).cosine(), 1.0);
        let zeroed = Sums::of(&[1.0; 3], &[0.0; 3]);
        assert_eq!((zeroed.cosine(), zeroed.relative_rmse()), (0.0, 1.0));
        assert_eq!(Sums::of(&[0.0; 3], &[1.0; 3]).relative_rmse(), f64::INFINITY);
    }

    #[test]
    fn saturation_counts_the_largest_of_each_block() {
        assert_eq!(saturated(&[1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0], 4), 2);
        assert_eq!(saturated(&[1.0, 1.0], 1), 0, "plain floats have no blocks");
    }
}
