//! From scores to figures and their errors.

use super::{BaseScore, Group, OtherScore};
use crate::report::{Figures, HashedFile, Histogram, Sentences, WindowFigures};
use std::ops::Range;

/// A perplexity with its error, as llama-perplexity computes both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// `e^mean`.
    pub value: f64,
    /// One standard error: `e^mean * sqrt((mean of squares - mean²) / (n - 1))`. NaN for one token.
    pub error: f64,
}

impl Perplexity {
    /// Of negative log-likelihoods in nats.
    pub fn of(nll: impl Iterator<Item = f64> + Clone) -> Self {
        let count = nll.clone().count() as f64;
        let mean = nll.clone().sum::<f64>() / count;
        let squares = nll.map(|nll| nll * nll).sum::<f64>() / count;
        let value = mean.exp();
        let variance = (squares - mean * mean).max(0.0);
        Perplexity { value, error: value * (variance / (count - 1.0)).sqrt() }
    }
}

/// Everything about other model number `other` of the scores.
pub fn compare(scores: &Group, other: usize, text: HashedFile, n_ctx: u64) -> Figures {
    let (base, file) = (&scores.base, &scores.others[other]);
    let source = Perplexity::of(base.iter().map(|score| score.nll));
    let own = Perplexity::of(file.iter().map(|score| score.nll));
    let mut klds: Vec<f64> = file.iter().map(|score| score.kld).collect();
    klds.sort_by(f64::total_cmp);
    let count = file.len() as f64;
    let windows: Vec<Sums> = scores.samples.iter().map(|range| Sums::of(base, file, range)).collect();
    let total = windows.iter().fold(Sums::default(), |total, window| total.plus(window));
    let errors = bootstrap(&windows);
    Figures {
        text,
        n_ctx,
        windows: windows.len() as u64,
        tokens: file.len() as u64,
        perplexity_source: source.value,
        perplexity_source_error: source.error,
        perplexity: own.value,
        perplexity_error: own.error,
        perplexity_ratio: total.ratio(),
        perplexity_ratio_error: errors[0],
        nll_correlation: correlation(base.iter().zip(file).map(|(base, file)| (base.nll, file.nll))),
        kld_mean: total.kld / count,
        kld_mean_error: errors[1],
        kld_max: klds.last().copied().unwrap_or(f64::NAN),
        kld_p999: quantile(&klds, 0.999),
        kld_p99: quantile(&klds, 0.99),
        kld_p95: quantile(&klds, 0.95),
        kld_median: quantile(&klds, 0.5),
        kld_histogram: histogram(&klds),
        delta_p_mean: total.delta / count,
        delta_p_mean_error: errors[2],
        delta_p_rms: total.delta_rms(),
        delta_p_rms_error: errors[3],
        same_top1: total.same / count,
        same_top1_error: errors[4],
        per_window: windows.iter().map(Sums::window).collect(),
        hidden_error: scores
            .hidden
            .get(other)
            .map_or_else(Vec::new, |layers| layers.iter().map(|(difference, squares)| (difference / squares).sqrt()).collect()),
    }
}

/// Perplexity of sentences, for the source and other model number `other`.
pub fn sentences(scores: &Group, other: usize, text: HashedFile) -> Sentences {
    let base: Vec<f64> = scores.base.iter().map(|score| score.nll).collect();
    let file: Vec<f64> = scores.others[other].iter().map(|score| score.nll).collect();
    let (source, own) = (of_sentences(&base, &scores.samples), of_sentences(&file, &scores.samples));
    Sentences {
        text,
        sentences: scores.samples.len() as u64,
        tokens: base.len() as u64,
        perplexity_source: source.corpus.value,
        perplexity: own.corpus.value,
        mean_perplexity_source: source.mean,
        mean_perplexity: own.mean,
        median_perplexity_source: source.median,
        median_perplexity: own.median,
    }
}

/// Perplexities of sentences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SentencePerplexity {
    /// Over all tokens.
    pub corpus: Perplexity,
    /// Mean of the sentences' own.
    pub mean: f64,
    /// Median of the sentences' own.
    pub median: f64,
}

/// From negative log-likelihoods, those of a sentence in one range.
pub fn of_sentences(nll: &[f64], ranges: &[Range<usize>]) -> SentencePerplexity {
    let own = |range: &Range<usize>| (nll[range.clone()].iter().sum::<f64>() / range.len() as f64).exp();
    let mut each: Vec<f64> = ranges.iter().map(own).collect();
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    each.sort_by(f64::total_cmp);
    SentencePerplexity { corpus: Perplexity::of(nll.iter().copied()), mean, median: quantile(&each, 0.5) }
}

/// Sums over a window, from which every mean follows.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    source: f64,
    file: f64,
    kld: f64,
    delta: f64,
    delta_squares: f64,
    same: f64,
}

impl Sums {
    fn of(base: &[BaseScore], file: &[OtherScore], range: &Range<usize>) -> Self {
        let mut sums = Sums { count: range.len() as f64, ..Sums::default() };
        for (base, file) in base[range.clone()].iter().zip(&file[range.clone()]) {
            let delta = (-file.nll).exp() - (-base.nll).exp();
            sums.source += base.nll;
            sums.file += file.nll;
            sums.kld += file.kld;
            sums.delta += delta;
            sums.delta_squares += delta * delta;
            sums.same += f64::from(u8::from(base.top == file.top));
        }
        sums
    }

    fn plus(self, other: &Sums) -> Sums {
        Sums {
            count: self.count + other.count,
            source: self.source + other.source,
            file: self.file + other.file,
            kld: self.kld + other.kld,
            delta: self.delta + other.delta,
            delta_squares: self.delta_squares + other.delta_squares,
            same: self.same + other.same,
        }
    }

