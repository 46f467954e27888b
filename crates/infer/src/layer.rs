//! One block over the hidden state of a batch.

use crate::attention::{KeysValues, attend};
use crate::batch::{AttentionBuffers, Batch, Buffers, LayerCache};
use crate::ffn::ffn;
use crate::linear::Multiplier;
use crate::model::{InferError, Model};
use crate::rope::Table;
use crate::{Weights, WeightsError, ops};
use ggufsmith_arch::decoder::{Attention, Norm, Over, QkNorm, Residual, Rope};

impl Model {
    /// Run layer `index` over the hidden state of a batch. With `caches`, one for each sequence, keys and values of earlier
    /// positions come from there and new ones are added; without, every sequence begins at position 0.
    ///
    /// # Errors
    /// [`InferError`] where weights cannot be read, a position is beyond [`Model::n_ctx`], or the result is not finite.
    pub fn layer(
        &self,
        index: usize,
        batch: &Batch,
        hidden: &mut [f32],
        caches: Option<&mut [&mut LayerCache]>,
        buffers: &mut Buffers,
    ) -> Result<(), InferError> {
        let layer = &self.decoder().layers[index];
        self.check_context(batch)?;
        let (multiplier, weights) = (self.multiplier(), self.weights());
        let n_embd = self.decoder().n_embd as usize;
        let scale = layer.residual_scale.unwrap_or(1.0);
        let Buffers { tile, normed, attention, ffn: wide, added } = buffers;
        let normed_by = |norm: &Option<Norm>, x: &[f32], out: &mut Vec<f32>| {
            out.clear();
            out.extend_from_slice(x);
            normalize(weights, norm.as_ref(), n_embd, out)
        };

        normed_by(&layer.attn_norm, hidden, normed)?;
        attend_all(&layer.attn, multiplier, self.turns(index), batch, normed, caches, attention, tile)?;
        multiplier.linear(&layer.attn.o, &attention.attended, added, tile)?;
        normalize(weights, layer.attn_post_norm.as_ref(), n_embd, added)?;
        match layer.residual {
            Residual::Sequential => {
                ops::add(hidden, added, scale);
                normed_by(&layer.ffn_norm, hidden, normed)?;
            }
            Residual::Parallel => {
                normed_by(&layer.ffn_norm, hidden, normed)?;
                ops::add(hidden, added, scale);
            }
            Residual::ParallelOneNorm => ops::add(hidden, added, scale),
        }
        ffn(&layer.ffn, multiplier, normed, added, wide, tile)?;
        normalize(weights, layer.ffn_post_norm.as_ref(), n_embd, added)?;
        ops::add(hidden, added, scale);
        if hidden.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(InferError::NotFinite { layer: index }) }
    }
}

/// Queries, keys and values of `x`, and what every token attends to, in `buffers.attended`: `[tokens, n_head * head_dim]`.
#[allow(clippy::too_many_arguments, reason = "a batch with its memory")]
fn attend_all(
    attn: &Attention,
    multiplier: Multiplier<'_>,
    turns: Option<(&Rope, &Table)>,
    batch: &Batch,
    x: &[f32],
    mut caches: Option<&mut [&mut LayerCache]>,
    buffers: &mut AttentionBuffers,
    tile: &mut Vec<f32>,
) -> Result<(), WeightsError> {
    let AttentionBuffers { queries, keys, values, attended } = buffers;
    let head_dim = attn.head_dim as usize;
    let (q_row, kv_row) = (attn.n_head as usize * head_dim, attn.n_head_kv as usize * head_dim);
    for (linear, out) in [(&attn.q, &mut *queries), (&attn.k, &mut *keys), (&attn.v, &mut *values)] {
        multiplier.linear(linear, x, out, tile)?;
        if let Some(limit) = attn.clip {
            ops::clip(out, limit);
        }
    }
    for (norm, row, out) in [(&attn.q_norm, q_row, &mut *queries), (&attn.k_norm, kv_row, &mut *keys)] {
        if let Some(QkNorm { norm, over }) = norm {
            let width = match over {
                Over::Head => head_dim,
                Over::Projection => row,
            };
            ops::normalize(out, width, &numbers(multiplier.weights, norm)?);
        }
    }
    if let Some((rope, table)) = turns {
        let turns: Vec<_> = batch.positions().map(|position| table.turn(position)).collect();
        ops::rotate(queries, q_row, head_dim, rope.layout, &turns);
        ops::rotate(keys, kv_row, head_dim, rope.layout, &turns);
    }
    attended.resize(queries.len(), 0.0);
    for (number, sequence) in batch.sequences().iter().enumerate() {
        let range = |row: usize| sequence.tokens.start * row..sequence.tokens.end * row;
        let (new_keys, new_values) = (&keys[range(kv_row)], &values[range(kv_row)]);
        let kv = match caches.as_deref_mut().map(|caches| &mut *caches[number]) {
            None => KeysValues { keys: new_keys, values: new_values },
            Some(cache) => {
                cache.keys.truncate(sequence.past * kv_row);
                cache.values.truncate(sequence.past * kv_row);
                cache.keys.extend_from_slice(new_keys);
                cache.values.extend_from_slice(new_values);
                KeysValues { keys: &cache.keys, values: &cache.values }
            }
        };
        attend(attn, &queries[range(q_row)], sequence.past, kv, &mut attended[range(q_row)]);
    }
    Ok(())
}

/// Normalize rows of `width` elements in place, where there is a norm.
pub(crate) fn normalize(weights: &Weights, norm: Option<&Norm>, width: usize, x: &mut [f32]) -> Result<(), WeightsError> {
    if let Some(norm) = norm {
        ops::normalize(x, width, &numbers(weights, norm)?);
    }
    Ok(())
}

/// A norm with its weights and bias.
fn numbers(weights: &Weights, norm: &Norm) -> Result<ops::Numbers, WeightsError> {
    let mut weight = norm.weight.as_ref().map(|weight| weights.vector(weight)).transpose()?;
    if let (Some(weight), true) = (&mut weight, norm.plus_one) {
        weight.iter_mut().for_each(|weight| *weight += 1.0);
    }
    let bias = norm.bias.as_ref().map(|bias| weights.vector(bias)).transpose()?;
    Ok(ops::Numbers { kind: norm.kind, weight, bias, eps: norm.eps })
}
