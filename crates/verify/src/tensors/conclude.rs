//! The entries of a report, and what they come to.

use super::BOUND;
use super::figures::Sums;
use crate::report::{Check, Status, TensorFigures, TensorVerdict, layer_and_kind};
use ggufsmith_core::SCHEMES;
use ggufsmith_gguf::GgufTensor;
use std::collections::BTreeSet;

/// Names that a summary lists.
const MAX_NAMES: usize = 8;

pub(super) fn entry(tensor: &GgufTensor, verdict: TensorVerdict) -> TensorFigures {
    let (layer, kind) = layer_and_kind(&tensor.name);
    TensorFigures {
        name: tensor.name.clone(),
        layer,
        kind: kind.to_owned(),
        format: tensor.format.name.to_owned(),
        elems: tensor.elems(),
        bytes: tensor.bytes,
        verdict,
        via: None,
        max_error: f64::NAN,
        rmse: f64::NAN,
        relative_rmse: f64::NAN,
        cosine: f64::NAN,
        saturated: f64::NAN,
        non_finite: 0,
    }
}

/// The entry of a tensor that was not compared: its figures are NaN.
pub(super) fn without_figures(tensor: &GgufTensor, verdict: TensorVerdict) -> TensorFigures {
    entry(tensor, verdict)
}

pub(super) fn with_figures(tensor: &GgufTensor, verdict: TensorVerdict, via: Option<&str>, sums: &Sums) -> TensorFigures {
    TensorFigures {
        via: via.map(str::to_owned),
        max_error: sums.max_error,
        rmse: sums.rmse(),
        relative_rmse: sums.relative_rmse(),
        cosine: sums.cosine(),
        saturated: sums.saturated as f64 / sums.elems.max(1) as f64,
        non_finite: sums.non_finite,
        ..entry(tensor, verdict)
    }
}

/// `a, b and 3 more`.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(super) fn conclude(figures: &[TensorFigures], bounded: &[String], imatrix: &str, problems: Vec<String>) -> Check {
    let with = |verdict| figures.iter().filter(move |f| f.verdict == verdict);
    let count = |verdict| with(verdict).count();
    let (lossless, exact) = (count(TensorVerdict::Lossless), count(TensorVerdict::Exact));
    let all = figures.len();
    let mut summary = match (lossless, exact) {
        (lossless, 0) => format!("{lossless} of {all} tensors are lossless"),
        (0, exact) => format!("{exact} of {all} tensors are exact"),
        (lossless, exact) => format!("{} of {all} tensors are exact ({lossless} of them lossless)", lossless + exact),
    };
    let is_scheme = |name: &str| SCHEMES.iter().any(|scheme| scheme.name == name);
    for scheme in SCHEMES {
        let holding = figures.iter().filter(|f| f.via.as_deref() == Some(scheme.name)).count();
        if holding > 0 {
            summary.push_str(&format!("; {holding} of them hold {} values of the source's", scheme.name));
        }
    }
    let via: BTreeSet<&str> = figures.iter().filter_map(|f| f.via.as_deref()).filter(|via| !is_scheme(via)).collect();
    if !via.is_empty() {
        let via = via.into_iter().collect::<Vec<_>>().join(" and ");
        summary.push_str(&format!(", through a {via} file on the way"));
    }
    if !bounded.is_empty() {
        let names = listed(&bounded.iter().map(String::as_str).collect::<Vec<_>>());
        let have = if bounded.len() == 1 { "has" } else { "have" };
        summary.push_str(&format!(
            "; {} {have} other bytes and an error of at most {BOUND} times our own encoder's, as from another tool or with an importance matrix{imatrix}: {names}",
            bounded.len()
        ));
    }
    let wrong = count(TensorVerdict::Wrong);
    if wrong > 0 {
        let are = if wrong == 1 { "is" } else { "are" };
        summary.push_str(&format!("; {wrong} {are} wrong"));
    }
    let unknown: Vec<&str> = with(TensorVerdict::Unknown).map(|f| f.name.as_str()).collect();
    if !unknown.is_empty() {
        let types: BTreeSet<&str> = with(TensorVerdict::Unknown).map(|f| f.format.as_str()).collect();
        let types = types.into_iter().collect::<Vec<_>>().join(", ");
        summary.push_str(&format!("; {} of type {types} cannot be judged yet: {}", unknown.len(), listed(&unknown)));
    }
    let status = match (problems.is_empty(), unknown.is_empty()) {
        (false, _) => Status::Failed,
        (true, false) => Status::Skipped,
        (true, true) => Status::Passed,
    };
    Check { name: "tensors".to_owned(), status, summary, problems }
}
