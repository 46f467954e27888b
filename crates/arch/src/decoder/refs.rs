//! Where a description's numbers lie: whole tensors, parts of fused ones, transposed ones, experts.

use std::ops::Range;

/// A matrix `[rows, cols]`: some or all rows of a tensor.
///
/// The tensor's dimensions but the last two stack matrices. [`Matrix::of_expert`] picks one; a matrix that nobody has picked from
/// is the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// The tensor's name. `{}` in it stands for the number of an expert: each has a tensor of its own.
    pub tensor: String,
    /// The tensor's shape: `[.., rows, cols]`, or `[.., cols, rows]` where it is transposed.
    pub shape: Vec<u64>,
    /// Whether the tensor holds the matrix's columns: `Conv1D` of GPT-2, whose weights are `[inputs, outputs]`.
    pub transposed: bool,
    /// Which of the stacked matrices.
    pub at: u64,
    /// The rows, in order; all of them where the list is empty.
    pub rows: Vec<Range<u64>>,
}

impl Matrix {
    /// A whole tensor `[rows, cols]`.
    pub fn whole(tensor: impl Into<String>, rows: u32, cols: u32) -> Self {
        let shape = vec![rows.into(), cols.into()];
        Matrix { tensor: tensor.into(), shape, transposed: false, at: 0, rows: Vec::new() }
    }

    /// A whole tensor `[cols, rows]`.
    pub fn transposed(tensor: impl Into<String>, rows: u32, cols: u32) -> Self {
        Matrix { shape: vec![cols.into(), rows.into()], transposed: true, ..Matrix::whole(tensor, rows, cols) }
    }

    /// These rows of it.
    #[must_use]
    pub fn rows(self, rows: impl IntoIterator<Item = Range<u64>>) -> Self {
        Matrix { rows: rows.into_iter().collect(), ..self }
    }

    /// The same matrices of `n` experts in one tensor: its shape gets a dimension in front.
    #[must_use]
    pub fn stacked(mut self, n: u32) -> Self {
        self.shape.insert(0, n.into());
        self
    }

    /// The matrix of expert `expert`: the tensor of that number where names have `{}`, else one of those that are stacked.
    #[must_use]
    pub fn of_expert(&self, expert: u32) -> Self {
        if self.tensor.contains("{}") {
            Matrix { tensor: self.tensor.replacen("{}", &expert.to_string(), 1), ..self.clone() }
        } else {
            Matrix { at: expert.into(), ..self.clone() }
        }
    }

    /// Rows and columns of the matrix that `rows` picks from.
    pub fn full(&self) -> (u64, u64) {
        let n = self.shape.len();
        let dim = |back: usize| n.checked_sub(back).map_or(1, |at| self.shape[at]);
        if self.transposed { (dim(1), dim(2)) } else { (dim(2), dim(1)) }
    }

    /// Rows: outputs of a projection.
    pub fn n_rows(&self) -> u64 {
        if self.rows.is_empty() { self.full().0 } else { length(&self.rows) }
    }

    /// Columns: inputs of a projection.
    pub fn n_cols(&self) -> u64 {
        self.full().1
    }
}

/// A vector: some or all elements of a tensor, or of several of one shape behind each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// The tensors' names.
    pub tensors: Vec<String>,
    /// The shape of each. It may have several dimensions, e.g. `[n_head, head_dim]`.
    pub shape: Vec<u64>,
    /// The elements, in order, counted through all tensors; all of them where the list is empty.
    pub ranges: Vec<Range<u64>>,
}

impl Vector {
    /// A whole tensor `[len]`.
    pub fn whole(tensor: impl Into<String>, len: u32) -> Self {
        Vector { tensors: vec![tensor.into()], shape: vec![len.into()], ranges: Vec::new() }
    }

    /// Tensors `[len]` behind each other.
    pub fn joined(tensors: impl IntoIterator<Item = String>, len: u32) -> Self {
        Vector { tensors: tensors.into_iter().collect(), shape: vec![len.into()], ranges: Vec::new() }
    }

    /// These elements of it.
    #[must_use]
    pub fn ranges(self, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        Vector { ranges: ranges.into_iter().collect(), ..self }
    }

    /// Elements of all its tensors.
    pub fn full(&self) -> u64 {
        self.shape.iter().fold(self.tensors.len() as u64, |product, dim| product.saturating_mul(*dim))
    }

    /// Elements.
    pub fn len(&self) -> u64 {
        if self.ranges.is_empty() { self.full() } else { length(&self.ranges) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)))
}

/// `count` ranges of `len` elements, the first at `from`, each `step` behind the one before: one part of every group of a fused tensor.
/// GPT-NeoX's keys are `every(n_head, 3 * head_dim, head_dim, head_dim)`.
pub fn every(count: u32, step: u32, from: u32, len: u32) -> impl Iterator<Item = Range<u64>> {
    let (step, from, len) = (u64::from(step), u64::from(from), u64::from(len));
    (0..u64::from(count)).map(move |group| {
        let start = from + group * step;
        start..start + len
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_parts() {
        let fused = Matrix::whole("qkv", 24, 8);
        assert_eq!((fused.n_rows(), fused.n_cols()), (24, 8));
        let keys = fused.rows(every(2, 12, 4, 4));
        assert_eq!((keys.rows.as_slice(), keys.n_rows()), ([4..8, 16..20].as_slice(), 8));
        let conv = Matrix::transposed("c_attn", 24, 8);
        assert_eq!((conv.shape.as_slice(), conv.n_rows(), conv.n_cols()), ([8, 24].as_slice(), 24, 8));
        let bias = Vector::whole("bias", 24).ranges(every(2, 12, 4, 4));
        assert_eq!((bias.full(), bias.len(), bias.is_empty()), (24, 8, false));
        assert_eq!(Vector::joined(["a".to_owned(), "b".to_owned()], 5).len(), 10);
    }

    #[test]
    fn experts_by_name_and_by_place() {
        let named = Matrix::whole("experts.{}.w1", 6, 4).of_expert(3);
        assert_eq!((named.tensor.as_str(), named.at), ("experts.3.w1", 0));
        let stacked = Matrix::whole("exps", 6, 4).stacked(8).of_expert(3);
        assert_eq!((stacked.shape.as_slice(), stacked.at, stacked.n_rows()), ([8, 6, 4].as_slice(), 3, 6));
        let up = Matrix::transposed("gate_up", 12, 4).stacked(8).rows(every(1, 0, 6, 6)).of_expert(7);
        assert_eq!((up.shape.as_slice(), up.n_rows(), up.n_cols()), ([8, 4, 12].as_slice(), 6, 4));
    }
}