    fn ratio(&self) -> f64 {
        ((self.file - self.source) / self.count).exp()
    }

    fn delta_rms(&self) -> f64 {
        (self.delta_squares / self.count).sqrt()
    }

    fn means(&self) -> [f64; 5] {
        [self.ratio(), self.kld / self.count, self.delta / self.count, self.delta_rms(), self.same / self.count]
    }

    fn window(&self) -> WindowFigures {
        WindowFigures {
            perplexity_source: (self.source / self.count).exp(),
            perplexity: (self.file / self.count).exp(),
            kld_mean: self.kld / self.count,
            same_top1: self.same / self.count,
        }
    }
}

/// Resamplings of the windows.
const RESAMPLES: usize = 1000;

/// Standard errors of [`Sums::means`] by resampling windows with replacement; both sides of a window stay together. NaN for fewer than
/// two windows. The random numbers are always the same.
fn bootstrap(windows: &[Sums]) -> [f64; 5] {
    if windows.len() < 2 {
        return [f64::NAN; 5];
    }
    let mut random = SplitMix(0x9e37_79b9_7f4a_7c15);
    let mut samples = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let total = (0..windows.len()).fold(Sums::default(), |total, _| total.plus(&windows[random.below(windows.len())]));
        samples.push(total.means());
    }
    std::array::from_fn(|i| {
        let mean = samples.iter().map(|sample| sample[i]).sum::<f64>() / RESAMPLES as f64;
        let squares = samples.iter().map(|sample| (sample[i] - mean).powi(2)).sum::<f64>();
        (squares / (RESAMPLES - 1) as f64).sqrt()
    })
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The high half of the product: below `n`, and as good as uniform for counts of windows.
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }
}

/// Between neighbours in proportion, as llama-perplexity and torch take it; `sorted` ascends.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

fn correlation(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = pairs.clone().count() as f64;
    let (x, y) = pairs.clone().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (x, y) = (x / count, y / count);
    let products = pairs.map(|(a, b)| ((a - x) * (b - y), (a - x).powi(2), (b - y).powi(2)));
    let (xy, xx, yy) = products.fold((0.0, 0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1, sum.2 + p.2));
    xy / (xx * yy).sqrt()
}

/// From 10⁻¹⁰ to 10², ten bins a decade.
fn histogram(klds: &[f64]) -> Histogram {
    const FROM: f64 = -10.0;
    const WIDTH: f64 = 0.1;
    const BINS: usize = 120;
    let mut counts = vec![0; BINS];
    for kld in klds {
        let at = ((kld.log10() - FROM) / WIDTH).floor();
        counts[at.clamp(0.0, (BINS - 1) as f64) as usize] += 1;
    }
    Histogram { from: FROM, width: WIDTH, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_llama_perplexitys() {
        let nll = [1.0, 2.0, 4.0];
        let p = Perplexity::of(nll.into_iter());
        let (mean, squares) = (7.0f64 / 3.0, 7.0f64);
        assert!((p.value - mean.exp()).abs() < 1e-12);
        assert!((p.error - mean.exp() * ((squares - mean * mean) / 2.0).sqrt()).abs() < 1e-12);
        assert!(Perplexity::of([1.0].into_iter()).error.is_nan());
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [0.0, 1.0, 2.0, 10.0];
        assert_eq!((quantile(&sorted, 0.0), quantile(&sorted, 0.5), quantile(&sorted, 1.0)), (0.0, 1.5, 10.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn bootstrap_errors_are_those_of_the_mean() {
        // Windows of one position with KL divergences 0 and 2: the mean's error is 1 / sqrt(n).
        let windows: Vec<Sums> = (0..100).map(|i| Sums { count: 1.0, kld: f64::from(i % 2) * 2.0, ..Sums::default() }).collect();
        let errors = bootstrap(&windows);
        assert!((errors[1] - 0.1).abs() < 0.01, "{errors:?}");
        assert_eq!(errors[0], 0.0);
        assert!(bootstrap(&windows[..1])[1].is_nan());
        assert_eq!(bootstrap(&windows), errors);
    }

    #[test]
    fn figures_of_a_file_that_is_its_source() {
        let base: Vec<BaseScore> = (0..20).map(|i| BaseScore { nll: 1.0 + f64::from(i) / 10.0, top: i }).collect();
        let same: Vec<OtherScore> = base.iter().map(|b| OtherScore { nll: b.nll, top: b.top, kld: 0.0 }).collect();
        let scores = Group { samples: vec![0..10, 10..20], base, others: vec![same], hidden: vec![vec![(0.0, 4.0)]] };
        let text = HashedFile { name: "text".into(), bytes: 1, sha256: String::new() };
        let figures = compare(&scores, 0, text.clone(), 20);
        assert_eq!((figures.perplexity_ratio, figures.kld_mean, figures.same_top1), (1.0, 0.0, 1.0));
        assert!((figures.nll_correlation - 1.0).abs() < 1e-12 && figures.hidden_error == [0.0]);
        assert_eq!(figures.kld_histogram.counts.iter().sum::<u64>(), 20);

        let mut other = scores.clone();
        other.others[0][3] = OtherScore { nll: 5.0, top: 77, kld: 0.5 };
        let changed = compare(&other, 0, text, 20);
        assert!(changed.kld_max == 0.5 && changed.same_top1 == 0.95 && changed.perplexity_ratio > 1.0);
        assert!(changed.delta_p_rms > 0.0 && changed.per_window[1] == figures.per_window[1]);
    }
}
