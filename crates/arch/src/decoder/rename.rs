//! Other names for a description's tensors.

use super::{Decoder, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, Rope, Vector};

/// What a name becomes.
pub(crate) type NewName<'a> = &'a dyn Fn(&str) -> String;

impl Decoder {
    /// Call every tensor as `new` says.
    pub(crate) fn rename(&mut self, new: NewName<'_>) {
        self.token_embd.rename(new);
        self.position_embd.iter_mut().for_each(|matrix| matrix.rename(new));
        self.embd_norm.iter_mut().for_each(|norm| norm.rename(new));
        self.layers.iter_mut().for_each(|layer| layer.rename(new));
        self.output_norm.rename(new);
        self.output.rename(new);
    }
}

impl Matrix {
    fn rename(&mut self, new: NewName<'_>) {
        self.tensor = new(&self.tensor);
    }
}

impl Vector {
    fn rename(&mut self, new: NewName<'_>) {
        self.tensors.iter_mut().for_each(|name| *name = new(name));
    }
}

impl Norm {
    fn rename(&mut self, new: NewName<'_>) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|vector| vector.rename(new));
    }
}

impl Linear {
    fn rename(&mut self, new: NewName<'_>) {
        self.weight.rename(new);
        self.bias.iter_mut().for_each(|bias| bias.rename(new));
    }
}

impl Rope {
    fn rename(&mut self, new: NewName<'_>) {
        let long = self.long.as_mut().and_then(|long| long.factors.as_mut());
        self.factors.iter_mut().chain(long).for_each(|name| *name = new(name));
    }
}

impl Layer {
    fn rename(&mut self, new: NewName<'_>) {
        let norms = [&mut self.attn_norm, &mut self.attn_post_norm, &mut self.ffn_norm, &mut self.ffn_post_norm];
        norms.into_iter().flatten().for_each(|norm| norm.rename(new));
        let attn = &mut self.attn;
        [&mut attn.q, &mut attn.k, &mut attn.v, &mut attn.o].into_iter().for_each(|linear| linear.rename(new));
        attn.q_norm.iter_mut().chain(&mut attn.k_norm).for_each(|norm| norm.norm.rename(new));
        attn.rope.iter_mut().for_each(|rope| rope.rename(new));
        match &mut self.ffn {
            Ffn::Gated(ffn) => ffn.rename(new),
            Ffn::Plain(ffn) => [&mut ffn.up, &mut ffn.down].into_iter().for_each(|linear| linear.rename(new)),
            Ffn::Experts(experts) => experts.rename(new),
        }
    }
}

impl GatedFfn {
    fn rename(&mut self, new: NewName<'_>) {
        [&mut self.gate, &mut self.up, &mut self.down].into_iter().for_each(|linear| linear.rename(new));
    }
}

impl Experts {
    fn rename(&mut self, new: NewName<'_>) {
        self.router.rename(new);
        [&mut self.gate, &mut self.up, &mut self.down].into_iter().for_each(|matrix| matrix.rename(new));
        if let Some(shared) = &mut self.shared {
            shared.ffn.rename(new);
            shared.gate.iter_mut().for_each(|gate| gate.rename(new));
        }
    }
}
