//! Which token comes next, given a model's logits.
//!
//! The steps and their order are llama.cpp's (`common_sampler_init`, `llama-sampler.cpp`): penalties for repetition, top-k, top-p,
//! min-p, temperature, a random draw. Its other steps (DRY, XTC, typical-p, mirostat, grammars) are not here.
//!
//! A choice depends on logits, options and seed alone: the generator, the exponential and the order of every sum are this module's
//! own, so that equal logits give equal tokens on every platform. The seeds of llama.cpp give other draws: its generator is C++'s
//! `mt19937`. Where several tokens have the same logit the lowest id counts as the largest; llama.cpp leaves that to its sort.

mod candidates;
mod options;
mod random;
mod softmax;

pub use options::{OptionError, Options};
pub use random::SplitMix64;
pub use softmax::log_softmax;

use candidates::Candidates;
use std::collections::{BTreeMap, VecDeque};
use thiserror::Error;

/// Logits that no token can be chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum SamplingError {
    /// A logit is NaN or +∞. A logit of -∞ is allowed: the token is impossible.
    #[error(
        "the model computed {value} as the logit of token {token}: its weights are damaged, or a value overflowed on the way; \
         `ggufsmith verify` shows where"
    )]
    NotFinite {
        /// The first such token.
        token: u32,
        /// NaN or +∞.
        value: f32,
    },
    /// The model has no vocabulary, or every logit is -∞, by itself or through a penalty.
    #[error("the model leaves none of its {tokens} tokens possible (every logit is -∞)")]
    NoneLeft {
        /// Number of logits.
        tokens: usize,
    },
}

