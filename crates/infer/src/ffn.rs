//! Feed-forward parts: gated, plain, and mixtures of experts.

use crate::batch::FfnBuffers;
use crate::linear::Multiplier;
use crate::{WeightsError, ops};
use ggufsmith_arch::decoder::{Experts, Ffn, GatedFfn, PlainFfn, Shares};

/// `out = ffn(x)`, `[tokens, n_embd]` both.
pub(crate) fn ffn(
    ffn: &Ffn,
    multiplier: Multiplier<'_>,
    x: &[f32],
    out: &mut Vec<f32>,
    buffers: &mut FfnBuffers,
    tile: &mut Vec<f32>,
) -> Result<(), WeightsError> {
    match ffn {
        Ffn::Gated(ffn) => gated(ffn, multiplier, x, out, buffers, tile),
        Ffn::Plain(PlainFfn { act, up, down }) => {
            multiplier.linear(up, x, &mut buffers.up, tile)?;
            ops::activate(*act, &mut buffers.up);
            multiplier.linear(down, &buffers.up, out, tile)
        }
        Ffn::Experts(all) => experts(all, multiplier, x, out, buffers, tile),
    }
}

fn gated(
    ffn: &GatedFfn,
    multiplier: Multiplier<'_>,
    x: &[f32],
    out: &mut Vec<f32>,
    FfnBuffers { gate, up, .. }: &mut FfnBuffers,
    tile: &mut Vec<f32>,
) -> Result<(), WeightsError> {
    multiplier.linear(&ffn.gate, x, gate, tile)?;
    multiplier.linear(&ffn.up, x, up, tile)?;
    ops::gate(ffn.act, gate, up);
    multiplier.linear(&ffn.down, gate, out, tile)
}

/// Expert by expert, so that each one's matrices are decoded once; what a token gets is added in the order of the experts.
fn experts(
    experts: &Experts,
    multiplier: Multiplier<'_>,
    x: &[f32],
    out: &mut Vec<f32>,
    buffers: &mut FfnBuffers,
    tile: &mut Vec<f32>,
) -> Result<(), WeightsError> {
    let n_embd = experts.router.cols() as usize;
    multiplier.linear(&experts.router, x, &mut buffers.routes, tile)?;
    let routes = routes(experts, &buffers.routes);
    out.clear();
    out.resize(x.len(), 0.0);
    for (expert, routes) in routes.iter().enumerate().filter(|(_, routes)| !routes.is_empty()) {
        let FfnBuffers { gate, up, chosen, result, .. } = &mut *buffers;
        chosen.clear();
        chosen.extend(routes.iter().flat_map(|(token, _)| &x[token * n_embd..(token + 1) * n_embd]));
        let of = |matrix: &ggufsmith_arch::decoder::Matrix| matrix.of_expert(expert as u32);
        multiplier.product(&of(&experts.gate), chosen, gate, tile)?;
        multiplier.product(&of(&experts.up), chosen, up, tile)?;
        ops::gate(experts.act, gate, up);
        multiplier.product(&of(&experts.down), gate, result, tile)?;
        for ((token, share), result) in routes.iter().zip(result.chunks_exact(n_embd)) {
            add_share(&mut out[token * n_embd..(token + 1) * n_embd], result, *share);
        }
    }
    let Some(shared) = &experts.shared else { return Ok(()) };
    let mut result = std::mem::take(&mut buffers.result);
    gated(&shared.ffn, multiplier, x, &mut result, buffers, tile)?;
    match &shared.gate {
        None => ops::add(out, &result, 1.0),
        Some(gate) => {
            multiplier.linear(gate, x, &mut buffers.routes, tile)?;
            let rows = out.chunks_exact_mut(n_embd).zip(result.chunks_exact(n_embd));
            for ((out, result), gate) in rows.zip(&buffers.routes) {
                add_share(out, result, ops::sigmoid(*gate));
            }
        }
    }
    buffers.result = result;
    Ok(())
}

fn add_share(out: &mut [f32], result: &[f32], share: f32) {
    ops::vector(
        #[inline(always)]
        || out.iter_mut().zip(result).for_each(|(out, result)| *out += share * result),
    );
}

/// For each expert, the tokens that use it (in order) with their shares. Of equal logits the first expert's counts as larger.
fn routes(experts: &Experts, logits: &[f32]) -> Vec<Vec<(usize, f32)>> {
    let n = experts.n_expert as usize;
    let mut routes = vec![Vec::new(); n];
    let mut order: Vec<usize> = Vec::with_capacity(n);
    for (token, logits) in logits.chunks_exact(n).enumerate() {
        order.clear();
        order.extend(0..n);
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let used = &order[..experts.used as usize];
        let mut shares: Vec<f32> = match experts.shares {
            Shares::OfAll => logits.to_vec(),
            Shares::OfUsed => used.iter().map(|expert| logits[*expert]).collect(),
        };
        ops::softmax(&mut shares);
        for (rank, expert) in used.iter().enumerate() {
            let share = match experts.shares {
                Shares::OfAll => shares[*expert],
                Shares::OfUsed => shares[rank],
            };
            routes[*expert].push((token, share));
        }
    }
    routes
}
