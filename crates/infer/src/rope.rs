//! Cosines and sines of rotary positions.

use crate::{Weights, WeightsError};
use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::Rope;

/// The tables of a model: one for each kind of rotation that its layers have.
#[derive(Debug)]
pub(crate) struct Tables {
    tables: Vec<Table>,
    of_layer: Vec<Option<usize>>,
}

impl Tables {
    /// For positions `0..n_ctx`.
    pub(crate) fn new(decoder: &Decoder, weights: &Weights, n_ctx: usize) -> Result<Self, WeightsError> {
        let mut kinds: Vec<&Rope> = Vec::new();
        let (mut tables, mut of_layer) = (Vec::new(), Vec::with_capacity(decoder.layers.len()));
        for layer in &decoder.layers {
            of_layer.push(match &layer.attn.rope {
                None => None,
                Some(rope) => match kinds.iter().position(|known| *known == rope) {
                    Some(known) => Some(known),
                    None => {
                        tables.push(Table::of(rope, weights, n_ctx)?);
                        kinds.push(rope);
                        Some(kinds.len() - 1)
                    }
                },
            });
        }
        Ok(Tables { tables, of_layer })
    }

    /// The table of a layer that rotates.
    pub(crate) fn of_layer(&self, layer: usize) -> Option<&Table> {
        self.tables.get((*self.of_layer.get(layer)?)?)
    }
}

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
    fn of(rope: &Rope, weights: &Weights, n_ctx: usize) -> Result<Self, WeightsError> {
        let long = rope.long.as_ref().filter(|long| n_ctx > long.beyond as usize);
        let (inv_freq, factors) = long.map_or((&rope.inv_freq, &rope.factors), |long| (&long.inv_freq, &long.factors));
        let grown = rope.dynamic.and_then(|dynamic| dynamic.inv_freq(2 * inv_freq.len(), n_ctx));
        let inv_freq = grown.as_ref().unwrap_or(inv_freq);
        let factors = factors.as_ref().map(|name| weights.tensor_values(name, &[inv_freq.len() as u64])).transpose()?;
        Ok(Table::new(inv_freq, factors.as_deref(), rope.magnitude, n_ctx))
    }

    /// `factors` divide the frequencies, where there are any.
    fn new(inv_freq: &[f64], factors: Option<&[f32]>, magnitude: f64, positions: usize) -> Self {
        let factor = |i: usize| factors.map_or(1.0, |factors| f64::from(factors[i]));
        let freqs: Vec<f64> = inv_freq.iter().enumerate().map(|(i, freq)| freq / factor(i)).collect();
        let (mut cos, mut sin) = (Vec::with_capacity(positions * freqs.len()), Vec::with_capacity(positions * freqs.len()));
        for position in 0..positions {
            for freq in &freqs {
                let angle = position as f64 * freq;
                cos.push((angle.cos() * magnitude) as f32);
                sin.push((angle.sin() * magnitude) as f32);
            }
        }
        Table { pairs: freqs.len(), cos, sin }
    }

    pub(crate) fn turn(&self, position: usize) -> Turn<'_> {
        let range = position * self.pairs..(position + 1) * self.pairs;
        Turn { cos: &self.cos[range.clone()], sin: &self.sin[range] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Storage, Tensor, Tensors};
    use ggufsmith_arch::decoder::{LongRope, RopeLayout};
    use ggufsmith_core::DType;

    /// Two factors: 1 and 2 of the short texts, 4 and 8 of the long ones.
    struct Factors;

    impl Tensors for Factors {
        fn tensor(&self, _name: &str) -> Option<Tensor> {
            Some(Tensor { shape: vec![2], storage: Storage::Plain(DType::F32) })
        }

        fn read(&self, name: &str, _offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
            let factors = if name == "long" { [4f32, 8.0] } else { [1.0, 2.0] };
            out.copy_from_slice(&factors.map(f32::to_le_bytes).concat());
            Ok(())
        }
    }

    #[test]
    fn long_texts_have_frequencies_of_their_own() {
        let inv_freq = vec![1.0, 0.5];
        let long = LongRope { beyond: 16, inv_freq: inv_freq.clone(), factors: Some("long".into()) };
        let rope = Rope {
            layout: RopeLayout::Halves,
            inv_freq,
            factors: Some("short".into()),
            magnitude: 1.5,
            long: Some(long),
            dynamic: None,
        };
        let weights = Weights::new(Box::new(Factors));
        for (n_ctx, expected) in [(16, [1.0, 0.25]), (17, [0.25, 0.0625])] {
            let table = Table::of(&rope, &weights, n_ctx).unwrap();
            let turn = table.turn(3);
            for (i, freq) in expected.into_iter().enumerate() {
                let (cos, sin) = (1.5 * f64::cos(3.0 * freq), 1.5 * f64::sin(3.0 * freq));
                assert!(
                    (f64::from(turn.cos[i]) - cos).abs() < 1e-6 && (f64::from(turn.sin[i]) - sin).abs() < 1e-6,
                    "{n_ctx} {i}"
                );
            }
        }
    }
}
