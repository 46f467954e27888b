//! The tokens that are still in question, and the steps that narrow them down.

use super::softmax::{check, exp};
use super::{Options, SamplingError};
use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    token: u32,
    /// Neither NaN nor +∞.
    logit: f32,
}

/// Larger logits first, then lower ids. Zeros of both signs are equal, which is why this is not `total_cmp`.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// Candidates by id or, where `sorted`, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    sorted: bool,
}

impl Candidates {
    /// All tokens, by id.
    pub(super) fn fill(&mut self, logits: &[f32]) -> Result<(), SamplingError> {
        check(logits)?;
        self.sorted = false;
        self.list.clear();
        self.list.extend((0..=u32::MAX).zip(logits).map(|(token, &logit)| Candidate { token, logit }));
        Ok(())
    }

    /// llama.cpp's `llama_sampler_penalties_apply`: the repeat penalty, then frequency and presence. `counts`: how often each token
    /// occurs in the window. Right after [`Candidates::fill`].
    pub(super) fn penalize(&mut self, counts: &BTreeMap<u32, u32>, options: &Options) {
        for (&token, &count) in counts {
            // By id: a token is at its own place. The window may hold ids that this model lacks.
            let Some(candidate) = self.list.get_mut(token as usize) else { continue };
            let logit = &mut candidate.logit;
            if *logit <= 0.0 {
                *logit *= options.repeat_penalty;
            } else {
                *logit /= options.repeat_penalty;
            }
            *logit -= count as f32 * options.frequency_penalty + options.presence_penalty;
            // Only absurd logits come near.
            *logit = logit.min(f32::MAX);
        }
    }

    /// Without the tokens of logit -∞.
    pub(super) fn drop_impossible(&mut self) {
        self.list.retain(|c| c.logit > f32::NEG_INFINITY);
    }

    pub(super) fn best(&self) -> Option<u32> {
        self.list.iter().min_by(|a, b| best_first(a, b)).map(|c| c.token)
    }

    /// The `k` best; all for 0.
    pub(super) fn top_k(&mut self, k: usize) {
        if k == 0 {
            return;
        }
        if k < self.list.len() {
            self.list.select_nth_unstable_by(k, best_first);
            self.list.truncate(k);
        }
        self.sort();
    }

    /// The fewest best ones whose probabilities reach `p`; all for 1.
    pub(super) fn top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        self.sort();
        let Some(first) = self.list.first().map(|c| c.logit) else { return };
        let total: f64 = self.list.iter().map(|c| weight(c, first, 1.0)).sum();
        let mut mass = 0.0;
        let reached = self.list.iter().position(|c| {
            mass += weight(c, first, 1.0) / total;
            mass >= f64::from(p)
        });
        self.list.truncate(reached.map_or(usize::MAX, |at| at + 1));
    }

    /// Those at least `p` times as probable as the best one.
    pub(super) fn min_p(&mut self, p: f32) {
        if p <= 0.0 {
            return;
        }
        let max = self.max();
        self.list.retain(|c| weight(c, max, 1.0) >= f64::from(p));
    }

    /// The token at the share `unit`, in [0, 1), of the candidates' added probabilities. `None`: no candidates.
    pub(super) fn draw(&self, temperature: f32, unit: f64) -> Option<u32> {
        let max = self.max();
        let temperature = f64::from(temperature);
        let total: f64 = self.list.iter().map(|c| weight(c, max, temperature)).sum();
        let target = unit * total;
        let mut mass = 0.0;
        // Strictly above: a token whose probability vanishes is never drawn.
        let drawn = self.list.iter().find(|c| {
            mass += weight(c, max, temperature);
            mass > target
        });
        // The product may be rounded up to the total.
        let last = || self.list.iter().rev().find(|c| weight(c, max, temperature) > 0.0);
        drawn.or_else(last).map(|c| c.token)
    }

    fn max(&self) -> f32 {
        self.list.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max)
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.list.sort_unstable_by(best_first);
            self.sorted = true;
        }
    }
}

