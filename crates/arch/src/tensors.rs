//! A family's table of tensors: names in checkpoint and GGUF file, shapes, what happens to rows, and when a tensor is there.

use crate::{ArchError, Config};
use ggufsmith_core::TensorExpr;

/// A dimension that the config determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dim {
    /// Embedding rows.
    Vocab,
    /// Width of the residual stream.
    Embd,
    /// Width of the feed-forward layer.
    Ff,
    /// Twice that: gate and up in one matrix.
    TwoFf,
    /// All query heads.
    Q,
    /// All key (or value) heads.
    Kv,
    /// Queries, keys and values in one matrix.
    Qkv,
    /// One head.
    Head,
    /// Number of query heads.
    Heads,
    /// Number of key heads.
    KvHeads,
    /// Positions with an embedding of their own.
    Ctx,
    /// Number of experts.
    Experts,
    /// Width of one expert's feed-forward layer.
    ExpertFf,
    /// Twice that: gate and up in one matrix.
    TwoExpertFf,
    /// Width of the feed-forward layer that all tokens share beside the experts.
    SharedFf,
    /// One.
    One,
}

/// The sizes of one model. Those that a family does not use are 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dims {
    pub(crate) vocab: u32,
    pub(crate) embd: u32,
    pub(crate) ff: u32,
    pub(crate) n_head: u32,
    pub(crate) n_head_kv: u32,
    pub(crate) head_dim: u32,
    pub(crate) n_ctx: u32,
    pub(crate) n_expert: u32,
    pub(crate) expert_ff: u32,
    pub(crate) shared_ff: u32,
}

impl Dims {
    /// The size of a dimension; products of two 32-bit numbers, and a few times that, fit.
    pub(crate) fn of(&self, dim: Dim) -> u64 {
        let heads = |n: u32| u64::from(n) * u64::from(self.head_dim);
        match dim {
            Dim::Vocab => self.vocab.into(),
            Dim::Embd => self.embd.into(),
            Dim::Ff => self.ff.into(),
            Dim::TwoFf => 2 * u64::from(self.ff),
            Dim::Q => heads(self.n_head),
            Dim::Kv => heads(self.n_head_kv),
            Dim::Qkv => heads(self.n_head).saturating_add(heads(self.n_head_kv).saturating_mul(2)),
            Dim::Head => self.head_dim.into(),
            Dim::Heads => self.n_head.into(),
            Dim::KvHeads => self.n_head_kv.into(),
            Dim::Ctx => self.n_ctx.into(),
            Dim::Experts => self.n_expert.into(),
            Dim::ExpertFf => self.expert_ff.into(),
            Dim::TwoExpertFf => 2 * u64::from(self.expert_ff),
            Dim::SharedFf => self.shared_ff.into(),
            Dim::One => 1,
        }
    }

    pub(crate) fn named(dim: Dim) -> &'static str {
        match dim {
            Dim::Vocab => "vocab_size",
            Dim::Embd => "hidden_size",
            Dim::Ff => "intermediate_size",
            Dim::TwoFf => "2 x intermediate_size",
            Dim::Q => "num_attention_heads x head size",
            Dim::Kv => "num_key_value_heads x head size",
            Dim::Qkv => "(num_attention_heads + 2 x num_key_value_heads) x head size",
            Dim::Head => "head size",
            Dim::Heads => "num_attention_heads",
            Dim::KvHeads => "num_key_value_heads",
            Dim::Ctx => "number of positions",
            Dim::Experts => "number of experts",
            Dim::ExpertFf => "width of an expert",
            Dim::TwoExpertFf => "2 x width of an expert",
            Dim::SharedFf => "shared_expert_intermediate_size",
            Dim::One => "1",
        }
    }
}

/// What becomes of a source tensor's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows {
    /// As in the checkpoint.
    Same,
    /// Query heads whose two rotated halves become interleaved pairs.
    PairsQ,
    /// Key heads, likewise.
    PairsK,
    /// A matrix with its dimensions exchanged: GPT-2's `Conv1D`.
    Transposed,
    /// One is added to every element: norms whose weights are stored around 0.
    PlusOne,
    /// The first or second half of the rows; of each expert's rows where there are three dimensions.
    Half(u8),
    /// Whatever the function makes of it; it must keep the number of elements.
    By(fn(TensorExpr, &Dims) -> TensorExpr),
}

