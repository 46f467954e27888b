//! Descriptions of decoders with layer normalization from the names that a side gives their tensors.

use crate::decoder::{
    Activation, Attention, Decoder, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, PlainFfn, Residual, Rope, Vector,
};
use crate::fused::Layout;
use crate::sizes::Sizes;
use std::ops::Range;

/// What a side calls its tensors, without `.weight` and `.bias`; those of a block without what names the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) token_embd: &'static str,
    pub(crate) output_norm: &'static str,
    /// The head; the embedding matrix where they are tied.
    pub(crate) output: &'static str,
    /// What stands in front of a block's number.
    pub(crate) blocks: &'static str,
    pub(crate) attn_norm: &'static str,
    /// Where there is a norm in front of the feed-forward part.
    pub(crate) ffn_norm: Option<&'static str>,
    pub(crate) qkv: Qkv,
    pub(crate) attn_output: &'static str,
    pub(crate) ffn_gate: Option<&'static str>,
    pub(crate) ffn_up: &'static str,
    pub(crate) ffn_down: &'static str,
}

/// Where queries, keys and values come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Qkv {
    Fused(&'static str, Layout),
    Split([&'static str; 3]),
}

/// Queries, keys and values as most GGUF files have them.
pub(crate) const SPLIT: Qkv = Qkv::Split(["attn_q", "attn_k", "attn_v"]);
/// Fused ones in GGUF files.
pub(crate) const FUSED: Qkv = Qkv::Fused("attn_qkv", Layout::Behind);

impl Names {
    /// The names of GGUF, where every block has both norms and no gate, and the head is `output`.
    pub(crate) const fn gguf(qkv: Qkv) -> Self {
        Names {
            token_embd: "token_embd",
            output_norm: "output_norm",
            output: "output",
            blocks: "blk",
            attn_norm: "attn_norm",
            ffn_norm: Some("ffn_norm"),
            qkv,
            attn_output: "attn_output",
            ffn_gate: None,
            ffn_up: "ffn_up",
            ffn_down: "ffn_down",
        }
    }
}

/// How a side computes.
pub(crate) struct Side<'a> {
    pub(crate) names: Names,
    /// Whether norms have a bias.
    pub(crate) norm_bias: bool,
    /// Which matrices of a block have a bias, by the names above; `output` is asked for, too.
    pub(crate) bias: &'a dyn Fn(&str) -> bool,
    /// Whether matrices are stored as `[inputs, outputs]`: `Conv1D` of GPT-2.
    pub(crate) conv: bool,
    pub(crate) act: Activation,
    pub(crate) rope: Option<Rope>,
    pub(crate) residual: Residual,
}

impl Side<'_> {
    /// The description of a model of these sizes.
    pub(crate) fn decoder(&self, sizes: &Sizes) -> Decoder {
        let Sizes { n_vocab, n_ctx, n_embd, .. } = *sizes;
        let Names { token_embd, output_norm, output, .. } = self.names;
        Decoder::new(
            Matrix::whole(format!("{token_embd}.weight"), n_vocab, n_embd),
            n_ctx,
            (0..sizes.n_layer).map(|number| self.layer(number, sizes)).collect(),
            self.norm(output_norm.to_owned(), sizes),
            Linear::new(format!("{output}.weight"), n_vocab, n_embd)
                .with_bias((self.bias)(output).then(|| format!("{output}.bias"))),
        )
    }

    fn layer(&self, number: u32, sizes: &Sizes) -> Layer {
        let Sizes { n_embd, n_ff, n_head, n_head_kv, .. } = *sizes;
        let Names { attn_norm, ffn_norm, attn_output, ffn_gate, ffn_up, ffn_down, .. } = self.names;
        let name = |part: &str| format!("{}.{number}.{part}", self.names.blocks);
        let linear = |part: &str, rows, cols| self.linear(part, name(part), rows, cols);
        let o = linear(attn_output, n_embd, n_embd);
        let [q, k, v] = match self.names.qkv {
            Qkv::Split([q, k, v]) => {
                let kv_rows = n_head_kv * sizes.head_dim();
                [linear(q, n_embd, n_embd), linear(k, kv_rows, n_embd), linear(v, kv_rows, n_embd)]
            }
            Qkv::Fused(part, layout) => {
                let rows = (n_head_kv * sizes.head_dim()).saturating_mul(2).saturating_add(n_embd);
                layout.rows(sizes).map(|picked| picked_from(&linear(part, rows, n_embd), picked))
            }
        };
        let attn = Attention::new(n_head, n_head_kv, sizes.head_dim(), [q, k, v, o], self.rope.clone());
        let (act, up, down) = (self.act, linear(ffn_up, n_ff, n_embd), linear(ffn_down, n_embd, n_ff));
        let ffn = match ffn_gate {
            Some(gate) => Ffn::Gated(GatedFfn { act, gate: linear(gate, n_ff, n_embd), up, down }),
            None => Ffn::Plain(PlainFfn { act, up, down }),
        };
        let norm = |part: &str| self.norm(name(part), sizes);
        let ffn_norm = ffn_norm.map(norm);
        let layer = Layer::new(norm(attn_norm), attn, norm(attn_norm), ffn);
        Layer { ffn_norm, residual: self.residual, ..layer }
    }

    fn norm(&self, name: String, sizes: &Sizes) -> Norm {
        let bias = self.norm_bias.then(|| format!("{name}.bias"));
        Norm::layer(format!("{name}.weight"), bias, sizes.n_embd, sizes.eps as f32)
    }

    fn linear(&self, part: &str, name: String, rows: u32, cols: u32) -> Linear {
        let weight = format!("{name}.weight");
        let matrix = if self.conv { Matrix::transposed(weight, rows, cols) } else { Matrix::whole(weight, rows, cols) };
        Linear { weight: matrix, bias: None }.with_bias((self.bias)(part).then(|| format!("{name}.bias")))
    }
}

/// Some rows of a projection.
fn picked_from(fused: &Linear, rows: Vec<Range<u64>>) -> Linear {
    let bias = fused.bias.clone().map(|bias: Vector| bias.ranges(rows.clone()));
    Linear { weight: fused.weight.clone().rows(rows), bias }
}
