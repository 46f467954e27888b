//! Cosines and sines of rotary positions.

use ggufsmith_arch::decoder::Rope;

/// Tables for positions `0..n`, computed in F64.
#[derive(Debug)]
pub(crate) struct Table {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The angle of each pair at one position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

impl Table {
    /// `factors` divide the frequencies, where there are any.
    pub(crate) fn new(rope: &Rope, factors: Option<&[f32]>, positions: usize) -> Self {
        let factor = |i: usize| factors.map_or(1.0, |factors| f64::from(factors[i]));
        let freqs: Vec<f64> = rope.inv_freq.iter().enumerate().map(|(i, freq)| freq / factor(i)).collect();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * freqs.len()), Vec::with_capacity(positions * freqs.len()));
        for position in 0..positions {
            for freq in &freqs {
                let angle = position as f64 * freq;
                cos.push((angle.cos() * rope.magnitude) as f32);
                sin.push((angle.sin() * rope.magnitude) as f32);
            }
        }
        Table { pairs: freqs.len(), cos, sin }
    }

    pub(crate) fn turn(&self, position: usize) -> Turn<'_> {
        let range = position * self.pairs..(position + 1) * self.pairs;
        Turn { cos: &self.cos[range.clone()], sin: &self.sin[range] }
    }
}
