//! Which tensors a description uses.

use super::{Decoder, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Rope, Vector};
use std::collections::BTreeSet;

/// Names with shapes, each once, in the order of use.
#[derive(Default)]
struct List {
    seen: BTreeSet<(String, Vec<u64>)>,
    list: Vec<(String, Vec<u64>)>,
}

impl Decoder {
    /// Every tensor with its shape (outermost first), once, in the order of use, the embedding first.
    pub fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let mut list = List::default();
        list.matrix(&self.token_embd);
        self.position_embd.iter().for_each(|matrix| list.matrix(matrix));
        self.embd_norm.iter().for_each(|norm| list.norm(norm));
        self.layers.iter().for_each(|layer| list.layer(layer));
        list.norm(&self.output_norm);
        list.linear(&self.output);
        list.list
    }
}

impl List {
    fn push(&mut self, name: &str, shape: &[u64]) {
        if self.seen.insert((name.to_owned(), shape.to_vec())) {
            self.list.push((name.to_owned(), shape.to_vec()));
        }
    }

    fn matrix(&mut self, matrix: &Matrix) {
        self.push(&matrix.tensor, &matrix.shape);
    }

    fn vector(&mut self, vector: &Vector) {
        vector.tensors.iter().for_each(|name| self.push(name, &vector.shape));
    }

    fn linear(&mut self, linear: &Linear) {
        self.matrix(&linear.weight);
        linear.bias.iter().for_each(|bias| self.vector(bias));
    }

    fn norm(&mut self, norm: &Norm) {
        norm.weight.iter().chain(&norm.bias).for_each(|vector| self.vector(vector));
    }

    fn rope(&mut self, rope: &Rope) {
        let long = rope.long.as_ref().and_then(|long| long.factors.as_ref());
        for factors in rope.factors.iter().chain(long) {
            self.push(factors, &[rope.inv_freq.len() as u64]);
        }
    }

    fn layer(&mut self, layer: &Layer) {
        let attn = &layer.attn;
        layer.attn_norm.iter().for_each(|norm| self.norm(norm));
        [&attn.q, &attn.k, &attn.v, &attn.o].into_iter().for_each(|linear| self.linear(linear));
        attn.q_norm.iter().chain(&attn.k_norm).for_each(|norm| self.norm(&norm.norm));
        attn.rope.iter().for_each(|rope| self.rope(rope));
        layer.attn_post_norm.iter().chain(&layer.ffn_norm).for_each(|norm| self.norm(norm));
        match &layer.ffn {
            Ffn::Gated(ffn) => self.gated(ffn),
            Ffn::Plain(ffn) => [&ffn.up, &ffn.down].into_iter().for_each(|linear| self.linear(linear)),
            Ffn::Experts(experts) => self.experts(experts),
        }
        layer.ffn_post_norm.iter().for_each(|norm| self.norm(norm));
    }

    fn gated(&mut self, ffn: &GatedFfn) {
        [&ffn.gate, &ffn.up, &ffn.down].into_iter().for_each(|linear| self.linear(linear));
    }

    fn experts(&mut self, experts: &Experts) {
        self.linear(&experts.router);
        for expert in 0..experts.n_expert {
            [&experts.gate, &experts.up, &experts.down].into_iter().for_each(|matrix| self.matrix(&matrix.of_expert(expert)));
        }
        if let Some(shared) = &experts.shared {
            self.gated(&shared.ffn);
            shared.gate.iter().for_each(|gate| self.linear(gate));
        }
    }
}
