//! The settings of a sampler.

use thiserror::Error;

/// How a token is chosen. The defaults are llama.cpp's, except for the seed, which it draws.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Divides the logit of a recent token where it is positive, multiplies it otherwise; 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens are recent, the prompt's among them; 0 turns all three penalties off.
    pub repeat_last_n: usize,
    /// Subtracted from a recent token's logit, times how often it occurs; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from a recent token's logit; 0 is off.
    pub presence_penalty: f32,
    /// Keep this many tokens of the largest logits; 0 is off.
    pub top_k: usize,
    /// Keep the fewest most probable tokens whose probabilities, at temperature 1, add up to this; 1 is off.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the most probable one, at temperature 1; 0 is off.
    pub min_p: f32,
    /// Divides the logits before the draw; 0 takes the largest logit, and the three filters do not matter.
    pub temperature: f32,
    /// Starts the random generator.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            temperature: 0.8,
            seed: 0,
        }
    }
}

/// An option out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("--{flag} {value} is out of range: it must be {allowed}")]
pub struct OptionError {
    /// As the command line spells it, without dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: f32,
    /// The range and what its ends mean.
    pub allowed: &'static str,
}

impl Options {
    /// # Errors
    /// [`OptionError`] for the first option that is out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        let within = |low: f32, value: f32, high: f32| low <= value && value <= high;
        let penalty = "a number from -100 to 100 (0 is off)";
        let checks = [
            ("repeat-penalty", self.repeat_penalty, within(0.01, self.repeat_penalty, 100.0), "from 0.01 to 100 (1 is off)"),
            ("frequency-penalty", self.frequency_penalty, within(-100.0, self.frequency_penalty, 100.0), penalty),
            ("presence-penalty", self.presence_penalty, within(-100.0, self.presence_penalty, 100.0), penalty),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1 (1 is off)"),
            ("min-p", self.min_p, within(0.0, self.min_p, 1.0), "from 0 to 1 (0 is off)"),
            ("temperature", self.temperature, within(0.0, self.temperature, f32::MAX), "0 (the most probable token) or above"),
        ];
        match checks.into_iter().find(|&(_, _, fine, _)| !fine) {
            Some((flag, value, _, allowed)) => Err(OptionError { flag, value, allowed }),
            None => Ok(()),
        }
    }

    /// Whether recent tokens count at all.
    pub(super) fn penalizes(&self) -> bool {
        self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_their_flags() {
        assert_eq!(Options::default().validate(), Ok(()));
        type Case = (&'static str, fn(&mut Options, f32), &'static [f32], &'static [f32]);
        let set: [Case; 6] = [
            ("repeat-penalty", |o, v| o.repeat_penalty = v, &[0.01, 1.0, 100.0], &[0.0, -1.0, 101.0]),
            ("frequency-penalty", |o, v| o.frequency_penalty = v, &[-2.0, 0.0, 100.0], &[-101.0, 101.0]),
            ("presence-penalty", |o, v| o.presence_penalty = v, &[-2.0, 0.0, 100.0], &[-101.0, 101.0]),
            ("top-p", |o, v| o.top_p = v, &[1e-6, 1.0], &[0.0, -0.1, 1.000_001]),
            ("min-p", |o, v| o.min_p = v, &[0.0, 1.0], &[-0.1, 1.000_001]),
            ("temperature", |o, v| o.temperature = v, &[0.0, 1e-6, 5.0], &[-0.1]),
        ];
        for (flag, set, good, bad) in set {
            let check = |value| {
                let mut options = Options::default();
                set(&mut options, value);
                options.validate()
            };
            good.iter().for_each(|&value| assert_eq!(check(value), Ok(()), "{flag} {value}"));
            for &value in bad.iter().chain(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
                let error = check(value).unwrap_err();
                assert_eq!(error.flag, flag);
                assert!(error.to_string().starts_with(&format!("--{flag} {value} is out of range: it must be ")), "{error}");
            }
        }
    }
}
