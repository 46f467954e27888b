//! What llama.cpp's loader asks of a file: keys with their types, and tensors with their shapes, by the file's own metadata.

use crate::Family;
use crate::tensors::{Dims, Need, Row, Rows, fill, is_per_layer};
use std::collections::BTreeSet;

/// The type that a key must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyType {
    U32,
    F32,
    Bool,
    Str,
    /// A `u32`, or an array of `u32` or `i32` with one entry per block.
    PerBlock,
}

/// A key of an architecture's section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKey {
    /// Without the architecture's name in front.
    pub name: &'static str,
    /// The type that it must have: the loader converts nothing.
    pub kind: KeyType,
    /// Whether the loader refuses a file without it.
    pub required: bool,
}

impl FileKey {
    /// A key that must be there.
    pub const fn required(name: &'static str, kind: KeyType) -> Self {
        FileKey { name, kind, required: true }
    }

    /// A key that may be there.
    pub const fn optional(name: &'static str, kind: KeyType) -> Self {
        FileKey { name, kind, required: false }
    }
}

/// The keys that `llama_model_base::load_hparams` reads whatever the (text) architecture. Without head count or feed-forward length the
/// loader takes 0, with which no transformer loads: they count as required.
pub const COMMON_KEYS: &[FileKey] = &[
    FileKey::required("block_count", KeyType::U32),
    FileKey::required("context_length", KeyType::U32),
    FileKey::required("embedding_length", KeyType::U32),
    FileKey::required("feed_forward_length", KeyType::PerBlock),
    FileKey::required("attention.head_count", KeyType::PerBlock),
    FileKey::optional("attention.head_count_kv", KeyType::PerBlock),
    FileKey::optional("attention.key_length", KeyType::U32),
    FileKey::optional("attention.value_length", KeyType::U32),
    FileKey::optional("attention.causal", KeyType::Bool),
    FileKey::optional("expert_count", KeyType::U32),
    FileKey::optional("expert_used_count", KeyType::PerBlock),
    FileKey::optional("rope.dimension_count", KeyType::U32),
    FileKey::optional("rope.freq_base", KeyType::F32),
    FileKey::optional("rope.scale_linear", KeyType::F32),
    FileKey::optional("rope.scaling.type", KeyType::Str),
    FileKey::optional("rope.scaling.factor", KeyType::F32),
    FileKey::optional("rope.scaling.original_context_length", KeyType::U32),
    FileKey::optional("rope.scaling.attn_factor", KeyType::F32),
    FileKey::optional("rope.scaling.finetuned", KeyType::Bool),
    FileKey::optional("rope.scaling.yarn_ext_factor", KeyType::F32),
    FileKey::optional("rope.scaling.yarn_attn_factor", KeyType::F32),
    FileKey::optional("rope.scaling.yarn_beta_fast", KeyType::F32),
    FileKey::optional("rope.scaling.yarn_beta_slow", KeyType::F32),
    FileKey::optional("vocab_size", KeyType::U32),
];

/// The sizes that a file's metadata gives its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSizes {
    /// Number of tokens: that many rows has the embedding.
    pub vocab: u32,
    /// `embedding_length`.
    pub embd: u32,
    /// Size of a key or value head.
    pub head: u32,
    /// `rope.dimension_count`, else [`FileSizes::head`].
    pub rope: u32,
    /// `context_length`.
    pub context: u32,
    /// Of a mixture of experts; all 0 without.
    pub experts: ExpertSizes,
    /// Block by block; their number is `block_count`.
    pub blocks: Vec<BlockSizes>,
}

/// The sizes of a mixture of experts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpertSizes {
    /// `expert_count`.
    pub count: u32,
    /// `expert_feed_forward_length`.
    pub ff: u32,
    /// `expert_shared_feed_forward_length`.
    pub shared_ff: u32,
}

/// The sizes of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// `feed_forward_length`.
    pub ff: u32,
    /// `attention.head_count`.
    pub n_head: u32,
    /// `attention.head_count_kv`, else [`BlockSizes::n_head`].
    pub n_head_kv: u32,
}

