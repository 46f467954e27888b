//! Whether the sizes of a description belong together: config.json and metadata come from anywhere.

use crate::model::InferError;
use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{Attention, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Over, QkNorm, Residual, Vector};

/// Far more than any model has; tensors are listed expert by expert.
const MAX_EXPERTS: u32 = 1 << 14;

/// Everything that the interpreter relies on, besides that tensors have the shapes that the description gives them.
///
/// # Errors
/// [`InferError::Sizes`]
pub(crate) fn check(decoder: &Decoder) -> Result<(), InferError> {
    let (n_vocab, n_embd) = (u64::from(decoder.n_vocab), u64::from(decoder.n_embd));
    let mut check = Check { place: "the embedding".to_owned() };
    check.that(n_vocab > 0 && n_embd > 0, || format!("{n_vocab} entries of {n_embd} elements"))?;
    check.matrix("its matrix", &decoder.token_embd, n_vocab, n_embd)?;
    if let Some(positions) = &decoder.position_embd {
        check.matrix("the positions", positions, positions.n_rows(), n_embd)?;
    }
    check.norm("its norm", decoder.embd_norm.as_ref(), n_embd)?;
    for (number, layer) in decoder.layers.iter().enumerate() {
        check.place = format!("layer {number}");
        check.layer(layer, n_embd)?;
    }
    check.place = "the head".to_owned();
    check.norm("its norm", Some(&decoder.output_norm), n_embd)?;
    check.linear("its matrix", &decoder.output, n_vocab, n_embd)
}

struct Check {
    place: String,
}

impl Check {
    fn that(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), InferError> {
        if holds { Ok(()) } else { Err(InferError::Sizes { place: self.place.clone(), what: what() }) }
    }

    fn matrix(&self, what: &str, matrix: &Matrix, rows: u64, cols: u64) -> Result<(), InferError> {
        let full = matrix.full().0;
        let inside = matrix.rows.iter().all(|range| range.start <= range.end && range.end <= full);
        self.that(inside && matrix.shape.len() >= 2, || format!("{what} takes rows {:?} of {full}", matrix.rows))?;
        let (n_rows, n_cols) = (matrix.n_rows(), matrix.n_cols());
        let fits = (n_rows, n_cols) == (rows, cols) && rows > 0 && cols > 0;
        self.that(fits, || format!("{what} ({}) is {n_rows} x {n_cols}, not {rows} x {cols}", matrix.tensor))
    }

    fn vector(&self, what: &str, vector: &Vector, lens: &[u64]) -> Result<(), InferError> {
        let (full, len) = (vector.full(), vector.len());
        let inside = vector.ranges.iter().all(|range| range.start <= range.end && range.end <= full);
        self.that(inside && lens.contains(&len), || format!("{what} ({:?}) has {len} elements, not {lens:?}", vector.tensors))
    }

    fn linear(&self, what: &str, linear: &Linear, rows: u64, cols: u64) -> Result<(), InferError> {
        self.matrix(what, &linear.weight, rows, cols)?;
        linear.bias.as_ref().map_or(Ok(()), |bias| self.vector(&format!("the bias of {what}"), bias, &[rows]))
    }

    fn norm(&self, what: &str, norm: Option<&Norm>, len: u64) -> Result<(), InferError> {
        norm.iter().flat_map(|norm| norm.weight.iter().chain(&norm.bias)).try_for_each(|v| self.vector(what, v, &[len]))
    }

    fn qk_norm(&self, what: &str, norm: Option<&QkNorm>, head: u64, row: u64) -> Result<(), InferError> {
        let Some(QkNorm { norm, over }) = norm else { return Ok(()) };
        let lens: &[u64] = if *over == Over::Head { &[head, row] } else { &[row] };
        let both = norm.weight.iter().chain(&norm.bias);
        both.clone().try_for_each(|vector| self.vector(what, vector, lens))?;
        let mut lens = both.map(Vector::len);
        let first = lens.next();
        self.that(lens.all(|len| Some(len) == first), || format!("{what}: weights and bias differ in length"))
    }