impl Rows {
    /// The expression over `input`, whose shape has been checked.
    fn apply(self, input: TensorExpr, dims: &Dims) -> TensorExpr {
        let pairs = |heads: u32, input| TensorExpr::PermuteRows {
            input: Box::new(input),
            dims: vec![heads.into(), 2, u64::from(dims.head_dim / 2)],
            axes: vec![0, 2, 1],
        };
        match self {
            Rows::Same => input,
            Rows::PairsQ => pairs(dims.n_head, input),
            Rows::PairsK => pairs(dims.n_head_kv, input),
            Rows::Transposed => TensorExpr::Transpose(Box::new(input)),
            Rows::PlusOne => TensorExpr::AddOne(Box::new(input)),
            Rows::Half(half) => halve(input, half),
            Rows::By(function) => function(input, dims),
        }
    }
}

/// Half of the rows of a matrix, or of each matrix of a stack.
fn halve(input: TensorExpr, half: u8) -> TensorExpr {
    let half = u64::from(half);
    match input.shape()[..] {
        [n, rows, cols] => {
            let flat = TensorExpr::Reshape(Box::new(input), vec![n * rows, cols]);
            let halves = TensorExpr::PermuteRows { input: Box::new(flat), dims: vec![n, 2, rows / 2], axes: vec![1, 0, 2] };
            let len = n * (rows / 2);
            let one = TensorExpr::SliceRows(Box::new(halves), half * len..(half + 1) * len);
            TensorExpr::Reshape(Box::new(one), vec![n, rows / 2, cols])
        }
        ref shape => {
            let len = shape.first().map_or(0, |rows| rows / 2);
            TensorExpr::SliceRows(Box::new(input), half * len..(half + 1) * len)
        }
    }
}

/// Whether a tensor has to be there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// In every model.
    Always,
    /// Where this key of config.json is true.
    If(&'static str),
    /// Where this key of config.json is false.
    Unless(&'static str),
    /// In models with experts (true) or without (false).
    Experts(bool),
    /// In the layers for which the function says so; the text says what it depends on.
    When(fn(&Config, u32) -> Result<bool, ArchError>, &'static str),
}

/// One tensor of a family, or one of each layer: `{}` in the names stands for the layer, `{e}` in the checkpoint's for the expert;
/// experts are stacked.
///
/// Two rows with one name in the checkpoint: that tensor is taken apart. Two rows with one GGUF name: two ways in which checkpoints
/// store it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) hf: &'static str,
    pub(crate) gguf: &'static str,
    /// Of the source tensor, outermost dimension first.
    pub(crate) shape: &'static [Dim],
    pub(crate) rows: Rows,
    pub(crate) need: Need,
    /// How many there are to stack, where `{e}` is in the name.
    pub(crate) each: Dim,
}

/// A tensor of every model whose rows keep their order; the methods of [`Row`] say what is different.
pub(crate) const fn row(hf: &'static str, gguf: &'static str, shape: &'static [Dim]) -> Row {
    Row { hf, gguf, shape, rows: Rows::Same, need: Need::Always, each: Dim::Experts }
}

impl Row {
    pub(crate) const fn rows(self, rows: Rows) -> Row {
        Row { rows, ..self }
    }

    pub(crate) const fn need(self, need: Need) -> Row {
        Row { need, ..self }
    }

    /// `{e}` stands for something else than the expert.
    pub(crate) const fn each(self, each: Dim) -> Row {
        Row { each, ..self }
    }

    pub(crate) const fn only_if(self, key: &'static str) -> Row {
        self.need(Need::If(key))
    }

    pub(crate) const fn unless(self, key: &'static str) -> Row {
        self.need(Need::Unless(key))
    }

    /// Whether it stands for one source tensor of each expert.
    pub(crate) fn is_expert(&self) -> bool {
        self.hf.contains(EXPERT)
    }

    /// Shape of a source tensor.
    pub(crate) fn source_shape(&self, dims: &Dims) -> Vec<u64> {
        self.shape.iter().map(|&dim| dims.of(dim)).collect()
    }

    /// The output from its sources: one, or one of each expert.
    pub(crate) fn output(&self, sources: Vec<TensorExpr>, dims: &Dims) -> TensorExpr {
        let mut made: Vec<_> = sources.into_iter().map(|source| self.rows.apply(source, dims)).collect();
        match made.pop() {
            Some(one) if !self.is_expert() => one,
            last => TensorExpr::Stack(made.into_iter().chain(last).collect()),
        }
    }
}

/// Stands for the layer's number in a table.
pub(crate) const LAYER: &str = "{}";
/// Stands for the expert's number in a table.
pub(crate) const EXPERT: &str = "{e}";

/// A family's tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) rows: &'static [Row],
    /// What the names of the decoder's tensors begin with (`model.`), and those of a checkpoint of the bare decoder do not.
    pub(crate) base: &'static str,
    /// Tensors that are left out: the end of their names, and why.
    pub(crate) dropped: &'static [(&'static str, &'static str)],
}

