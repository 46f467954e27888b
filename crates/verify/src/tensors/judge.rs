//! What is made of the figures of a tensor.

use super::BOUND;
use super::compare::{Item, Part};
use super::figures::relative;
use crate::report::TensorVerdict;
use ggufsmith_core::{DType, TensorExpr, Words, formats};

/// Tables that are computed from hyper-parameters may differ by this much: another machine's power function.
const COMPUTED_TOLERANCE: f64 = 1e-6;
/// Where at most this share of the blocks differs from what our encoder gives, it was our encoder, or one of the same bytes.
const FEW: f64 = 0.05;
/// There a block is damaged whose error is this many times what is usual;
const DAMAGED_AMONG_EQUAL: f64 = 4.0;
/// elsewhere this many: an importance matrix may cost single blocks some times the usual error.
const DAMAGED: f64 = 32.0;

impl Part {
    /// Add what was found in the tile behind.
    pub(super) fn add(&mut self, next: &Part) {
        self.sums.add(&next.sums);
        self.max_relative = self.max_relative.max(next.max_relative);
        self.own_error2 += next.own_error2;
        self.own_non_finite += next.own_non_finite;
        self.ruled_out |= next.ruled_out;
        self.differing += next.differing;
        self.blocks += next.blocks;
        if let Some((_, times)) = next.worst
            && self.worst.is_none_or(|(_, worst)| times > worst)
        {
            self.worst = next.worst;
        }
        self.changed = self.changed.or(next.changed);
    }

    /// Whether hardly any block differs from what our encoder gives.
    pub(super) fn few_differ(&self) -> bool {
        self.differing as f64 <= FEW * self.blocks as f64
    }

    /// First element of a block that was changed after it was encoded: where nearly all blocks are ours, another encoder's would be, too,
    /// but for ties.
    pub(super) fn changed(&self) -> Option<u64> {
        self.changed.filter(|_| self.few_differ())
    }

    /// First element of a block that no encoder makes, and its error over what is usual.
    pub(super) fn damaged(&self) -> Option<(u64, f64)> {
        let limit = if self.few_differ() { DAMAGED_AMONG_EQUAL } else { DAMAGED };
        self.worst.filter(|&(_, times)| times > limit)
    }

    /// Relative RMSE of our own encoder.
    pub(super) fn own_relative(&self) -> f64 {
        relative(self.own_error2, self.sums.source2)
    }
}

/// Source types that do not fit F32.
fn is_rounded(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::I64 | DType::I32 | DType::U64 | DType::U32)
}

/// The verdict, and what the values went through before they were encoded: a 16-bit type's name or a scheme's.
pub(super) fn judge(item: &Item<'_>, total: &Part) -> (TensorVerdict, Option<&'static str>) {
    let sums = &total.sums;
    let plain = !item.format().is_quantized();
    if plain && sums.different == 0 && !item.expr.reads().iter().any(|info| is_rounded(info.dtype)) {
        return (TensorVerdict::Lossless, None);
    }
    let way = (0..item.ways.len()).find(|number| total.ruled_out & 1 << number == 0);
    if let Some(way) = way {
        return (TensorVerdict::Exact, item.ways[way].map(name_of));
    }
    if let Some(values) = item.values.filter(|_| total.ruled_out & item.values_bit() == 0) {
        return (TensorVerdict::Exact, Some(values.source.rounding().scheme.name));
    }
    let bounded = match item.expr {
        TensorExpr::Values(..) => total.max_relative <= COMPUTED_TOLERANCE,
        _ => sums.error2 <= BOUND * BOUND * total.own_error2 && total.damaged().is_none() && total.changed().is_none(),
    };
    let verdict = if bounded && sums.non_finite <= total.own_non_finite { TensorVerdict::Bounded } else { TensorVerdict::Wrong };
    (verdict, None)
}

pub(super) fn wrong(item: &Item<'_>, total: &Part) -> String {
    let (name, format) = (&item.tensor.name, item.format().name);
    let (error, own) = (total.sums.relative_rmse(), total.own_relative());
    if item.format().is_quantized() {
        format!(
            "{name} ({format}) is not what the source gives: its relative error is {error:.3e}, our own encoder's is {own:.3e}"
        )
    } else {
        let (different, elems) = (total.sums.different, total.sums.elems);
        format!(
            "{name} ({format}) is not what the source gives: the relative error is {error:.3e}, {different} of {elems} values differ"
        )
    }
}

pub(super) fn non_finite(item: &Item<'_>, total: &Part) -> String {
    let (name, format, count) = (&item.tensor.name, item.format().name, total.sums.non_finite);
    let source = match total.sums.source_non_finite {
        0 => "all of the source's are finite".to_owned(),
        n => format!("{n} of the source's are not finite either"),
    };
    format!("{name} ({format}) has {count} values that are NaN or infinite ({source}): llama.cpp refuses it with --check-tensors")
}

fn name_of(words: Words) -> &'static str {
    match words {
        Words::F32 => formats::f32::FORMAT.name,
        Words::F16 => formats::f16::FORMAT.name,
        Words::BF16 => formats::bf16::FORMAT.name,
    }
}