/// A candidate's probability relative to that of the logit `max`, the largest one. The difference is taken first: no temperature
/// makes it overflow.
fn weight(candidate: &Candidate, max: f32, temperature: f64) -> f64 {
    exp((f64::from(candidate.logit) - f64::from(max)) / temperature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(logits: &[f32]) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.fill(logits).unwrap();
        candidates
    }

    /// Tokens and probabilities at temperature 1, by id.
    fn probabilities(candidates: &Candidates) -> Vec<(u32, f64)> {
        let max = candidates.max();
        let total: f64 = candidates.list.iter().map(|c| weight(c, max, 1.0)).sum();
        let mut list: Vec<_> = candidates.list.iter().map(|c| (c.token, weight(c, max, 1.0) / total)).collect();
        list.sort_by_key(|&(token, _)| token);
        list
    }

    #[track_caller]
    fn assert_left(candidates: &Candidates, expected: &[(u32, f64)]) {
        let left = probabilities(candidates);
        let close = |(a, b): (&(u32, f64), &(u32, f64))| a.0 == b.0 && (a.1 - b.1).abs() < 1e-5;
        assert!(left.len() == expected.len() && left.iter().zip(expected).all(close), "{left:?} is not {expected:?}");
    }

    const FOUR: [f64; 4] = [0.1, 0.2, 0.3, 0.4];

    fn four() -> Candidates {
        filled(&FOUR.map(|p| p.ln() as f32))
    }

    /// The figures that llama.cpp's tests/test-sampling.cpp expects of these inputs.
    #[test]
    fn filters_as_llama_cpp_tests_them() {
        let apply = |filter: &dyn Fn(&mut Candidates)| {
            let mut candidates = four();
            filter(&mut candidates);
            candidates
        };
        let all = [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)];
        let three = [(1, 0.22222), (2, 0.33333), (3, 0.44444)];
        let two = [(2, 0.428571), (3, 0.571429)];
        for (k, left) in [(1, &[(3, 1.0)][..]), (3, &three), (4, &all), (0, &all)] {
            assert_left(&apply(&|c| c.top_k(k)), left);
        }
        for (p, left) in [(1e-9, &[(3, 1.0)][..]), (0.7, &two), (0.8, &three), (1.0, &all)] {
            assert_left(&apply(&|c| c.top_p(p)), left);
        }
        for (p, left) in
            [(0.0, &all[..]), (0.24, &all), (0.26, &three), (0.49, &three), (0.51, &two), (0.74, &two), (0.76, &[(3, 1.0)])]
        {
            assert_left(&apply(&|c| c.min_p(p)), left);
        }
        assert_left(&apply(&|c| c.min_p(1.0)), &[(3, 1.0)]);
    }

    /// The same source's figures for penalties on five equal tokens.
    #[test]
    fn penalties_as_llama_cpp_tests_them() {
        let cases: [(&[u32], [f32; 3], [f64; 5]); 5] = [
            (&[0], [50.0, 0.0, 0.0], [0.0, 0.25, 0.25, 0.25, 0.25]),
            (&[0, 1, 2], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5]),
            (&[0], [1.0, 5.0, 5.0], [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
            (&[0, 1, 2], [1.0, 5.0, 5.0], [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]),
            (&[0, 1, 2, 0, 0], [1.0, 5.0, 5.0], [0.0, 0.000023, 0.000023, 0.499977, 0.499977]),
        ];
        for (said, [repeat_penalty, frequency_penalty, presence_penalty], expected) in cases {
            let options = Options { repeat_penalty, frequency_penalty, presence_penalty, ..Options::default() };
            let mut candidates = filled(&[0.2f32.ln(); 5]);
            candidates.penalize(&super::super::counts(&said.iter().copied().collect()), &options);
            assert_left(&candidates, &(0..).zip(expected).collect::<Vec<_>>());
        }
    }

    /// What a real llama.cpp leaves of a model's distribution, for several settings: fixtures/sampling/chain.py.
    #[test]
    fn the_chain_leaves_what_llama_cpp_leaves() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sampling/chain.tsv");
        let golden = std::fs::read_to_string(path).unwrap();
        let cases: Vec<GoldenCase> = golden.lines().map(golden_case).collect();
        let (settings, all) = &cases[0];
        assert_eq!((*settings, all.len(), cases.len()), ([0.0, 1.0, 0.0, 1.0], 512, 10));
        let mut logits = vec![f32::NAN; all.len()];
        all.iter().for_each(|&(token, p)| logits[token as usize] = p.ln() as f32);
        let mut out_of_order = 0;
        for ([top_k, top_p, min_p, temperature], expected) in &cases {
            let left = |filter_at: f32, draw_at: f32| {
                let warmed: Vec<f32> = logits.iter().map(|logit| logit / filter_at).collect();
                let mut candidates = filled(&warmed);
                candidates.top_k(*top_k as usize);
                candidates.top_p(*top_p);
                candidates.min_p(*min_p);
                candidates.sort();
                let (max, temperature) = (candidates.max(), f64::from(draw_at));
                let total: f64 = candidates.list.iter().map(|c| weight(c, max, temperature)).sum();
                candidates.list.iter().map(|c| (c.token, weight(c, max, temperature) / total)).collect::<Vec<_>>()
            };
            let close = |left: &[(u32, f64)]| {
                left.len() == expected.len() && left.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 2e-6)
            };
            assert!(close(&left(1.0, *temperature)), "{top_k} {top_p} {min_p} {temperature}");
            // Temperature before the filters, as others do it, is told from llama.cpp's order.
            out_of_order += usize::from(!close(&left(*temperature, 1.0)));
        }
        assert_eq!(out_of_order, 4);
    }

    /// top_k, top_p, min_p, temperature, and the probabilities that are left.
    type GoldenCase = ([f32; 4], Vec<(u32, f64)>);

    fn golden_case(line: &str) -> GoldenCase {
        let columns: Vec<&str> = line.split('\t').collect();
        let token = |text: &str| {
            let (id, p) = text.split_once(':').unwrap();
            (id.parse().unwrap(), p.parse().unwrap())
        };
        ([0, 1, 2, 3].map(|column| columns[column].parse().unwrap()), columns[4].split(' ').map(token).collect())
    }

    #[test]
    fn the_repeat_penalty_divides_above_zero_and_multiplies_elsewhere() {
        let mut candidates = filled(&[3.0, 0.0, -2.0, 5.0, f32::NEG_INFINITY, f32::MAX]);
        let options = Options { repeat_penalty: 1.5, ..Options::default() };
        candidates.penalize(&[(0, 1), (1, 9), (2, 2), (4, 1), (6, 1), (u32::MAX, 1)].into(), &options);
        let logits: Vec<f32> = candidates.list.iter().map(|c| c.logit).collect();
        assert_eq!(logits, [2.0, 0.0, -3.0, 5.0, f32::NEG_INFINITY, f32::MAX]);
        candidates.penalize(&[(5, 1)].into(), &Options { repeat_penalty: 0.01, ..options });
        assert_eq!(candidates.list[5].logit, f32::MAX);
    }

    #[test]
    fn a_draw_takes_shares_in_order() {
        let candidates = four();
        for (unit, token) in [(0.0, 0), (0.0999, 0), (0.1001, 1), (0.2999, 1), (0.3001, 2), (0.6001, 3), (1.0, 3)] {
            assert_eq!(candidates.draw(1.0, unit), Some(token), "{unit}");
        }
        let vanishing = filled(&[-1e4, 0.0, -1e4]);
        assert_eq!((vanishing.draw(1.0, 0.0), vanishing.draw(1.0, 1.0)), (Some(1), Some(1)));
        assert_eq!(Candidates::default().draw(1.0, 0.5), None);
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values give ties.
        prop_oneof![prop::collection::vec(-20.0f32..20.0, 1..300), prop::collection::vec((-3i8..3).prop_map(f32::from), 1..300),]
    }

    proptest! {
        #[test]
        fn top_k_keeps_the_k_best(logits in logits(), k in 1usize..320) {
            let mut candidates = filled(&logits);
            candidates.top_k(k);
            let mut expected = filled(&logits);
            expected.list.sort_by(best_first);
            expected.list.truncate(k);
            prop_assert_eq!(candidates.list.len(), k.min(logits.len()));
            prop_assert_eq!(candidates.list, expected.list);
        }

        #[test]
        fn top_p_keeps_the_fewest_that_reach_p(logits in logits(), p in 1e-3f32..0.999) {
            let all = probabilities(&filled(&logits));
            let mut candidates = filled(&logits);
            candidates.top_p(p);
            let masses: Vec<f64> = candidates.list.iter().map(|c| all[c.token as usize].1).collect();
            let (p, mass) = (f64::from(p), masses.iter().sum::<f64>());
            prop_assert!(mass >= p - 1e-12, "{mass} is less than {p}");
            prop_assert!(mass - masses.last().unwrap() < p + 1e-12, "the last is not needed");
            let worst = candidates.list.last().unwrap();
            let better = filled(&logits).list.iter().filter(|c| best_first(c, worst) != Ordering::Greater).count();
            prop_assert_eq!(better, candidates.list.len(), "what is left are the best");
        }

        #[test]
        fn min_p_keeps_what_is_probable_enough(logits in logits(), p in 0.0f32..=1.0, sort in any::<bool>()) {
            let all = probabilities(&filled(&logits));
            let max = all.iter().map(|&(_, p)| p).fold(0.0, f64::max);
            let mut candidates = filled(&logits);
            if sort {
                candidates.top_k(logits.len());
            }
            candidates.min_p(p);
            let kept: Vec<u32> = probabilities(&candidates).iter().map(|&(token, _)| token).collect();
            for (token, probability) in all {
                let ratio = probability / max - f64::from(p);
                // Within rounding of the bound either is right.
                prop_assert!(ratio.abs() < 1e-12 || kept.contains(&token) == (ratio > 0.0), "{token}: {ratio}");
            }
        }

        #[test]
        fn steps_in_a_row_leave_someone(logits in logits(), k in 0usize..9, p in 1e-3f32..=1.0, q in 0.0f32..=1.0, unit in 0.0..1.0f64) {
            let mut candidates = filled(&logits);
            candidates.top_k(k);
            candidates.top_p(p);
            candidates.min_p(q);
            let token = candidates.draw(0.7, unit).unwrap();
            prop_assert!(candidates.list.iter().any(|c| c.token == token));
        }
    }
}