/// A family's tensor names, both ways.
#[derive(Debug, Clone, Copy)]
pub struct NameMap(pub(crate) &'static Table);

impl NameMap {
    /// The GGUF name of a checkpoint's tensor, e.g. `blk.3.attn_q.weight` for `model.layers.3.self_attn.q_proj.weight`. Of a tensor
    /// that is taken apart: the first part's.
    pub fn gguf(&self, hf: &str) -> Option<String> {
        let name = Name::parse(hf);
        let row = self.0.rows.iter().find(|row| row.hf == name.pattern)?;
        Some(fill(row.gguf, name.layer))
    }

    /// The checkpoint's name of a GGUF tensor; of experts, the first one's.
    pub fn hf(&self, gguf: &str) -> Option<String> {
        let name = Name::parse(gguf);
        let row = self.0.rows.iter().find(|row| row.gguf == name.pattern)?;
        Some(fill(row.hf, name.layer).replace(EXPERT, "0"))
    }

    /// The row of a GGUF tensor, and its layer; where checkpoints differ, the first way.
    pub(crate) fn row_of(&self, gguf: &str) -> Option<(&'static Row, Option<u32>)> {
        let name = Name::parse(gguf);
        let row = self.0.rows.iter().find(|row| row.gguf == name.pattern)?;
        Some((row, name.layer))
    }
}

/// A tensor's name, its numbers taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// The name with its first number written as `{}` and its second as `{e}`. A name that has braces itself gives the pattern of no
    /// table.
    pub(crate) pattern: String,
    pub(crate) layer: Option<u32>,
    pub(crate) expert: Option<u32>,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Self {
        let (mut layer, mut expert) = (None, None);
        if name.contains(['{', '}']) {
            return Name { pattern: String::new(), layer, expert };
        }
        let pattern: Vec<&str> = name
            .split('.')
            .map(|part| match part.parse::<u32>() {
                Ok(number) if layer.is_none() && part == number.to_string() => {
                    layer = Some(number);
                    LAYER
                }
                Ok(number) if expert.is_none() && part == number.to_string() => {
                    expert = Some(number);
                    EXPERT
                }
                _ => part,
            })
            .collect();
        Name { pattern: pattern.join("."), layer, expert }
    }
}

/// What the reference converter never stores in a smaller type, whatever the architecture: vectors, norms, routers, positions, all
/// that is no weight.
pub(crate) fn keep_f32(name: &str, n_dims: usize) -> bool {
    const ENDS: [&str; 3] = ["_norm.weight", ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight"];
    const WHOLE: [&str; 2] = ["position_embd.weight", "token_types.weight"];
    n_dims <= 1 || ENDS.iter().any(|end| name.ends_with(end)) || WHOLE.contains(&name) || !name.ends_with(".weight")
}

/// Whether a table's name stands for one tensor of each layer.
pub(crate) fn is_per_layer(pattern: &str) -> bool {
    pattern.contains(LAYER)
}

/// A table's name with the layer's number.
pub(crate) fn fill(pattern: &str, layer: Option<u32>) -> String {
    match layer {
        Some(layer) => pattern.replace(LAYER, &layer.to_string()),
        None => pattern.to_owned(),
    }
}