    fn layer(&self, layer: &Layer, n_embd: u64) -> Result<(), InferError> {
        self.norm("the norm of attention", layer.attn_norm.as_ref(), n_embd)?;
        self.attention(&layer.attn, n_embd)?;
        self.norm("the norm behind attention", layer.attn_post_norm.as_ref(), n_embd)?;
        if layer.residual != Residual::ParallelOneNorm {
            self.norm("the norm of the feed-forward part", layer.ffn_norm.as_ref(), n_embd)?;
        }
        match &layer.ffn {
            Ffn::Gated(ffn) => self.gated(ffn, n_embd)?,
            Ffn::Plain(ffn) => {
                self.linear("up", &ffn.up, ffn.up.rows(), n_embd)?;
                self.linear("down", &ffn.down, n_embd, ffn.up.rows())?;
            }
            Ffn::Experts(experts) => self.experts(experts, n_embd)?,
        }
        self.norm("the norm behind the feed-forward part", layer.ffn_post_norm.as_ref(), n_embd)
    }

    fn attention(&self, attn: &Attention, n_embd: u64) -> Result<(), InferError> {
        let (n_head, n_head_kv, head_dim) = (attn.n_head, attn.n_head_kv, u64::from(attn.head_dim));
        self.that(n_head > 0 && head_dim > 0 && n_head_kv > 0 && n_head % n_head_kv == 0, || {
            format!("{n_head} query heads share {n_head_kv} key heads of {head_dim} elements")
        })?;
        let (q_row, kv_row) = (u64::from(n_head) * head_dim, u64::from(n_head_kv) * head_dim);
        self.linear("the query projection", &attn.q, q_row, n_embd)?;
        self.linear("the key projection", &attn.k, kv_row, n_embd)?;
        self.linear("the value projection", &attn.v, kv_row, n_embd)?;
        self.linear("the output projection", &attn.o, n_embd, q_row)?;
        self.qk_norm("the norm of queries", attn.q_norm.as_ref(), head_dim, q_row)?;
        self.qk_norm("the norm of keys", attn.k_norm.as_ref(), head_dim, kv_row)?;
        self.that(attn.window != Some(0), || "a window of no positions".to_owned())?;
        let Some(rope) = &attn.rope else { return Ok(()) };
        let pairs = rope.inv_freq.len() as u64;
        self.that(2 * pairs <= head_dim, || format!("{pairs} pairs of a head of {head_dim} elements are rotated"))?;
        let long = rope.long.as_ref().map_or(pairs, |long| long.inv_freq.len() as u64);
        self.that(long == pairs, || format!("{pairs} pairs are rotated in short texts and {long} in long ones"))
    }

    fn gated(&self, ffn: &GatedFfn, n_embd: u64) -> Result<(), InferError> {
        let n_ff = ffn.gate.rows();
        self.linear("gate", &ffn.gate, n_ff, n_embd)?;
        self.linear("up", &ffn.up, n_ff, n_embd)?;
        self.linear("down", &ffn.down, n_embd, n_ff)
    }

    fn experts(&self, experts: &Experts, n_embd: u64) -> Result<(), InferError> {
        let (n, used) = (experts.n_expert, experts.used);
        self.that(used > 0 && used <= n && n <= MAX_EXPERTS, || format!("{used} of {n} experts are used"))?;
        self.linear("the router", &experts.router, n.into(), n_embd)?;
        let n_ff = experts.gate.n_rows();
        for (what, matrix, rows, cols) in
            [("gate", &experts.gate, n_ff, n_embd), ("up", &experts.up, n_ff, n_embd), ("down", &experts.down, n_embd, n_ff)]
        {
            self.matrix(what, matrix, rows, cols)?;
            let stacked: u64 = matrix.shape.iter().rev().skip(2).fold(1, |n, dim| n.saturating_mul(*dim));
            let there = matrix.tensor.contains("{}") || stacked == u64::from(n);
            self.that(there, || format!("{what} ({}) stacks {stacked} of {n} experts", matrix.tensor))?;
        }
        let Some(shared) = &experts.shared else { return Ok(()) };
        self.gated(&shared.ffn, n_embd)?;
        shared.gate.as_ref().map_or(Ok(()), |gate| self.linear("the gate of the shared expert", gate, 1, n_embd))
    }
}
