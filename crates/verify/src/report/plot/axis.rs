//! Values to coordinates, and where to put ticks.

use crate::report::text::{number, power_of_ten};

/// Ticks of an axis at most.
const MAX_TICKS: usize = 9;

/// A linear or logarithmic axis from `low` to `high`, both finite and `low < high`; positive where it is logarithmic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// A linear axis over `low..=high`, drawn from coordinate `from` to `to`. Ends that are equal or not usable are moved apart.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = if (high - low).is_normal() && low < high { (low, high) } else { widened(low) };
        Axis { low, high, log: false, from, to }
    }

    /// A logarithmic axis; `low` is positive.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = if low.is_finite() { low.clamp(f64::MIN_POSITIVE, f64::MAX / 32.0) } else { 1.0 };
        let high = if high > low * 1.01 { high } else { low * 10.0 };
        Axis { low, high: high.min(f64::MAX / 2.0), log: true, from, to }
    }

    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// The coordinate of a value; values outside lie on the nearer end, NaN on the lower one.
    pub(super) fn at(&self, value: f64) -> f64 {
        if value.is_nan() {
            return self.from;
        }
        let (low, high, value) = if self.log {
            (self.low.ln(), self.high.ln(), value.max(f64::MIN_POSITIVE).ln())
        } else {
            (self.low, self.high, value)
        };
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Values with their names, ascending.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        if self.log { self.log_ticks() } else { self.linear_ticks() }
    }

    fn linear_ticks(&self) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / 5.0;
        let power = rough.log10().floor();
        let unit = 10f64.powf(power);
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * unit).find(|step| *step >= rough).unwrap_or(rough);
        if !step.is_normal() {
            return vec![(self.low, number(self.low)), (self.high, number(self.high))];
        }
        let first = (self.low / step).ceil();
        let inside = |value: &f64| *value <= self.high + step * 1e-9;
        let values: Vec<f64> = (0..MAX_TICKS).map(|n| (first + n as f64) * step).take_while(inside).collect();
        let plain = values.iter().all(|value| *value == 0.0 || (1e-4..1e6).contains(&value.abs()));
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let name = |value: f64| if plain { format!("{value:.digits$}") } else { number(value) };
        values.into_iter().map(|value| (value, name(value))).collect()
    }

    fn log_ticks(&self) -> Vec<(f64, String)> {
        let (low, high) = (self.low.log10(), self.high.log10());
        let within = |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        let decades = (low.floor() as i32..=high.ceil() as i32).collect::<Vec<_>>();
        // The finest subdivision whose ticks are not too many; whole decades are thinned out where even they are.
        for marks in [&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]] {
            let all = decades.iter().flat_map(|decade| marks.iter().map(move |mark| (*decade, *mark)));
            let values: Vec<_> =
                all.map(|(decade, mark)| (mark * 10f64.powi(decade), decade)).filter(|(value, _)| within(value)).collect();
            if values.len() > MAX_TICKS {
                continue;
            }
            if values.len() >= 2 {
                return values.into_iter().map(|(value, decade)| (value, log_name(value, decade))).collect();
            }
            // Less than one mark: an axis so short is nearly linear.
            return Axis { log: false, ..*self }.linear_ticks();
        }
        let every = decades.len().div_ceil(MAX_TICKS);
        let values = decades.into_iter().step_by(every).map(|decade| (10f64.powi(decade), power_of_ten(decade)));
        values.filter(|(value, _)| within(value)).collect()
    }
}

fn log_name(value: f64, decade: i32) -> String {
    let mark = (value / 10f64.powi(decade)).round();
    match decade {
        -3..=5 => {
            let digits = (-decade).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ if mark == 1.0 => power_of_ten(decade),
        _ => format!("{mark}×{}", power_of_ten(decade)),
    }
}

fn widened(value: f64) -> (f64, f64) {
    let value = if value.is_finite() { value.clamp(-1e300, 1e300) } else { 0.0 };
    let by = if value == 0.0 { 1.0 } else { value.abs() * 0.1 };
    if by.is_normal() { (value - by, value + by) } else { (-1.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(names(Axis::linear(0.0, 300.0, 0.0, 1.0)), ["0", "100", "200", "300"]);
        assert_eq!(names(Axis::linear(15.8, 17.1, 0.0, 1.0)), ["16.0", "16.5", "17.0"]);
        let decimal = ["3×10⁻⁴", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3", "1"];
        assert_eq!(names(Axis::log(3e-4, 1.0, 0.0, 1.0)), decimal);
        assert_eq!(names(Axis::log(1e-9, 1e-6, 0.0, 1.0)), ["10⁻⁹", "3×10⁻⁹", "10⁻⁸", "3×10⁻⁸", "10⁻⁷", "3×10⁻⁷", "10⁻⁶"]);
        assert_eq!(names(Axis::log(2.1, 2.9, 0.0, 1.0)), ["2.2", "2.4", "2.6", "2.8"]);
    }

    #[test]
    fn no_axis_is_too_extreme() {
        let ends = [0.0, -0.0, 1.0, -1.0, 5e-324, 1e-300, 1e300, f64::MAX, -f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for low in ends {
            for high in ends {
                for axis in [Axis::linear(low, high, 10.0, 90.0), Axis::log(low, high, 10.0, 90.0)] {
                    let ticks = axis.ticks();
                    assert!(ticks.len() <= MAX_TICKS + 1, "{axis:?} {ticks:?}");
                    for value in ends.into_iter().chain(ticks.into_iter().map(|(value, _)| value)) {
                        let at = axis.at(value);
                        assert!((10.0..=90.0).contains(&at), "{axis:?} {value} {at}");
                    }
                }
            }
        }
    }
}
