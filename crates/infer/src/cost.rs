//! What a pass costs, before it runs.

use crate::Model;
use ggufsmith_arch::decoder::{Experts, Ffn, Layer, Linear, Matrix};

impl Model {
    /// Multiplications by weights that a token costs in layer `index`.
    pub fn layer_multiplications(&self, index: usize) -> u64 {
        let layer = &self.decoder().layers[index];
        let attn = &layer.attn;
        let linear = |linears: &[&Linear]| linears.iter().map(|linear| size(&linear.weight)).sum::<u64>();
        let ffn = match &layer.ffn {
            Ffn::Gated(ffn) => linear(&[&ffn.gate, &ffn.up, &ffn.down]),
            Ffn::Plain(ffn) => linear(&[&ffn.up, &ffn.down]),
            Ffn::Experts(experts) => {
                let Experts { router, used, gate, up, down, shared, .. } = &**experts;
                let one = size(gate) + size(up) + size(down);
                let shared = shared.as_ref().map_or(0, |shared| {
                    let gate = shared.gate.as_ref().map_or(0, |gate| size(&gate.weight));
                    linear(&[&shared.ffn.gate, &shared.ffn.up, &shared.ffn.down]) + gate
                });
                size(&router.weight) + u64::from(*used) * one + shared
            }
        };
        linear(&[&attn.q, &attn.k, &attn.v, &attn.o]) + ffn
    }

    /// Multiplications that the logits of a row cost.
    pub fn head_multiplications(&self) -> u64 {
        size(&self.decoder().output.weight)
    }

    /// Bytes of [`crate::Buffers`] for a token, besides the tile.
    pub fn buffer_bytes(&self) -> u64 {
        self.decoder().layers.iter().map(|layer| 4 * elements(layer, self.decoder().n_embd.into())).max().unwrap_or(0)
    }
}

fn size(matrix: &Matrix) -> u64 {
    matrix.n_rows().saturating_mul(matrix.n_cols())
}

fn elements(layer: &Layer, n_embd: u64) -> u64 {
    let attn = &layer.attn;
    let ffn = match &layer.ffn {
        Ffn::Gated(ffn) => 2 * ffn.gate.rows(),
        Ffn::Plain(ffn) => ffn.up.rows(),
        Ffn::Experts(experts) => {
            let shared = experts.shared.as_ref().map_or(0, |shared| shared.ffn.gate.rows());
            // All tokens may choose one expert.
            2 * experts.gate.n_rows().max(shared) + 2 * n_embd + u64::from(experts.n_expert)
        }
    };
    2 * attn.q.rows() + attn.k.rows() + attn.v.rows() + ffn + 2 * n_embd
}
