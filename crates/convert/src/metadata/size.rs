//! How many parameters the output holds, and the label that says so.

use super::MetadataError;

/// Parameters of the output's tensors, as gguf-py's `GGUFWriter.get_total_parameter_count` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParameterCount {
    /// Elements of all tensors.
    pub total: u64,
    /// Elements outside the stacked experts.
    pub shared: u64,
    /// Elements of one expert, over all layers.
    pub per_expert: u64,
    /// Experts per stacked tensor, on average; 0 where there are none.
    pub experts: u64,
}

impl ParameterCount {
    /// Count the output's tensors: GGUF name and shape (outermost first), extra tensors such as `rope_freqs.weight` included.
    ///
    /// # Errors
    /// [`MetadataError::TooManyParameters`] where a count exceeds 64 bits, [`MetadataError::NoExperts`] where a stacked tensor
    /// has an expert dimension of 0.
    pub fn of<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [u64])>) -> Result<Self, MetadataError> {
        let mut count = ParameterCount::default();
        let (mut expert_sum, mut expert_tensors) = (0u64, 0u64);
        for (name, shape) in tensors {
            let too_many = || MetadataError::TooManyParameters { tensor: name.to_owned() };
            let add = |sum: &mut u64, n: u64| {
                *sum = sum.checked_add(n).ok_or_else(too_many)?;
                Ok::<(), MetadataError>(())
            };
            let elements = shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n)).ok_or_else(too_many)?;
            add(&mut count.total, elements)?;
            // A stack of matrices is [experts, rows, cols]; of biases [layers, experts, cols].
            let from_end = if name.contains(".bias") { 2 } else { 3 };
            if name.contains("_exps.") && shape.len() >= 3 {
                let experts = shape[shape.len() - from_end];
                let per_expert =
                    elements.checked_div(experts).ok_or_else(|| MetadataError::NoExperts { tensor: name.to_owned() })?;
                add(&mut count.per_expert, per_expert)?;
                add(&mut expert_sum, experts)?;
                expert_tensors += 1;
            } else {
                add(&mut count.shared, elements)?;
            }
        }
        count.experts = expert_sum.checked_div(expert_tensors).unwrap_or(0);
        Ok(count)
    }

    /// E.g. `135M`, `8x7B` (gguf-py's `size_label`).
    pub fn label(&self) -> String {
        if self.experts > 0 {
            format!("{}x{}", self.experts, rounded((u128::from(self.shared) + u128::from(self.per_expert)) as f64))
        } else {
            rounded(self.total as f64)
        }
    }
}

/// A count with at least two digits and its unit (gguf-py's `model_weight_count_rounded_notation`).
fn rounded(count: f64) -> String {
    let (scale, unit) = match count {
        c if c > 1e12 => (1e-12, "T"),
        c if c > 1e9 => (1e-9, "B"),
        c if c > 1e6 => (1e-6, "M"),
        _ => (1e-3, "K"),
    };
    let scaled = count * scale;
    let whole = format!("{:.0}", scaled.round_ties_even());
    let decimals = 2usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.decimals$}{unit}")
}
