//! Which tensors a description uses.

use super::{Decoder, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Vector};
use std::collections::BTreeSet;

/// A place of a description that names tensors.
enum Place<'a> {
    Matrix(&'a mut Matrix),
    /// One matrix for each of so many experts.
    Experts(&'a mut Matrix, u32),
    Vector(&'a mut Vector),
    /// A name and the length of its tensor.
    Factors(&'a mut String, u64),
}

/// Called with every place, in the order of use.
type Visit<'a> = &'a mut dyn FnMut(Place<'_>);

impl Decoder {
    /// Every tensor with its shape (outermost first), once, in the order of use, the embedding first.
    pub fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (mut seen, mut list) = (BTreeSet::new(), Vec::new());
        let mut push = |name: &str, shape: &[u64]| {
            let entry = (name.to_owned(), shape.to_vec());
            if seen.insert(entry.clone()) {
                list.push(entry);
            }
        };
        // The visit may change what it sees; this one does not.
        self.clone().visit(&mut |place| match place {
            Place::Matrix(matrix) => push(&matrix.tensor, &matrix.shape),
            Place::Experts(matrix, n) => {
                (0..n).map(|expert| matrix.of_expert(expert)).for_each(|matrix| push(&matrix.tensor, &matrix.shape));
            }
            Place::Vector(vector) => vector.tensors.iter().for_each(|name| push(name, &vector.shape)),
            Place::Factors(name, len) => push(name, &[len]),
        });
        list
    }

    /// Call every tensor `name(..)` instead. Names of experts have `{}` for their number.
    pub fn rename(&mut self, name: &dyn Fn(&str) -> String) {
        self.visit(&mut |place| match place {
            Place::Matrix(matrix) | Place::Experts(matrix, _) => matrix.tensor = name(&matrix.tensor),
            Place::Vector(vector) => vector.tensors.iter_mut().for_each(|tensor| *tensor = name(tensor)),
            Place::Factors(factors, _) => *factors = name(factors),
        });
    }

    fn visit(&mut self, visit: Visit<'_>) {
        visit(Place::Matrix(&mut self.token_embd));
        self.position_embd.iter_mut().for_each(|matrix| visit(Place::Matrix(matrix)));
        norm(self.embd_norm.as_mut(), visit);
        self.layers.iter_mut().for_each(|each| layer(each, visit));
        norm(Some(&mut self.output_norm), visit);
        linear(&mut self.output, visit);
    }
}

fn layer(layer: &mut Layer, visit: Visit<'_>) {
    norm(layer.attn_norm.as_mut(), visit);
    let attn = &mut layer.attn;
    [&mut attn.q, &mut attn.k, &mut attn.v].into_iter().for_each(|each| linear(each, visit));
    attn.q_norm.iter_mut().chain(&mut attn.k_norm).for_each(|each| norm(Some(&mut each.norm), visit));
    if let Some(rope) = &mut attn.rope {
        let len = rope.inv_freq.len() as u64;
        let long = rope.long.as_mut().and_then(|long| long.factors.as_mut());
        rope.factors.iter_mut().chain(long).for_each(|factors| visit(Place::Factors(factors, len)));
    }
    linear(&mut attn.o, visit);
    norm(layer.attn_post_norm.as_mut(), visit);
    norm(layer.ffn_norm.as_mut(), visit);
    match &mut layer.ffn {
        Ffn::Gated(ffn) => gated(ffn, visit),
        Ffn::Plain(ffn) => [&mut ffn.up, &mut ffn.down].into_iter().for_each(|each| linear(each, visit)),
        Ffn::Experts(ffn) => experts(ffn, visit),
    }
    norm(layer.ffn_post_norm.as_mut(), visit);
}

fn norm(norm: Option<&mut Norm>, visit: Visit<'_>) {
    if let Some(norm) = norm {
        norm.weight.iter_mut().chain(&mut norm.bias).for_each(|vector| visit(Place::Vector(vector)));
    }
}

fn linear(linear: &mut Linear, visit: Visit<'_>) {
    visit(Place::Matrix(&mut linear.weight));
    linear.bias.iter_mut().for_each(|bias| visit(Place::Vector(bias)));
}

fn gated(ffn: &mut GatedFfn, visit: Visit<'_>) {
    [&mut ffn.gate, &mut ffn.up, &mut ffn.down].into_iter().for_each(|each| linear(each, visit));
}

fn experts(experts: &mut Experts, visit: Visit<'_>) {
    linear(&mut experts.router, visit);
    for matrix in [&mut experts.gate, &mut experts.up, &mut experts.down] {
        visit(Place::Experts(matrix, experts.n_expert));
    }
    if let Some(shared) = &mut experts.shared {
        gated(&mut shared.ffn, visit);
        shared.gate.iter_mut().for_each(|gate| linear(gate, visit));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, Attention, LongRope, Over, QkNorm, Rope, RopeLayout, SharedExpert, Shares};
    use super::*;

    /// Everything that can name a tensor.
    fn decoder() -> Decoder {
        let rope = Rope {
            layout: RopeLayout::Halves,
            inv_freq: vec![1.0; 2],
            factors: Some("short".into()),
            magnitude: 1.0,
            long: Some(LongRope { beyond: 4, inv_freq: vec![1.0; 2], factors: Some("long".into()) }),
            dynamic: None,
        };
        let qkv = |from: u64| Linear {
            weight: Matrix::whole("qkv", 24, 8).rows(std::iter::once(from..from + 8)),
            bias: Some(Vector::whole("qkv.bias", 24).ranges(std::iter::once(from..from + 8))),
        };
        let qk_norm = |name: &str| Some(QkNorm { norm: Norm::rms(name, 4, 0.0), over: Over::Head });
        let projections = [qkv(0), qkv(8), qkv(16), Linear::new("o", 8, 8)];
        let attn = Attention {
            q_norm: qk_norm("q_norm"),
            k_norm: qk_norm("k_norm"),
            ..Attention::new(2, 2, 4, projections, Some(rope))
        };
        let shared = GatedFfn {
            act: Activation::Silu,
            gate: Linear::new("shared.gate", 6, 8),
            up: Linear::new("shared.up", 6, 8),
            down: Linear::new("shared.down", 8, 6),
        };
        let experts = Experts {
            n_expert: 2,
            used: 1,
            router: Linear::new("router", 2, 8),
            shares: Shares::OfAll,
            act: Activation::Silu,
            gate: Matrix::whole("experts.{}.gate", 6, 8),
            up: Matrix::whole("up_exps", 6, 8).stacked(2),
            down: Matrix::whole("experts.{}.down", 8, 6),
            shared: Some(SharedExpert { ffn: shared, gate: Some(Linear::new("shared_gate", 1, 8)) }),
        };
        let first = Layer {
            attn_post_norm: Some(Norm::layer("post", Some("post.bias".into()), 8, 0.0)),
            ffn_post_norm: Some(Norm::rms("ffn_post", 8, 0.0)),
            ..Layer::new(Norm::rms("norm", 8, 0.0), attn.clone(), Norm::rms("ffn_norm", 8, 0.0), Ffn::Experts(Box::new(experts)))
        };
        let plain = super::super::PlainFfn {
            act: Activation::GeluErf,
            up: Linear::new("fc", 6, 8).with_bias(Some("fc.bias".into())),
            down: Linear { weight: Matrix::transposed("proj", 8, 6), bias: None },
        };
        let second = Layer {
            attn_norm: None,
            ffn_norm: None,
            ..Layer::new(Norm::rms("", 8, 0.0), attn, Norm::rms("", 8, 0.0), Ffn::Plain(plain))
        };
        Decoder {
            position_embd: Some(Matrix::whole("wpe", 16, 8)),
            embd_norm: Some(Norm::rms("embd_norm", 8, 0.0)),
            ..Decoder::new(
                Matrix::whole("embd", 10, 8),
                16,
                vec![first, second],
                Norm::rms("out_norm", 8, 0.0),
                Linear::new("embd", 10, 8).with_bias(Some("head.bias".into())),
            )
        }
    }

    const NAMES: [&str; 29] = [
        "embd",
        "wpe",
        "embd_norm",
        "norm",
        "qkv",
        "qkv.bias",
        "q_norm",
        "k_norm",
        "short",
        "long",
        "o",
        "post",
        "post.bias",
        "ffn_norm",
        "router",
        "experts.0.gate",
        "experts.1.gate",
        "up_exps",
        "experts.0.down",
        "experts.1.down",
        "shared.gate",
        "shared.up",
        "shared.down",
        "shared_gate",
        "ffn_post",
        "fc",
        "fc.bias",
        "proj",
        "out_norm",
    ];

    #[test]
    fn every_tensor_is_listed_once() {
        let tensors = decoder().tensors();
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..29], NAMES);
        assert_eq!(names[29..], ["head.bias"]);
        let shape = |name: &str| tensors.iter().find(|(found, _)| found == name).unwrap().1.clone();
        assert_eq!((shape("qkv"), shape("qkv.bias"), shape("long")), (vec![24, 8], vec![24], vec![2]));
        assert_eq!((shape("up_exps"), shape("proj"), shape("experts.1.down")), (vec![2, 6, 8], vec![6, 8], vec![8, 6]));
    }

    #[test]
    fn every_tensor_is_renamed() {
        let mut renamed = decoder();
        renamed.rename(&|name| format!("language_model.{name}"));
        let names: Vec<String> = renamed.tensors().into_iter().map(|(name, _)| name).collect();
        let expected: Vec<String> = decoder().tensors().into_iter().map(|(name, _)| format!("language_model.{name}")).collect();
        assert_eq!(names, expected);
    }
}