/// Chooses one token after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: Options,
    random: SplitMix64,
    /// The last [`Options::repeat_last_n`] accepted tokens, oldest first.
    recent: VecDeque<u32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler at the beginning of a text.
    ///
    /// # Errors
    /// [`OptionError`]: an option out of its range.
    pub fn new(options: Options) -> Result<Self, OptionError> {
        options.validate()?;
        let random = SplitMix64::new(options.seed);
        Ok(Sampler { options, random, recent: VecDeque::new(), candidates: Candidates::default() })
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Note a token of the text, be it the prompt's or a chosen one: penalties look back on these.
    pub fn accept(&mut self, token: u32) {
        if self.options.repeat_last_n == 0 || !self.options.penalizes() {
            return;
        }
        if self.recent.len() == self.options.repeat_last_n {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Choose a token by `logits` `[n_vocab]`. It is not accepted by that; see [`Sampler::accept`].
    ///
    /// At a temperature above zero this takes one number from the generator, whatever the candidates are.
    ///
    /// # Errors
    /// [`SamplingError`]: a logit is NaN or +∞, or no token is possible.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let none_left = SamplingError::NoneLeft { tokens: logits.len() };
        let Options { top_k, top_p, min_p, temperature, .. } = self.options;
        self.candidates.fill(logits)?;
        if !self.recent.is_empty() {
            self.candidates.penalize(&counts(&self.recent), &self.options);
        }
        self.candidates.drop_impossible();
        if temperature == 0.0 {
            return self.candidates.best().ok_or(none_left);
        }
        self.candidates.top_k(top_k);
        self.candidates.top_p(top_p);
        self.candidates.min_p(min_p);
        let unit = self.random.unit();
        self.candidates.draw(temperature, unit).ok_or(none_left)
    }
}

fn counts(tokens: &VecDeque<u32>) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for &token in tokens {
        *counts.entry(token).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws from the distribution as it is.
    fn plain() -> Options {
        Options { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..Options::default() }
    }

    fn choose(options: Options, logits: &[f32]) -> Result<u32, SamplingError> {
        Sampler::new(options).unwrap().choose(logits)
    }

    /// Pearson's statistic of draws against probabilities.
    fn chi_square(draws: &[u64], probabilities: &[f64]) -> f64 {
        let n = draws.iter().sum::<u64>() as f64;
        draws.iter().zip(probabilities).map(|(&d, &p)| (d as f64 - n * p).powi(2) / (n * p)).sum()
    }

    #[test]
    fn greedy_takes_the_largest_and_of_equals_the_first() {
        let greedy = Options { temperature: 0.0, ..Options::default() };
        assert_eq!(choose(greedy, &[1.0, 3.0, 3.0, 2.0]), Ok(1));
        assert_eq!(choose(greedy, &[-0.0, 0.0]), Ok(0), "zeros of both signs are equal");
        assert_eq!(choose(greedy, &[f32::NEG_INFINITY, f32::MIN]), Ok(1));
    }

    #[test]
    fn what_is_not_finite_is_an_error_naming_the_token() {
        for temperature in [0.0, 0.8] {
            let options = Options { temperature, ..Options::default() };
            let error = choose(options, &[0.0, f32::NEG_INFINITY, f32::NAN, f32::INFINITY]).unwrap_err();
            assert!(matches!(error, SamplingError::NotFinite { token: 2, value } if value.is_nan()), "{error}");
            assert!(error.to_string().starts_with("the model computed NaN as the logit of token 2"), "{error}");
            assert_eq!(choose(options, &[f32::INFINITY]), Err(SamplingError::NotFinite { token: 0, value: f32::INFINITY }));
            assert_eq!(choose(options, &[]), Err(SamplingError::NoneLeft { tokens: 0 }));
            assert_eq!(choose(options, &[f32::NEG_INFINITY; 3]), Err(SamplingError::NoneLeft { tokens: 3 }));
        }
    }

    /// 100,000 draws stay within the bound that a fair sampler exceeds once in 10,000 seeds (chi-square, 5 degrees of freedom: 25.7)
    /// and, to show that the bound can fail, leave it for probabilities that are off by 2 %.
    #[test]
    fn draws_follow_the_distribution() {
        let probabilities = [0.35f64, 0.25, 0.2, 0.1, 0.07, 0.03];
        let logits = probabilities.map(|p| p.ln() as f32);
        for (seed, options) in [(1, plain()), (2, Options { top_k: 6, ..plain() }), (3, Options { temperature: 0.5, ..plain() })]
        {
            let powered = probabilities.map(|p| p.powf(1.0 / f64::from(options.temperature)));
            let expected = powered.map(|p| p / powered.iter().sum::<f64>());
            let mut sampler = Sampler::new(Options { seed, ..options }).unwrap();
            let mut draws = [0u64; 6];
            for _ in 0..100_000 {
                draws[sampler.choose(&logits).unwrap() as usize] += 1;
            }
            let fair = chi_square(&draws, &expected);
            assert!(fair < 25.7, "{fair}: {draws:?} for {expected:?}");
            let mut off = expected;
            off[0] += 0.02;
            off[1] -= 0.02;
            assert!(chi_square(&draws, &off) > 25.7, "{draws:?} for {off:?}");
        }
    }

    /// Fixed for ever: a seed means the same tokens on every platform and in every version. The tokens are those of the same steps
    /// written down in Python, with its own exponential.
    #[test]
    fn a_seed_is_a_promise() {
        let logits: Vec<f32> = (0..50u16).map(|i| f32::from(i * 37 % 50) * 0.1).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(Options { seed, ..Options::default() }).unwrap();
            (0..12).map(|_| sampler.choose(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(42), run(42));
        assert_ne!(run(42), run(43));
        assert_eq!(run(42), [47, 4, 31, 8, 27, 5, 4, 24, 8, 16, 4, 12]);
    }

    #[test]
    fn low_temperatures_are_greedy_and_high_ones_uniform() {
        let logits = [0.5, 2.0, 1.9, -3.0];
        let draws = |temperature| {
            let mut sampler = Sampler::new(Options { temperature, ..plain() }).unwrap();
            let mut draws = [0u64; 4];
            (0..20_000).for_each(|_| draws[sampler.choose(&logits).unwrap() as usize] += 1);
            draws
        };
        for cold in [1e-3, 1e-30, f32::MIN_POSITIVE] {
            assert_eq!(draws(cold), [0, 20_000, 0, 0], "{cold}");
        }
        for hot in [1e6, f32::MAX] {
            let draws = draws(hot);
            assert!(chi_square(&draws, &[0.25; 4]) < 21.1, "{draws:?}"); // 3 degrees of freedom, once in 10,000
        }
    }

    #[test]
    fn penalties_look_back_on_a_window() {
        let options = Options { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..Options::default() };
        let mut sampler = Sampler::new(options).unwrap();
        let logits = [4.0, 3.0, 2.5];
        let mut said = Vec::new();
        for _ in 0..6 {
            let token = sampler.choose(&logits).unwrap();
            sampler.accept(token);
            said.push(token);
        }
        // 0 becomes 2.0, then 1 becomes 1.5; after two others 0 is forgotten.
        assert_eq!(said, [0, 1, 2, 0, 1, 2]);
        let mut long = Sampler::new(Options { repeat_last_n: 64, repeat_penalty: 4.0, ..options }).unwrap();
        [0, 1, 7].iter().for_each(|&token| long.accept(token)); // 7 is no token of this vocabulary
        assert_eq!(long.choose(&logits), Ok(2));
    }

    #[test]
    fn penalties_that_are_off_remember_nothing() {
        for options in [Options::default(), Options { repeat_penalty: 1.3, repeat_last_n: 0, ..Options::default() }] {
            let mut sampler = Sampler::new(options).unwrap();
            (0..100).for_each(|token| sampler.accept(token));
            assert!(sampler.recent.is_empty());
        }
    }
}