/// A tensor that the loader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Its name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Whether the loader refuses a file without it.
    pub required: bool,
}

/// Factors of the rotary frequencies: in any architecture that rotates, where the scaling needs them; `rope / 2` values.
const ROPE_FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Every tensor that a model of a family may have, with the shape that its sizes give it.
pub fn expected_tensors(family: &dyn Family, sizes: &FileSizes) -> Vec<ExpectedTensor> {
    let factors =
        |name: &&str| ExpectedTensor { name: (*name).to_owned(), shape: vec![u64::from(sizes.rope / 2)], required: false };
    let mut expected: Vec<_> = ROPE_FACTORS.iter().map(factors).collect();
    let whole = BlockSizes { ff: 0, n_head: 0, n_head_kv: 0 };
    let mut seen = BTreeSet::new();
    for row in family.about().table.rows.iter().filter(|row| seen.insert(row.gguf)) {
        let required = match row.need {
            Need::Always => true,
            Need::Experts(with) => (sizes.experts.count > 0) == with,
            Need::If(_) | Need::Unless(_) | Need::When(..) => false,
        };
        let mut push = |layer, block: &BlockSizes| {
            expected.push(ExpectedTensor { name: fill(row.gguf, layer), shape: shape(row, &dims(sizes, block)), required });
        };
        if is_per_layer(row.gguf) {
            (0..).zip(&sizes.blocks).for_each(|(layer, block)| push(Some(layer), block));
        } else {
            push(None, &whole);
        }
    }
    expected
}

fn dims(sizes: &FileSizes, block: &BlockSizes) -> Dims {
    Dims {
        vocab: sizes.vocab,
        embd: sizes.embd,
        ff: block.ff,
        n_head: block.n_head,
        n_head_kv: block.n_head_kv,
        head_dim: sizes.head,
        n_ctx: sizes.context,
        n_expert: sizes.experts.count,
        expert_ff: sizes.experts.ff,
        shared_ff: sizes.experts.shared_ff,
    }
}

/// The shape of a row's tensor in the file.
fn shape(row: &Row, dims: &Dims) -> Vec<u64> {
    let mut shape = row.source_shape(dims);
    match row.rows {
        Rows::Transposed => shape.reverse(),
        Rows::Half(_) => {
            let at = shape.len().saturating_sub(2);
            shape.get_mut(at).into_iter().for_each(|rows| *rows /= 2);
        }
        Rows::Same | Rows::PairsQ | Rows::PairsK | Rows::PlusOne | Rows::By(_) => {}
    }
    if row.is_expert() {
        shape.insert(0, dims.of(row.each));
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FAMILIES;

    #[test]
    fn blocks_may_differ_in_size() {
        let block = |ff| BlockSizes { ff, n_head: 4, n_head_kv: 2 };
        let sizes = FileSizes {
            vocab: 100,
            embd: 32,
            head: 8,
            rope: 8,
            context: 64,
            experts: ExpertSizes::default(),
            blocks: vec![block(64), block(96)],
        };
        let expected = expected_tensors(FAMILIES[0], &sizes);
        let find = |name: &str| expected.iter().find(|t| t.name == name).map(|t| (t.shape.clone(), t.required));
        assert_eq!(find("token_embd.weight"), Some((vec![100, 32], true)));
        assert_eq!(find("output.weight"), Some((vec![100, 32], false)));
        assert_eq!(find("blk.0.ffn_up.weight"), Some((vec![64, 32], true)));
        assert_eq!(find("blk.1.ffn_down.weight"), Some((vec![32, 96], true)));
        assert_eq!(find("blk.1.attn_k.weight"), Some((vec![16, 32], true)));
        assert_eq!(find("blk.1.attn_k.bias"), Some((vec![16], false)));
        assert_eq!(find("rope_freqs.weight"), Some((vec![4], false)));
        assert_eq!(find("blk.2.ffn_up.weight"), None);
    }
}
